"""High dimension: components of a label share a covariance, and differ in weight and mean.

Where a component's second moment would be mostly noise, the budget is better spent on one
covariance a label and on the counts and sums of many cells. Rows are assigned to the nearest cell
and clipped in the half-whitened metric (``pooled**-1/4``): structure in wide directions counts, and
narrow directions are not lost in noise. A label's covariance about its mean, less the covariance of
its cells' means, is the covariance within each of its cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.seeding import kmeans_centres
from dpgmm_dist.model.label_budget import adapted, components_per_label, label_edge
from dpgmm_dist.model.labels import cell_covariances, label_moments
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.pass_plan import BlockPlan, Observed, PassPlan
from dpgmm_dist.model.problem import Ask, Centre, Fitted, Problem
from dpgmm_dist.model.shrinkage import (
    floor_eigenvalues,
    kept_signal,
    structured,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_DIMENSION = 25
"""Dimension from which labelled releases use this fit."""
_METRIC_POWER = 0.5
_DRAWS = 3000
_COUNT_SHARE = 0.1
_RADIUS_QUANTILE = 0.9
_LEAST_WITHIN = 0.05
"""Floor on variances within cells, in units of the label's own."""
_MOST_POOLED, _HALF_POOLED = 0.55, 0.3
"""Largest share of the average covariance in that of each cell; and the edge of a label's
covariance at which the share is half as large."""


@dataclass(frozen=True, eq=False)
class _Axes:
    """Principal axes of the pooled covariance, widest first, and the metric along them."""

    vectors: Floats
    values: Floats
    bands: Ints
    """(p,) band of each axis: means are shrunk band by band."""

    @classmethod
    def of(cls, pooled: Floats) -> _Axes:
        values, vectors = np.linalg.eigh(pooled)
        return cls(vectors[:, ::-1].copy(), values[::-1].copy(), _bands(len(values)))

    def power(self, exponent: float) -> Floats:
        """The pooled covariance to a power (p, p)."""
        out = (self.vectors * self.values**exponent) @ self.vectors.T
        return np.asarray((out + out.T) / 2)

    @property
    def unit(self) -> float:
        """The root mean square of a coordinate in the metric, before it is made 1."""
        return math.sqrt(float((self.values ** (1 - _METRIC_POWER)).mean()))

    @property
    def metric(self) -> Floats:
        """The map (p, p) to coordinates in which rows are compared, of about unit variance."""
        return self.power(-_METRIC_POWER / 2) / self.unit

    @property
    def unmetric_squared(self) -> Floats:
        """The covariance (p, p) of noise that is white in the metric, latent units."""
        return self.power(_METRIC_POWER) * self.unit**2


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells of all labels, with their noisy counts and means."""

    label: Ints
    centres: Floats
    """(C, p) latent."""
    mass: Floats
    """(C,) noisy rows, positive."""
    mean_noise: Floats
    """(C,) standard deviation of the noise on each mean, in the metric's units."""
    count_noise: float = 0.0


def fit(problem: Problem, ask: Ask, centre: Centre, budget: dict[str, float]) -> Fitted:
    """Two rounds of noisy k-means in each label, then a mixture with one covariance a label."""
    budget = adapted(problem, budget, centre.rows)
    axes = _Axes.of(centre.pooled)
    metric = axes.metric
    chosen = components_per_label(problem, centre.rows, len(metric), budget["components.1"])
    cells, radius = _seed(centre, metric, chosen)
    for step in ("cells.1", "components.1"):
        answer = ask(_plan(cells, metric, radius, step, budget[step]), centre.latent)
        cells = _moved(problem, centre, axes, cells, answer)
    centre = _remeasured(problem, ask, centre, cells, axes, budget["subspace.1"])
    covariances = _within(problem, centre, axes, cells)
    of_cells = covariances[cells.label]
    if budget["components.2"] > 0:
        of_cells = cell_covariances.measured(
            ask, centre, cells, covariances, metric, budget["components.2"]
        )
    of_cells = _toward_average(of_cells, cells.mass, label_edge(problem, centre.rows))
    mixture = _mixture(problem, centre, cells, of_cells)
    return Fitted(
        mixture=mixture,
        errors=_errors(axes, cells, mixture),
        latent=centre.latent,
        residual_variance=centre.residual_variance,
        rows=centre.total,
        notes={
            "structure": (
                f"{chosen.min()} to {chosen.max()} components for each of {problem.labels} labels; "
                "a covariance for each label, along the directions in which they differ"
            ),
            "second_moments": "component" if budget["components.2"] > 0 else "label",
            "components_per_label": chosen.tolist(),
            "components_choice": (
                "as specified"
                if isinstance(problem.components, int)
                else "by the noise on their means (docs/method.md)"
            ),
            "error_bars": {
                "weights": "approximate",
                "means": "approximate",
                "covariances": "not known: shrunk without a closed form",
            },
        },
    )


def _remeasured(
    problem: Problem,
    ask: Ask,
    centre: Centre,
    cells: _Cells,
    axes: _Axes,
    rho: float,
) -> Centre:
    """Label means from the cells, and label covariances measured again where cells differ most."""
    weights = cells.mass / cells.mass.sum()
    noise = cells.mean_noise * math.sqrt(float(np.diagonal(axes.unmetric_squared).mean()))
    found = label_moments.directions(cells.centres, weights, noise)
    better = _with_means(problem, centre, cells)
    # The covariances of the labels so far.
    guess = centre.covariances.copy()
    covariances = label_moments.remeasured(ask, better, guess, found, rho)
    return replace(better, covariances=covariances)


def _with_means(problem: Problem, centre: Centre, cells: _Cells) -> Centre:
    """The centre with label means that follow from the cells."""
    members = [cells.label == label for label in range(problem.labels)]
    means = [np.average(cells.centres[m], axis=0, weights=cells.mass[m]) for m in members]
    return replace(centre, means=np.stack(means))


def _bands(p: int) -> Ints:
    """Axes 0-3, 4-7, then bands half as long as all before them."""
    out = np.zeros(p, dtype=np.int64)
    start, band = 0, 0
    while start < p:
        stop = start + max(4, start // 2)
        out[start:stop] = band
        start, band = stop, band + 1
    return out


def _seed(centre: Centre, metric: Floats, chosen: Ints) -> tuple[_Cells, float]:
    """k-means centres of draws from each label's Gaussian; a radius most draws are within."""
    inverse = np.linalg.inv(metric)
    rng = np.random.Generator(np.random.Philox(5))
    centres: list[Floats] = []
    lengths: list[Floats] = []
    for label, count in enumerate(chosen.tolist()):
        factor = np.linalg.cholesky(centre.covariances[label])
        draws = centre.means[label] + rng.standard_normal((_DRAWS, len(metric))) @ factor.T
        draws = draws @ metric
        found, index = kmeans_centres(draws, count, 3 + label)
        lengths.append(np.linalg.norm(draws - found[index], axis=1))
        centres.append(found @ inverse)
    radius = float(np.quantile(np.concatenate(lengths), _RADIUS_QUANTILE))
    size = int(chosen.sum())
    cells = _Cells(
        label=np.repeat(np.arange(len(chosen)), chosen),
        centres=np.concatenate(centres),
        mass=np.repeat(centre.rows / chosen, chosen),
        mean_noise=np.zeros(size),
    )
    return cells, max(radius, 1e-300)


def _plan(cells: _Cells, metric: Floats, radius: float, step: str, rho: float) -> PassPlan:
    groups = np.arange(len(cells.label))
    return PassPlan(
        step=step,
        cell_label=cells.label,
        centres=cells.centres,
        radius=radius,
        blocks=(
            BlockPlan("count", groups, rho * _COUNT_SHARE),
            BlockPlan("sum", groups, rho * (1 - _COUNT_SHARE)),
        ),
        whiten=(metric,),
        cell_map=np.zeros(len(groups), dtype=np.int64),
        rule="nearest",
        metric=metric,
    )


def _moved(
    problem: Problem, centre: Centre, axes: _Axes, cells: _Cells, answer: Observed
) -> _Cells:
    """Cells moved to the noisy means of their rows, shrunk toward the centres in each band of axes.

    The prior of a shift has mean zero and a variance estimated from all cells' shifts in the band
    (empirical Bayes). This also weighs the pass against the one that placed the centres.
    """
    counts, sums = answer.block("count"), answer.block("sum")
    mass = np.maximum(counts.values, max(counts.sigma, 1.0))
    shift = sums.values / mass[:, None] @ axes.vectors
    noise = sums.sigma / mass
    for band in range(int(axes.bands.max()) + 1):
        in_band = axes.bands == band
        signal = kept_signal(shift[:, in_band], noise)
        shift[:, in_band] *= (signal / (signal + noise**2 + 1e-300))[:, None]
    length = np.linalg.norm(shift, axis=1)
    shift *= np.minimum(1.0, answer.radius / np.maximum(length, 1e-300))[:, None]
    means = answer.centres + shift @ axes.vectors.T @ answer.unwhiten[0].T
    return _Cells(
        label=cells.label,
        centres=_inside(problem, centre, means),
        mass=np.maximum(counts.values, 0.1 * mass),
        mean_noise=noise,
        count_noise=counts.sigma,
    )


def _inside(problem: Problem, centre: Centre, means: Floats) -> Floats:
    """Means (C, p) moved into the public bound."""
    z = centre.latent.to_features(means)
    long = np.linalg.norm(z, axis=1)
    z *= np.minimum(1.0, problem.norm / np.maximum(long, 1e-300))[:, None]
    return centre.latent.to_latent(z)


def _within(problem: Problem, centre: Centre, axes: _Axes, cells: _Cells) -> Floats:
    """Covariance inside the cells of each label (L, p, p): the label's less its cells' spread."""
    white, back = axes.power(-0.5), axes.power(0.5)
    out = np.empty_like(centre.covariances)
    for label, covariance in enumerate(centre.covariances):
        members = cells.label == label
        share = cells.mass[members] / cells.mass[members].sum()
        apart = cells.centres[members] - share @ cells.centres[members]
        left = white @ (covariance - apart.T @ (apart * share[:, None])) @ white
        size = float(np.trace(white @ covariance @ white)) / len(white)
        left = back @ floor_eigenvalues(left, _LEAST_WITHIN * size) @ back
        out[label] = (left + left.T) / 2
    if problem.covariance == "tied":
        out[:] = np.einsum("l,lij->ij", centre.rows / centre.rows.sum(), out)
    return out


def _toward_average(covariances: Floats, mass: Floats, noise: float) -> Floats:
    """Covariances (C, p, p) of cells, each with a share of their average.

    A label's covariance less that of its cells' means is too narrow in some directions, because of
    the noise. Too narrow directions lower the likelihood most.
    """
    share = _MOST_POOLED * noise / (noise + _HALF_POOLED)
    average = np.einsum("c,cij->ij", mass / mass.sum(), covariances)
    return np.asarray((1 - share) * covariances + share * average)


def _mixture(problem: Problem, centre: Centre, cells: _Cells, covariances: Floats) -> Mixture:
    """Cells as components; each label has the share of the rows the first pass counted."""
    inside = np.bincount(cells.label, cells.mass, minlength=problem.labels)
    share = centre.rows / centre.rows.sum()
    return Mixture(
        weights=cells.mass / inside[cells.label] * share[cells.label],
        means=cells.centres,
        covariances=np.stack([structured(problem.covariance, c) for c in covariances]),
        labels=cells.label,
        label_values=problem.label_values,
    )


def _errors(axes: _Axes, cells: _Cells, mixture: Mixture) -> StandardErrors:
    """Standard errors of weights and means from the known noise, before shrinkage.

    Covariances here are estimates shrunk with no closed form: their error is left unstated.
    """
    back = axes.unmetric_squared
    means = cells.mean_noise[:, None] * np.sqrt(np.diagonal(back))
    weights = cells.count_noise / np.maximum(cells.mass, 1.0) * mixture.weights
    unknown = np.full(mixture.covariances.shape, np.inf)
    return StandardErrors(weights=weights, means=means, covariances=unknown)
