"""Missing values: what is known of a component's values without the rows that have none."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.tables.marginals import FineBins, Marginal
from dpgmm_dist.model.tables.presence import given_values, presences_of

N = 200_000


def marginal_of(missing: float = 0.0) -> Marginal:
    """Some distribution of a column, which lacks values in this share of the rows."""
    bins = FineBins.of(-5.0, 5.0, False, 2)
    return Marginal(bins, np.full(bins.count, 1 / bins.count), bins.single, missing)


def seen(x: np.ndarray, y: np.ndarray, missing: np.ndarray) -> tuple[Mixture, tuple, np.ndarray]:
    """One component with the moments of x, y and the presence of x, where x lacks values."""
    share = float(missing.mean())
    presences = presences_of((marginal_of(missing=share), marginal_of()))
    presence = presences[0]
    rows = np.column_stack(
        [np.where(missing, 0.0, x), y, np.where(missing, presence.absent, presence.present)]
    )
    offset = np.array([0.3, -0.2, 0.1])
    mixture = Mixture(np.ones(1), rows.mean(axis=0)[None] - offset, np.cov(rows.T)[None])
    return mixture, presences, offset


@pytest.mark.parametrize("follows", [0.0, 1.0])
def test_moments_are_those_of_the_rows_that_have_the_value(follows):
    """Missing at random, and missing where y is large."""
    rng = np.random.default_rng(0)
    x = 0.4 + rng.normal(size=N)
    y = 0.8 * x + 0.6 * rng.normal(size=N)
    missing = follows * y + rng.normal(size=N) > 0.7
    mixture, presences, offset = seen(x, y, missing)
    found = given_values(mixture, offset, presences)
    has = ~missing
    mean, covariance = found.means[0] + offset, found.covariances[0]
    assert mean[0] == pytest.approx(x[has].mean(), abs=0.01)
    assert covariance[0, 0] == pytest.approx(x[has].var(), rel=0.02)
    assert covariance[0, 1] == pytest.approx(np.cov(x[has], y[has])[0, 1], rel=0.03)
    assert covariance[0, 2] == 0
    # The rest is what it was.
    rest = np.ix_([1, 2], [1, 2])
    assert covariance[rest] == pytest.approx(mixture.covariances[0][rest])


def test_columns_that_lack_values_together_keep_their_correlation():
    rng = np.random.default_rng(1)
    x = rng.normal(size=N)
    y = 0.7 * x + np.sqrt(0.51) * rng.normal(size=N)
    gone = rng.normal(size=N)
    lacks = [gone > 0.5, gone + rng.normal(size=N) > 0.8]
    presences = presences_of(tuple(marginal_of(missing=float(m.mean())) for m in lacks))
    rows = [np.where(m, 0.0, value) for m, value in zip(lacks, (x, y), strict=True)]
    rows += [
        np.where(m, presence.absent, presence.present)
        for m, presence in zip(lacks, presences, strict=True)
    ]
    mixture = Mixture(np.ones(1), np.mean(rows, axis=1)[None], np.cov(rows)[None])
    covariance = given_values(mixture, np.zeros(4), presences).covariances[0]
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) == pytest.approx(
        0.7, abs=0.01
    )


def test_noise_about_presences_that_are_alike_leaves_correlations_of_values():
    """It makes correlations that no rows have; those between values are the last to suffer."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=N)
    y = 0.7 * x + np.sqrt(0.51) * rng.normal(size=N)
    lacks = rng.random(N) < 0.1
    presences = presences_of((marginal_of(missing=0.1), marginal_of(missing=0.1)))
    rows = [np.where(lacks, 0.0, value) for value in (x, y)]
    rows += [np.where(lacks, presence.absent, presence.present) for presence in presences]
    covariance = np.cov(rows) + np.diag([0.0, 0.0, 1e-4, 1e-4])
    noise = 0.3 * np.sqrt(covariance[0, 0] * covariance[3, 3])
    covariance[0, 2:] += noise
    covariance[2:, 0] += noise
    mixture = Mixture(np.ones(1), np.mean(rows, axis=1)[None], covariance[None])
    found = given_values(mixture, np.zeros(4), presences).covariances[0]
    assert found[0, 1] / np.sqrt(found[0, 0] * found[1, 1]) == pytest.approx(0.7, abs=0.02)


def test_moments_that_no_rows_have_are_mended():
    presences = presences_of((marginal_of(missing=0.9), marginal_of()))
    covariance = np.array([[0.1, 0.3, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 0.3]])
    mixture = Mixture(np.ones(1), np.zeros((1, 3)), covariance[None])
    found = given_values(mixture, np.zeros(3), presences).covariances[0]
    assert np.linalg.eigvalsh(found)[0] > 0


def test_a_component_without_values_is_left_alone():
    presences = presences_of((marginal_of(missing=0.5), marginal_of()))
    mean = np.array([[0.0, 1.0, presences[0].absent]])
    mixture = Mixture(np.ones(1), mean, np.diag([1e-4, 1.0, 1e-4])[None])
    found = given_values(mixture, np.zeros(3), presences)
    assert found.means == pytest.approx(mean) and found.covariances[0, 0, 0] == 1e-4
