"""Faults of clusters and stores: lost, stopped or full workers, a lost scheduler, failed reads.

After each of them the ledger has one charge, the journal is complete and stderr reports one thing.
The same command then makes the release of an undisturbed run, byte for byte under test noise. For a
worker that is killed in every pass, see tests/system/test_cluster_faults.py.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dpgmm_dist.engine import failures

from ..system.stopping_driver import stopped
from ..system.troubled import Job, dask_cluster, ended, trouble, until


def test_a_task_that_needs_more_memory_than_any_worker_has_is_exit_code_5(tmp_path: Path) -> None:
    job = Job.make(tmp_path, memory="700MB")
    job.order(trouble("fill memory", passes=(2,), file="part-004.parquet", times=10))
    result = job.run()
    assert "dpgmm: warning: a worker ran out of memory" in result.stderr
    assert len(job.happened()) == 4  # the number of times that Dask tries
    assert len(job.answers()) == 2
    words = (
        "pass moments.second (KilledWorker)",
        "out of memory",
        "give workers more memory or fewer",
    )
    job.require_failed(result, 5, *words, "run the same command again")


def test_a_worker_that_runs_out_of_memory_once_changes_nothing(tmp_path: Path) -> None:
    job = Job.make(tmp_path, memory="700MB")
    job.order(trouble("fill memory", passes=(1, 4)))
    result = job.run()
    assert [now for now, _ in job.happened()] == [1, 4]
    job.require_done(result)


def test_a_worker_killed_while_privacy_units_are_brought_together_changes_nothing(
    tmp_path: Path,
) -> None:
    """Its files in scratch storage are written again, under the same names."""
    job = Job.make(tmp_path, unit="{column: who, max_rows: 20, aggregate: weight}")
    files = [f"part-{number:03d}.parquet" for number in (1, 6, 10)]
    job.order(*(trouble("kill", file=file) for file in files))
    result = job.run()
    assert [now for now, _ in job.happened()] == [0, 0, 0]  # later passes read scratch storage
    job.require_done(result)


def test_a_lost_scheduler_is_exit_code_5_and_another_finishes(tmp_path: Path) -> None:
    job = Job.make(tmp_path)
    with dask_cluster(tmp_path / "first", job.env) as cluster:
        job.order(trouble("kill another", passes=(2,), file="part-009.parquet"))
        (job.orders / "victim").write_text(str(cluster.scheduler.pid))
        result = job.run("--scheduler", cluster.address)
    assert len(job.answers()) == 2
    with dask_cluster(tmp_path / "second", job.env) as cluster:
        words = ("pass moments.second", "the scheduler was lost", "run the same command again")
        job.require_failed(result, 5, *words, resume=("--scheduler", cluster.address))


def have_little_patience() -> None:
    failures.NO_WORKERS_SECONDS, failures._LOOK_SECONDS = 2.0, 0.2


def test_the_wait_for_workers_ends(tmp_path: Path) -> None:
    job = Job.make(tmp_path, have_little_patience)
    with dask_cluster(tmp_path / "cluster", job.env) as cluster:
        job.order(trouble("kill", passes=(1,), times=len(cluster.workers)))
        result = job.run("--scheduler", cluster.address)
    assert len(job.answers()) == 1
    job.require_failed(result, 5, "pass moments.sum", "there was no worker for", "start workers")


def test_a_slow_worker_is_waited_for_and_a_replaced_one_counts_once(tmp_path: Path) -> None:
    """A worker is stopped until others have worked, then one until another did its task."""
    job = Job.make(tmp_path)
    env = job.env | {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s"}
    with dask_cluster(tmp_path / "cluster", env) as cluster:
        file = "part-002.parquet"
        job.order(trouble("stop", passes=(1, 3), file=file))
        with job.running("--scheduler", cluster.address) as process:
            until(lambda: len(job.happened()) == 1, "the first stop")
            slow = job.happened()[0][1]
            until(lambda: stopped(slow), "a stopped worker")
            until(lambda: any(r[0] == 1 and r[2] != slow for r in job.reads()), "another at work")
            os.kill(slow, signal.SIGCONT)
            until(lambda: len(job.happened()) == 2, "the second stop")
            lost = job.happened()[1][1]
            until(lambda: any(r[:2] == (3, file) and r[2] != lost for r in job.reads()), "another")
            os.kill(lost, signal.SIGCONT)
            result = ended(process)
        log = cluster.log.read_text()
    assert "Worker failed to heartbeat" in log
    job.require_done(result)


def test_temporary_failures_of_a_store_change_nothing(tmp_path: Path) -> None:
    job = Job.make(tmp_path)
    job.order(
        trouble("503", passes=(1,), file="part-003.parquet", times=2),
        trouble("truncated", passes=(2,), file="part-005.parquet"),
        trouble("truncated", passes=(2,), file="part-010.parquet", times=2),
        trouble("503", passes=(3,), times=6),  # any read
        # More failures than one task retries: the task is tried again on another worker.
        trouble("503", passes=(4,), file="part-007.parquet", times=5),
    )
    result = job.run()
    assert len(job.happened()) == 2 + 3 + 6 + 5
    job.require_done(result)


def test_a_store_that_stays_busy_is_exit_code_4(tmp_path: Path) -> None:
    job = Job.make(tmp_path)
    job.order(trouble("503", passes=(2,), file="part-003.parquet", times=100))
    result = job.run()
    assert len(job.happened()) == 3 * 4  # three tasks, each with four reads
    assert "123.4" not in result.stderr
    job.require_failed(result, 4, "part-003.parquet", "or its store fails", "run the same command")


@pytest.mark.parametrize(
    ("change", "words"),
    [("remove", ("part-006.parquet", "went away")), ("touch", ("changed while it was read",))],
)
def test_input_that_changes_in_a_pass_is_exit_code_4(
    change: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    job = Job.make(tmp_path)
    job.order(trouble(change, passes=(2,), file="part-006.parquet"))
    result = job.run()
    assert len(job.happened()) == 1
    assert len(job.answers()) == 2  # no noise was drawn for the pass that read it
    job.put_back()
    job.require_failed(result, 4, *words, "run the same command again")
