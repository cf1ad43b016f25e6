"""The stages of a release where noise is as large as the signal: which, and at which share of rho.

What the labels have in common is measured once: the centre, the axes and variances of one second
moment. Labels add their means, and in a few leading axes their own covariances. Each stage is
shrunk toward the one before it, so a stage that the noise drowns costs its share and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.plan import Latent
from dpgmm_dist.model.problem import Ask, Fitted, Problem
from dpgmm_dist.model.shrinkage import structured
from dpgmm_dist.model.stages import label_covariances, label_means, pooled_covariance, second_look
from dpgmm_dist.model.stages.centre import Location

Floats = npt.NDArray[np.float64]

CENTRE_SHARE = 0.05
"""Of rho, for the first stage."""
_SECOND_OF_LABELS = 0.15
"""Of rho, for second moments of labels where they pay."""
_LEAST_AXES, _MOST_AXES = 8, 32
_SECOND_NOISE = 0.2
"""Noise on an entry of a label's whitened second moment up to which axes are added."""


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
    pooled = 0.30 / (1 + 2 * drowned) * rest
    again = 0.30 / (1 + 4 * drowned) * rest
    means = 1 - CENTRE_SHARE - seconds - pooled - again
    return Allocation(means * rho, pooled * rho, again * rho, seconds * rho, axes)


def _axes(problem: Problem, per_label: float) -> int:
    """In how many axes labels' second moments are worth their noise; 0 for none."""
    if problem.covariance == "tied":
        return 0
    affordable = _SECOND_NOISE * per_label * math.sqrt(2 * _SECOND_OF_LABELS * problem.rho)
    axes = min(int(affordable), _MOST_AXES, problem.width)
    return axes if axes >= min(_LEAST_AXES, problem.width) else 0


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
    look = second_look.measure(
        problem,
        ask,
        location,
        labels,
        pooled,
        means,
        variances,
        allocation.again,
        allocation.seconds,
        allocation.axes,
    )
    mixture = Mixture(
        weights=labels.weights,
        means=_inside(problem, location.centre + look.means @ pooled.axes.T),
        covariances=_structured(
            problem, label_covariances.covariances(pooled, labels.weights, look)
        ),
        labels=np.arange(problem.labels),
        label_values=problem.label_values,
    )
    along = np.sqrt(np.maximum(look.variances, 0.0) @ (pooled.axes**2).T)
    return _fitted(problem, location, mixture, labels.count_noise, along, {})


def _unlabelled(
    problem: Problem, ask: Ask, location: Location, allocation: Allocation
) -> Fitted:
    pooled = pooled_covariance.measure(
        problem, ask, location, location.centre[None], location.spread, allocation.pooled
    )
    shared = (pooled.axes * pooled.variances) @ pooled.axes.T
    mixture = Mixture(
        weights=np.ones(1),
        means=_inside(problem, location.centre + pooled.shift[None]),
        covariances=_structured(problem, ((shared + shared.T) / 2)[None]),
        label_values=problem.label_values,
    )
    along = np.full((1, problem.width), pooled.shift_noise)
    return _fitted(problem, location, mixture, 0.0, along, {})


def _fitted(
    problem: Problem,
    location: Location,
    mixture: Mixture,
    count_noise: float,
    mean_errors: Floats,
    notes: dict[str, Any],
) -> Fitted:
    weights = np.full(mixture.n_components, count_noise / location.rows)
    unknown = np.full(mixture.covariances.shape, np.inf)
    return Fitted(
        mixture=mixture,
        errors=StandardErrors(weights, mean_errors, unknown),
        latent=Latent(problem.width),
        residual_variance=0.0,
        rows=location.rows,
        notes=notes,
    )


def _inside(problem: Problem, means: Floats) -> Floats:
    """Means (L, d) pulled back into the public bound."""
    long = np.linalg.norm(means, axis=1)
    return np.asarray(means * np.minimum(1.0, problem.norm / np.maximum(long, 1e-300))[:, None])


def _structured(problem: Problem, covariances: Floats) -> Floats:
    if problem.covariance in ("diag", "spherical"):
        return np.stack([structured(problem.covariance, each) for each in covariances])
    return covariances
