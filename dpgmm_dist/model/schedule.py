"""The stages of a release where noise is as large as the signal: their order and budget shares.

What the labels have in common is measured once: the centre, and the axes and variances of one
second moment. Labels add their means, and their own covariances along a few leading axes. Each
stage is shrunk toward the one before it, so a stage that is all noise costs its share of the budget
and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.pass_plan import Latent
from dpgmm_dist.model.problem import Ask, Fitted, Problem
from dpgmm_dist.model.shrinkage import structured
from dpgmm_dist.model.spectrum import expected_loss
from dpgmm_dist.model.stages import label_covariances, label_means, pooled_covariance, second_look
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.label_means import LabelMeans
from dpgmm_dist.model.stages.pooled_covariance import SQUARE, TIGHT, PooledCovariance
from dpgmm_dist.model.stages.second_look import RADIUS, Budget

Floats = npt.NDArray[np.float64]

CENTRE_SHARE = 0.05
"""Share of rho of the first stage."""
_LEAST_SECONDS, _MOST_SECONDS = 0.07, 0.30
"""Shares of rho for second moments of labels where they pay. The share grows with the number of
axes in which they stand out of the noise, up to half of all axes."""
_LEAST_AXES, _MOST_AXES = 8, 512
_MOST_ENTRIES = 1 << 22
"""Most numbers in the second moments of all labels together, for memory."""
_MOST_TRIANGLES = 1 << 27
"""Most bytes of the covariances of all components in full that are released in that form."""
_DIAGONAL = ("diag", "spherical")
"""Kinds of covariances that have no axes to share."""
_SECOND_NOISE = 0.7
"""Half the edge (docs/method.md, section 1) of a label's whitened second moment up to which axes
are added."""
_SPREAD_OF_MEANS = 0.25
"""Variance of the labels' means over that of their rows that the predicted loss assumes."""
_SECOND_SHARE, _SECOND_SHARE_WITH_LABELS = 0.7, 0.5
"""Share of the pooled second moment's budget for its second measurement. The second value holds
where labels' own second moments are measured along axes of the first measurement."""
_ONE_LOOK, _NOT_WHITENED = 2.2, 6.0
"""Half the edge of the whitened second moment. Above the first value a second measurement would be
all noise: its budget goes to the first measurement, except for a mean squared length. Above the
second value the first measurement gives no variances to whiten by: two such measurements are
averaged."""
_SIZE = 0.01
"""Share of rho for that mean squared length, and its largest share of the pooled second
moment's."""
_MOST_OF_POOLED = 0.2
_CLEAR_LABELS, _LABEL_DIRECTIONS = 2.5, 3.5
"""One over the share of the pooled second moment where means of labels have little noise, and how
it grows with the number of labels over that of features."""
_SECOND_SUMS = 0.4
"""Share of the second sums in the budget of first and second sums, where means have little
noise."""
_HOPELESS = 0.3
"""Noise of a mean, squared, over the spread of its rows, beyond which budget does not help it."""
_SUMS = (0.08, 0.22, 0.85)
"""Shares of the budget for the mean where there is one mean only: for a clear second moment, for a
noisy one, and for one that is all noise."""
_NOISY, _DROWNED = 16.0, 33.0
"""Edges of the second moment that are half way between these three cases."""
_DISCRIMINANT = 0.3
"""Share of the differences between labels' covariances that predicts labels best. Embeddings are
not Gaussian (normal scores are): far from a label's mean its own covariance is a poor guide."""
_LEAST_SHARE = 1e-3
"""Smallest share of the rest that a stage has: with less, its noise scale would leave the range of
the sampler."""
_LEAST_VARIANCE = 1e-7
"""Least variance of a direction outside the latent space, over the squared norm bound."""


@dataclass(frozen=True)
class Allocation:
    """The budget of each stage after the centre."""

    means: float
    pooled: float
    second: Budget


def allocate(problem: Problem, rows: float, counts: Floats | None = None) -> Allocation:
    """Allocate what the centre left: the fewer rows a label has, the more goes to its mean.

    Parameters
    ----------
    counts
        (L,) noisy numbers of rows, once they are known. The budget of the first sums is spent then,
        and stays as it was. Labels of unequal size take from the pooled covariance for the second
        sums.
    """
    rho = problem.rho
    left = 1 - CENTRE_SHARE
    if problem.labels == 1:
        sums = _share_of_one_mean(_edge(problem, rows)) * left
        first, look = _looks(problem, rows, left - sums, _SECOND_SHARE)
        return Allocation(0.0, first * rho, replace(look, sums=sums * rho))
    per_label = rows / problem.labels
    noise = float(_noise_of_mean(problem, per_label))
    seconds, axes = _second_moments(problem, per_label)
    pooled = _share_of_pooled(problem, noise) * (1 - seconds)
    sums = max(_SECOND_SUMS / (1 + 6 * noise), _LEAST_SHARE) * (left - seconds - pooled)
    means = left - seconds - pooled - sums
    if counts is not None:
        noise = float(np.minimum(_noise_of_mean(problem, counts), _HOPELESS).mean())
        pooled = min(pooled, _share_of_pooled(problem, noise) * (1 - seconds))
        sums = left - seconds - pooled - means
    first, look = _looks(
        problem, rows, pooled, _SECOND_SHARE_WITH_LABELS if axes else _SECOND_SHARE
    )
    look = replace(look, sums=sums * rho, seconds=seconds * rho, axes=axes)
    return Allocation(means * rho, first * rho, look)


def _noise_of_mean(problem: Problem, rows: float | Floats) -> Floats:
    """Squared noise of a label's mean if it had the whole budget, over the spread of its rows."""
    return np.asarray(problem.width / (2 * problem.rho * (0.7 * rows) ** 2))


def _share_of_pooled(problem: Problem, noise: float) -> float:
    """The share of the pooled second moment where labels have no second moments of their own."""
    of_labels = _LABEL_DIRECTIONS * math.sqrt(problem.labels / problem.width)
    return max(1 / (max(_CLEAR_LABELS, 1 + of_labels) + 6.7 * noise), _LEAST_SHARE)


def _looks(
    problem: Problem, rows: float, pooled: float, second_share: float
) -> tuple[float, Budget]:
    """The share of the pooled second moment, divided: its first measurement, its second."""
    d, rho = problem.width, problem.rho
    noise = TIGHT**2 * d * math.sqrt(d / 2) / (math.sqrt(2 * pooled * rho) * rows)
    if _ONE_LOOK < noise <= _NOT_WHITENED:
        square = min(_SIZE, _MOST_OF_POOLED * pooled)
        return pooled - square, Budget(square=square * rho)
    look = second_share * pooled
    square, second = SQUARE * look * rho, (1 - SQUARE) * look * rho
    return pooled - look, Budget(square, second, whitened=noise <= _ONE_LOOK)


def _share_of_one_mean(edge: float) -> float:
    clear, noisy, drowned = _SUMS
    rise = (noisy - clear) / (1 + (_NOISY / edge) ** 4)
    return clear + rise + (drowned - noisy) / (1 + (_DROWNED / edge) ** 8)


def _edge(problem: Problem, rows: float) -> float:
    """The edge of a second moment: largest eigenvalue of its noise, over its mean eigenvalue."""
    d = problem.width
    return TIGHT**2 * d * math.sqrt(2 * d) / (math.sqrt(2 * problem.rho) * rows)


def _second_moments(problem: Problem, per_label: float) -> tuple[float, int]:
    """Share of rho for labels' second moments, and number of axes; zeros where all is noise."""
    axes_share = _axes(problem, per_label, _LEAST_SECONDS) / problem.width
    share = min(max(2 * axes_share * _MOST_SECONDS, _LEAST_SECONDS), _MOST_SECONDS)
    axes = _axes(problem, per_label, share)
    return (share, axes) if axes >= min(_LEAST_AXES, problem.width) else (0.0, 0)


def _axes(problem: Problem, per_label: float, share: float) -> int:
    """Number of axes in which labels' second moments exceed the noise at this share of rho."""
    # A diagonal entry has noise RADIUS^2 q / answers; half the edge is sqrt(q / 2) times that.
    answers = per_label * math.sqrt(2 * share * problem.rho)
    affordable = (math.sqrt(2) * _SECOND_NOISE * answers / RADIUS**2) ** (2 / 3)
    return min(int(affordable), most_axes(problem))


def most_axes(problem: Problem) -> int:
    """The most axes in which second moments of labels are asked for: public."""
    if problem.labels == 1 or problem.covariance == "tied":
        return 0
    return min(_MOST_AXES, problem.width, math.isqrt(_MOST_ENTRIES // problem.labels))


def shares_axes(problem: Problem) -> bool:
    """Whether a release by stages stores the axes of its covariances once, as large ones do."""
    p, components = problem.latent_dimension, problem.labels * problem.asked_components
    triangles = 8 * components * p * (p + 1) // 2
    return triangles > _MOST_TRIANGLES and problem.covariance not in _DIAGONAL


def passes(problem: Problem) -> int:
    """How many passes the stages take, with the centre's."""
    return 4 if problem.labels > 1 else 3


def fit(problem: Problem, ask: Ask, location: Location) -> Fitted:
    """Release by stages, once the centre is known."""
    allocation = allocate(problem, location.rows)
    if problem.labels == 1:
        labels = label_means.without_labels(location)
        about = labels.means
    else:
        labels = label_means.measure(problem, ask, location, allocation.means)
        allocation = allocate(problem, location.rows, labels.counts)
        about, _ = label_means.posterior(labels.means, labels.noise, np.ones(problem.width))
    spread = location.spread - float(labels.weights @ (about**2).sum(axis=1))
    centres = _inside(problem, location.centre + about)
    first = pooled_covariance.measure(problem, ask, location, centres, spread, allocation.pooled)
    means, variances = _known_means(problem, location, labels, first)
    # Rows are asked about means within the bound.
    about = _inside(problem, location.centre + means @ first.axes.T) - location.centre
    means = about @ first.axes
    look = second_look.measure(
        problem, ask, location, labels, first, means, variances, allocation.second
    )
    pooled = first
    if look.pooled is not None:
        moved = np.einsum("l,li,lj->ij", labels.weights, look.moved, look.moved)
        pooled = pooled_covariance.refined(
            first, look.pooled, moved, location.rows, allocation.second.whitened
        )
    features = _inside(problem, location.centre + look.means @ first.axes.T)
    latent, residual = _latent(problem, location, pooled, features, labels.weights)
    covariances, axes_taken = label_covariances.covariances(
        first,
        pooled,
        labels.weights,
        look,
        latent,
        in_full=not shares_axes(problem),
    )
    mixture = Mixture(
        weights=labels.weights,
        means=latent.to_latent(features),
        covariances=_structured(problem, covariances),
        labels=np.arange(problem.labels),
        label_values=problem.label_values,
    )
    axes = first.axes if latent.basis is None else latent.basis.T @ first.axes
    # Covariances are shrunk without a closed form: their errors are not known.
    errors = StandardErrors.without_covariances(
        np.full(problem.labels, labels.count_noise / location.rows),
        np.sqrt(np.maximum(look.variances, 0.0) @ (axes**2).T),
    )
    lost = 0.5 * float((labels.weights @ look.variances / first.variances).sum())
    notes = _notes(problem, location, pooled, axes_taken, lost)
    return Fitted(mixture, errors, latent, residual, location.rows, notes)


def _known_means(
    problem: Problem, location: Location, labels: LabelMeans, pooled: PooledCovariance
) -> tuple[Floats, Floats]:
    """Means along the axes and their variances before the second measurement: (L, d) both."""
    if problem.labels == 1:
        return labels.means, np.full((1, problem.width), location.noise**2)
    return label_means.posterior(labels.means @ pooled.axes, labels.noise, pooled.variances)


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


def _notes(
    problem: Problem, location: Location, pooled: PooledCovariance, axes: int, mean_loss: float
) -> dict[str, Any]:
    """Public remarks for the receipt: what was afforded, and what the noise is expected to cost."""
    gain, error = pooled.spectrum.gain, pooled.spectrum.error
    loss = mean_loss + expected_loss(pooled.measured_variances, pooled.scale, location.rows)
    return {
        "structure": _structure(problem, pooled.directions, axes),
        "expected_loss": loss,
        "gain_over_sphere": gain,
        "gain_error": error,
        "tells_little_beyond_means": bool(gain <= error),
        "variance_noise": {"scale": pooled.scale, "relative": pooled.noise_is_relative},
        "second_moments": "label" if axes else "all",
        "discriminant_share": _DISCRIMINANT if axes and not problem.normal_scores else 1.0,
        "components_per_label": [1] * problem.labels,
        "components_choice": "by the noise on their covariances (docs/method.md)",
        "error_bars": {
            "weights": "approximate",
            "means": "approximate",
            "covariances": "not known: shrunk without a closed form",
        },
    }


def planned_structure(problem: Problem, rows: float) -> str:
    """What the budget affords for a public number of rows, in words."""
    axes = allocate(problem, rows).second.axes
    return _words(problem, "one covariance", axes)


def _structure(problem: Problem, directions: int, axes: int) -> str:
    """What the budget afforded, in words."""
    if directions:
        covariance = f"one covariance, along {directions} direction{'s' * (directions > 1)}"
    else:
        covariance = "one variance, the same in all directions"
    return _words(problem, covariance, axes)


def _words(problem: Problem, covariance: str, axes: int) -> str:
    means = f"means of {problem.labels} labels" if problem.labels > 1 else "one mean"
    labels = f"; covariances of labels along {axes} directions" if axes else ""
    return f"{means}; {covariance}{labels}; no components"


def predicted_loss(problem: Problem, rows: float) -> float:
    """Nats a row that the noise is expected to cost, from public numbers alone.

    It assumes rows whose variances along their axes fall as 1, 1/2, 1/3, ..., and labels whose
    means are spread half as widely as their rows. The loss is against the same model without noise.
    """
    allocation = allocate(problem, rows)
    d, m = problem.width, problem.labels
    variances = 1 / np.arange(1.0, d + 1)
    trace = float(variances.sum())
    scale = TIGHT**2 * trace / math.sqrt(2 * allocation.pooled) / rows
    loss = expected_loss(variances, scale, rows)
    # Noise on the sums, clipped near the rows' spread; the second measurement adds its precision.
    budget = allocation.means + allocation.second.sums
    noise = trace * (m / rows) ** 2 / (2 * budget)
    prior = _SPREAD_OF_MEANS * variances if m > 1 else np.full(d, np.inf)
    posterior = noise / (1 + noise / prior)
    return loss + 0.5 * float((posterior / variances).sum())


def _inside(problem: Problem, means: Floats) -> Floats:
    """Means (L, d) pulled back into the public bound."""
    long = np.linalg.norm(means, axis=1)
    return np.asarray(means * np.minimum(1.0, problem.norm / np.maximum(long, 1e-300))[:, None])


def _structured(
    problem: Problem, covariances: Floats | SharedCovariances
) -> Floats | SharedCovariances:
    if problem.covariance in _DIAGONAL and not isinstance(covariances, SharedCovariances):
        return np.stack([structured(problem.covariance, covariance) for covariance in covariances])
    return covariances
