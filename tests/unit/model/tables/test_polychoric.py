"""Normal variables behind scores: found again from the moments of scores that are atoms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.tables.marginals import FineBins, Marginal
from dpgmm_dist.model.tables.polychoric import Intervals, behind_scores, valid_covariance

N = 200_000
TRUE = np.array(
    [[1, 0.8, -0.3, 0.6], [0.8, 1, -0.2, 0.7], [-0.3, -0.2, 1, -0.4], [0.6, 0.7, -0.4, 1]]
)


def atoms(*mass: float) -> Marginal:
    """A column of whole numbers with these shares."""
    count = len(mass)
    edges, places = np.arange(1, count) - 0.5, np.arange(count, dtype=float)
    bins = FineBins(0.0, count - 1.0, edges, places, np.ones(count, dtype=bool))
    return Marginal(bins, np.array(mass) / sum(mass), bins.single)


COLUMNS = (atoms(1, 1), atoms(0.1, 0.3, 0.6), atoms(0.94, 0.06), atoms(*np.ones(1000)))
INTERVALS = tuple(Intervals.of(column) for column in COLUMNS)


def scores_of(rows: np.ndarray) -> np.ndarray:
    """The scores of rows of normal variables."""
    return np.stack(
        [
            column.scores[np.searchsorted(ndtri(column.upto[1:-1]), rows[:, j])]
            for j, column in enumerate(COLUMNS)
        ],
        axis=1,
    )


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 0.8)])
def test_correlations_behind_atoms_are_found_again(shift, scale):
    rows = shift + scale * np.random.default_rng(0).multivariate_normal(np.zeros(4), TRUE, N)
    seen = scores_of(rows)
    offset = np.array([0.1, -0.2, 0.0, 0.3])
    mixture = Mixture(np.ones(1), seen.mean(axis=0)[None] - offset, np.cov(seen.T)[None])
    found = behind_scores(mixture, offset, INTERVALS)
    spread = np.sqrt(np.diag(found.covariances[0]))
    assert found.covariances[0] / np.outer(spread, spread) == pytest.approx(TRUE, abs=0.03)
    # Scores of the variables that were found have the measured moments; without them they do not.
    for model, right in ((found, True), (mixture, False)):
        drawn, _ = model.sample(N, seed=1)
        again = np.corrcoef(scores_of(drawn + offset).T)
        assert (np.abs(again - np.corrcoef(seen.T)).max() < 0.03) == right


def test_the_variance_within_intervals_is_what_scores_lack():
    for column, intervals in zip(COLUMNS, INTERVALS, strict=True):
        assert intervals.share == pytest.approx(1 - column.mass @ column.scores**2, abs=1e-6)


def test_a_component_inside_one_interval_stays_in_it():
    score = COLUMNS[1].scores[1]
    mixture = Mixture(np.ones(1), np.array([[score, 0.1]]), np.diag([1e-4, 0.5])[None])
    found = behind_scores(mixture, np.zeros(2), (INTERVALS[1], INTERVALS[3]))
    spread = float(np.sqrt(found.covariances[0, 0, 0]))
    assert INTERVALS[1].moments(float(found.means[0, 0]), spread)[1] < 2e-4


def test_columns_without_atoms_are_left_alone():
    mixture = Mixture(np.ones(1), np.zeros((1, 2)), np.array([[[1.0, 0.5], [0.5, 1.0]]]))
    assert behind_scores(mixture, np.zeros(2), (INTERVALS[3],) * 2) is mixture


def test_correlations_that_no_distribution_has_are_mended():
    wrong = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    mended = valid_covariance(wrong)
    assert np.linalg.eigvalsh(mended)[0] > 0 and np.diag(mended) == pytest.approx(1)
    assert valid_covariance(TRUE) is TRUE
