"""The joint fit finds the mixture behind the answers, and says how wrong noise makes it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from dpgmm_dist.model.fitting.em import Fit
from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments, statistics
from dpgmm_dist.model.fitting.moment_fit import MomentFit, fit_moments, moved_by
from dpgmm_dist.model.fitting.search_budget import SearchBudget
from dpgmm_dist.model.shrinkage import whitener

P = 2
SEARCH_BUDGET = SearchBudget(steps=6, draws=20_000, slope_draws=10_000)


def truth() -> Fit:
    means = np.array([[-2.0, 0.0], [2.0, 0.5]])
    covariances = np.array([[[0.6, 0.2], [0.2, 0.9]], [[1.0, -0.3], [-0.3, 0.5]]])
    return Fit(np.array([0.35, 0.65]), means, covariances, 0.0)


def draws(fit: Fit, n: int, seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    pick = rng.random(n) < fit.weights[1]
    z = rng.standard_normal((n, P))
    roots = np.linalg.cholesky(fit.covariances)[pick.astype(int)]
    return fit.means[pick.astype(int)] + (roots @ z[:, :, None])[:, :, 0]


def soft_pass(
    asked: Fit, rows: npt.NDArray[np.float64], sigma: float, seed: int
) -> MeasuredMoments:
    """What a components pass about ``asked`` measures of rows, with noise on every number."""
    maps = np.stack([whitener(c) for c in asked.covariances])
    width = 1 + P + P * (P + 1) // 2
    empty = np.zeros((2, width))
    measured = MeasuredMoments(
        asked.means, maps, np.sqrt(P) + 2, empty, empty + sigma, len(rows), asked
    )
    exact = statistics(measured, rows, np.full(len(rows), 1 / len(rows)))
    noise = np.random.default_rng(seed).standard_normal(exact.shape)
    return replace(measured, values=exact + sigma * noise)


def start() -> Fit:
    return Fit(
        np.array([0.5, 0.5]),
        np.array([[-1.3, 0.3], [1.5, 0.2]]),
        np.array([np.eye(P) * 0.8, np.eye(P) * 0.8]),
        0.0,
    )


@cache
def fitted(sigma: float, seed: int, steps: int = 6) -> MomentFit:
    rows = draws(truth(), 40_000, 1)
    return fit_moments(
        start(), [soft_pass(start(), rows, sigma, seed)], 3, replace(SEARCH_BUDGET, steps=steps)
    )


def test_one_pass_about_a_wrong_mixture_shows_the_right_one() -> None:
    found, plain = fitted(1e-4, 0).fit, fitted(1e-4, 0, steps=0).fit
    right = truth()
    assert np.abs(found.weights - right.weights).max() < 0.02
    assert np.abs(found.means - right.means).max() < 0.06
    assert np.abs(found.covariances - right.covariances).max() < 0.08
    # The test has power: where it began was far from that.
    assert np.abs(plain.means - right.means).max() > 0.2


def test_the_error_it_states_is_the_error_that_noise_makes() -> None:
    sigma = 2e-3
    quiet = fitted(1e-9, 0).fit
    states = [fitted(sigma, seed) for seed in range(12)]
    apart = np.stack([state.fit.means - quiet.means for state in states])
    stated = []
    for state in states:
        assert state.covariance is not None
        size = len(state.covariance) // 2
        for k in range(2):
            root = np.linalg.inv(whitener(state.fit.covariances[k]))
            means = slice(k * size + 1, k * size + 1 + P)
            block = state.covariance[means, means]
            stated.append(np.diagonal(root @ block @ root))
    ratio = np.sqrt((apart**2).mean() / np.mean(stated))
    assert 0.7 < ratio < 1.45


def test_the_expected_divergence_is_that_of_the_noise() -> None:
    sigma = 2e-3
    quiet = fitted(1e-9, 0).fit
    rows = draws(quiet, 40_000, 5)
    states = [fitted(sigma, seed) for seed in range(8)]
    found = np.mean([np.mean(log_density(quiet, rows) - log_density(s.fit, rows)) for s in states])
    expected = np.mean([s.expected_kl for s in states if s.expected_kl is not None])
    assert 0.5 < found / expected < 2.0


def log_density(fit: Fit, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from dpgmm_dist.model.fitting.em import log_components

    joint = log_components(x, fit.means, fit.covariances) + np.log(fit.weights)
    return np.asarray(np.logaddexp(joint[:, 0], joint[:, 1]))


@pytest.mark.parametrize("size", [0.0, 0.3, 1.2])
def test_moves_keep_covariances_positive_definite(size: float) -> None:
    rng = np.random.default_rng(4)
    step = rng.standard_normal(12)
    step *= size / np.linalg.norm(step)
    moved = moved_by(truth(), step)
    assert np.linalg.eigvalsh(moved.covariances).min() > 0
    assert (moved.weights > 0).all()
    if size == 0:
        assert np.allclose(moved.covariances, truth().covariances)


def test_noise_alone_leaves_a_valid_mixture() -> None:
    found = fitted(10.0, 7).fit
    assert np.isfinite(found.means).all()
    assert np.linalg.eigvalsh(found.covariances).min() > 0
    assert found.weights.sum() == pytest.approx(1.0)


def test_answers_that_no_draw_reaches_and_hardly_any_noise_do_no_harm() -> None:
    """With 10^12 rows noise is next to nothing, and a cell that the start does not reach has none
    of the sampling error of draws either."""
    rows, reach = draws(truth(), 40_000, 1), np.array([[-2.0, 0.0], [2.0, 0.5], [5.5, 0.5]])
    empty = np.zeros((3, 1 + P + P * (P + 1) // 2))
    measured = MeasuredMoments(reach, np.stack([np.eye(P)] * 3), 4.0, empty, empty + 1e-22, 1e12)
    exact = statistics(measured, rows, np.full(len(rows), 1 / len(rows)))
    near = replace(start(), covariances=np.stack([np.eye(P) * 0.05] * 2))
    found = fit_moments(near, [replace(measured, values=exact)], 3, SEARCH_BUDGET)
    assert exact[2, 0] > 0.01
    assert np.isfinite(found.chi_squared)
    assert np.abs(found.fit.means - truth().means).max() < 0.2
