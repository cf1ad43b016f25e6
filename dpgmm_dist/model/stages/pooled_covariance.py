"""One second moment about the labels' means, shared by all labels: its axes and its variances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.plan import BlockPlan, Latent, Observed, PassPlan
from dpgmm_dist.model.problem import Ask, Problem
from dpgmm_dist.model.spectrum import Spectrum, clean
from dpgmm_dist.model.stages.centre import Location

Floats = npt.NDArray[np.float64]

_SQUARE = 0.08
"""Share of the stage's budget for the trace."""
_SUM, _MOST_SUM = 0.08, 0.5
"""Share for a second look at the mean, where there is one mean only: the larger one where the noise
drowns the covariance altogether."""
_DROWNED = 30.0
"""Noise on the eigenvalues, in mean eigenvalues, from which it does."""
_TIGHT, _LOOSE = 0.9, 1.5
"""Clipping radii of the second moment and of the trace, over the root mean squared distance."""
_LEAST_SPREAD = 0.02
"""Of the squared norm bound."""
_OWN_VARIANCE = 1.05
"""Of the least variance, from which an axis is told apart from those that share it."""
_LEAST_CLIPPED = 0.3
"""Share of the squared length that clipping leaves at the least."""
_SURE_TRACE = 0.1
"""Noise on the second moment's own trace, in traces, up to which it is taken as it is."""


@dataclass(frozen=True, eq=False)
class PooledCovariance:
    """What all labels have in common, and the mean where there is one label."""

    spectrum: Spectrum
    """In feature units; its variances sum to the trace that was measured by itself."""
    shift: Floats
    """(d,) from the mean that was asked about to the mean; zeros with several labels."""
    shift_noise: float
    scale: float
    """Standard deviation of the noise on a diagonal entry, a row, with the variances' own trace."""

    @property
    def directions(self) -> int:
        """How many axes have a variance of their own, above the floor that the others share."""
        least = float(self.variances.min())
        return int((self.variances > _OWN_VARIANCE * least).sum())

    @property
    def axes(self) -> Floats:
        """(d, d) orthonormal columns, by increasing variance."""
        return self.spectrum.axes

    @property
    def variances(self) -> Floats:
        """(d,) along the axes."""
        return self.spectrum.variances


def measure(
    problem: Problem, ask: Ask, location: Location, means: Floats, spread: float, rho: float
) -> PooledCovariance:
    """Ask for the second moment of all rows about the means of their labels.

    Parameters
    ----------
    means : (L, d) feature units
    spread : what is known of the mean squared distance from them
    """
    bound = problem.norm**2
    size = float(np.sqrt(np.clip(spread, location.least_spread, bound)))
    tight, loose = min(_TIGHT * size, problem.norm), min(_LOOSE * size, 1.2 * problem.norm)
    together = np.zeros(problem.labels, dtype=np.int64)
    for_sum = _share_of_sum(problem, location, rho) if problem.labels == 1 else 0.0
    blocks = [
        BlockPlan("second", together, rho * (1 - _SQUARE - for_sum)),
        BlockPlan("square", together, rho * _SQUARE, radius=loose),
    ]
    if for_sum:
        blocks.append(BlockPlan("sum", together, rho * for_sum, radius=1.2 * size))
    answer = ask(
        PassPlan(
            step="moments.second",
            cell_label=np.arange(problem.labels),
            centres=means,
            radius=tight,
            blocks=tuple(blocks),
        ),
        Latent(problem.width),
    )
    rows = location.rows
    shift, noise = _shift(answer, location) if for_sum else (np.zeros(problem.width), 0.0)
    squares, second = answer.block("square"), answer.block("second")
    scale, noisy = second.sigma / rows, second.values[0] / rows
    # What the mean was off by is no variance; clipping has shortened it like the rest.
    total = max(float(squares.values[0]) / rows, _LEAST_SPREAD * bound)
    clipped = float(np.clip(np.trace(noisy) / total, _LEAST_CLIPPED, 1.0))
    noisy = noisy - clipped * np.outer(shift, shift)
    trace = total - float(shift @ shift)
    trace = float(np.clip(trace, _LEAST_SPREAD * bound, bound))
    seen = float(np.trace(noisy))
    if scale * np.sqrt(problem.width) < _SURE_TRACE * trace:
        seen = max(seen, _LEAST_CLIPPED * trace)
    else:
        seen = min(trace, tight**2)
    found = clean(noisy, scale, seen, rows)
    growth = trace / float(found.variances.sum())
    grown = Spectrum(found.axes, found.variances * growth, found.gain, found.error)
    return PooledCovariance(grown, shift, noise, scale * growth)


def _share_of_sum(problem: Problem, location: Location, rho: float) -> float:
    """Share of the budget for the mean: there is more to gain the less the covariance can tell."""
    d = problem.width
    edge = _TIGHT**2 * d * math.sqrt(2 * d) / (math.sqrt(2 * rho) * location.rows)
    return _SUM + (_MOST_SUM - _SUM) / (1 + (_DROWNED / edge) ** 8)


def _shift(answer: Observed, location: Location) -> tuple[Floats, float]:
    """How far the mean is from the centre, weighed against the noise the centre has."""
    sums = answer.block("sum")
    shift, noise = sums.values[0] / location.rows, sums.sigma / location.rows
    shown = float((shift**2).mean()) - noise**2
    prior = max(location.noise**2, shown)
    keep = prior / (prior + noise**2)
    return keep * shift, noise * float(np.sqrt(keep))
