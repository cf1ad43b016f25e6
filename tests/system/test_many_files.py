"""20,000 tiny files on a cluster: planned on its workers, in waves, with a small graph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import ReleaseSpec, release
from dpgmm_dist.data import parquet_schema
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.pipeline.resolve import open_dataset

from .releases import Rows, digests, labelled, write_spec

FILES = 20_000
KINDS = 50


def many_files(folder: Path, count: int) -> Path:
    """``count`` files, few of them different: hard links would be refused as one file twice."""
    small = Rows.make(400).write(folder / "kinds", files=KINDS)
    contents = [path.read_bytes() for path in sorted(small.iterdir())]
    data = folder / "data"
    data.mkdir()
    for number in range(count):
        (data / f"part-{number:06d}.parquet").write_bytes(contents[number % KINDS])
    return data


# A lambda travels by value: the scheduler's process knows no tests.
TASKS_KNOWN = lambda dask_scheduler: len(dask_scheduler.tasks)  # noqa: E731 - travels by value


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Path, psutil.Process]]:
    """Scheduler and two workers in processes of their own: the scheduler's file, its process."""
    file = folder / "scheduler.json"
    quiet = ["--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1"]
    commands = [
        ["distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", *quiet],
        ["distributed.cli.dask_worker", "--nworkers", "2", "--nthreads", "1", *quiet],
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *command, "--scheduler-file", str(file)],
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        yield file, psutil.Process(started[0].pid)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


class Watched(DaskEngine):
    """Notes tasks known to the scheduler and its memory, whenever a pass reports."""

    def __init__(self, client: distributed.Client, scheduler: psutil.Process) -> None:
        super().__init__(client)
        self.scheduler = scheduler
        self.most = 0
        self.planned_on_workers = 0
        self.megabytes: list[float] = []

    def gather(self, function, items):  # type: ignore[no-untyped-def]
        self.planned_on_workers += len(items)
        return super().gather(function, items)

    def run(self, context, units, report):  # type: ignore[no-untyped-def]
        def watch(fraction: float) -> None:
            self.most = max(self.most, self.client.run_on_scheduler(TASKS_KNOWN))
            self.megabytes.append(self.scheduler.memory_info().rss / 2**20)
            report(fraction)

        return super().run(context, units, watch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_files(tmp_path: Path) -> None:
    data = many_files(tmp_path, FILES)
    spec = ReleaseSpec.from_yaml(
        write_spec(tmp_path / "spec.yaml", data, dataset=labelled(), model={"components": 1})
    )
    noise = {"release_id": "same", "insecure_test_noise": 5}
    with (
        cluster(tmp_path) as (file, scheduler),
        open_engine(scheduler_file=str(file)) as engine,
    ):
        assert isinstance(engine, DaskEngine)
        engine.client.wait_for_workers(2, timeout=300)
        watched = Watched(engine.client, scheduler)
        release(spec, output=str(tmp_path / "there"), engine=watched, **noise)
    assert watched.planned_on_workers == FILES // 200
    # Waves of 4 tasks a thread, two in flight, and their reduction: not one task a file.
    assert 0 < watched.most < 64
    # The names of 20,000 files went through the scheduler before; from then on it does not grow.
    first, last = watched.megabytes[0], max(watched.megabytes)
    assert last - first < 24, watched.megabytes

    # Few large files with the same rows, on threads: the same sums, so the same release.
    large = tmp_path / "one"
    large.mkdir()
    kinds = [pq.read_table(path) for path in sorted((tmp_path / "kinds").iterdir())]
    pq.write_table(pa.concat_tables(kinds * (FILES // KINDS)), large / "all.parquet")
    same = ReleaseSpec.from_yaml(
        write_spec(tmp_path / "one.yaml", large, dataset=labelled(), model={"components": 1})
    )
    release(same, output=str(tmp_path / "here"), **noise)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


def test_footers_read_in_parts_are_those_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_schema, "_MANY_FILES", 10)
    monkeypatch.setattr(parquet_schema, "_FILES_PER_TASK", 7)
    data = many_files(tmp_path, 60)
    spec = ReleaseSpec.from_yaml(write_spec(tmp_path / "spec.yaml", data, dataset=labelled()))
    parts: list[int] = []

    def gather(function, items):  # type: ignore[no-untyped-def]
        parts.append(len(items))
        assert os.fspath(tmp_path) not in repr(items) + repr(function)
        return [function(item) for item in items]

    at_once, in_parts = open_dataset(spec.dataset), open_dataset(spec.dataset, gather)
    assert parts == [-(-60 // 7)]
    assert at_once.footers() == in_parts.footers()
    assert [unit.bytes for unit in at_once.plan()] == [unit.bytes for unit in in_parts.plan()]
