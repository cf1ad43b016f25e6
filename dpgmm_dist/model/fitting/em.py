"""Fitting a mixture to draws from released densities: post-processing, so it costs no privacy.

A coreset of cells is turned into draws, and ordinary expectation maximisation with many restarts
runs on those. Everything is deterministic given the public seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.search_budget import affordable_draws
from dpgmm_dist.model.fitting.seeding import Reals, kmeans_centres, nearest
from dpgmm_dist.model.numerics.parallel import in_order

Floats = npt.NDArray[np.float64]

_SCREEN_DRAWS = 6000
_SCREEN_STEPS = 25
_SAME_OPTIMUM = 1e-3
_OPERATIONS = 8e9
_POLISH_STEPS = 50
_POLISH_DRAWS = 20_000
_TOLERANCE = 1e-5
_WEIGHT_FLOOR = 1e-4
_KMEANS_DRAWS = 10_000
_MOST_RESPONSIBILITIES = 300_000
"""Most responsibilities in memory at once: restarts make a step together up to this number."""
_CHUNK = 4096
_LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights (K,), means (K, p), covariances (K, p, p) and mean log-likelihood of the draws."""

    weights: Floats
    means: Floats
    covariances: Floats
    score: float


def fits_of_draws(
    draws: Floats, components: int, restarts: int, keep: int, seed: int, search_share: float = 1.0
) -> list[Fit]:
    """Different EM fits of ``components`` Gaussians to draws (n, p), the best first.

    Every restart is screened on part of the draws. The best ``keep`` are polished on all of them,
    and those that end in the same optimum are given once. ``search_share`` scales the work.
    """
    p = draws.shape[1]
    steps, least = restarts * _SCREEN_STEPS, 4 * components * (p + 2)
    operations = search_share * _OPERATIONS
    screen_draws = affordable_draws(operations, components, p, steps, _SCREEN_DRAWS, least)
    restarts = max(3, min(restarts, restarts * screen_draws // _SCREEN_DRAWS + 1))
    steps = keep * _POLISH_STEPS
    polish_draws = affordable_draws(
        4 * operations, components, p, steps, _POLISH_DRAWS, screen_draws
    )
    keep = max(1, min(keep, keep * polish_draws // _POLISH_DRAWS + 1))
    points = Points.of(draws[:polish_draws])
    part = points.first(screen_draws)
    rng = np.random.Generator(np.random.Philox(seed))
    spread = np.atleast_2d(np.cov(part.rows, rowvar=False))
    starts = [
        _start(part.rows, components, spread, rng) for _ in range(restarts if components > 1 else 1)
    ]
    tries = expectation_maximisation(part, starts, _SCREEN_STEPS)
    tries.sort(key=lambda fit: -fit.score)
    return _distinct(expectation_maximisation(points, tries[:keep], _POLISH_STEPS), points)


def clustered_fits(
    draws: Reals,
    components: int,
    restarts: int,
    seed: int,
    steps: int = 40,
    search_share: float = 1.0,
) -> list[Fit]:
    """EM fits of ``components`` Gaussians to draws (n, p) from k-means starts, the best first.

    It works in the precision of the draws. From k-means EM ends in few different optima, from
    far-apart draws in many (docs/method.md). Each optimum is returned once. ``search_share`` scales
    the work.
    """
    p = draws.shape[1]
    operations, least = search_share * _OPERATIONS, 4 * components * (p + 2)
    most = affordable_draws(operations, components, p, restarts * steps, len(draws), least)
    points = Points.of(draws[: min(most, _POLISH_DRAWS)])

    def clustered(start: int) -> Fit:
        rows = points.rows
        centres, _ = kmeans_centres(rows[:_KMEANS_DRAWS], components, seed + start)
        share = np.zeros((components, len(rows)), dtype=rows.dtype)
        share[nearest(rows, centres), np.arange(len(rows))] = 1 / len(rows)
        weights, means, covariances = _maximise(points, share)
        return Fit(weights, means, covariances, -np.inf)

    starts = in_order(clustered, range(restarts if components > 1 else 1))
    return _distinct(expectation_maximisation(points, starts, steps), points)


def _distinct(fits: list[Fit], points: Points) -> list[Fit]:
    """Fits in the draws' own coordinates, the best first, each optimum once."""
    out: list[Fit] = []
    for fit in fits:
        if all(abs(fit.score - other.score) > _SAME_OPTIMUM for other in out):
            out.append(fit)
    out.sort(key=lambda fit: -fit.score)
    return [replace(fit, means=fit.means + points.middle) for fit in out]


@dataclass(frozen=True, eq=False)
class Points:
    """Draws about their mean, and what an EM step needs of them.

    A Gaussian's log density is linear in the coordinates and their products, and so are a
    component's moments: with these written out once, either half of a step, of all restarts
    together, is one product of matrices.
    """

    middle: Floats
    """(p,)"""
    features: Reals
    """(n, 1 + p + p (p + 1) / 2): one, coordinates less ``middle``, their products; in float32
    they take half the time, and what is added up over them stays good to six digits."""
    ridge: Floats
    """(p, p) added to covariances."""

    @classmethod
    def of(cls, draws: Reals) -> Points:
        """Of draws (n, p)."""
        middle = draws.mean(axis=0, dtype=np.float64)
        rows = draws - middle.astype(draws.dtype)
        p = rows.shape[1]
        features = np.empty((len(rows), 1 + p + p * (p + 1) // 2), dtype=rows.dtype)
        features[:, 0], features[:, 1 : 1 + p] = 1.0, rows
        pairs(rows, features[:, 1 + p :])
        spread = (rows.T @ rows).astype(np.float64) / len(rows)
        ridge = 1e-3 * spread + 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
        return cls(middle, features, ridge)

    @property
    def rows(self) -> Reals:
        """(n, p) less ``middle``."""
        return self.features[:, 1 : 1 + len(self.middle)]

    def first(self, n: int) -> Points:
        """The first n of them."""
        return replace(self, features=self.features[:n])


def expectation_maximisation(points: Points, starts: Sequence[Fit], steps: int) -> list[Fit]:
    """At most ``steps`` EM steps from each start, about ``points.middle``."""
    if not starts:
        return []
    size = max(1, _MOST_RESPONSIBILITIES // (len(points.features) * len(starts[0].weights)))
    groups = [starts[i : i + size] for i in range(0, len(starts), size)]
    fits = in_order(lambda group: _em_of_group(points, group, steps), groups)
    return [fit for group in fits for fit in group]


def _em_of_group(points: Points, starts: Sequence[Fit], steps: int) -> list[Fit]:
    """EM of several starts at once; those that have converged are left out of further steps."""
    weights = np.stack([fit.weights for fit in starts])
    means = np.stack([fit.means for fit in starts])
    covariances = np.stack([fit.covariances for fit in starts])
    scores = np.array([fit.score for fit in starts])
    going = np.arange(len(starts))
    n, components = len(points.features), weights.shape[1]
    for _ in range(steps):
        line = _coefficients(weights[going], means[going], covariances[going])
        line = line.astype(points.features.dtype, copy=False)
        share = (line @ points.features.T).reshape(len(going), components, n)
        top = share.max(axis=1, keepdims=True)
        share -= top
        np.exp(share, out=share)
        total = share.sum(axis=1, keepdims=True)
        score = (top + np.log(total)).mean(axis=(1, 2), dtype=np.float64)
        share /= total * n
        moved = _maximise(points, share.reshape(-1, n))
        shape = len(going), components
        for stored, part in zip((weights, means, covariances), moved, strict=True):
            stored[going] = part.reshape(*shape, *part.shape[1:])
        weights[going] /= weights[going].sum(axis=1, keepdims=True)
        is_rising = np.abs(score - scores[going]) >= _TOLERANCE
        scores[going] = score
        going = going[is_rising]
        if not len(going):
            break
    return [Fit(*parts) for parts in zip(weights, means, covariances, scores.tolist(), strict=True)]


def _coefficients(weights: Floats, means: Floats, covariances: Floats) -> Floats:
    """(R K, M) what a row's features are multiplied with to give its log joint density."""
    p = means.shape[-1]
    rows, columns = triangle(p)
    factor = np.linalg.cholesky(covariances)
    inverse = np.linalg.inv(factor)
    precision = np.swapaxes(inverse, -1, -2) @ inverse
    log_det = 2 * np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
    pull = (precision @ means[..., None])[..., 0]
    level = np.log(weights) - 0.5 * (log_det + (pull * means).sum(axis=-1) + p * _LOG_2_PI)
    bend = -precision[..., rows, columns] * np.where(rows == columns, 0.5, 1.0)
    line = np.concatenate([level[..., None], pull, bend], axis=-1)
    return line.reshape(-1, line.shape[-1])


def _maximise(points: Points, share: Reals) -> tuple[Floats, Floats, Floats]:
    """Weights (C,), means (C, p) and covariances (C, p, p) of shares (C, n)."""
    p = len(points.middle)
    rows, columns = triangle(p)
    total = np.asarray(share @ points.features, dtype=np.float64)
    mass = total[:, 0] + 1e-12
    means = total[:, 1 : 1 + p] / mass[:, None]
    covariances = np.empty((len(mass), p, p))
    second = total[:, 1 + p :] / mass[:, None]
    covariances[:, rows, columns] = covariances[:, columns, rows] = second
    covariances -= means[:, :, None] * means[:, None, :]
    return np.maximum(mass, _WEIGHT_FLOOR), means, covariances + points.ridge


def log_components(rows: Reals, means: Floats, covariances: Floats) -> Floats:
    """Log density (n, K) of rows (n, p) under each Gaussian."""
    components, p = means.shape
    factor = np.linalg.cholesky(covariances)
    inverse = np.linalg.inv(factor)
    log_det = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    maps = inverse.transpose(2, 0, 1).reshape(p, components * p)
    shift = (inverse @ means[:, :, None]).reshape(components * p)
    out = np.empty((len(rows), components))
    for first in range(0, len(rows), _CHUNK):
        white = rows[first : first + _CHUNK] @ maps
        white -= shift
        white = white.reshape(-1, components, p)
        out[first : first + _CHUNK] = np.einsum("nkp,nkp->nk", white, white)
    out += log_det + p * _LOG_2_PI
    out *= -0.5
    return out


@functools.cache
def triangle(p: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the upper triangle of a (p, p) matrix."""
    return np.triu_indices(p)


def pairs(v: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Write the (n, p (p + 1) / 2) products of coordinates in the upper triangle's order."""
    start, p = 0, v.shape[1]
    for i in range(p):
        np.multiply(v[:, i:], v[:, i, None], out=out[:, start : start + p - i])
        start += p - i


def _start(draws: Reals, components: int, spread: Floats, rng: np.random.Generator) -> Fit:
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
