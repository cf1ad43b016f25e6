"""What every engine offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.privacy.exact import ExactStatistic

Fraction = Callable[[float], None]


class Engine(Protocol):
    """Runs one pass over all plan units and returns their exact sum."""

    name: str

    def run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> ExactStatistic:
        """Sum :func:`dpgmm_dist.passes.run.run_unit` over ``units``.

        ``report`` is called with the fraction of units done. Raises DataError for unreadable
        input and ClusterError for failed workers.
        """
        ...

    def limits(self) -> Sequence[tuple[int, int]]:
        """(bytes of memory, threads) of each kind of worker; 0 bytes where nothing is known."""
        ...

    def gather(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """``function`` of each item, in order, on the workers."""
        ...
