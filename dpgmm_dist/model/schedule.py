"""The stages of a release where noise is as large as the signal: which, and at which share of rho.

What the labels have in common is measured once: the centre, the axes and variances of one second
moment. Labels add their means, and in a few leading axes their own covariances. Each stage is
shrunk toward the one before it, so a stage that the noise drowns costs its share and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.plan import Latent
from dpgmm_dist.model.problem import Ask, Fitted, Problem
from dpgmm_dist.model.shrinkage import structured
from dpgmm_dist.model.stages import label_covariances, label_means, pooled_covariance, second_look
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance
from dpgmm_dist.model.stages.second_look import SecondLook

Floats = npt.NDArray[np.float64]

CENTRE_SHARE = 0.05
"""Of rho, for the first stage."""
_SECOND_OF_LABELS = 0.15
"""Of rho, for second moments of labels where they pay."""
_LEAST_AXES, _MOST_AXES = 8, 256
_MOST_ENTRIES = 1 << 22
"""Of the second moments of all labels together, for memory."""
_SECOND_NOISE = 0.2
"""Noise on an entry of a label's whitened second moment up to which axes are added."""

_LEAST_SHARE = 1e-3
"""Of the rest, that a stage has: with less its noise would leave the range that can be drawn."""
_LEAST_VARIANCE = 1e-7
"""Of a direction outside the latent space, over the squared norm bound."""


@dataclass(frozen=True)
class Allocation:
    """The budget of each stage after the centre, and the axes of labels' second moments."""

    means: float
    pooled: float
    again: float
    seconds: float
    axes: int


def allocate(problem: Problem, rows: float) -> Allocation:
    """Share out what the centre left: the fewer rows a label has, the more for its mean."""
    rho = problem.rho
    if problem.labels == 1:
        return Allocation(0.0, (1 - CENTRE_SHARE) * rho, 0.0, 0.0, 0)
    per_label = rows / problem.labels
    # Squared noise of a label's mean, were the whole budget its own, over the spread of the rows.
    drowned = problem.width / (2 * rho * (0.7 * per_label) ** 2)
    seconds, axes = 0.0, _axes(problem, per_label)
    if axes:
        seconds = _SECOND_OF_LABELS
    rest = 1 - seconds
    pooled = max(0.30 / (1 + 2 * drowned), _LEAST_SHARE) * rest
    again = max(0.30 / (1 + 4 * drowned), _LEAST_SHARE) * rest
    means = 1 - CENTRE_SHARE - seconds - pooled - again
    return Allocation(means * rho, pooled * rho, again * rho, seconds * rho, axes)


def _axes(problem: Problem, per_label: float) -> int:
    """In how many axes labels' second moments are worth their noise; 0 for none."""
    affordable = _SECOND_NOISE * per_label * math.sqrt(2 * _SECOND_OF_LABELS * problem.rho)
    axes = min(int(affordable), most_axes(problem))
    return axes if axes >= min(_LEAST_AXES, problem.width) else 0


def most_axes(problem: Problem) -> int:
    """The most axes in which second moments of labels are asked for: public."""
    if problem.labels == 1 or problem.covariance == "tied":
        return 0
    return min(_MOST_AXES, problem.width, math.isqrt(_MOST_ENTRIES // problem.labels))


def fit(problem: Problem, ask: Ask, location: Location) -> Fitted:
    """Release by stages, once the centre is known."""
    allocation = allocate(problem, location.rows)
    if problem.labels == 1:
        return _unlabelled(problem, ask, location, allocation)
    labels = label_means.measure(problem, ask, location, allocation.means)
    about, _ = label_means.posterior(labels.means, labels.noise, np.ones(problem.width))
    spread = location.spread - float(labels.weights @ (about**2).sum(axis=1))
    centres = _inside(problem, location.centre + about)
    pooled = pooled_covariance.measure(problem, ask, location, centres, spread, allocation.pooled)
    means, variances = label_means.posterior(
        labels.means @ pooled.axes, labels.noise, pooled.variances
    )
    about = _inside(problem, location.centre + means @ pooled.axes.T) - location.centre
    means = about @ pooled.axes
    look = second_look.measure(
        problem, ask, location, labels, pooled, means, variances,
        second_look.Budget(allocation.again, allocation.seconds, allocation.axes),
    )  # fmt: skip
    features = _inside(problem, location.centre + look.means @ pooled.axes.T)
    latent, residual = _latent(problem, location, pooled, features, labels.weights)
    mixture = Mixture(
        weights=labels.weights,
        means=latent.to_latent(features),
        covariances=_structured(
            problem, label_covariances.covariances(pooled, labels.weights, look, latent)
        ),
        labels=np.arange(problem.labels),
        label_values=problem.label_values,
    )
    axes = pooled.axes if latent.basis is None else latent.basis.T @ pooled.axes
    mean_errors = np.sqrt(np.maximum(look.variances, 0.0) @ (axes**2).T)
    errors = _errors(mixture, labels.count_noise / location.rows, mean_errors)
    return Fitted(mixture, errors, latent, residual, location.rows, _notes(problem, look))


def _unlabelled(problem: Problem, ask: Ask, location: Location, allocation: Allocation) -> Fitted:
    pooled = pooled_covariance.measure(
        problem, ask, location, location.centre[None], location.spread, allocation.pooled
    )
    features = _inside(problem, location.centre + pooled.shift[None])
    latent, residual = _latent(problem, location, pooled, features, np.ones(1))
    axes = pooled.axes if latent.basis is None else latent.basis.T @ pooled.axes
    shared = (axes * pooled.variances) @ axes.T
    mixture = Mixture(
        weights=np.ones(1),
        means=latent.to_latent(features),
        covariances=_structured(problem, ((shared + shared.T) / 2)[None]),
        label_values=problem.label_values,
    )
    errors = _errors(mixture, 0.0, np.full(mixture.means.shape, pooled.shift_noise))
    return Fitted(mixture, errors, latent, residual, location.rows, _notes(problem, None))


def _latent(
    problem: Problem, location: Location, pooled: PooledCovariance, means: Floats, weights: Floats
) -> tuple[Latent, float]:
    """The coordinates of the release, and the variance of each direction outside them."""
    d, p = problem.width, problem.latent_dimension
    if p == d:
        return Latent(d), 0.0
    middle = weights @ means
    apart = (means - middle) * np.sqrt(weights)[:, None]
    total = (pooled.axes * pooled.variances) @ pooled.axes.T + apart.T @ apart
    values, vectors = np.linalg.eigh((total + total.T) / 2)
    basis = vectors[:, d - p :].copy()
    # Signs of eigenvectors are arbitrary: make the largest entry of each positive.
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(p)])
    least = _LEAST_VARIANCE * problem.norm**2
    return Latent(d, basis, middle), max(float(values[: d - p].mean()), least)


def _errors(mixture: Mixture, weight_error: float, mean_errors: Floats) -> StandardErrors:
    """Standard errors of weights and means; covariances are shrunk without a closed form."""
    return StandardErrors(
        np.full(mixture.n_components, weight_error),
        mean_errors,
        np.full(mixture.covariances.shape, np.inf),
    )


def _notes(problem: Problem, look: SecondLook | None) -> dict[str, Any]:
    """Public remarks for the receipt."""
    axes = 0 if look is None else len(look.second_axes)
    return {
        "second_moments": "label" if axes else "all",
        "axes_of_label_covariances": axes,
        "components_per_label": [1] * problem.labels,
        "components_choice": "by the noise on their covariances (docs/method.md)",
        "error_bars": {
            "weights": "approximate",
            "means": "approximate",
            "covariances": "not known: shrunk without a closed form",
        },
    }


def _inside(problem: Problem, means: Floats) -> Floats:
    """Means (L, d) pulled back into the public bound."""
    long = np.linalg.norm(means, axis=1)
    return np.asarray(means * np.minimum(1.0, problem.norm / np.maximum(long, 1e-300))[:, None])


def _structured(problem: Problem, covariances: Floats) -> Floats:
    if problem.covariance in ("diag", "spherical"):
        return np.stack([structured(problem.covariance, each) for each in covariances])
    return covariances
