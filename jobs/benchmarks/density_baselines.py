"""What else could be done with the same rows and budget: the baselines of density.py.

Each gives a mixture in input units. Noise is numpy's, a floating-point simulation of the Gaussian
mechanism with the variance that the budget rho (mu^2 / 2) and the stated sensitivities call for.

Parameter perturbation (arXiv 2506.03467) is given every advantage: it assumes

* rows clipped to the norm bound R, and a mixture fitted to them *without privacy*;
* responsibilities and rows per component n_k that do not change with a row and need no
  protection. Only weights, means and covariances do, each as an average over a component's rows:
  sensitivity 1/n, 2R/n_k and 4R^2/n_k. This holds for a fixed partition of the rows and *not* for
  a mixture fitted by EM: its guarantee is weaker than that of a release;
* for the KL split, curvatures of the fitted mixture itself, which are not private either;
* of several floors on eigenvalues, the one that serves it best on the fresh rows, in hindsight.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpgmm_dist.model.allocation import split
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.shrinkage import floor_eigenvalues

Floats = np.ndarray
Score = Callable[[Mixture], float]

_FLOORS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Floors on eigenvalues that perturbation may choose from, in units of the mean eigenvalue."""
_LLOYD = 5
_COUNT_SHARE = 0.1
_SPREAD_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Task:
    """Rows, the public bound on their norm, and a budget."""

    rows: Floats
    norm: float
    components: int
    rho: float
    seed: int


def clipped(rows: Floats, norm: float) -> Floats:
    """Rows (n, d) no longer than the bound."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1.0, norm / np.maximum(length, 1e-300)))


def fitted_from(start: Mixture, rows: Floats, steps: int = 60) -> Mixture:
    """Maximum likelihood by EM from a start, not private."""
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(
        start.n_components,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=np.linalg.inv(start.covariances),
        max_iter=steps,
    )
    return _quietly_fitted(model, rows)


def best_of_starts(
    rows: Floats, components: int, starts: int, sample: int, seed: int = 0
) -> Mixture:
    """The likeliest of several k-means starts on a sample, then EM on all rows; not private."""
    from sklearn.mixture import GaussianMixture

    few = np.random.default_rng(seed).permutation(len(rows))[:sample]
    model = GaussianMixture(components, n_init=starts, max_iter=200, random_state=seed)
    best = _quietly_fitted(model, rows[few])
    return fitted_from(best, rows) if sample < len(rows) else best


def _quietly_fitted(model: object, rows: Floats) -> Mixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows)
    return Mixture(model.weights_ / model.weights_.sum(), model.means_, model.covariances_)


def perturbed(task: Task, fitted: Mixture, allocation: str, score: Score) -> Mixture:
    """A fitted mixture with noise on its parameters; the best of the floors by ``score``."""
    n, d = len(task.rows), fitted.dimension
    scales = perturbation_scales(task, fitted, allocation)
    rng = np.random.default_rng([task.seed, 11])
    weights = np.maximum(fitted.weights + scales[0] * rng.standard_normal(len(scales[1])), 1 / n)
    means = fitted.means + scales[1][:, None] * rng.standard_normal(fitted.means.shape)
    upper = np.triu(rng.standard_normal(fitted.covariances.shape), 1) / math.sqrt(2)
    noise = upper + upper.transpose(0, 2, 1)
    noise[:, np.arange(d), np.arange(d)] = rng.standard_normal((len(weights), d))
    covariances = fitted.covariances + scales[2][:, None, None] * noise
    level = np.maximum(np.trace(covariances, axis1=1, axis2=2) / d, (0.01 * task.norm) ** 2)
    choices = [
        Mixture(
            weights / weights.sum(),
            clipped(means, task.norm),
            np.stack(
                [floor_eigenvalues(c, f * v) for c, v in zip(covariances, level, strict=True)]
            ),
        )
        for f in _FLOORS
    ]
    return min(choices, key=score)


def perturbation_scales(
    task: Task, fitted: Mixture, allocation: str
) -> tuple[float, Floats, Floats]:
    """Noise on weights, means (K,) and covariances (K,): 1/n, 2R/n_k and 4R^2/n_k a unit of it.

    Components partition the rows, so one noise scale a type costs what one component does.
    """
    n = len(task.rows)
    own = n * np.maximum(fitted.weights, 1 / n)
    sensitivities = [1.0, 2 * task.norm, 4 * task.norm**2]
    precision = np.linalg.inv(fitted.covariances)
    trace = np.trace(precision, axis1=1, axis2=2)
    energy = (precision**2).sum(axis=(1, 2))
    # Expected KL for noise of scale s / n_k: the covariance's is isotropic in Frobenius norm.
    curvatures = [
        float((fitted.weights / own**2 / 2).sum()),
        float((fitted.weights / own**2 * trace / 2).sum()),
        float((fitted.weights / own**2 * (energy + trace**2) / 8).sum()),
    ]
    shares = split(task.rho, sensitivities, curvatures, allocation)
    unit = [s / math.sqrt(2 * r) for s, r in zip(sensitivities, shares, strict=True)]
    return unit[0] / n, unit[1] / own, unit[2] / own


def kmeans(task: Task) -> Mixture:
    """Noisy k-means: spheres of one shared variance about noisy centres; fully private.

    Five rounds of counts (sensitivity 1) and sums (R) from random centres, then the summed
    squared distance to the nearest centre ((2R)^2, as centres are kept within R too).
    """
    rows = clipped(task.rows, task.norm)
    d, rng = rows.shape[1], np.random.default_rng([task.seed, 12])
    centres = clipped(rng.standard_normal((task.components, d)), 1.0) * task.norm / 2
    rounds = task.rho * (1 - _SPREAD_SHARE) / _LLOYD
    count_noise = 1 / math.sqrt(2 * rounds * _COUNT_SHARE)
    sum_noise = task.norm / math.sqrt(2 * rounds * (1 - _COUNT_SHARE))
    for _ in range(_LLOYD):
        nearest, _ = _nearest(rows, centres)
        onehot = np.zeros((len(rows), task.components))
        onehot[np.arange(len(rows)), nearest] = 1.0
        counts = onehot.sum(axis=0) + count_noise * rng.standard_normal(task.components)
        sums = onehot.T @ rows + sum_noise * rng.standard_normal(centres.shape)
        mass = np.maximum(counts, count_noise)
        centres = clipped(sums / mass[:, None], task.norm)
    _, squared = _nearest(rows, centres)
    energy = (2 * task.norm) ** 2
    spread = float(squared.sum()) + energy / math.sqrt(2 * task.rho * _SPREAD_SHARE) * float(
        rng.standard_normal()
    )
    variance = max(spread / mass.sum() / d, (1e-3 * task.norm) ** 2)
    covariances = np.broadcast_to(variance * np.eye(d), (task.components, d, d))
    return Mixture(mass / mass.sum(), centres, covariances)


def _nearest(rows: Floats, centres: Floats) -> tuple[Floats, Floats]:
    squared = (rows**2).sum(axis=1)[:, None] - 2 * rows @ centres.T + (centres**2).sum(axis=1)
    return squared.argmin(axis=1), np.maximum(squared.min(axis=1), 0.0)
