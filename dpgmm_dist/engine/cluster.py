"""Any Dask cluster: tasks in waves, each wave reduced on the workers by a tree fixed by index."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.data.lazy import LazySource
from dpgmm_dist.engine.base import Fraction
from dpgmm_dist.engine.clusters import (
    join_mpi,
    least,
    scale,
    security_of,
    start_kubernetes,
    start_slurm,
)
from dpgmm_dist.engine.config import ClusterConfig, Elastic
from dpgmm_dist.engine.dask_arrays import (
    LazyChunks,
    Summed,
    computed,
    lazy_chunks,
    leaves,
    noted,
    require_lazy_source,
)
from dpgmm_dist.engine.dask_logs import (
    close_stderr,
    dask_logs,
    hear_workers,
    originals_wanted,
    take_over_in_worker,
)
from dpgmm_dist.engine.failures import NO_WORKERS_SECONDS, cluster_failure, wait_for
from dpgmm_dist.engine.memory import WAVES_AHEAD, tasks_per_thread
from dpgmm_dist.errors import ClusterError, DpgmmError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.passes.kernel import statistic_sizes
from dpgmm_dist.passes.run import PassContext, PassFailed, run_unit
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.usage import Usage, measured
from dpgmm_dist.version import __version__

_FAN_IN = 8
_RETRIES = 2
_CONNECT_SECONDS = 30
_HELD_BYTES = 64 << 20
"""Most bytes of the results of tasks that wait for workers which have not joined yet."""
_ABOVE_ALL_LEVELS = logging.CRITICAL + 1
_WITH_DASHBOARD = ("scheduler", "kubernetes")
"""Kinds of clusters that are not started by this process, which would switch it off."""
# Dask's nanny sets MALLOC_TRIM_THRESHOLD_ so low that every block's buffers are returned to the
# system and faulted in again; these keep them, at the price of some idle memory.
_SPAWN_ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "MALLOC_MMAP_THRESHOLD_": 1 << 30,
}


@dataclass(frozen=True, repr=False, eq=False)
class Counted(Opaque):
    """PRIVATE. The sums over some plan units, and the resources they took."""

    statistic: ExactStatistic
    usage: Usage

    def merge(self, other: Counted) -> Counted:
        """Add both; associative and commutative."""
        return Counted(self.statistic.merge(other.statistic), self.usage.merge(other.usage))


class DaskEngine:
    """Runs plan units as Dask tasks; the driver receives one merged result a pass."""

    name = "dask"

    def __init__(
        self,
        client: Any,
        same_machine: bool = False,
        dashboard: str | None = None,
        most_threads: int = 1,
    ) -> None:
        self.client = client
        self.same_machine = same_machine
        self.dashboard = dashboard
        """Link to the cluster's own dashboard, where it was not started here without one."""
        self._most_threads = most_threads
        self._placed: tuple[Any, LazyChunks] = (None, LazyChunks([]))
        self._usage = Usage()

    def run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> ExactStatistic:
        """Sum over ``units``. Exceptions are replaced: theirs could quote arguments."""
        try:
            before = set(self.client.nthreads())
            statistic, usage = self._run(context, units, report)
            after = set(self.client.nthreads())
            self._usage = replace(usage, joined=len(after - before), lost=len(before - after))
            return statistic
        except DpgmmError:
            raise
        except Exception as error:  # whatever Dask raises
            failure = cluster_failure(f"during pass {context.query.step}", error)
        raise failure

    def usage(self) -> Usage:
        """What the last pass used. PRIVATE."""
        return self._usage

    def _run(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> tuple[ExactStatistic, Usage]:
        if isinstance(context.source, LazySource):
            work = partial(self._run_lazy, context, units, report)
            total = noted(context, computed(context, work))
            return total, Usage(len(units))
        counted = self._run_units(context, units, report)
        return counted.statistic, counted.usage

    def _run_units(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> Counted:
        shared = self._share(context)
        result = 8 * 2 * sum(statistic_sizes(context.query))
        folded: list[Any] = []
        total: Counted | None = None

        def fetch() -> Counted:
            wait_for(self.client, folded[:1])
            part: Counted = folded.pop(0).result()
            return part if total is None else total.merge(part)

        # The driver adds up one statistic a wave. A chain of sums on the workers would keep every
        # task of the pass in the scheduler: each could be needed to make the last sum again.
        # Each wave is as large as the cluster is then: workers may come and go in a pass.
        start = 0
        while start < len(units):
            size = self._wave(result)
            leaves = self._submitted(_run_packed, shared, units[start : start + size])
            folded.append(self._reduce(leaves))
            if len(folded) >= WAVES_AHEAD:
                total = fetch()
                report(start / len(units))
            start += size
        while folded:
            total = fetch()
        report(1.0)
        assert total is not None  # noqa: S101 - there is at least one unit
        return total

    def _run_lazy(
        self, context: PassContext, units: Sequence[PlanUnit], report: Fraction
    ) -> Summed:
        """All at once: what several chunks depend on is then computed once."""
        source = require_lazy_source(context)
        if self._placed[0] is not source:
            self._placed = (source, lazy_chunks(source, self.client))
        parts = self.client.compute(
            leaves(context, units, self._placed[1]), retries=_RETRIES, optimize_graph=False
        )
        size = self._wave(8 * 2 * sum(statistic_sizes(context.query)))
        folded = [self._reduce(parts[start : start + size]) for start in range(0, len(units), size)]
        del parts  # sums of units are freed as they are added up
        wait_for(self.client, folded[:1])
        total: Summed = folded[0].result()
        for index in range(1, len(folded)):
            report(index / len(folded))
            wait_for(self.client, folded[index : index + 1])
            total = total.merge(folded[index].result())
            folded[index - 1] = None
        report(1.0)
        return total

    def limits(self) -> Sequence[tuple[int, int]]:
        """Memory limit and threads of the workers, each kind once."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return sorted({(int(w.get("memory_limit") or 0), int(w["nthreads"])) for w in workers})

    def gather(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """``function`` of each item, in order; tasks in waves, so that the graph stays small."""
        try:
            return self._gather(function, items)
        except DpgmmError:
            raise
        except Exception as error:  # whatever Dask raises
            failure = cluster_failure("before the first pass", error)
        raise failure

    def _gather(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        shared = self._share(function)
        results: list[Any] = []
        size = self._wave(0)
        for start in range(0, len(items), size):
            tasks = self._submitted(_call_packed, shared, items[start : start + size])
            wait_for(self.client, tasks)
            results += self.client.gather(tasks)
        return results

    def _wave(self, result: int) -> int:
        """How many tasks a wave has; ``result`` is the bytes that a task returns.

        An elastic cluster grows only for tasks that it knows of, so it gets those of all workers
        that it may have, as far as one worker can hold their results.
        """
        threads: int = max(1, sum(self.client.nthreads().values()))
        per_thread = tasks_per_thread(result)
        held = _HELD_BYTES // max(1, result)
        return max(threads * per_thread, min(self._most_threads * per_thread, held))

    def _share(self, context: Any) -> Any:
        # A task, not scattered data: if the worker that holds it dies, it is made again.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask's would tell the size of rows in memory
            return self.client.submit(_same, context, pure=False, retries=_RETRIES)

    def _submitted(
        self, function: Callable[..., Any], shared: Any, items: Sequence[Any]
    ) -> list[Any]:
        """A task for each item, as one graph: every graph costs the scheduler milliseconds."""
        arguments = [packed(item) for item in items]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a graph of some MB
            tasks: list[Any] = self.client.map(
                function, [shared] * len(items), arguments, pure=False, retries=_RETRIES
            )
        return tasks

    def _reduce(self, nodes: list[Any]) -> Any:
        while len(nodes) > 1:
            groups = [nodes[i : i + _FAN_IN] for i in range(0, len(nodes), _FAN_IN)]
            nodes = self.client.map(_merge, groups, pure=False, retries=_RETRIES)
        return nodes[0]


def _same(context: Any) -> Any:
    return context


def packed(argument: Any) -> bytes:
    """An argument of a task, small and in one piece.

    The scheduler takes graphs apart, and keeps the last messages to every worker for developers.
    """
    return zlib.compress(pickle.dumps(argument, protocol=5), level=1)


def _unpacked(data: bytes) -> Any:
    return pickle.loads(zlib.decompress(data))  # noqa: S301 - the driver's own, of this task


def _run_packed(context: PassContext, unit: bytes) -> Counted:
    if context.version != __version__:  # of a worker that joined after the pass had begun
        raise PassFailed(
            f"a worker runs dpgmm_dist {__version__}, the driver {context.version}: install the "
            "same version everywhere"
        )
    return Counted(*measured(lambda: run_unit(context, _unpacked(unit))))


def _call_packed(function: Callable[[Any], Any], item: bytes) -> Any:
    return function(_unpacked(item))


def _merge(parts: Sequence[Any]) -> Any:
    first, *others = parts
    for other in others:
        first = first.merge(other)
    return first


def _version() -> str:
    return __version__


def _leave_it_to_the_driver(dask_worker: Any, *, with_originals: bool) -> None:
    """Runs on local workers: the driver alone reports failures and acts on Ctrl-C.

    Ctrl-C reaches every process of a terminal's job, and workers end when the driver says so.
    """
    take_over_in_worker(dask_worker, with_originals)
    close_stderr()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def open_cluster(wanted: ClusterConfig) -> Iterator[DaskEngine]:
    """Start the workers asked for, or connect to a running scheduler."""
    import dask

    # First: its import adds Dask's defaults, which would end with the settings below.
    import distributed  # noqa: F401

    settings = {
        # None: what was asked of a worker that has died would be asked again for minutes, and Dask
        # makes its results again anyway.
        "distributed.comm.retry.count": 0,
        "distributed.scheduler.no-workers-timeout": f"{NO_WORKERS_SECONDS:.0f}s",
        # Dask's 15 s are too few on a busy machine: a worker that was being started again would be
        # closed for good.
        "distributed.deploy.lost-worker-timeout": f"{NO_WORKERS_SECONDS:.0f}s",
        "distributed.nanny.pre-spawn-environ": _SPAWN_ENVIRONMENT,
        "distributed.admin.log-length": 0,
        "distributed.admin.low-level-log-length": 0,
        # Dask reads the frames of all threads every 10 ms. In CPython 3.11 that can deadlock with
        # the garbage collector: the worker then holds the interpreter for ever, and looks alive.
        "distributed.worker.profile.enabled": False,
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with dask.config.set(settings), dask_logs() as logs, ExitStack() as stack:
        try:
            client = _client(stack, wanted)
        except DpgmmError:
            raise
        except Exception as error:  # Dask meets a wrong address or file with all kinds of them
            where = (
                wanted.address or wanted.scheduler_file or f"{wanted.workers} {wanted.kind} workers"
            )
            raise ClusterError(
                f"no Dask cluster at {where} ({type(error).__name__}): check the address and that "
                "the scheduler is running"
            ) from None
        stack.callback(logs.end)
        _check_versions(client)
        yield DaskEngine(
            client,
            same_machine=wanted.kind == "local",
            dashboard=_dashboard(client) if wanted.kind in _WITH_DASHBOARD else None,
            most_threads=_most_threads(wanted),
        )


def _most_threads(wanted: ClusterConfig) -> int:
    most = wanted.workers.maximum if isinstance(wanted.workers, Elastic) else 1
    return most * (1 if wanted.kind == "local" else wanted.threads or 1)


def _dashboard(client: Any) -> str | None:
    """Link to the dashboard, where there is one: not without bokeh, nor with --no-dashboard."""

    # Defined here, so that its code travels: the scheduler may not have dpgmm_dist.
    def serves_dashboard(dask_scheduler: Any) -> bool:
        served = dask_scheduler.http_application.applications
        kinds = [kind for application in served for kind in type(application).__mro__]
        return any(kind.__module__.startswith("bokeh.") for kind in kinds)

    try:
        if not client.run_on_scheduler(serves_dashboard):
            return None
    except Exception:  # a scheduler that does not say: its dashboard is not said either
        return None
    link: str | None = client.dashboard_link
    return link


def current_cluster() -> DaskEngine | None:
    """The cluster of the client that Dask itself would use now."""
    import distributed

    find: Any = distributed
    try:
        client = find.get_client()
    except ValueError:  # there is none
        return None
    _check_versions(client)
    return DaskEngine(client)


def _client(stack: ExitStack, wanted: ClusterConfig) -> Any:
    """A client of the cluster; ``stack`` ends it, and what was started for it."""
    match wanted.kind:
        case "local":
            return _start_workers(stack, wanted)
        case "slurm":
            return start_slurm(stack, wanted)
        case "kubernetes":
            return start_kubernetes(stack, wanted)
        case "mpi":
            return join_mpi(stack, wanted)
    return _connect(stack, wanted)


def _connect(stack: ExitStack, wanted: ClusterConfig) -> Any:
    """A client of a running scheduler."""
    import distributed

    start: Any = distributed
    if wanted.scheduler_file is not None:
        _wait_for_file(wanted.scheduler_file)
    return stack.enter_context(
        start.Client(
            address=wanted.address,
            scheduler_file=wanted.scheduler_file,
            timeout=f"{_CONNECT_SECONDS}s",
            security=security_of(wanted.tls),
        )
    )


def _wait_for_file(path: str) -> None:
    """Give a scheduler that is just starting time to write its file; Dask would wait for ever."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    while not os.path.exists(path):
        if time.monotonic() >= deadline:
            raise FileNotFoundError(path)
        time.sleep(0.1)


def _start_workers(stack: ExitStack, wanted: ClusterConfig) -> Any:
    """A client of new local worker processes; ``stack`` ends both."""
    import distributed

    start: Any = distributed
    cluster = stack.enter_context(
        start.LocalCluster(
            n_workers=least(wanted.workers),
            memory_limit=wanted.memory or "auto",
            threads_per_worker=1,
            processes=True,
            silence_logs=_ABOVE_ALL_LEVELS,  # of workers that are not yet taken over
            # No dashboard. Without an address Dask takes port 8787 and warns if it is taken; an
            # address without a host would be open to the network.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        )
    )
    client = stack.enter_context(start.Client(cluster))
    if isinstance(wanted.workers, Elastic):
        scale(cluster, wanted.workers)
    if originals_wanted():
        hear_workers(client)
    client.register_worker_callbacks(
        setup=partial(_leave_it_to_the_driver, with_originals=originals_wanted())
    )
    return client


def _check_versions(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=NO_WORKERS_SECONDS)
        versions = client.run(_version)
    except Exception as error:
        raise ClusterError(
            f"the cluster's workers do not answer ({type(error).__name__}): start workers that "
            f"have dpgmm_dist {__version__} installed"
        ) from None
    others = sorted(set(versions.values()) - {__version__})
    if others:
        raise ClusterError(
            f"workers run dpgmm_dist {', '.join(others)}, this is {__version__}: "
            "install the same version everywhere"
        )
