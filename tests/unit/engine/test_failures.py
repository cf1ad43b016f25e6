"""What a driver waits for, for how long, and what it says when a cluster fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import distributed
import pytest
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker
from distributed.scheduler import NoWorkerError as DasksNoWorkerError

from dpgmm_dist.engine import failures
from dpgmm_dist.engine.failures import NoWorkerError, cluster_failure, wait_for

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
