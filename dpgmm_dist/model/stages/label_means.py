"""Counts and means of the labels, and their posterior means along the axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Problem
from dpgmm_dist.model.stages.centre import Location

Floats = npt.NDArray[np.float64]

_COUNT = 0.05
"""Share of the stage's budget for counts."""
_RADIUS = 1.2
"""Clipping radius over the root mean squared distance from the centre."""
_LEAST_COUNT = 3.0
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_SIZES = np.geomspace(1e-9, 1.0, 37)
"""Candidates of the prior: its variance along axis j is ``size * relative_j ** power``."""
_LIKELIHOOD_TERMS = 100_000
"""Number of entries of the means that is enough to estimate the prior."""


@dataclass(frozen=True, eq=False)
class LabelMeans:
    """Noisy counts and means of the labels, about the centre."""

    counts: Floats
    """(L,) noisy numbers of rows, at least 3."""
    count_noise: float
    means: Floats
    """(L, d) feature units, relative to the centre; not shrunk."""
    noise: Floats
    """(L,) standard deviation of the noise on each coordinate of a mean."""
    radius: float

    @property
    def weights(self) -> Floats:
        """(L,) shares of the rows."""
        return np.asarray(self.counts / self.counts.sum())


def measure(problem: Problem, ask: Ask, location: Location, rho: float) -> LabelMeans:
    """Ask for the labels' counts and sums about the centre."""
    labels = np.arange(problem.labels)
    radius = min(_RADIUS * float(np.sqrt(location.spread)), problem.norm)
    answer = ask(
        PassPlan(
            step="moments.sum",
            cell_label=labels,
            centres=np.tile(location.centre, (problem.labels, 1)),
            radius=radius,
            blocks=(
                BlockPlan("count", labels, rho * _COUNT),
                BlockPlan("sum", labels, rho * (1 - _COUNT)),
            ),
        ),
        Latent(problem.width),
    )
    counts, sums = answer.block("count"), answer.block("sum")
    rows = np.maximum(counts.values, _LEAST_COUNT)
    return LabelMeans(rows, counts.sigma, sums.values / rows[:, None], sums.sigma / rows, radius)


def without_labels(location: Location) -> LabelMeans:
    """The one mean of rows without labels: the centre."""
    zero = np.zeros((1, len(location.centre)))
    noise = np.array([location.noise])
    return LabelMeans(np.array([location.rows]), location.rows_noise, zero, noise, 0.0)


def posterior(means: Floats, noise: Floats, variances: Floats) -> tuple[Floats, Floats]:
    """Means along some axes given their noise: posterior means and variances, both (L, p).

    The prior is Gaussian about the overall mean; its variance along an axis is a multiple of a
    power of the variance that rows have there. The multiple and the power maximise the marginal
    likelihood.

    Parameters
    ----------
    means : (L, p) noisy
    noise : (L,) standard deviation of the noise on each entry
    variances : (p,) of the rows within a label
    """
    known = 1 / noise[:, None] ** 2
    middle = (known * means).sum(axis=0) / known.sum()
    apart, relative = means - middle, variances / variances.mean()
    stride = max(1, apart.size // _LIKELIHOOD_TERMS)
    square = (apart**2).ravel()[::stride]
    error = np.repeat(noise**2, apart.shape[1])[::stride]
    along = np.tile(relative, len(apart))[::stride]
    best, prior = -np.inf, np.zeros_like(relative)
    for power in _POWERS:
        for size in _SIZES * max(float(variances.max()), float((apart**2).max())):
            spread = size * along**power + error
            likelihood = -0.5 * float((np.log(spread) + square / spread).sum())
            if likelihood > best:
                best, prior = likelihood, size * relative**power
    keep = prior / (prior + noise[:, None] ** 2)
    return middle + keep * apart, keep * noise[:, None] ** 2
