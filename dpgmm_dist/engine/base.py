"""The interface of every engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.usage import Usage

Fraction = Callable[[float], None]


class Engine(Protocol):
    """Runs one pass over all plan units and returns their exact sum."""

    name: str

    def run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> ExactStatistic:
        """Sum :func:`dpgmm_dist.passes.run.run_unit` over ``units``.

        ``report`` is called with the fraction of units done, from 0 to 1.

        Raises
        ------
        DataError
            If the input cannot be read.
        ClusterError
            If workers fail.
        """
        ...

    def usage(self) -> Usage:
        """The resources used by the last pass. PRIVATE: only for the record of the run."""
        ...

    def limits(self) -> Sequence[tuple[int, int]]:
        """(bytes of memory, threads) of each kind of worker; 0 bytes where it is unknown."""
        ...

    def gather(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Call ``function`` with each item on the workers; return the results in order."""
        ...
