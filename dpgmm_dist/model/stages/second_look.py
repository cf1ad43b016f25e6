"""A second look at the labels, along the axes of what they have in common.

Their sums once more, where the means are still uncertain, and their second moments in a few leading
axes; both whitened, so that noise is small beside the variance it meets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Problem
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.label_means import LabelMeans
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_RADIUS = 1.1
"""Clipping radius of the sums over that of a white row, sqrt(p)."""
_SECOND_RADIUS = 1.1
_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


@dataclass(frozen=True)
class Budget:
    """What the second look may cost (rho)."""

    sums: float
    seconds: float
    axes: int
    """Number of leading axes for second moments."""


@dataclass(frozen=True, eq=False)
class SecondLook:
    """Means of the labels along the axes, and noisy second moments about them."""

    means: Floats
    """(L, d) along the axes, relative to the centre."""
    variances: Floats
    """(L, d) posterior variances of the means."""
    second_axes: Ints
    """(q,) axes along which second moments were measured; none where there was no budget."""
    seconds: Floats
    """(L, q, q) noisy, a row, in units of the pooled standard deviations, as clipped."""
    second_noise: Floats
    """(L,) standard deviation of the noise on a diagonal entry."""
    counts: Floats
    """(L,) noisy numbers of rows."""


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
    """Ask again for sums, and for second moments in leading axes, where there is budget.

    Parameters
    ----------
    means, variances : (L, d) posterior means along the axes, and their posterior variances
    """
    d = problem.width
    leading = np.arange(d - budget.axes if budget.seconds > 0 else d, d)
    unsure = variances / pooled.variances
    chosen = np.zeros(0, dtype=np.int64)
    if budget.sums > 0:
        chosen = _most_uncertain(unsure, labels, budget.sums)
    if not len(leading) and not len(chosen):
        nothing = np.zeros((problem.labels, 0, 0))
        return SecondLook(
            means, variances, leading, nothing, np.ones(problem.labels), labels.counts
        )
    # Axes of second moments first, those of sums last, so that each block sees a contiguous part.
    both = np.intersect1d(leading, chosen)
    order = np.concatenate([np.setdiff1d(leading, both), both, np.setdiff1d(chosen, both)])
    deviations = np.sqrt(pooled.variances[order])
    groups = np.arange(problem.labels)
    blocks, q = [], len(leading)
    if len(chosen):
        radius = _RADIUS * float(np.sqrt(len(chosen)))
        axes = (len(order) - len(chosen), len(order))
        blocks.append(BlockPlan("sum", groups, budget.sums, radius=radius, axes=axes))
    if q:
        radius = _SECOND_RADIUS * float(np.sqrt(q))
        blocks.append(BlockPlan("second", groups, budget.seconds, radius=radius, axes=(0, q)))
    answer = ask(
        PassPlan(
            step="moments.label",
            cell_label=groups,
            centres=means[:, order],
            radius=_RADIUS * float(np.sqrt(len(order))),
            blocks=tuple(blocks),
            whiten=(np.diag(1 / deviations),),
            cell_map=np.zeros(problem.labels, dtype=np.int64),
        ),
        Latent(d, pooled.axes[:, order], location.centre),
    )
    counts = labels.counts
    if len(chosen):
        sums = answer.block("sum")
        along = order[len(order) - len(chosen) :]
        moved, error = sums.values / counts[:, None], (sums.sigma / counts)[:, None] ** 2
        keep = unsure[:, along] / (unsure[:, along] + error)
        means, variances = means.copy(), variances.copy()
        means[:, along] += np.sqrt(pooled.variances[along]) * moved * keep
        variances[:, along] *= 1 - keep
    if not q:
        nothing = np.zeros((problem.labels, 0, 0))
        return SecondLook(
            means, variances, leading, nothing, np.ones(problem.labels), labels.counts
        )
    seconds = answer.block("second")
    return SecondLook(
        means,
        variances,
        order[:q],
        seconds.values / counts[:, None, None],
        seconds.sigma / counts,
        counts,
    )


def _most_uncertain(unsure: Floats, labels: LabelMeans, rho: float) -> Ints:
    """The axes whose sums, asked together, are expected to reduce the error of the means most."""
    weights = labels.weights
    order = np.argsort(-(weights @ unsure), kind="stable")
    d = len(order)
    sizes = [size for size in _SIZES if size < d] + [d]
    gains = []
    for size in sizes:
        u = unsure[:, order[:size]]
        error = (_RADIUS**2 * size / (2 * rho) / labels.counts**2)[:, None]
        gains.append(float((weights[:, None] * u**2 / (u + error)).sum()))
    return np.sort(order[: sizes[int(np.argmax(gains))]])
