"""One second moment about the labels' means, shared by all labels: its axes and its variances."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Problem
from dpgmm_dist.model.spectrum import Spectrum, clean
from dpgmm_dist.model.stages.centre import Location

Floats = npt.NDArray[np.float64]

SQUARE = 0.08
"""Share of a second moment's budget for its trace."""
TIGHT, LOOSE = 0.9, 1.5
"""Clipping radii of a second moment and of its trace, over the root mean squared distance."""
_LEAST_SPREAD = 0.02
"""Least trace, over the squared norm bound."""
_OWN_VARIANCE = 1.05
"""Factor over the least variance from which an axis counts as having its own variance."""
_SIZE_PRIOR = 0.25
"""Prior standard deviation of the whitened rows' mean squared length about 1."""
_LEAST_CLIPPED = 0.3
"""Least share of the squared length that clipping is assumed to leave."""
_SURE_TRACE = 0.1
"""Relative noise on the trace of the second moment itself up to which that trace is used."""


@dataclass(frozen=True, eq=False)
class PooledCovariance:
    """The covariance that all labels share."""

    spectrum: Spectrum
    """In feature units; its variances sum to the trace that was measured separately."""
    noisy: Floats
    """(d, d) the noisy second moment per row, scaled to that trace."""
    scale: float
    """Standard deviation of the noise on a diagonal entry, in units of ``measured_variances``."""
    trace_noise: float
    """Standard deviation of the noise on the trace."""
    measured_variances: Floats
    """(d,) the variances in units where the noise is the same in all directions: feature units, or
    those of the first measurement if the second one was whitened."""
    noise_is_relative: bool = False
    """Whether ``scale`` is relative to each variance: where rows were whitened before the noise."""

    @property
    def directions(self) -> int:
        """Number of axes that have their own variance, above the floor that the others share."""
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

    def scaled(self, factor: float) -> PooledCovariance:
        """The same with all variances multiplied by a factor."""
        spectrum = replace(self.spectrum, variances=factor * self.variances)
        return replace(
            self,
            spectrum=spectrum,
            noisy=factor * self.noisy,
            scale=factor * self.scale,
            trace_noise=factor * self.trace_noise,
            measured_variances=factor * self.measured_variances,
        )


@dataclass(frozen=True, eq=False)
class PooledLook:
    """The second measurement of all rows, whitened by the first."""

    trace: float
    """Noisy mean squared length."""
    trace_noise: float
    second: Floats | None
    """(d, d) noisy, per row, clipped more tightly; None where the noise would exceed it."""
    scale: float
    """Standard deviation of the noise on a diagonal entry of it."""


def measure(
    problem: Problem, ask: Ask, location: Location, means: Floats, spread: float, rho: float
) -> PooledCovariance:
    """Ask for the second moment of all rows about the means of their labels.

    Parameters
    ----------
    means : (L, d) feature units
    spread : estimate of the mean squared distance from them
    """
    bound = problem.norm**2
    size = float(np.sqrt(np.clip(spread, location.least_spread, bound)))
    tight, loose = min(TIGHT * size, problem.norm), min(LOOSE * size, 1.2 * problem.norm)
    together = np.zeros(problem.labels, dtype=np.int64)
    answer = ask(
        PassPlan(
            step="moments.second",
            cell_label=np.arange(problem.labels),
            centres=means,
            radius=tight,
            blocks=(
                BlockPlan("second", together, rho * (1 - SQUARE)),
                BlockPlan("square", together, rho * SQUARE, radius=loose),
            ),
        ),
        Latent(problem.width),
    )
    rows = location.rows
    squares, second_moment = answer.block("square"), answer.block("second")
    trace = float(np.clip(squares.values[0] / rows, _LEAST_SPREAD * bound, bound))
    noisy, scale = second_moment.values[0] / rows, second_moment.sigma / rows
    # The spectrum is that of clipped rows. It is scaled to the trace of the unclipped rows.
    clipped_trace = float(np.trace(noisy))
    if scale * np.sqrt(problem.width) < _SURE_TRACE * trace:
        clipped_trace = max(clipped_trace, _LEAST_CLIPPED * trace)
    else:
        clipped_trace = min(trace, tight**2)
    cleaned, growth = clean(noisy, scale, clipped_trace, rows), trace / clipped_trace
    grown = Spectrum(cleaned.axes, cleaned.variances * growth, cleaned.gain, cleaned.error)
    noise = scale * growth
    return PooledCovariance(grown, noisy * growth, noise, squares.sigma / rows, grown.variances)


def refined(
    first_look: PooledCovariance, look: PooledLook, moved: Floats, rows: float, whitened: bool
) -> PooledCovariance:
    """The covariance from both measurements.

    Parameters
    ----------
    moved : (d, d) mean square of the shifts of the means since the query, in its units
    whitened : whether its units are the deviations of the first measurement; if not, one unit for
        all axes
    """
    d = len(moved)
    total = max(look.trace, _LEAST_CLIPPED * d)
    # Errors of the means are not variance. Clipping has shortened them like the rest.
    trace = max(total - float(np.trace(moved)), _LEAST_CLIPPED * d)
    if look.second is None:
        # The size of a sphere follows from its trace, so only the noise on that trace is its prior.
        known = first_look.trace_noise / float(first_look.variances.sum())
        prior = np.hypot(known, _SIZE_PRIOR if first_look.directions else 0.0)
        trust = float(prior**2 / (prior**2 + (look.trace_noise / d) ** 2))
        return first_look.scaled(1 + trust * (trace / d - 1))
    sure = look.scale * np.sqrt(d) < _SURE_TRACE * total
    clipped_trace = float(np.trace(look.second)) if sure else min(total, TIGHT**2 * d)
    clipped = float(np.clip(clipped_trace / total, _LEAST_CLIPPED, 1.0))
    second_moment, scale = look.second / clipped - moved, look.scale / clipped
    if whitened:
        return _whitened(first_look, second_moment, scale, trace, rows)
    return _averaged(first_look, look, second_moment, scale, trace, rows)


def _whitened(
    first_look: PooledCovariance, second_moment: Floats, scale: float, trace: float, rows: float
) -> PooledCovariance:
    """The second measurement, shrunk toward the first."""
    deviations = np.sqrt(first_look.variances)
    cleaned = clean(second_moment, scale, trace, rows)
    relative = (cleaned.axes * cleaned.variances) @ cleaned.axes.T
    covariance = relative * np.outer(deviations, deviations)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    gain = first_look.spectrum.gain + cleaned.gain
    error = np.hypot(first_look.spectrum.error, cleaned.error)
    spectrum = Spectrum(first_look.axes @ vectors, values, gain, float(error))
    noisy = first_look.axes @ (second_moment * np.outer(deviations, deviations)) @ first_look.axes.T
    return PooledCovariance(spectrum, noisy, scale, first_look.trace_noise, cleaned.variances, True)


def _averaged(
    first_look: PooledCovariance,
    look: PooledLook,
    second_moment: Floats,
    scale: float,
    trace: float,
    rows: float,
) -> PooledCovariance:
    """Both measurements, averaged by their precision: both have one unit for all axes."""
    unit = float(first_look.variances.mean())
    first_noise, second_noise = first_look.scale**2, (scale * unit) ** 2
    second_in_units = unit * first_look.axes @ second_moment @ first_look.axes.T
    total_noise = second_noise + first_noise
    noisy = (second_noise * first_look.noisy + first_noise * second_in_units) / total_noise
    noise_of_both = float(np.sqrt(second_noise * first_noise / total_noise))
    trace_noise = unit * look.trace_noise
    precision = 1 / first_look.trace_noise**2 + 1 / trace_noise**2
    first_trace = float(first_look.variances.sum())
    weighted_trace = first_trace / first_look.trace_noise**2 + unit * trace / trace_noise**2
    spectrum = clean(noisy, noise_of_both, weighted_trace / precision, rows)
    return PooledCovariance(spectrum, noisy, noise_of_both, precision**-0.5, spectrum.variances)
