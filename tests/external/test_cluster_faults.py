"""Workers that run out of memory, stop or all go, a scheduler that goes, a store in trouble.

Whatever happens the ledger holds one charge, the journal is whole, stderr says one thing, and the
same command ends in the release that an undisturbed run gives, to the byte under test noise. A
worker killed in every pass: tests/system/test_cluster_faults.py.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ..system.troubled import Job, dask_cluster, ended, stopped, trouble, until


def test_a_task_that_no_worker_has_the_memory_for_is_exit_code_5(tmp_path: Path) -> None:
    job = Job.make(tmp_path, memory="700MB")
    job.order(trouble("fill memory", passes=(2,), file="part-004.parquet", times=10))
    result = job.run()
    assert "exceeded 95% memory budget" in result.stderr
    assert len(job.happened()) == 4  # as often as Dask tries
    assert len(job.answers()) == 2
    words = ("pass cells.1 (KilledWorker)", "out of memory", "give workers more memory or fewer")
    job.require_failed(result, 5, *words, "run the same command again")


def test_one_worker_out_of_memory_is_done_without(tmp_path: Path) -> None:
    job = Job.make(tmp_path, memory="700MB")
    job.order(trouble("fill memory", passes=(1, 4)))
    result = job.run()
    assert [now for now, _ in job.happened()] == [1, 4]
    job.require_done(result)


def test_a_worker_killed_while_privacy_units_are_brought_together_changes_nothing(
    tmp_path: Path,
) -> None:
    """What it had written to scratch storage is written again, under the same names."""
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
        words = ("pass cells.1", "the scheduler was lost", "run the same command again")
        job.require_failed(result, 5, *words, resume=("--scheduler", cluster.address))


def test_a_cluster_without_workers_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    patience = "failures.NO_WORKERS_SECONDS, failures._LOOK_SECONDS = 2.0, 0.2"
    job = Job.make(tmp_path, f"from dpgmm_dist.engine import failures; {patience}")
    with dask_cluster(tmp_path / "cluster", job.env) as cluster:
        job.order(trouble("kill", passes=(1,), times=len(cluster.workers)))
        result = job.run("--scheduler", cluster.address)
    assert len(job.answers()) == 1
    job.require_failed(result, 5, "pass moments.second", "there was no worker for", "start workers")


def test_a_slow_worker_is_waited_for_and_one_that_was_given_up_counts_once(tmp_path: Path) -> None:
    """Stopped until others have worked; then until its task has been done by another."""
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


def test_a_stores_passing_trouble_on_workers_changes_nothing(tmp_path: Path) -> None:
    job = Job.make(tmp_path)
    job.order(
        trouble("503", passes=(1,), file="part-003.parquet", times=2),
        trouble("truncated", passes=(2,), file="part-005.parquet"),
        trouble("truncated", passes=(2,), file="part-010.parquet", times=2),
        trouble("503", passes=(3,), times=6),  # throttling: whoever reads
        # More than a task reads through: it is tried again elsewhere.
        trouble("503", passes=(4,), file="part-007.parquet", times=5),
    )
    result = job.run()
    assert len(job.happened()) == 2 + 3 + 6 + 5
    job.require_done(result)


def test_a_store_that_stays_busy_is_exit_code_4(tmp_path: Path) -> None:
    job = Job.make(tmp_path)
    job.order(trouble("503", passes=(2,), file="part-003.parquet", times=100))
    result = job.run()
    assert len(job.happened()) == 3 * 4  # tasks, and reads of each
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
    assert len(job.answers()) == 2  # nothing was drawn for the pass that read it
    job.put_back()
    job.require_failed(result, 4, *words, "run the same command again")
