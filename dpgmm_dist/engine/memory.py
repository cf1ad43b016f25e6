"""The memory that a pass needs, checked before the first pass.

The figures are upper bounds from public numbers and the sizes in footers. jobs/benchmarks/scale.py
measures the real use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpgmm_dist.cores import cores
from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.errors import ClusterError
from dpgmm_dist.model.affordable import joint_groups, sizes
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
_ANSWER, _QUERY, _SQUARES, _MEANS = 10, 6, 8, 10
"""Arrays that the driver holds at once while an answer is measured: as large as the answer (exact
sums, draws, stored bytes and those read back), as the query's maps, as a second moment of all
features (earlier answers, axes), and as the means of labels."""
_FULL, _SHARED = 6, 13
"""Arrays as large as the release while it is written: covariances and means, factors, errors,
files. The second number is for covariances that share their axes, which are converted between two
forms."""
_SEARCH, _SEARCH_PIECE = 128 << 20, 96 << 20
"""Bytes of the search for components in noisy answers: in all, and for each of its parts that run
at once. With more labels each part has fewer draws, down to a tenth."""
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
        units = max(self.units, 1)
        return min(ahead, units) + min(_MERGED, units - 1)

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
    centres = 3 * 8 * problem.labels * problem.width  # as stored, as used, and mapped
    largest = max((unit.bytes for unit in units), default=0)
    task = min(largest, _AT_ONCE) + _BLOCKS + sums + maps + centres + statistic
    return MemoryPlan(_PROCESS, task, statistic, driver_memory(problem), len(units))


def driver_memory(problem: Problem) -> int:
    """Bytes that the driver needs at the most, from the specification and the number of cores."""
    size, d = sizes(problem), problem.width
    asking = (
        _ANSWER * size.statistics
        + _QUERY * size.maps
        + _SQUARES * d * d
        + _MEANS * problem.labels * d
    )
    return (
        _PROCESS
        + _search_memory(problem)
        + 8 * max(asking, _FULL * size.full, _SHARED * size.shared)
    )


def _search_memory(problem: Problem) -> int:
    if not joint_groups(problem):
        return 0
    pieces = min(cores(), max(2, problem.labels))
    return _SEARCH + pieces * _SEARCH_PIECE // min(problem.labels, 10)


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
