"""A worker killed in the middle of every pass of a release on a cluster.

Everything else that may befall a cluster: tests/external/test_cluster_faults.py.
"""

from __future__ import annotations

from pathlib import Path

from .troubled import Job, trouble


def test_a_worker_killed_in_every_pass_changes_nothing(tmp_path: Path) -> None:
    """In the first wave of tasks, and in the second, when it holds sums of the first."""
    job = Job.make(tmp_path)
    job.order(
        trouble("kill", passes=(0, 2, 4), file="part-001.parquet"),
        trouble("kill", passes=(1, 3, 5), file="part-010.parquet"),
    )
    job.require_done(job.run())
    passes = list(range(len(job.answers())))
    assert [now for now, _ in job.happened()] == passes == [0, 1, 2, 3, 4, 5]
