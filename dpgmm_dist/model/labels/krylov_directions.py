"""Few rows for the dimension: covariances only along directions that discriminate labels.

Noise on a second moment in p dimensions is larger than all but its strongest directions. But the
discriminant of two labels with means m and a covariance S is ``S^-1 (m_1 - m_0)``. Conjugate
gradients find it in the span of ``q = m_1 - m_0, S q, S S q, ...``, nearly so in the first two. A
product with S needs no matrix: for Gaussian rows z about their mean

    E sign(q . z) z = sqrt(2 / pi) S q / sqrt(q . S q),

a sum of one vector a row. Cells are the two sides of each label's mean; those on the far side
are mapped by -1, so that two labels add up to one sum with the noise of one.

With two labels, `model.labels.discriminant_moments` adds one more direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import component_radius, whitened_radius
from dpgmm_dist.model.labels.discriminant_moments import tail_difference
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Centre, Fitted, Problem
from dpgmm_dist.model.shrinkage import (
    floor_eigenvalues,
    noise_energy,
    structured,
    toward,
    whitener,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PRODUCTS = ("components.1", "components.2")
_TAIL_STEP = "components.2"
_AFTER_TAIL_STEP = "subspace.2"
_COUNT_SHARE = 0.1
_MEANS_SHARE = 0.2
"""Share of a subspace pass that measures the labels' means again along the directions: the noise on
the earlier means influenced the choice of the directions."""
_RADIUS = 1.06
"""Clipping radius about a mean over the root mean squared distance. In high dimension distances
hardly differ, and clipped rows keep their direction."""
_TWO_SIDED = math.sqrt(2 / math.pi)
"""Mean absolute value of a standard normal number."""
_WIDER = 1.5
"""Variance along S q over that along q. A guess, which only sets a scale."""
_MOST_DIRECTIONS = 20
"""Largest number of directions."""
_LEAST_OF_NORM = 1e-6
_LEAST_EIGENVALUE = 0.05


@dataclass(frozen=True, eq=False)
class _Means:
    """Counts and means of each label."""

    mass: Floats
    """(L,) noisy rows, positive."""
    count_noise: float
    means: Floats
    """(L, p) latent."""
    noise: Floats
    """(L,) standard deviation of the noise on each coordinate of a mean."""


def fit(problem: Problem, ask: Ask, centre: Centre, budget: dict[str, float]) -> Fitted:
    """One component per label: a mean, and a covariance in few directions, spherical elsewhere."""
    labels = _means(problem, ask, centre, budget["cells.1"])
    # One variance for all labels: in p dimensions a false difference outweighs all else.
    variance = float(np.trace(centre.pooled)) / len(centre.pooled)
    turned = problem.labels == 2 and budget.get(_AFTER_TAIL_STEP, 0.0) > 0
    steps = _PRODUCTS[:1] if turned else _PRODUCTS
    shares = [budget[step] for step in steps if budget[step] > 0]
    axes, guess = _directions(ask, centre, labels, variance, shares)
    labels, inside = _inside_axes(ask, centre, labels, axes, np.diag(guess), "subspace.1", budget)
    if turned:
        axes, shape = _with_tail_direction(ask, centre, labels, variance, axes, inside, budget)
        labels, inside = _inside_axes(ask, centre, labels, axes, shape, _AFTER_TAIL_STEP, budget)
    labels = replace(labels, means=_bounded(problem, centre.latent, labels.means))
    mixture = _mixture(problem, centre, labels, variance, axes, inside)
    noise = np.broadcast_to(labels.noise[:, None], mixture.means.shape)
    return Fitted(
        mixture=mixture,
        errors=StandardErrors(
            weights=labels.count_noise / labels.mass * mixture.weights,
            means=np.ascontiguousarray(noise),
            covariances=np.full(mixture.covariances.shape, np.inf),
        ),
        latent=centre.latent,
        residual_variance=centre.residual_variance,
        rows=centre.total,
        notes={
            "structure": (
                f"means of {problem.labels} labels; one variance, and covariances along "
                f"{axes.shape[1]} directions that tell labels apart; no components"
            ),
            "second_moments": "along the directions that tell labels apart",
            "directions": axes.shape[1],
            "components_per_label": [1] * problem.labels,
            "components_choice": "by the noise on second moments (docs/method.md)",
            "error_bars": {
                "weights": "approximate",
                # Along the directions they were measured again, with less noise.
                "means": "approximate",
                "covariances": "not known: shrunk without a closed form",
            },
        },
    )


def _radius(centre: Centre) -> float:
    return _RADIUS * math.sqrt(float(np.trace(centre.pooled)))


def _means(problem: Problem, ask: Ask, centre: Centre, rho: float) -> _Means:
    """Counts and sums about the first means; counts are averaged with the first by precision."""
    labels, p = np.arange(problem.labels), centre.means.shape[1]
    answer = ask(
        PassPlan(
            step="cells.1",
            cell_label=labels,
            centres=centre.means,
            radius=_radius(centre),
            blocks=(
                BlockPlan("count", labels, rho * _COUNT_SHARE),
                BlockPlan("sum", labels, rho * (1 - _COUNT_SHARE)),
            ),
            whiten=(np.eye(p),),
            cell_map=np.zeros(problem.labels, dtype=np.int64),
        ),
        centre.latent,
    )
    counts, sums = answer.block("count"), answer.block("sum")
    # Two counts of the same rows.
    trust = 1 / (1 + (counts.sigma / centre.rows_sigma) ** 2)
    mass = centre.rows + trust * (counts.values - centre.rows)
    mass = np.maximum(mass, max(counts.sigma, 1.0))
    shift = sums.values / mass[:, None]
    length = np.linalg.norm(shift, axis=1)
    shift *= np.minimum(1.0, answer.radius / np.maximum(length, 1e-300))[:, None]
    means = _bounded(problem, centre.latent, answer.centres + shift)
    return _Means(mass, counts.sigma, means, sums.sigma / mass)


def _bounded(problem: Problem, latent: Latent, means: Floats) -> Floats:
    """Means (L, p) within the norm bound of rows."""
    z = latent.to_features(means)
    z *= np.minimum(1.0, problem.norm / np.maximum(np.linalg.norm(z, axis=1), 1e-300))[:, None]
    return latent.to_latent(z)


def _directions(
    ask: Ask, centre: Centre, labels: _Means, variance: float, shares: list[float]
) -> tuple[Floats, Floats]:
    """Orthonormal directions (p, q) that discriminate labels, and a guess of the variances (q,)."""
    p = len(labels.means[0])
    unit = _apart(labels)
    # With many labels, those of the labels with most rows: each direction adds noise to others.
    most = max(min(_MOST_DIRECTIONS, p) // (1 + len(shares)), 1)
    kept = np.sort(np.argsort(-labels.mass, kind="stable")[:most])[: 1 if len(unit) == 2 else None]
    axes, guess = [unit[kept]], [np.empty(0)]
    wide = np.full(len(kept), variance)
    for step, rho in zip(_PRODUCTS, shares, strict=False):
        sums, spread, signal = _product(ask, centre, labels, unit, variance, step, rho)
        guess.append(np.maximum(spread[kept], wide))
        # The part of a product with S that is not noise points along wide axes of S.
        wide = variance + signal[kept] * np.maximum(_WIDER * spread[kept] - variance, 0.0)
        basis, _ = np.linalg.qr(np.concatenate(axes).T)
        sums -= (sums @ basis) @ basis.T
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-300)
        unit = np.broadcast_to(sums, unit.shape)
        axes.append(sums[kept])
    basis, _ = np.linalg.qr(np.concatenate(axes).T)
    return basis, np.concatenate([*guess, wide])


def _product(
    ask: Ask,
    centre: Centre,
    labels: _Means,
    unit: Floats,
    variance: float,
    step: str,
    rho: float,
) -> tuple[Floats, Floats, Floats]:
    """Sums of rows signed by their side of the mean along unit vectors (L, p), across them.

    Also the variance along each vector (G,) and the share of the sum's energy that is not noise.
    """
    count, p = labels.means.shape
    # The mean of a coordinate on either side: rows about it are shortest.
    half = _TWO_SIDED * math.sqrt(variance)
    label = np.repeat(np.arange(count), 2)
    group = label * 0 if count == 2 else label
    # In one sum, a label of many rows would dominate one of few rows.
    weight = np.sqrt(labels.mass.min() / labels.mass) if count == 2 else np.ones(count)
    side = np.tile([-1.0, 1.0], count)
    plan = PassPlan(
        step=step,
        cell_label=label,
        centres=labels.means[label] + (half * side)[:, None] * unit[label],
        radius=_radius(centre),
        blocks=(BlockPlan("sum", group, rho),),
        whiten=tuple(sign * scale * np.eye(p) for scale in np.unique(weight) for sign in (-1, 1)),
        cell_map=2 * np.searchsorted(np.unique(weight), weight)[label] + (side > 0),
        rule="nearest",
    )
    answer = ask(plan, centre.latent)
    block = answer.block("sum")
    whole = answer.unwhiten[2 * int(weight.argmax()) + 1]
    sums, noise = block.values @ whole.T, block.sigma * whole[0, 0]
    along_units, rows = unit[: len(sums)], np.bincount(group, (weight * labels.mass)[label]) / 2
    along = np.einsum("gp,gp->g", sums, along_units)
    sums = sums - along[:, None] * along_units
    spread = (np.maximum(along / rows + half, half) / _TWO_SIDED) ** 2
    signal = 1 - p * noise**2 / np.maximum((sums**2).sum(axis=1), 1e-300)
    return sums, spread, np.clip(signal, 0.0, 1.0)


def _apart(labels: _Means) -> Floats:
    """Unit vectors (L, p) along which each label differs from the others; of two labels, one."""
    share = labels.mass / labels.mass.sum()
    apart = labels.means - share @ labels.means
    if len(apart) == 2:
        apart = np.repeat(apart[1:] - apart[:1], 2, axis=0)
    apart = apart + 0.0
    length = np.linalg.norm(apart, axis=1)
    coincides = length < _LEAST_OF_NORM * max(float(np.abs(labels.means).max()), 1e-300)
    apart[coincides] = np.eye(len(apart[0]))[0]
    return np.asarray(apart / np.linalg.norm(apart, axis=1, keepdims=True))


def _with_tail_direction(
    ask: Ask,
    centre: Centre,
    labels: _Means,
    variance: float,
    axes: Floats,
    inside: Floats,
    budget: dict[str, float],
) -> tuple[Floats, Floats]:
    """One direction more (p, q + 1), and a guess of the covariance (q + 1, q + 1) along all."""
    means, q = labels.means @ axes, axes.shape[1]
    # Labels have equal weights: the tail of a rare one matters as much.
    shape = inside.mean(axis=0)
    inner = np.linalg.solve(shape, means[1] - means[0])
    length = float(np.linalg.norm(inner))
    inner = inner / length if length > 0 else np.eye(q)[0]
    deviations = np.sqrt(np.einsum("i,lij,j->l", inner, inside, inner))
    normal = axes @ inner
    found, noise = tail_difference(
        ask,
        centre.latent,
        _TAIL_STEP,
        labels.means,
        normal,
        deviations,
        _radius(centre),
        budget[_TAIL_STEP],
    )
    signal = 1 - len(found) * noise**2 / max(float(found @ found), 1e-300)
    found = found - axes @ (axes.T @ found)
    found /= max(float(np.linalg.norm(found)), 1e-300)
    out = np.eye(q + 1)
    out[:q, :q] = shape
    wide = _WIDER * float((deviations**2).mean())
    out[q, q] = variance + max(signal, 0.0) * max(wide - variance, 0.0)
    return np.concatenate([axes, found[:, None]], axis=1), out


def _inside_axes(
    ask: Ask,
    centre: Centre,
    labels: _Means,
    axes: Floats,
    guess: Floats,
    step: str,
    budget: dict[str, float],
) -> tuple[_Means, Floats]:
    """Covariances (L, q, q) in the directions, each shrunk toward that of all labels together.

    ``guess`` (q, q) sets the units. Also the labels, with means that this pass has moved along the
    directions.
    """
    count, q = len(labels.mass), axes.shape[1]
    label_index = np.arange(count)
    basis = axes if centre.latent.basis is None else centre.latent.basis @ axes
    plan = PassPlan(
        step=step,
        cell_label=label_index,
        centres=labels.means @ axes,
        # The radius is tighter where the units were measured before.
        radius=component_radius(q) if step == _AFTER_TAIL_STEP else whitened_radius(q),
        blocks=(
            BlockPlan("sum", label_index, budget[step] * _MEANS_SHARE),
            BlockPlan("second", label_index, budget[step] * (1 - _MEANS_SHARE)),
        ),
        whiten=(whitener(guess),),
        cell_map=label_index * 0,
    )
    answer = ask(plan, Latent(centre.latent.width, basis, centre.latent.offset))
    block = answer.block("second")
    moved = answer.block("sum").values / labels.mass[:, None]
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    moved = moved * np.minimum(1.0, answer.radius / np.maximum(length, 1e-300))
    # Second moments are about the earlier means.
    second = block.values / labels.mass[:, None, None] - moved[:, :, None] * moved[:, None, :]
    means = labels.means + np.einsum("lij,lj->li", answer.unwhiten, moved) @ axes.T
    together, _ = toward(
        np.einsum("l,lij->ij", labels.mass / labels.mass.sum(), second),
        np.eye(q),
        noise_energy(q, block.sigma * math.sqrt(count) / labels.mass.sum()),
    )
    out = np.empty((count, q, q))
    for label, unwhiten in enumerate(answer.unwhiten):
        noise = block.sigma / labels.mass[label]
        shrunk, _ = toward(second[label], together, noise_energy(q, noise))
        floored = floor_eigenvalues(shrunk, _LEAST_EIGENVALUE, answer.radius**2)
        out[label] = unwhiten @ floored @ unwhiten.T
    return replace(labels, means=means), out


def _mixture(
    problem: Problem,
    centre: Centre,
    labels: _Means,
    variance: float,
    axes: Floats,
    inside: Floats,
) -> Mixture:
    """Spherical outside the directions: the rest of the trace is shared out evenly."""
    p, q = axes.shape
    share = labels.mass / labels.mass.sum()
    covariances = np.empty((len(inside), p, p))
    within = float(share @ np.trace(inside, axis1=1, axis2=2))
    rest = max(p * variance - within, 0.25 * p * variance) / max(p - q, 1)
    for label, along_axes in enumerate(inside):
        whole = rest * (np.eye(p) - axes @ axes.T) + axes @ along_axes @ axes.T
        covariances[label] = (whole + whole.T) / 2
    if problem.covariance == "tied":
        covariances[:] = np.einsum("l,lij->ij", share, covariances)
    return Mixture(
        weights=share,
        means=labels.means,
        covariances=np.stack([structured(problem.covariance, c) for c in covariances]),
        labels=np.arange(len(share)),
        label_values=problem.label_values,
    )
