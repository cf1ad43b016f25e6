"""The second measurement, along the pooled axes, in units where the rows have variance 1.

One pass asks again for the second moment of all rows, for the labels' sums where their means are
still uncertain, and for the labels' own second moments along a few leading axes. The rows are
whitened by the first measurement, so the noise is small beside every variance, not only beside the
largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import BlockPlan, Latent, Observed, PassPlan
from dpgmm_dist.model.problem import Ask, Problem
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.label_means import LabelMeans
from dpgmm_dist.model.stages.pooled_covariance import (
    LOOSE,
    TIGHT,
    PooledCovariance,
    PooledLook,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RADIUS = 1.1
"""Clipping radius of sums and of labels' second moments, over that of a white row, sqrt(p)."""
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


@dataclass(frozen=True)
class Budget:
    """Budgets (rho) of the parts of the second measurement."""

    square: float = 0.0
    """For the mean squared length of all rows."""
    pooled: float = 0.0
    """For the second moment of all rows; 0 where the noise would exceed it."""
    sums: float = 0.0
    seconds: float = 0.0
    axes: int = 0
    """Number of leading axes for second moments of labels."""
    whitened: bool = True
    """Whether rows are whitened by the first measurement; if not, all directions have one unit."""


@dataclass(frozen=True, eq=False)
class SecondLook:
    """Means of the labels along the axes, and noisy second moments about them."""

    frame: Floats
    """(d,) variances along the axes, by which rows were whitened."""
    means: Floats
    """(L, d) along the axes, relative to the centre."""
    variances: Floats
    """(L, d) posterior variances of the means."""
    moved: Floats
    """(L, d) shifts from the means that were asked about, in pooled standard deviations."""
    counts: Floats
    """(L,) noisy numbers of rows."""
    pooled: PooledLook | None
    second_axes: Ints
    """(q,) axes along which second moments of labels were measured; none without budget."""
    seconds: Floats
    """(L, q, q) noisy, per row, in pooled standard deviations, not corrected for clipping."""
    second_noise: Floats
    """(L,) standard deviation of the noise on a diagonal entry."""


def measure(
    problem: Problem,
    ask: Ask,
    location: Location,
    labels: LabelMeans,
    pooled: PooledCovariance,
    means: Floats,
    variances: Floats,
    budget: Budget,
) -> SecondLook:
    """Ask for the parts that have a budget, at least for the sums.

    Parameters
    ----------
    means, variances : (L, d) posterior means along the axes, and their posterior variances
    """
    d = problem.width
    frame = pooled.variances if budget.whitened else np.full(d, pooled.variances.mean())
    unsure = variances / frame
    chosen = _most_uncertain(unsure, labels, budget.sums)
    leading = np.arange(d - budget.axes if budget.seconds > 0 else d, d)
    order = _order(d, leading, chosen, all_axes=budget.square > 0)
    plan = _plan(problem, frame, means, budget, order, leading, chosen)
    answer = ask(plan, Latent(d, pooled.axes[:, order], location.centre))
    counts, sums = labels.counts, answer.block("sum")
    noisy, error = sums.values / counts[:, None], (sums.sigma / counts)[:, None] ** 2
    # In the order of the pass, not in that of the choice.
    start = _start(order, chosen)
    along = order[start : start + len(chosen)]
    keep = unsure[:, along] / (unsure[:, along] + error)
    moved = np.zeros_like(means)
    moved[:, along] = noisy * keep
    left = variances.copy()
    left[:, along] *= 1 - keep
    seconds = _labels(answer, len(leading))
    return SecondLook(
        frame,
        means + np.sqrt(frame) * moved,
        left,
        moved,
        counts,
        _pooled(answer, location, order, budget.pooled > 0) if budget.square > 0 else None,
        order[: len(leading)],
        seconds[0] / counts[:, None, None],
        seconds[1] / counts,
    )


def _order(d: int, leading: Ints, chosen: Ints, all_axes: bool) -> Ints:
    """The axes, first those of labels' second moments; those of sums are adjacent."""
    in_both = np.intersect1d(leading, chosen)
    parts = [np.setdiff1d(leading, in_both), in_both, np.setdiff1d(chosen, in_both)]
    if all_axes:
        parts.append(np.setdiff1d(np.arange(d), np.union1d(leading, chosen)))
    return np.concatenate(parts)


def _start(order: Ints, chosen: Ints) -> int:
    """The position at which the axes of sums begin."""
    return int(np.flatnonzero(np.isin(order, chosen))[0])


def _plan(
    problem: Problem,
    frame: Floats,
    means: Floats,
    budget: Budget,
    order: Ints,
    leading: Ints,
    chosen: Ints,
) -> PassPlan:
    q, p = len(leading), len(order)
    groups, together = np.arange(problem.labels), np.zeros(problem.labels, dtype=np.int64)
    start = _start(order, chosen)
    blocks = [
        BlockPlan(
            "sum",
            groups,
            budget.sums,
            radius=RADIUS * float(np.sqrt(len(chosen))),
            axes=(start, start + len(chosen)),
        )
    ]
    if q:
        radius = RADIUS * float(np.sqrt(q))
        blocks.append(BlockPlan("second", groups, budget.seconds, radius=radius, axes=(0, q)))
    size = float(np.sqrt(p))
    if budget.pooled > 0:
        blocks.append(BlockPlan("second", together, budget.pooled, radius=TIGHT * size))
    if budget.square > 0:
        blocks.append(BlockPlan("square", together, budget.square, radius=LOOSE * size))
    return PassPlan(
        step="moments.label",
        cell_label=groups,
        centres=means[:, order],
        radius=RADIUS * size,
        blocks=tuple(blocks),
        whiten=(1 / np.sqrt(frame[order]),),
        cell_map=together,
    )


def _labels(answer: Observed, q: int) -> tuple[Floats, Floats]:
    """Second moments of labels (L, q, q), summed, and the noise on each (L,)."""
    count = len(answer.cell_label)
    if not q:
        return np.zeros((count, 0, 0)), np.ones(count)
    block = next(block for block in answer.blocks if block.statistic == "second")
    return block.values, np.full(count, block.sigma)


def _pooled(answer: Observed, location: Location, order: Ints, has_matrix: bool) -> PooledLook:
    """The measurement of all rows together, with the axes in the order of the variances."""
    square = answer.block("square")
    trace, noise = float(square.values[0]) / location.rows, square.sigma / location.rows
    if not has_matrix:
        return PooledLook(trace, noise, None, 0.0)
    block = [block for block in answer.blocks if block.statistic == "second"][-1]
    back = np.argsort(order)
    second = block.values[0][np.ix_(back, back)] / location.rows
    return PooledLook(trace, noise, second, block.sigma / location.rows)


def _most_uncertain(unsure: Floats, labels: LabelMeans, rho: float) -> Ints:
    """The axes whose sums, asked together, are expected to reduce the error of the means most."""
    weights = labels.weights
    order = np.argsort(-(weights @ unsure), kind="stable")
    d = len(order)
    sizes = [size for size in _SIZES if size < d] + [d]
    gains = []
    for size in sizes:
        u = unsure[:, order[:size]]
        error = (RADIUS**2 * size / (2 * rho) / labels.counts**2)[:, None]
        gains.append(float((weights[:, None] * u**2 / (u + error)).sum()))
    return np.sort(order[: sizes[int(np.argmax(gains))]])
