"""Jobs of Slurm workers that end before the release does are submitted again.

Dask notices that a worker is gone, but not that Slurm has ended its job (``scancel``, preemption, a
lost node, a time limit): it would go on with fewer workers. So Slurm is asked from time to time. A
job that Slurm itself queues again is left alone.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LOOK_SECONDS = 10.0
"""How often Slurm is asked. Each time costs its controller one request."""
MOST_FAILURES = 3
"""Jobs in a row that may end before their worker has started; then it is given up."""
_ASK_SECONDS = 60
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
_log = logging.getLogger("dpgmm_dist.engine")  # the one whose events the command shows


@contextmanager
def ended_jobs_replaced(cluster: Any) -> Iterator[None]:
    """Replace ended jobs of a SLURMCluster for as long as the context is open."""
    stop = threading.Event()
    watch = _Watch(cluster)

    def look() -> None:
        while not stop.wait(LOOK_SECONDS):
            watch.look()

    thread = threading.Thread(target=look, name="slurm-jobs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def running_jobs() -> set[str] | None:
    """Ids of this user's jobs that run or wait; None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--states=all", "--format=%A %T", f"--user={os.getuid()}"]
    try:
        answer = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    jobs = [line.split() for line in answer.stdout.splitlines()]
    return {job[0] for job in jobs if len(job) == 2 and job[1] not in _ENDED}


class _Watch:
    """What was seen of the jobs of a cluster."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._started: set[str] = set()
        """Jobs whose worker has reached the scheduler."""
        self._failures: Counter[str] = Counter()
        """By name of the worker: jobs in a row that ended before that."""

    def look(self) -> None:
        """Ask Slurm once, and let the cluster replace the jobs that have ended."""
        # Before Slurm is asked, so that it knows all of them.
        jobs = {name: job.job_id for name, job in list(self._cluster.workers.items())}
        running = running_jobs()
        if running is None:
            return
        self._note_started(jobs)
        ended = {name: job for name, job in jobs.items() if job and job not in running}
        restarted = {name: job for name, job in ended.items() if self._may_start_again(name, job)}
        if restarted:
            self._cluster.loop.add_callback(_submit_again, self._cluster, restarted)

    def _note_started(self, jobs: Mapping[str, str]) -> None:
        workers = [str(name) for name in self._cluster.observed]
        for name, job in jobs.items():
            # A job of several processes has workers called NAME-0, NAME-1, ...
            if any(worker == name or worker.startswith(f"{name}-") for worker in workers):
                self._started.add(job)
                self._failures.pop(name, None)

    def _may_start_again(self, name: str, job: str) -> bool:
        if job in self._started:
            self._started.discard(job)
            return True
        self._failures[name] += 1
        if self._failures[name] == MOST_FAILURES:
            _log.warning(
                "%d Slurm jobs of a worker ended before it had started, and no other is submitted: "
                "see their log",
                MOST_FAILURES,
                extra={"event": "worker_not_started"},
            )
        return self._failures[name] < MOST_FAILURES


def _submit_again(cluster: Any, ended: Mapping[str, str]) -> None:
    """Forget ended jobs of workers that are still wanted; the cluster then starts them anew."""
    for name, number in ended.items():
        job = cluster.workers.get(name)
        if name in cluster.worker_spec and job is not None and job.job_id == number:
            del cluster.workers[name]
            _log.warning(
                "the Slurm job of a worker ended; another is submitted, and what it held is "
                "computed again",
                extra={"event": "worker_lost"},
            )
    cluster.scale(jobs=len(cluster.worker_spec))
