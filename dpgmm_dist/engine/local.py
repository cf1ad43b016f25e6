"""Threads in this process, without a cluster; BLAS runs on one thread in each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from threadpoolctl import threadpool_limits

from dpgmm_dist.cores import cores
from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.data.lazy import LazySource
from dpgmm_dist.engine.base import Fraction
from dpgmm_dist.engine.dask_arrays import run_on_threads
from dpgmm_dist.engine.dividing import divided
from dpgmm_dist.passes.cache import LatticeCache, default_cache_bytes, memory_bytes
from dpgmm_dist.passes.run import PassContext, PassRun
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.usage import Usage, measured

_UNITS_PER_THREAD = 4
"""Units wanted per thread. Fewer are divided, so that no thread waits long for the last one."""


class LocalEngine:
    """Runs plan units on a pool of threads; numpy and pyarrow release the interpreter lock.

    Parameters
    ----------
    threads : number of threads; by default one for each core this process may use
    cache_bytes : memory for rows that are kept between passes over the same source and not read
        again; by default a quarter of the machine's memory, 0 for none
    """

    name = "threads"
    same_machine = True

    def __init__(self, threads: int | None = None, cache_bytes: int | None = None) -> None:
        self.threads = threads or cores()
        self.cache_bytes = default_cache_bytes() if cache_bytes is None else cache_bytes
        self._cached: tuple[object, object] = (None, None)
        self._cache: LatticeCache | None = None
        self._usage = Usage()

    def run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> ExactStatistic:
        """Return the sum over ``units``; every order of threads gives the same bits."""
        units = divided(units, self.threads * _UNITS_PER_THREAD)
        if isinstance(context.source, LazySource):
            self._usage = Usage(len(units))
            with threadpool_limits(1, "blas"):
                return run_on_threads(context, units, self.threads, report)
        waiting: SimpleQueue[PlanUnit] = SimpleQueue()
        for unit in units:
            waiting.put(unit)
        work = _Work(context, self._cache_for(context), waiting)
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.threads) as pool:
            try:
                threads = min(self.threads, len(units))
                sums = [pool.submit(measured, work.run) for _ in range(threads)]
                done = 0
                while threads:
                    if work.events.get():
                        done += 1
                        report(done / len(units))
                    else:
                        threads -= 1
            finally:
                # After a failure or Ctrl-C the threads end at their next block.
                work.stop.set()
        if work.failure is not None:
            raise work.failure
        (total, usage), *others = [future.result() for future in sums]
        for other, used in others:
            total, usage = total.merge(other), usage.merge(used)
        self._usage = replace(usage, tasks=len(units))
        return total

    def usage(self) -> Usage:
        """What the last pass used. PRIVATE."""
        return self._usage

    def limits(self) -> Sequence[tuple[int, int]]:
        """(bytes of memory that this process may use, number of threads)."""
        return [(memory_bytes(), self.threads)]

    def gather(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Call ``function`` with each item on the threads; return the results in order."""
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(function, items))

    def forget(self) -> None:
        """Drop the rows kept between passes. The source may change afterwards."""
        self._cached, self._cache = (None, None), None

    def _cache_for(self, context: PassContext) -> LatticeCache | None:
        """The cache of earlier passes if they were over the same source, else a new one."""
        if self._cached != (context.source, context.features):
            self._cached = (context.source, context.features)
            self._cache = LatticeCache(self.cache_bytes) if self.cache_bytes else None
        return self._cache


class _Work:
    """The shared state of the threads of one pass."""

    def __init__(
        self, context: PassContext, cache: LatticeCache | None, waiting: SimpleQueue[PlanUnit]
    ) -> None:
        self._context = context
        self._cache = cache
        self._waiting = waiting
        self.stop = threading.Event()
        self.failure: Exception | None = None
        self.events: SimpleQueue[bool] = SimpleQueue()
        """True when a unit is done, False when a thread ends."""

    def run(self) -> ExactStatistic:
        """Take units until none is left, and return the sum over those taken."""
        try:
            run = PassRun(self._context, self._cache)
            while (unit := self._next()) is not None:
                run.add(unit, self.stop.is_set)
                self.events.put(True)
            return run.finish()
        except Exception as error:
            if not self.stop.is_set():  # otherwise the error only reports the stop
                self.failure = error
                self.stop.set()
            raise
        finally:
            self.events.put(False)

    def _next(self) -> PlanUnit | None:
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None
