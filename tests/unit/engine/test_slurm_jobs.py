"""Jobs of Slurm workers that end are submitted again; a stand-in answers for Slurm and Dask."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dpgmm_dist.engine import slurm_jobs
from dpgmm_dist.engine.slurm_jobs import MOST_FAILURES, ended_jobs_replaced, running_jobs


class Cluster:
    """As much of a SLURMCluster as the watch knows."""

    def __init__(self, *names: str) -> None:
        self.worker_spec = dict.fromkeys(names)
        self.workers: dict[str, Any] = {}
        self.observed: set[str] = set()
        self.loop = SimpleNamespace(add_callback=lambda call, *given: call(*given))
        self.submitted = 0
        self.scale(jobs=len(names))

    def scale(self, jobs: int) -> None:
        assert jobs == len(self.worker_spec)
        for name in self.worker_spec:
            if name not in self.workers:
                self.submitted += 1
                self.workers[name] = SimpleNamespace(job_id=str(self.submitted))

    def jobs(self) -> dict[str, str]:
        return {name: worker.job_id for name, worker in self.workers.items()}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str] | None]:
    answer: dict[str, set[str] | None] = {"running": set()}
    monkeypatch.setattr(slurm_jobs, "running_jobs", lambda: answer["running"])
    return answer


def test_an_ended_job_is_submitted_again_and_no_other(
    slurm: dict[str, set[str] | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dpgmm_dist")
    cluster = Cluster("w-0", "w-1")
    watch = slurm_jobs._Watch(cluster)
    cluster.observed = {"w-0", "w-1"}
    slurm["running"] = {"1", "2", "77"}
    watch.look()
    assert cluster.jobs() == {"w-0": "1", "w-1": "2"}
    slurm["running"] = None  # Slurm does not answer: nothing is known
    watch.look()
    assert cluster.submitted == 2
    slurm["running"] = {"1"}
    watch.look()
    assert cluster.jobs() == {"w-0": "1", "w-1": "3"}
    assert [record.event for record in caplog.records] == ["worker_lost"]  # type: ignore[attr-defined]
    del cluster.worker_spec["w-1"]  # an elastic cluster wants it no more
    watch.look()
    assert cluster.submitted == 3


def test_jobs_that_end_before_their_worker_starts_are_given_up(
    slurm: dict[str, set[str] | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dpgmm_dist")
    cluster = Cluster("w-0")
    watch = slurm_jobs._Watch(cluster)
    for _ in range(MOST_FAILURES + 2):
        watch.look()
    assert cluster.submitted == MOST_FAILURES
    events = [record.event for record in caplog.records]  # type: ignore[attr-defined]
    assert events.count("worker_not_started") == 1

    cluster = Cluster("w-0")
    watch = slurm_jobs._Watch(cluster)
    for _ in range(MOST_FAILURES + 2):  # workers of several processes have names of their own
        cluster.observed, slurm["running"] = {"w-0-1"}, {cluster.jobs()["w-0"]}
        watch.look()
        cluster.observed, slurm["running"] = set(), set()
        watch.look()
    assert cluster.submitted == MOST_FAILURES + 3


def test_what_slurm_says_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "squeue"
    lines = ["1 RUNNING", "2 PENDING", "3 CANCELLED", "4 PREEMPTED", "5 COMPLETING", "6 NODE_FAIL"]
    program.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(f"'{line}'" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert running_jobs() == {"1", "2", "5"}
    program.write_text("#!/bin/sh\nexit 1\n")
    assert running_jobs() is None


def test_the_watch_ends_with_the_cluster(
    slurm: dict[str, set[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_jobs, "LOOK_SECONDS", 0.01)
    cluster = Cluster("w-0")
    cluster.observed, slurm["running"] = {"w-0"}, {"1"}
    with ended_jobs_replaced(cluster):
        deadline = 3000
        slurm["running"] = set()
        while cluster.submitted < 2 and deadline:
            deadline -= 1
            slurm_jobs.threading.Event().wait(0.01)
    submitted = cluster.submitted
    assert submitted >= 2
    slurm_jobs.threading.Event().wait(0.05)
    assert cluster.submitted == submitted
