"""20,000 tiny files on a cluster: planned on its workers, in waves, with a small graph."""

from __future__ import annotations

import os
from pathlib import Path

import distributed
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import ReleaseSpec, release
from dpgmm_dist.data import parquet_schema
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.spec_cluster import ClusterSpec

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


def tasks_known(dask_scheduler: distributed.Scheduler) -> int:
    return len(dask_scheduler.tasks)


class Watched(DaskEngine):
    """Notes how many tasks the scheduler knows, whenever a pass reports."""

    def __init__(self, client: distributed.Client) -> None:
        super().__init__(client)
        self.most = 0
        self.planned_on_workers = 0

    def gather(self, function, items):  # type: ignore[no-untyped-def]
        self.planned_on_workers += len(items)
        return super().gather(function, items)

    def run(self, context, units, report):  # type: ignore[no-untyped-def]
        def watch(fraction: float) -> None:
            self.most = max(self.most, self.client.run_on_scheduler(tasks_known))
            report(fraction)

        return super().run(context, units, watch)


@pytest.mark.slow
def test_twenty_thousand_files(tmp_path: Path) -> None:
    data = many_files(tmp_path, FILES)
    spec = ReleaseSpec.from_yaml(
        write_spec(tmp_path / "spec.yaml", data, dataset=labelled(), model={"components": 1})
    )
    noise = {"release_id": "same", "insecure_test_noise": 5}
    with open_engine(cluster=ClusterSpec(kind="local", workers=2)) as engine:
        assert isinstance(engine, DaskEngine)
        watched = Watched(engine.client)
        release(spec, output=str(tmp_path / "there"), engine=watched, **noise)
    assert watched.planned_on_workers == FILES // 200
    # Waves of 4 tasks a thread, two in flight, and their reduction: not one task a file.
    assert 0 < watched.most < 64

    # Few large files with the same rows, on threads: the same sums, so the same release.
    one = tmp_path / "one"
    one.mkdir()
    kinds = [pq.read_table(path) for path in sorted((tmp_path / "kinds").iterdir())]
    pq.write_table(pa.concat_tables(kinds * (FILES // KINDS)), one / "all.parquet")
    same = ReleaseSpec.from_yaml(
        write_spec(tmp_path / "one.yaml", one, dataset=labelled(), model={"components": 1})
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

    at_once, in_parts = ParquetSource.from_spec(spec), ParquetSource.from_spec(spec, gather)
    assert parts == [-(-60 // 7)]
    assert at_once.footers() == in_parts.footers()
    assert [unit.bytes for unit in at_once.plan()] == [unit.bytes for unit in in_parts.plan()]
