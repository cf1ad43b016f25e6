"""Counts and means of labels, and what is kept of means."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.label_means import LabelMeans, measure, posterior

from .asking import HOSTILE, ask_of, rows

D = 8
PROBLEM = Problem(D, 1.0, 1.0, (0, 1, 2))


def location(X: np.ndarray) -> Location:
    centre = X.mean(axis=0)
    spread = float(((X - centre) ** 2).sum(axis=1).mean())
    return Location(float(len(X)), 1.0, centre, 1e-3, spread, 0.02)


def measured(noise: float, rho: float, seed: int = 0) -> tuple[LabelMeans, np.ndarray, np.ndarray]:
    X, y = rows(3000, 3, D)
    found = measure(PROBLEM, ask_of(X, y, seed, noise), location(X), rho)
    truth = np.stack([X[y == label].mean(axis=0) for label in range(3)]) - X.mean(axis=0)
    return found, truth, np.bincount(y)


def test_without_noise_they_are_the_rows_own() -> None:
    found, truth, counts = measured(0.0, 0.1)
    assert np.allclose(found.counts, counts)
    assert np.allclose(found.means, truth, atol=0.02)  # clipping takes some
    assert found.weights.sum() == pytest.approx(1)


def test_means_that_are_noise_are_shrunk_to_the_overall_one() -> None:
    found, _, _ = measured(1.0, 1e-6, seed=3)
    kept, variances = posterior(found.means, found.noise, np.ones(D))
    assert np.abs(found.means).max() > 1
    assert np.ptp(kept, axis=0).max() < 0.3 * np.ptp(found.means, axis=0).max()
    assert (variances >= 0).all()
    assert (variances <= found.noise[:, None] ** 2).all()


def test_shrinking_lessens_the_error_at_every_noise() -> None:
    rng = np.random.default_rng(1)
    variances = 1 / (1 + np.arange(20.0))
    for noise in (0.01, 0.3, 3.0):
        plain = shrunk = 0.0
        for _ in range(5):
            truth = rng.standard_normal((10, 20)) * np.sqrt(variances)
            seen = truth + noise * rng.standard_normal(truth.shape)
            kept, _ = posterior(seen, np.full(10, noise), variances)
            plain += ((seen - truth) ** 2).sum()
            shrunk += ((kept - truth) ** 2).sum()
        assert shrunk <= plain * 1.02
        assert noise < 1 or shrunk < 0.3 * plain


def test_without_noise_nothing_is_shrunk() -> None:
    means = np.random.default_rng(2).standard_normal((4, 6))
    kept, variances = posterior(means, np.full(4, 1e-9), np.ones(6))
    assert np.allclose(kept, means)
    assert variances.max() < 1e-15


@pytest.mark.parametrize("means", [np.zeros((3, 5)), np.ones((1, 5)), np.full((3, 5), 1e9)])
def test_means_that_do_not_differ(means: np.ndarray) -> None:
    kept, variances = posterior(means, np.full(len(means), 0.1), np.geomspace(1e-7, 1, 5))
    assert np.allclose(kept, means)
    assert np.isfinite(variances).all()


@pytest.mark.parametrize("kind", HOSTILE)
def test_any_answers_give_counts_and_numbers(kind: str) -> None:
    X, y = rows(50, 3, D)
    found = measure(PROBLEM, ask_of(X, y, change=HOSTILE[kind]), location(X), 0.01)
    assert (found.counts >= 3).all()
    kept, variances = posterior(found.means, found.noise, np.ones(D))
    assert np.isfinite(kept).all()
    assert np.isfinite(variances).all()
