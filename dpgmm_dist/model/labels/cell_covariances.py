"""A covariance for each cell, where rows are many enough for it, cleaned of the known noise."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import clipped_share, whitened_radius
from dpgmm_dist.model.pass_plan import BlockPlan, PassPlan
from dpgmm_dist.model.problem import Ask, Centre
from dpgmm_dist.model.shrinkage import floor_eigenvalues, rotation_invariant, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_EIGENVALUE = 0.05
_TRACE_PRIOR = 0.3


class Cells(Protocol):
    """Where cells are and how many rows they have."""

    @property
    def label(self) -> Ints:
        """(C,)"""

    @property
    def centres(self) -> Floats:
        """(C, p) latent."""

    @property
    def mass(self) -> Floats:
        """(C,) noisy rows, positive."""


def measured(
    ask: Ask, centre: Centre, cells: Cells, within: Floats, metric: Floats, rho: float
) -> Floats:
    """Covariance of each cell (C, p, p), from second moments in units of its label's covariance.

    Parameters
    ----------
    within : (L, p, p) covariance inside the cells of each label, which estimates shrink toward
    metric : (p, p) the map in which rows find their nearest cell
    """
    p = len(metric)
    groups = np.arange(len(cells.label))
    radius = whitened_radius(p)
    plan = PassPlan(
        step="components.2",
        cell_label=cells.label,
        centres=cells.centres,
        radius=radius,
        blocks=(BlockPlan("second", groups, rho),),
        whiten=tuple(whitener(covariance) for covariance in within),
        cell_map=cells.label,
        rule="nearest",
        metric=metric,
    )
    answer = ask(plan, centre.latent)
    block = answer.block("second")
    kept = clipped_share(p, radius)
    out = np.empty_like(block.values)
    for cell, count in enumerate(cells.mass):
        scale = block.sigma / count / kept
        noisy = block.values[cell] / count / kept
        doubt = 1 - 1 / (1 + (scale / _TRACE_PRIOR) ** 2 / p)
        noisy = noisy + np.eye(p) * doubt * (1 - float(np.trace(noisy)) / p)
        held = floor_eigenvalues(rotation_invariant(noisy, scale), _LEAST_EIGENVALUE, radius**2)
        unwhiten = answer.unwhiten[cell]
        covariance = unwhiten @ held @ unwhiten.T
        out[cell] = (covariance + covariance.T) / 2
    return out
