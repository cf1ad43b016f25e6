"""The amount of post-processing: the driver's work stays small beside the passes.

What is fitted to draws can use any number of them. These bounds keep the driver's time nearly
independent of dimension and components; they never depend on data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_OPERATIONS_PER_ROW = 4
"""Operations of one EM step on one draw, per component and squared dimension: a map and a
moment."""


@dataclass(frozen=True)
class SearchBudget:
    """The work of a moment fit."""

    steps: int = 6
    """Most derivatives that are computed."""
    tolerance: float = 2e-3
    """Relative gain of a step below which the fit ends."""
    draws: int = 60_000
    slope_draws: int = 15_000
    """Draws that derivatives are computed from."""
    rounds: int = 1
    """Most rounds of steps, each about the mixture of the round before."""

    def shared(self, labels: int, parameters: int) -> SearchBudget:
        """The budget of one of several labels, still enough for its number of parameters."""
        draws = max(self.draws // labels, 30 * parameters, 10_000)
        slope = max(self.slope_draws // labels, 24 * parameters, 5_000)
        return replace(self, draws=min(draws, self.draws), slope_draws=min(slope, self.draws // 2))


def affordable_draws(
    operations: float, components: int, dimension: int, steps: int, most: int, least: int
) -> int:
    """Draws so that ``steps`` EM steps on them cost about ``operations`` flops.

    Parameters
    ----------
    operations : floating-point operations to spend
    components, dimension : K and p of the mixture
    steps : EM steps, over all restarts
    most, least : bounds on the answer; the least wins
    """
    per_draw = _OPERATIONS_PER_ROW * components * dimension**2 * max(steps, 1)
    return max(least, min(most, int(operations / per_draw)))
