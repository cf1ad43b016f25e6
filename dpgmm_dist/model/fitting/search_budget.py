"""How much post-processing to afford: the driver's work stays small beside the passes.

What is fitted to draws can use any number of them. These bounds are in floating-point operations,
so that the driver's time hardly grows with dimension and components; they never depend on data.
"""

from __future__ import annotations

_OPERATIONS_PER_ROW = 4
"""Of one EM step on one draw, per component and squared dimension: a map and a moment."""


def affordable(
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
    each = _OPERATIONS_PER_ROW * components * dimension**2 * max(steps, 1)
    return max(least, min(most, int(operations / each)))
