"""What a driver waits for, for how long, and what it says when a cluster fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import distributed
import pytest
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker
from distributed.scheduler import NoWorkerError as DasksNoWorkerError

from dpgmm_dist.engine import failures
from dpgmm_dist.engine.failures import NoWorkerError, PausedWorkerError, cluster_failure, wait_for

SECRET = "row 123.4"
GATE = threading.Event()


def _wait_at_the_gate() -> bool:
    return GATE.wait(60)  # in this process, where the workers are threads


@pytest.fixture
def cluster() -> Iterator[Any]:
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=1, **options) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KilledWorker(SECRET, None, 3), "(KilledWorker): one task ended several workers"),
        (distributed.client.FutureCancelledError(SECRET, SECRET), "the scheduler was lost"),
        (distributed.client.FuturesCancelledError([]), "the scheduler was lost"),
        (CommClosedError(SECRET), "(CommClosedError): the scheduler was lost"),
        (DasksNoWorkerError(SECRET, 300), "there was no worker for 300 s"),
        (NoWorkerError(), "there was no worker for 300 s"),
        (PausedWorkerError(), "a worker has started nothing for 300 s"),
        (ValueError(SECRET), "(ValueError): look at the workers' and the scheduler's logs"),
    ],
)
def test_a_failure_says_what_to_do_and_quotes_nothing(error: Exception, said: str) -> None:
    failure = cluster_failure("during pass cells.1", error)
    assert str(failure).startswith("the cluster failed during pass cells.1 (")
    assert said in str(failure)
    assert str(failure).endswith("then run the same command again")
    assert SECRET not in str(failure)
    assert failure.exit_code == 5


def test_a_slow_task_is_waited_for_and_a_failed_one_ends_the_wait(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(failures, "NO_WORKERS_SECONDS", 0.1)
    GATE.clear()
    with distributed.Client(cluster) as client:
        slow = client.submit(_wait_at_the_gate, pure=False)
        threading.Timer(0.5, GATE.set).start()
        wait_for(client, [slow])
        assert slow.result() is True
        failed = client.submit(divmod, 1, 0, pure=False)
        with pytest.raises(ZeroDivisionError):
            failed.result()
        GATE.clear()
        never = client.submit(_wait_at_the_gate, pure=False)
        wait_for(client, [never, failed])
        GATE.set()


def test_a_cluster_without_workers_is_given_up(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(failures, "NO_WORKERS_SECONDS", 0.3)
    with distributed.Client(cluster) as client:
        cluster.scale(0)
        future = client.submit(abs, -1, pure=False)
        with pytest.raises(NoWorkerError):
            wait_for(client, [future])


@pytest.mark.parametrize("other", [False, True])
def test_a_worker_that_stays_paused_is_given_up(
    monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    """Dask never moves what is queued on it, also where another worker has nothing to do."""
    monkeypatch.setattr(failures, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(failures, "PAUSED_SECONDS", 0.5)
    small = {"nthreads": 1, "memory_limit": "10MB"}  # less than this process takes
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=int(other), **options) as cluster:

        async def paused() -> Any:
            return await distributed.Worker(
                cluster.scheduler_address, dashboard=False, name="small", **small
            )

        worker = cluster.sync(paused)
        with distributed.Client(cluster) as client:
            while not failures._paused(client):  # its memory is looked at five times a second
                time.sleep(0.05)
            queued = client.submit(abs, -1, pure=False, workers=["small"])
            with pytest.raises(PausedWorkerError):
                wait_for(client, [queued])
        cluster.sync(worker.close)
