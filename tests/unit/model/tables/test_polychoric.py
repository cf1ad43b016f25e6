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
    mended = valid_covariance(wrong, np.zeros(3))
    assert np.linalg.eigvalsh(mended)[0] > 0 and np.diag(mended) == pytest.approx(1)
    assert valid_covariance(TRUE, np.zeros(4)) is TRUE


@pytest.mark.parametrize("place", range(5))
def test_a_column_whose_correlations_are_noise_changes_no_others(place):
    wrong = np.insert(np.insert(TRUE, place, 0.9, axis=0), place, -0.9, axis=1)
    wrong[:, place] = wrong[place] = np.where(np.arange(5) % 2, 0.9, -0.9)
    wrong[place, place] = 1.0
    assert np.linalg.eigvalsh(wrong)[0] < 0
    doubt = np.where(np.arange(5) == place, 0.9, 0.1)
    mended = valid_covariance(4 * wrong, doubt) / 4
    others = np.arange(5) != place
    assert np.linalg.eigvalsh(mended)[0] > 0 and np.diag(mended) == pytest.approx(1)
    assert mended[np.ix_(others, others)] == pytest.approx(TRUE, abs=2e-3)
    assert np.abs(mended[place, others]).max() > 0.2


@pytest.mark.parametrize("seed", range(20))
def test_any_correlations_become_those_of_a_distribution_that_can_be_factored(seed):
    rng = np.random.default_rng(seed)
    wrong = np.clip(rng.normal(size=(20, 20)), -0.995, 0.995)
    wrong = np.tril(wrong, -1) + np.tril(wrong, -1).T + np.eye(20)
    spread = 10 ** rng.uniform(-3, 0, 20)
    mended = valid_covariance(wrong * np.outer(spread, spread), rng.random(20))
    correlation = mended / np.outer(spread, spread)
    assert np.linalg.eigvalsh(correlation)[0] > 1e-5
    assert np.diag(mended) == pytest.approx(spread**2)
