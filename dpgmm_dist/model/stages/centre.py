"""The first stage: the number of rows, their centre and their mean squared distance from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.problem import Ask, Problem

Floats = npt.NDArray[np.float64]

_COUNT, _SUM, _SQUARE = 0.2, 0.7, 0.1
"""Shares of the stage's budget."""
_LEAST_ROWS = 20.0
_LEAST_SPREAD = 0.02
"""Least spread, over the squared norm bound."""


@dataclass(frozen=True, eq=False)
class Location:
    """The centre of all rows."""

    rows: float
    """Noisy number of rows, at least 20."""
    rows_noise: float
    centre: Floats
    """(d,) feature units, shrunk toward the origin; within the norm bound."""
    noise: float
    """Standard error of each coordinate of the shrunk centre."""
    spread: float
    """Mean squared distance of the rows from the centre; at least its noise."""
    least_spread: float
    """Lower bound on mean squared distances: below it rows would be clipped at the size of the
    noise."""


def measure(problem: Problem, ask: Ask, rho: float) -> Location:
    """Ask for the number of rows, their sum and their mean squared norm."""
    labels = np.arange(problem.labels)
    together = np.zeros(problem.labels, dtype=np.int64)
    answer = ask(
        PassPlan(
            step="moments.centre",
            cell_label=labels,
            centres=np.zeros((problem.labels, problem.width)),
            radius=problem.norm,
            blocks=(
                BlockPlan("count", together, rho * _COUNT),
                BlockPlan("sum", together, rho * _SUM),
                BlockPlan("square", together, rho * _SQUARE),
            ),
        ),
        Latent(problem.width),
    )
    total, squares = answer.block("sum"), answer.block("square")
    rows = max(float(answer.block("count").values[0]), _LEAST_ROWS)
    mean, noise = total.values[0] / rows, total.sigma / rows
    length = float(mean @ mean)
    # James-Stein: a mean that is mostly noise is shrunk strongly, and its noise with it.
    kept = max(1 - problem.width * noise**2 / max(length, 1e-300), 0.0)
    mean = mean * kept
    # The shrinkage factor is itself known no better than the length of the noise.
    error = noise * float(np.sqrt(max(kept, min(np.sqrt(2 / problem.width), 1.0))))
    # True means are within the bound, and queries take no centres far outside it.
    mean = mean * min(1.0, problem.norm / max(float(np.linalg.norm(mean)), 1e-300))
    spread = float(squares.values[0]) / rows - float(mean @ mean)
    bound = problem.norm**2
    least = min(max(_LEAST_SPREAD * bound, squares.sigma / rows), bound)
    spread = float(np.clip(spread, least, bound))
    return Location(rows, answer.block("count").sigma, mean, error, spread, least)
