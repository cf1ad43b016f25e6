"""The baselines of density.py: other methods for the same rows and the same budget.

Each method returns a mixture in input units. Its noise is a floating-point simulation of the
Gaussian mechanism with numpy, with the variance that follows from the budget rho (mu^2 / 2) and
from the stated sensitivities.

Parameter perturbation (arXiv 2506.03467) is given every advantage. It assumes

* rows clipped to the norm bound R, and a mixture fitted to them *without privacy*;
* responsibilities and rows per component n_k that no single row changes, and that need no
  protection. Weights, means and covariances are averages over the rows of a component, with
  sensitivities 1/n, 2R/n_k and 4R^2/n_k. This holds for a fixed partition of the rows, and *not*
  for a mixture fitted by EM, so the guarantee is weaker than that of a release;
* for the KL allocation, curvatures of the fitted mixture, which are not private either;
* the best of several floors on eigenvalues, chosen afterwards on the fresh rows.
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
"""Floors on eigenvalues that `perturbed` chooses from, relative to the mean eigenvalue."""
_LLOYD_ROUNDS = 5
_COUNT_SHARE = 0.1
"""Share of the budget of a round of k-means that its counts get."""
_SPREAD_SHARE = 0.05
"""Share of the budget of k-means that the summed squared distance gets."""


@dataclass(frozen=True, eq=False)
class Task:
    """Rows, the public bound on their norm, and a budget."""

    rows: Floats
    norm: float
    components: int
    rho: float
    seed: int


def clipped(rows: Floats, norm: float) -> Floats:
    """Rows (n, d) scaled down to the norm bound where they are longer."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1.0, norm / np.maximum(length, 1e-300)))


def fitted_from(start: Mixture, rows: Floats, steps: int = 60) -> Mixture:
    """Maximum likelihood by EM from an initial mixture, not private."""
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
    """The best of several k-means initialisations on a sample, then EM on all rows. Not private."""
    from sklearn.mixture import GaussianMixture

    chosen = np.random.default_rng(seed).permutation(len(rows))[:sample]
    model = GaussianMixture(components, n_init=starts, max_iter=200, random_state=seed)
    best = _quietly_fitted(model, rows[chosen])
    return fitted_from(best, rows) if sample < len(rows) else best


def _quietly_fitted(model: object, rows: Floats) -> Mixture:
    """The fit of a scikit-learn model, without its warnings about convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows)
    return Mixture(model.weights_ / model.weights_.sum(), model.means_, model.covariances_)


def perturbed(task: Task, fitted: Mixture, allocation: str, score: Score) -> Mixture:
    """A fitted mixture with noise on its parameters, and the floor with the least ``score``."""
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
                [
                    floor_eigenvalues(covariance, floor * mean_eigenvalue)
                    for covariance, mean_eigenvalue in zip(covariances, level, strict=True)
                ]
            ),
        )
        for floor in _FLOORS
    ]
    return min(choices, key=score)


def perturbation_scales(
    task: Task, fitted: Mixture, allocation: str
) -> tuple[float, Floats, Floats]:
    """Standard deviations of the noise on weights, means (K,) and covariances (K,).

    They are proportional to the sensitivities 1/n, 2R/n_k and 4R^2/n_k. Components partition the
    rows, so all components together cost as much as one.
    """
    n = len(task.rows)
    counts = n * np.maximum(fitted.weights, 1 / n)
    sensitivities = [1.0, 2 * task.norm, 4 * task.norm**2]
    precision = np.linalg.inv(fitted.covariances)
    trace = np.trace(precision, axis1=1, axis2=2)
    energy = (precision**2).sum(axis=(1, 2))
    # Expected KL divergence for noise of scale 1 / n_k, isotropic in Frobenius norm on covariances.
    curvatures = [
        float((fitted.weights / counts**2 / 2).sum()),
        float((fitted.weights / counts**2 * trace / 2).sum()),
        float((fitted.weights / counts**2 * (energy + trace**2) / 8).sum()),
    ]
    rhos = split(task.rho, sensitivities, curvatures, allocation)
    scales = [
        sensitivity / math.sqrt(2 * rho)
        for sensitivity, rho in zip(sensitivities, rhos, strict=True)
    ]
    return scales[0] / n, scales[1] / counts, scales[2] / counts


def kmeans(task: Task) -> Mixture:
    """Noisy k-means: spherical components of one variance about noisy centres; fully private.

    Five rounds of counts (sensitivity 1) and sums (R) start from random centres. Then comes the
    sum of squared distances to the nearest centre (sensitivity (2R)^2, because centres are kept
    within R).
    """
    rows = clipped(task.rows, task.norm)
    d, rng = rows.shape[1], np.random.default_rng([task.seed, 12])
    centres = clipped(rng.standard_normal((task.components, d)), 1.0) * task.norm / 2
    round_rho = task.rho * (1 - _SPREAD_SHARE) / _LLOYD_ROUNDS
    count_noise = 1 / math.sqrt(2 * round_rho * _COUNT_SHARE)
    sum_noise = task.norm / math.sqrt(2 * round_rho * (1 - _COUNT_SHARE))
    for _ in range(_LLOYD_ROUNDS):
        nearest, _ = _nearest(rows, centres)
        onehot = np.zeros((len(rows), task.components))
        onehot[np.arange(len(rows)), nearest] = 1.0
        counts = onehot.sum(axis=0) + count_noise * rng.standard_normal(task.components)
        sums = onehot.T @ rows + sum_noise * rng.standard_normal(centres.shape)
        mass = np.maximum(counts, count_noise)
        centres = clipped(sums / mass[:, None], task.norm)
    _, squared = _nearest(rows, centres)
    spread_noise = (2 * task.norm) ** 2 / math.sqrt(2 * task.rho * _SPREAD_SHARE)
    spread = float(squared.sum()) + spread_noise * float(rng.standard_normal())
    variance = max(spread / mass.sum() / d, (1e-3 * task.norm) ** 2)
    covariances = np.broadcast_to(variance * np.eye(d), (task.components, d, d))
    return Mixture(mass / mass.sum(), centres, covariances)


def _nearest(rows: Floats, centres: Floats) -> tuple[Floats, Floats]:
    """Index (n,) of the nearest centre, and the squared distance (n,) to it."""
    squared = (rows**2).sum(axis=1)[:, None] - 2 * rows @ centres.T + (centres**2).sum(axis=1)
    return squared.argmin(axis=1), np.maximum(squared.min(axis=1), 0.0)
