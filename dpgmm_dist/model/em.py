"""Fitting a mixture to draws from released densities: post-processing, so it costs no privacy.

A coreset of cells is turned into draws, and ordinary expectation maximisation with many restarts
runs on those. Everything is deterministic given the public seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.effort import affordable
from dpgmm_dist.model.parallel import in_order
from dpgmm_dist.model.seeding import kmeans_centres, nearest

Floats = npt.NDArray[np.float64]

_SCREEN_DRAWS = 6000
_SCREEN_STEPS = 25
_SAME_OPTIMUM = 1e-3
_OPERATIONS = 8e9
_POLISH_STEPS = 120
_TOLERANCE = 1e-5
_WEIGHT_FLOOR = 1e-4
_KMEANS_DRAWS = 10_000


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights (K,), means (K, p), covariances (K, p, p) and mean log-likelihood of the draws."""

    weights: Floats
    means: Floats
    covariances: Floats
    score: float


def fits_of_draws(
    draws: Floats, components: int, restarts: int, keep: int, seed: int, effort: float = 1.0
) -> list[Fit]:
    """Different EM fits of ``components`` Gaussians to draws (n, p), the best first.

    Every restart is screened on part of the draws; the best ``keep`` are polished on all, and
    those that end in the same optimum are given once. ``effort`` scales the work.
    """
    p = draws.shape[1]
    steps = restarts * _SCREEN_STEPS
    few = affordable(
        effort * _OPERATIONS, components, p, steps, _SCREEN_DRAWS, 4 * components * (p + 2)
    )
    restarts = max(3, min(restarts, restarts * few // _SCREEN_DRAWS + 1))
    many = affordable(
        4 * effort * _OPERATIONS, components, p, keep * _POLISH_STEPS, len(draws), few
    )
    keep = max(1, min(keep, keep * many // len(draws) + 1))
    draws = draws[:many]
    rng = np.random.Generator(np.random.Philox(seed))
    spread = np.cov(draws, rowvar=False).reshape(draws.shape[1], -1)
    ridge = 1e-3 * spread + 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
    part = draws[:few]
    starts = [
        _start(part, components, spread, rng) for _ in range(restarts if components > 1 else 1)
    ]
    tries = in_order(
        lambda start: expectation_maximisation(part, start, ridge, _SCREEN_STEPS), starts
    )
    tries.sort(key=lambda fit: -fit.score)
    polished = in_order(
        lambda one: expectation_maximisation(draws, one, ridge, _POLISH_STEPS), tries[:keep]
    )
    fits: list[Fit] = []
    for fit in polished:
        if all(abs(fit.score - other.score) > _SAME_OPTIMUM for other in fits):
            fits.append(fit)
    return sorted(fits, key=lambda fit: -fit.score)


def clustered_fits(
    draws: Floats, components: int, restarts: int, seed: int, steps: int = 40, effort: float = 1.0
) -> list[Fit]:
    """EM fits of ``components`` Gaussians to draws (n, p) from k-means starts, the best first.

    From k-means EM ends in the same few optima again and again, where far-apart draws as a start
    end in many (docs/method.md); those that end alike are given once.
    """
    p = draws.shape[1]
    most = affordable(
        effort * _OPERATIONS, components, p, restarts * steps, len(draws), 4 * components * (p + 2)
    )
    draws = draws[:most]
    spread = np.atleast_2d(np.cov(draws, rowvar=False))
    ridge = 1e-3 * spread + 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))

    def one(start: int) -> Fit:
        centres, _ = kmeans_centres(draws[:_KMEANS_DRAWS], components, seed + start)
        share = np.zeros((len(draws), components))
        share[np.arange(len(draws)), nearest(draws, centres)] = 1 / len(draws)
        first = _maximise(draws, share, ridge, -np.inf)
        return expectation_maximisation(draws, first, ridge, steps)

    fits: list[Fit] = []
    for fit in in_order(one, range(restarts if components > 1 else 1)):
        if all(abs(fit.score - other.score) > _SAME_OPTIMUM for other in fits):
            fits.append(fit)
    return sorted(fits, key=lambda fit: -fit.score)


def expectation_maximisation(
    draws: Floats, start: Fit, ridge: Floats, steps: int, mass: Floats | None = None
) -> Fit:
    """At most ``steps`` EM steps from ``start`` on draws (n, p), weighted by ``mass`` (n,).

    ``ridge`` (p, p) is added to covariances.
    """
    mass = np.full(len(draws), 1 / len(draws)) if mass is None else mass / mass.sum()
    fit = start
    for _ in range(steps):
        log_joint = log_components(draws, fit.means, fit.covariances) + np.log(fit.weights)
        top = log_joint.max(axis=1, keepdims=True)
        share = np.exp(log_joint - top)
        total = share.sum(axis=1, keepdims=True)
        score = float(((top + np.log(total))[:, 0] * mass).sum())
        share *= mass[:, None] / total
        step = _maximise(draws, share, ridge, score)
        if abs(score - fit.score) < _TOLERANCE:
            return step
        fit = step
    return fit


def _maximise(draws: Floats, share: Floats, ridge: Floats, score: float) -> Fit:
    mass = share.sum(axis=0) + 1e-12
    means = share.T @ draws / mass[:, None]
    covariances = np.empty((len(mass), draws.shape[1], draws.shape[1]))
    for k, mean in enumerate(means):
        centred = draws - mean
        covariances[k] = (centred * share[:, k, None]).T @ centred / mass[k] + ridge
    weights = np.maximum(mass, _WEIGHT_FLOOR)
    return Fit(weights / weights.sum(), means, covariances, score)


def log_components(rows: Floats, means: Floats, covariances: Floats) -> Floats:
    """Log density (n, K) of rows (n, p) under each Gaussian."""
    out = np.empty((len(rows), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        factor = np.linalg.cholesky(covariance)
        inverse = np.linalg.inv(factor)
        white = (rows - mean) @ inverse.T
        log_det = 2 * np.log(np.diagonal(factor)).sum()
        out[:, k] = -0.5 * (
            np.einsum("ij,ij->i", white, white) + log_det + len(mean) * np.log(2 * np.pi)
        )
    return out


def _start(draws: Floats, components: int, spread: Floats, rng: np.random.Generator) -> Fit:
    """A k-means++ start: far-apart draws, each with a share of the whole spread."""
    chosen = [draws[rng.integers(len(draws))]]
    inverse = np.linalg.inv(
        np.linalg.cholesky(spread + 1e-9 * np.trace(spread) * np.eye(len(spread)))
    )
    white = draws @ inverse.T
    least = np.full(len(draws), np.inf)
    for _ in range(components - 1):
        least = np.minimum(least, ((white - chosen[-1] @ inverse.T) ** 2).sum(axis=1))
        total = float(least.sum())
        pick = rng.choice(len(draws), p=least / total) if total > 0 else rng.integers(len(draws))
        chosen.append(draws[pick])
    means = np.stack(chosen)
    covariances = np.broadcast_to(spread / components ** (1 / 2), (components, *spread.shape))
    return Fit(np.full(components, 1 / components), means, covariances, -np.inf)
