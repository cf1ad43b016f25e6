"""Workers killed in the middle of passes of a release on a cluster.

Everything else that may befall a cluster: tests/external/test_cluster_faults.py.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import distributed  # noqa: F401 - adds Dask's defaults, which would end with a test's settings
import pytest

from dpgmm_dist.cli.log import LogFormat, close_log, open_log
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.cluster import DaskEngine

from ..variants import variant
from .troubled import Job, trouble


@pytest.mark.parametrize(("first", "second"), [((0,), (3,)), variant((0, 2, 4), (1, 3))])
def test_workers_killed_in_passes_change_nothing(
    first: tuple[int, ...], second: tuple[int, ...], tmp_path: Path
) -> None:
    """In the first wave of tasks, and in the second, when it holds sums of the first."""
    job = Job.make(tmp_path)
    job.order(
        trouble("kill", passes=first, file="part-001.parquet"),
        trouble("kill", passes=second, file="part-010.parquet"),
    )
    result = job.run()
    job.require_done(result)
    # The second kill leaves no worker that was not started again.
    assert "dpgmm: warning: a worker was lost; it is started again" in result.stderr
    assert len(job.answers()) == 5
    assert [now for now, _ in job.happened()] == sorted(first + second)


def test_a_result_whose_worker_has_just_died_is_made_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With Dask's settings it would be asked of the dead worker for minutes, and the worker would
    not be started again where that takes longer than something is waited for."""
    short = {"distributed.comm.retry.count": 5, "distributed.deploy.lost-worker-timeout": "1ms"}
    with json_log(), dask.config.set(short), open_engine(workers=1) as engine:
        assert isinstance(engine, DaskEngine)
        assert dask.config.get("distributed.comm.retry.count") == 0
        assert dask.config.get("distributed.deploy.lost-worker-timeout") == "300s"
        future = engine.client.submit(os.getpid, pure=False)
        first = future.result()
        os.kill(first, signal.SIGKILL)
        assert future.result() not in (first, os.getpid())
        engine.client.run(os.write, 2, b"what Python itself says in a worker")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    [lost] = [line for line in lines if line["event"] != "library"]
    assert (lost["event"], lost["level"]) == ("worker_lost", "warning")
    assert {line["level"] for line in lines if line["event"] == "library"} == {"debug"}
    originals = {(line.get("logger"), line["message"]) for line in lines}
    assert ("distributed.nanny", "Restarting worker (status=Status.running)") in originals


@contextmanager
def json_log() -> Iterator[None]:
    """This process logs as the command does with ``--log-format json``."""
    handlers, last = logging.getLogger().handlers, logging.lastResort
    open_log(LogFormat.json)
    try:
        yield
    finally:
        close_log()
        logging.getLogger().handlers, logging.lastResort = handlers, last
