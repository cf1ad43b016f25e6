"""Independent tasks on any engine, which write files.

For work that reads nothing private (sampling, decoding) or that makes private rows from private
rows (encoding, privacy units). The passes need sums that merge; the engines have these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from dpgmm_dist.artifact.part_files import ForEach, Report
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.failures import cluster_failure, wait_for
from dpgmm_dist.errors import DpgmmError

_RETRIES = 2
_WAVE_PER_THREAD = 4


def for_each_on(engine: Engine) -> ForEach:
    """Return a function that calls another one with many items, each as a task of ``engine``.

    A task may run again on another worker. The first failure ends the call. A DpgmmError is raised
    as it is. On a cluster anything else becomes a ClusterError without a cause, which could quote
    arguments.
    """
    from dpgmm_dist.engine.cluster import DaskEngine
    from dpgmm_dist.engine.local import LocalEngine

    if isinstance(engine, DaskEngine):
        client = engine.client
        return lambda function, items, report: _on_cluster(client, function, items, report)
    threads = engine.threads if isinstance(engine, LocalEngine) else 1
    return lambda function, items, report: _on_threads(threads, function, items, report)


def _on_threads(
    threads: int, function: Callable[[Any], int], items: Sequence[Any], report: Report
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        # Tasks are submitted as threads become free: after a failure no other begins.
        waiting = iter(items)
        running: set[Future[int]] = set()
        done = 0
        try:
            while True:
                while len(running) < threads and (item := next(waiting, _END)) is not _END:
                    running.add(pool.submit(function, item))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    done += 1
                    report(done / len(items))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_END = object()


def _on_cluster(
    client: Any, function: Callable[[Any], int], items: Sequence[Any], report: Report
) -> None:
    try:
        # A task and not scattered data: if its worker dies, another one runs it again.
        shared = client.submit(_same, function, pure=False, retries=_RETRIES)
        size = max(1, sum(client.nthreads().values())) * _WAVE_PER_THREAD
        for start in range(0, len(items), size):
            tasks = [
                client.submit(_call, shared, item, pure=False, retries=_RETRIES)
                for item in items[start : start + size]
            ]
            wait_for(client, tasks)
            client.gather(tasks)
            report((start + len(tasks)) / len(items))
        return
    except DpgmmError:
        raise
    except Exception as error:  # whatever Dask raises
        failure = cluster_failure("while files were written", error)
    raise failure


def _same(function: Callable[[Any], int]) -> Callable[[Any], int]:
    return function


def _call(function: Callable[[Any], int], item: Any) -> int:
    return function(item)
