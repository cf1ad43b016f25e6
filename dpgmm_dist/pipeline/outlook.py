"""The expected loss of a release from its noise, and what would lower it.

Everything follows from public numbers: the specification and a guess of the rows. No pass is
simulated for it, so many settings can be compared at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dpgmm_dist.artifact.receipt import Accounting, budget_rho
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affordable import LAST_SHARE, affordable, is_tied
from dpgmm_dist.model.allocation import component_radius, expected_kl, kl_curvatures, split
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.schedule import planned_structure, predicted_loss

_LEAST_EPSILON, _EPSILON_DOUBLINGS = 1 / 64, 14
_LEAST_ROWS, _ROW_DOUBLINGS = 100.0, 39
_PER_DOUBLING = 8
"""Number of settings of epsilon, or of the rows, within a factor of two."""
_DIMENSIONS_TO_HALVE = 8


@dataclass(frozen=True)
class Outlook:
    """The expected result of one setting."""

    change: str
    """What differs from the specification, in words."""
    epsilon: float
    rows: int
    dimension: int
    structure: str
    """What the budget affords."""
    loss: float
    """Nats a row, against the same model without noise."""


@dataclass(frozen=True)
class Setting:
    """A problem with its budget and a guess of its rows, to compare with other settings.

    All settings are compared at the structure that this one affords. A richer structure has more
    noise, and how much better it fits cannot be known without the rows.
    """

    problem: Problem
    rho: float
    """Of the whole budget; the problem may have a part of it."""
    epsilon: float
    delta: float
    accounting: Accounting
    rows: int

    @cached_property
    def components(self) -> int:
        """Components of each label that the setting affords; 0 where it goes by stages."""
        return afforded(self.problem, self.rows)

    def at(self, epsilon: float) -> Problem:
        """The problem with another epsilon."""
        budget = budget_rho(epsilon, self.delta, self.accounting)
        return replace(self.problem, rho=self.problem.rho * budget / self.rho)

    def loss(self, problem: Problem, rows: int) -> float:
        """Nats a row that another problem is expected to lose; infinite where it affords less."""
        if self.components == 0:
            # A joint fit is taken only where it is better than the stages.
            latent = replace(problem, width=problem.latent_dimension, dimension=None)
            return predicted_loss(latent, rows)
        if afforded(problem, rows) < self.components:
            return math.inf
        return _noise_of_components(problem, self.components * problem.labels, rows)


def outlooks(setting: Setting) -> tuple[Outlook, ...]:
    """The specification, and the effect of more epsilon, more rows or fewer dimensions.

    The variance outside a projection is not part of its loss.
    """
    problem, epsilon, rows = setting.problem, setting.epsilon, setting.rows
    changes = [
        ("as specified", epsilon, rows, problem),
        ("twice the epsilon", 2 * epsilon, rows, setting.at(2 * epsilon)),
        ("four times the epsilon", 4 * epsilon, rows, setting.at(4 * epsilon)),
        ("twice the rows", epsilon, 2 * rows, problem),
        ("ten times the rows", epsilon, 10 * rows, problem),
    ]
    p = problem.latent_dimension
    if p >= _DIMENSIONS_TO_HALVE:
        for part, words in ((2, "half"), (4, "a quarter of")):
            fewer = replace(problem, width=p // part, dimension=None)
            changes.append((f"{words} the dimensions", epsilon, rows, fewer))
    return tuple(
        Outlook(
            change,
            changed_epsilon,
            count,
            changed.latent_dimension,
            structure_words(changed, count),
            setting.loss(changed, count),
        )
        for change, changed_epsilon, count, changed in changes
    )


def afforded(problem: Problem, rows: int) -> int:
    """How many components of each label a joint fit would have; 0 where the release goes by stages.

    Labels that share covariances count as stages.
    """
    fitted = affordable(problem, float(rows))
    if fitted is None or is_tied(problem):
        return 0
    wanted = fitted.components
    return max(wanted) if isinstance(wanted, tuple) else int(wanted)


def structure_words(problem: Problem, rows: int) -> str:
    """What the budget affords, in words."""
    if affordable(problem, float(rows)) is None:
        return planned_structure(problem, rows)
    if is_tied(problem):
        return "components that share covariances"
    most = afforded(problem, rows)
    labels = f" for each of {problem.labels} labels" if problem.labels > 1 else ""
    return (f"up to {most} components" if most > 1 else "1 component") + labels


def epsilon_for(setting: Setting, loss: float) -> float | None:
    """The least epsilon that is expected to lose no more than ``loss``; None if none does.

    Raises
    ------
    SpecError
        When ``loss`` is not positive.
    """
    if not loss > 0:
        raise SpecError(
            f"--want: got {loss:g}, but a loss in nats a row is more than 0, such as 0.1"
        )
    grid = _grid(_LEAST_EPSILON, _EPSILON_DOUBLINGS)
    return _least(grid, lambda e: setting.loss(setting.at(e), setting.rows) <= loss)


def rows_for(setting: Setting, loss: float) -> int | None:
    """About the least number of rows that is expected to lose no more; None if there is none."""
    grid = np.ceil(_grid(_LEAST_ROWS, _ROW_DOUBLINGS))
    found = _least(grid, lambda rows: setting.loss(setting.problem, int(rows)) <= loss)
    return None if found is None else int(found)


def _grid(least: float, doublings: int) -> npt.NDArray[np.float64]:
    return least * np.exp2(np.arange(doublings * _PER_DOUBLING + 1) / _PER_DOUBLING)


def _least(grid: npt.NDArray[np.float64], reaches: Callable[[float], bool]) -> float | None:
    """The least value of an ascending grid that reaches the goal, as all larger ones do."""
    low, high = -1, len(grid) - 1
    if not reaches(float(grid[high])):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(float(grid[middle])) else (middle, high)
    return float(grid[high])


def _noise_of_components(problem: Problem, components: int, rows: int) -> float:
    """Expected KL of the last pass over components of equal weight, at its best split."""
    p = problem.latent_dimension
    radius = component_radius(p)
    sensitivities = [1.0, radius, radius**2]
    shares = split(LAST_SHARE * problem.rho, sensitivities, kl_curvatures(p), problem.allocation)
    variances = [d**2 / (2 * rho) for d, rho in zip(sensitivities, shares, strict=True)]
    return sum(expected_kl(p, float(rows), np.full(components, 1 / components), variances))
