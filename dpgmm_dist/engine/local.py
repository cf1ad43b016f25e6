"""Threads in this process: no cluster to start, BLAS held to one thread each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from threadpoolctl import threadpool_limits

from dpgmm_dist.cores import cores
from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.data.dask_arrays import DaskArraySource
from dpgmm_dist.engine.base import Fraction
from dpgmm_dist.engine.dask_arrays import run_on_threads
from dpgmm_dist.engine.dividing import divided
from dpgmm_dist.passes.cache import LatticeCache, default_cache_bytes, memory_bytes
from dpgmm_dist.passes.run import PassContext, PassRun
from dpgmm_dist.privacy.exact import ExactStatistic

_UNITS_PER_THREAD = 4
"""Fewer units than this are divided, so that no thread waits long for the last one."""


class LocalEngine:
    """Runs plan units on a pool of threads; numpy and pyarrow release the interpreter lock.

    Parameters
    ----------
    threads : number of threads; by default one for each core this process may use
    cache_bytes : memory for rows kept between passes over the same source, which then are not
        read again; a quarter of the machine's by default, 0 for none
    """

    name = "threads"
    same_machine = True

    def __init__(self, threads: int | None = None, cache_bytes: int | None = None) -> None:
        self.threads = threads or cores()
        self.cache_bytes = default_cache_bytes() if cache_bytes is None else cache_bytes
        self._cached: tuple[object, object] = (None, None)
        self._cache: LatticeCache | None = None

    def run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> ExactStatistic:
        """Sum over ``units``; which thread takes which, and when, does not matter to the bit."""
        units = divided(units, self.threads * _UNITS_PER_THREAD)
        if isinstance(context.source, DaskArraySource):
            with threadpool_limits(1, "blas"):
                return run_on_threads(context, units, self.threads, report)
        waiting: SimpleQueue[PlanUnit] = SimpleQueue()
        for unit in units:
            waiting.put(unit)
        work = _Work(context, self._cache_for(context), waiting)
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.threads) as pool:
            try:
                threads = min(self.threads, len(units))
                sums = [pool.submit(work.run) for _ in range(threads)]
                done = 0
                while threads:
                    if work.done.get():
                        done += 1
                        report(done / len(units))
                    else:
                        threads -= 1
            finally:
                # After a failure or Ctrl-C the threads end at their next block.
                work.stop.set()
        if work.failure is not None:
            raise work.failure
        total, *others = [one.result() for one in sums]
        for other in others:
            total = total.merge(other)
        return total

    def limits(self) -> Sequence[tuple[int, int]]:
        """The memory that this process may use, and its threads."""
        return [(memory_bytes(), self.threads)]

    def gather(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """``function`` of each item, in order, on this process's threads."""
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(function, items))

    def forget(self) -> None:
        """Drop the rows kept between passes: what is in memory may change from now on."""
        self._cached, self._cache = (None, None), None

    def _cache_for(self, context: PassContext) -> LatticeCache | None:
        """The rows kept from earlier passes, if they were over the same source."""
        if self._cached != (context.source, context.features):
            self._cached = (context.source, context.features)
            self._cache = LatticeCache(self.cache_bytes) if self.cache_bytes else None
        return self._cache


class _Work:
    """What the threads of one pass share."""

    def __init__(
        self, context: PassContext, cache: LatticeCache | None, waiting: SimpleQueue[PlanUnit]
    ) -> None:
        self._context = context
        self._cache = cache
        self._waiting = waiting
        self.stop = threading.Event()
        self.failure: Exception | None = None
        self.done: SimpleQueue[bool] = SimpleQueue()
        """True for each unit, False for each thread."""

    def run(self) -> ExactStatistic:
        """Take units until there are none; the sum over those taken."""
        try:
            one = PassRun(self._context, self._cache)
            while (unit := self._next()) is not None:
                one.add(unit, self.stop.is_set)
                self.done.put(True)
            return one.finish()
        except Exception as error:
            if not self.stop.is_set():  # else it only says that it stopped
                self.failure = error
                self.stop.set()
            raise
        finally:
            self.done.put(False)

    def _next(self) -> PlanUnit | None:
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None
