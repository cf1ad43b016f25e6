"""How much memory a pass needs on a worker, checked before the first pass.

The figures are upper bounds from public numbers and the sizes in footers. jobs/benchmarks/scale.py
measures the real use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.errors import ClusterError
from dpgmm_dist.model.affordable import sizes
from dpgmm_dist.model.problem import Problem

_PROCESS = 250 << 20
"""Bytes of a process with numpy, pyarrow and Dask, before any row is read."""
_BLOCKS = 6 * (32 << 20)
"""Bytes of a block of rows: as read, on the lattice, and in the coordinates of its cells."""
_AT_ONCE = 256 << 20
"""The most bytes of a unit that are read at once."""
_LARGE_STATISTIC = 32 << 20
"""Bytes of a statistic from which fewer tasks are handed out ahead."""
WAVES_AHEAD = 2
"""Waves of tasks that are handed out at once."""
_MERGED = 4
"""Statistics that a worker holds beside those of finished tasks: what is being added up."""
_ANSWER = 6
"""Arrays of all numbers of an answer on the driver: exact sums, draws, what is stored of them."""
_QUERY = 6
"""Arrays of maps and centres of a query: as planned, as stored, and as sent."""
_SQUARES = 12
"""Second moments of all features: noisy, their axes, and what eigenvalues are found in."""
_TABLES = 10
"""Means of labels along all axes, their variances, and what moved them."""
_COPIES = 6
"""Arrays of what is released: covariances and means, their factors, errors, and files."""
_LIMBS = 16
"""Bytes of an exact integer."""


@dataclass(frozen=True)
class MemoryPlan:
    """Upper bounds on memory, in bytes."""

    process: int
    """For a worker, whatever its number of threads."""
    task: int
    """For each task that runs in the worker."""
    statistic: int
    """For one exact statistic, which is what a task returns and what the driver receives."""
    driver: int
    """For the driver, without the rows and passes that run in its own process."""

    units: int
    """Tasks of a pass."""

    def results(self, threads: int) -> int:
        """Statistics that a worker with this number of threads holds at once."""
        ahead = WAVES_AHEAD * tasks_per_thread(self.statistic) * threads
        return min(ahead, self.units) + _MERGED

    def worker(self, threads: int) -> int:
        """Bytes that a worker with this number of threads needs."""
        return self.process + threads * self.task + self.results(threads) * self.statistic


def tasks_per_thread(statistic: int) -> int:
    """How many tasks a wave has for each thread: few where their results are large.

    Parameters
    ----------
    statistic : bytes of a result
    """
    return 4 if statistic < _LARGE_STATISTIC else 2


def memory_plan(problem: Problem, units: Sequence[PlanUnit]) -> MemoryPlan:
    """What the largest pass of a release needs for its sums, whatever the rows."""
    size = sizes(problem)
    statistic = _LIMBS * size.statistics
    # Sums of a slice, those pending, and the indices of a triangle; float64.
    sums = 8 * 4 * size.statistics
    maps = 8 * size.maps + 8 * problem.width * problem.latent_dimension
    largest = max((unit.bytes for unit in units), default=0)
    task = min(largest, _AT_ONCE) + _BLOCKS + sums + maps + statistic
    return MemoryPlan(_PROCESS, task, statistic, driver_memory(problem), len(units))


def driver_memory(problem: Problem) -> int:
    """Bytes that the driver needs at the most, from the specification alone."""
    size, d = sizes(problem), problem.width
    square, table = 8 * d * d, 8 * problem.labels * d
    answer = _ANSWER * 8 * size.statistics + _QUERY * (8 * size.maps + table)
    estimate = _SQUARES * square + _TABLES * table
    files = _COPIES * 8 * size.released
    return _PROCESS + max(answer, estimate + files)


def require_memory(engine: Engine, plan: MemoryPlan) -> None:
    """Refuse an engine with a worker that is too small for the largest pass.

    Raises
    ------
    ClusterError
        With the sizes, before anything is read or spent.
    """
    for limit, threads in engine.limits():
        needed = plan.worker(threads)
        if limit and needed > limit:
            raise ClusterError(
                f"a worker has {_size(limit)} of memory for {threads} thread(s), a pass needs up "
                f"to {_size(needed)}: {_size(plan.process)} for the process, {_size(plan.task)} "
                f"for each task and {plan.results(threads)} times {_size(plan.statistic)} for "
                "sums. "
                "Give workers more memory or fewer threads, or lower model.dimension or "
                "model.components"
            )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"
