"""The Dask engine: the sums of the threads' engine, in waves, and errors that quote nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dpgmm_dist.data.blocks import FilePiece, PlanUnit
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.cluster import DaskEngine, _call_packed, _check_versions, _merge, packed
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import ClusterError, DataError, SpecError
from dpgmm_dist.passes.run import PassContext, PassFailed
from dpgmm_dist.privacy.exact import ExactStatistic

from ...queries import integers, real_queries
from ...system.troubled import until

SECRET = 123.456789


def source_of(rows: int = 3000, chunk_rows: int = 700, kind: type = ArraySource) -> ArraySource:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 4)) * 0.3
    x[::50] = SECRET
    return kind(x, rng.integers(0, 5, rows), labels=(0, 1, 2), chunk_rows=chunk_rows)


def context_of(source: ArraySource, index: int = 0) -> PassContext:
    return PassContext(source, FeatureMap(4, 1.0), real_queries("labelled")[index])


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    """Two workers in threads of this process: quick to start, and the same code as any cluster."""
    import dask
    import distributed

    with (
        dask.config.set({"distributed.admin.log-length": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("chunk_rows", [5000, 700, 100, 40])
def test_the_sums_are_those_of_the_threads(client, chunk_rows):
    """One unit, fewer than a wave, some waves, and many: folded in a tree fixed by index."""
    source = source_of(chunk_rows=chunk_rows)
    units = source.plan()
    for index in (0, len(real_queries("labelled")) - 1):
        want = LocalEngine(2).run(context_of(source, index), units, lambda _: None)
        got = DaskEngine(client).run(context_of(source, index), units, lambda _: None)
        assert integers(got) == integers(want)


def test_workers_that_come_and_go_in_a_pass_change_no_sum():
    """One worker begins, two join, the first one leaves; the record tells of it."""
    import distributed

    source = source_of(chunk_rows=20)
    units = source.plan()
    want = LocalEngine(2).run(context_of(source), units, lambda _: None)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as driver,
    ):
        engine, (first,) = DaskEngine(driver, most_threads=3), driver.nthreads()
        seen: list[float] = []

        def report(fraction: float) -> None:
            seen.append(fraction)
            if len(seen) == 2:
                cluster.scale(3)
                driver.wait_for_workers(3, timeout=300)
            if len(seen) == 5:
                driver.retire_workers([first])

        got = engine.run(context_of(source), units, report)
        assert len(seen) > 5
        assert integers(got) == integers(want)
        usage = engine.usage()
        assert (usage.tasks, usage.joined, usage.lost) == (len(units), 2, 1)


def test_unequal_workers_change_no_sum():
    """A worker of another size joins in the middle of the pass, and both work on."""
    import distributed

    source = source_of(chunk_rows=20)
    units = source.plan()
    want = LocalEngine(2).run(context_of(source), units, lambda _: None)

    async def large(address: str) -> distributed.Worker:
        return await distributed.Worker(
            address, nthreads=3, memory_limit="30GB", dashboard=False, name="large"
        )

    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            memory_limit="20GB",  # of this process: Dask starts nothing where 80% is taken
            processes=False,
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster) as driver,
    ):
        engine, joined = DaskEngine(driver, most_threads=4), []

        def report(_: float) -> None:
            if not joined:
                joined.append(cluster.sync(large, cluster.scheduler_address))
                driver.wait_for_workers(2, timeout=300)

        got = engine.run(context_of(source), units, report)
        assert integers(got) == integers(want)
        assert [threads for _, threads in engine.limits()] == [1, 3]
        assert engine.usage().joined == 1
        assert "large" in driver.run(_name).values()
        cluster.sync(joined[0].close)


def _name(dask_worker):
    return dask_worker.name


def test_progress_is_of_planned_units_and_ends_at_one(client):
    source = source_of(chunk_rows=40)
    reported: list[float] = []
    DaskEngine(client).run(context_of(source), source.plan(), reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == 1.0
    assert len(reported) > 3
    again: list[float] = []
    empty = replace(source, X=np.full_like(source.X, np.nan))
    DaskEngine(client).run(context_of(empty), empty.plan(), again.append)
    assert again == reported


def test_nothing_stays_on_the_cluster(client):
    source = source_of()
    DaskEngine(client).run(context_of(source), source.plan(), lambda _: None)
    until(
        lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)),
        "the scheduler to forget all tasks",
    )


def test_arguments_of_tasks_are_small():
    """Schedulers may keep them long after: 128 files' names are 20 kB as objects."""
    pieces = tuple(FilePiece(f"bucket/data/day={i}/part-{i:06d}.parquet", (0,)) for i in range(128))
    unit = PlanUnit(3, pieces, 1 << 27)
    assert len(packed(unit)) < 2000
    unpacked = _call_packed(lambda argument: argument, packed(unit))
    assert unpacked.index == 3
    assert [piece.path for piece in unpacked.pieces] == [piece.path for piece in pieces]


def test_no_warning_tells_the_size_of_rows_in_memory(client, capfd):
    import dask

    source = source_of()
    with (
        warnings.catch_warnings(record=True) as caught,
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "100 B"}),
    ):
        warnings.simplefilter("always")
        client.submit(len, b"x" * 1000, pure=False).result()
        assert any("large graph" in str(warning.message) for warning in caught)  # it would warn
        caught.clear()
        DaskEngine(client)._share(context_of(source)).result()
    assert not caught
    assert "large graph" not in "".join(capfd.readouterr())


@dataclass(frozen=True, repr=False, eq=False)
class Damaged(ArraySource):
    """One unit cannot be read."""

    def blocks(self, unit, max_rows):
        if unit.index == 2:
            raise DataError("cannot read b.parquet: it is damaged")
        return super().blocks(unit, max_rows)


@dataclass(frozen=True, repr=False, eq=False)
class Broken(ArraySource):
    """One unit fails with an exception that quotes values."""

    def blocks(self, unit, max_rows):
        if unit.index == 2:
            raise ValueError(f"could not convert {self.X}")
        return super().blocks(unit, max_rows)


@pytest.mark.parametrize(
    ("kind", "error", "code", "text"),
    [(Damaged, DataError, 4, "b.parquet"), (Broken, PassFailed, 5, "unit 2 failed (ValueError)")],
)
def test_a_failed_task_ends_the_pass_with_a_code(client, capfd, kind, error, code, text):
    source = source_of(kind=kind)
    with pytest.raises(error) as caught:
        DaskEngine(client).run(context_of(source), source.plan(), lambda _: None)
    assert text in str(caught.value)
    assert caught.value.exit_code == code
    assert caught.value.__cause__ is None
    printed = "".join(capfd.readouterr())
    assert "123.4" not in printed + repr(caught.value)


class Gone:
    """A client whose cluster went away in a way that quotes a row."""

    def nthreads(self):
        raise OSError(f"connection lost while sending {SECRET}")

    def submit(self, *_, **__):
        raise OSError(f"connection lost while sending {SECRET}")

    def wait_for_workers(self, *_, **__):
        raise TimeoutError(f"{SECRET}")

    def run(self, *_):
        return {"a": "0.0.1", "b": "0.0.2"}


def test_whatever_dask_raises_becomes_a_code():
    source = source_of()
    with pytest.raises(ClusterError, match=r"during pass moments\.centre \(OSError\)") as caught:
        DaskEngine(Gone()).run(context_of(source), source.plan(), lambda _: None)
    assert "123.4" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_workers_that_do_not_answer():
    with pytest.raises(ClusterError, match=r"do not answer \(TimeoutError\)"):
        _check_versions(Gone())


def test_workers_of_another_version():
    gone = Gone()
    gone.wait_for_workers = lambda *_, **__: None
    with pytest.raises(ClusterError, match=r"workers run dpgmm_dist 0\.0\.1, 0\.0\.2, this is"):
        _check_versions(gone)


def test_merging_takes_any_number_of_partial_sums():
    parts = []
    for value in range(1, 6):
        part = ExactStatistic.zeros("s", (1,))
        part.add_integers(0, np.array([10**value]))
        parts.append(part)
    assert integers(_merge(parts)) == [[111_110]]
    assert integers(_merge(parts[:1])) == [[10]]


# ---------------------------------------------------------------- choosing an engine


def test_threads_by_default():
    with open_engine() as engine:
        assert isinstance(engine, LocalEngine)
        assert engine.threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 1, "scheduler": "tcp://127.0.0.1:1"},
        {"workers": 1, "scheduler_file": "f"},
        {"scheduler": "tcp://127.0.0.1:1", "scheduler_file": "f"},
    ],
)
def test_one_cluster_at_a_time(options):
    with pytest.raises(SpecError, match="at most one"), open_engine(**options):
        pass


@pytest.mark.parametrize("workers", [0, -3])
def test_workers_are_counted_from_one(workers):
    with pytest.raises(SpecError, match=f"got {workers}"), open_engine(workers):
        pass


def test_an_address_that_is_none():
    refused = pytest.raises(ClusterError, match="no Dask cluster at nonsense://x")
    with refused, open_engine(scheduler="nonsense://x"):
        pass


def test_a_scheduler_file_that_is_no_scheduler_file(tmp_path: Path):
    file = tmp_path / "scheduler.json"
    file.write_text("{}")
    with (
        pytest.raises(ClusterError, match=r"scheduler\.json"),
        open_engine(scheduler_file=str(file)),
    ):
        pass


def test_a_scheduler_file_that_never_comes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("dpgmm_dist.engine.cluster._CONNECT_SECONDS", 0.3)
    refused = pytest.raises(ClusterError, match=r"none\.json \(FileNotFoundError\)")
    with refused, open_engine(scheduler_file=str(tmp_path / "none.json")):
        pass


LISTENING = """
import warnings
import psutil
from dpgmm_dist.engine import open_engine


def callbacks(dask_worker):
    return list(dask_worker.periodic_callbacks)


if __name__ == "__main__":
    warnings.simplefilter("error")
    with open_engine(workers=1):
        pass
    with open_engine(workers=1) as engine:  # Dask's settings are as they were
        # No log of what was sent to workers: it would hold every task's arguments.
        assert engine.client.cluster.scheduler.transition_log.maxlen == 0
        # No profiler in a worker, whatever the user's settings are: it can deadlock.
        [of_worker] = engine.client.run(callbacks).values()
        assert "heartbeat" in of_worker and "profile" not in of_worker, of_worker
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            for found in process.net_connections():
                if found.status == psutil.CONN_LISTEN:
                    print(found.laddr.ip)
"""


def test_local_workers_are_not_open_to_the_network(tmp_path: Path):
    """No process of a local cluster listens beyond this machine, not even the second cluster."""
    script = tmp_path / "listening.py"
    script.write_text(LISTENING)
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "True"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert set(done.stdout.split()) == {"127.0.0.1"}
    assert done.stderr == ""


# The last one: in one process with the scheduler, its error holds the futures of the pass.
def test_a_worker_of_another_version_is_refused_in_the_middle_of_a_pass(client):
    source = source_of()
    context = replace(context_of(source), version="0.0.1")
    with pytest.raises(PassFailed, match=r"the driver 0\.0\.1"):
        DaskEngine(client).run(context, source.plan(), lambda _: None)
