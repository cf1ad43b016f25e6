"""Passes over dask arrays: the sums of the same rows in memory, and no row in a graph or a log."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import cloudpickle
import dask.array as da
import distributed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.source import ArraySource, DaskArraySource
from dpgmm_dist.engine import engine_in_use
from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.engine.dask_arrays import Summed, failure_of
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import ClusterError, DataError
from dpgmm_dist.passes.run import PassContext

from ...queries import integers, real_queries
from ...variants import variant

FEATURES = FeatureMap(4, 1.0)
LABELS = (0, 1, 2)
SECRET = 123.456789


def made(rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 4)) * 0.3
    x[::50] = SECRET
    x[1::50, 2] = np.nan
    return x, rng.integers(0, 5, rows)


X, Y = made()


def context(source: Any, index: int = 0) -> PassContext:
    return PassContext(source, FEATURES, real_queries("labelled")[index])


def in_memory(index: int = 0, x: np.ndarray = X, y: np.ndarray = Y) -> list[list[int]]:
    source = ArraySource(x, y, LABELS)
    return integers(LocalEngine(1).run(context(source, index), source.plan(), lambda _: None))


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    import dask

    with (
        dask.config.set({"distributed.admin.log-length": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@st.composite
def chunkings(draw: Any, n: int) -> tuple[int, ...]:
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    return tuple(b - a for a, b in itertools.pairwise([0, *cuts, n]))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_sums_are_those_of_the_rows_however_they_are_chunked(data):
    x = da.from_array(X, chunks=(data.draw(chunkings(len(X))), data.draw(st.integers(1, 4))))
    y = da.from_array(Y, chunks=(data.draw(chunkings(len(Y))),))
    source = DaskArraySource(x, y, LABELS)
    index = data.draw(st.integers(0, len(real_queries("labelled")) - 1))
    units = source.plan(data.draw(st.sampled_from([1, 5000, 1 << 30])))
    got = LocalEngine(2).run(context(source, index), units, lambda _: None)
    assert integers(got) == in_memory(index)


@pytest.mark.parametrize("rows", [50, variant(300), variant(600)])
@pytest.mark.parametrize("kind", ["in the graph", "persisted", "computed", "of unknown size"])
def test_a_cluster_makes_the_same_sums(client, rows, kind):
    x, y = da.from_array(X, chunks=(rows, 4)), da.from_array(Y, chunks=(rows,))
    if kind == "persisted":
        x, y = client.persist([x, y])
    elif kind == "computed":
        x = (x * 2.0).rechunk((rows, 4)) / 2.0
    elif kind == "of unknown size":
        x, y = x[da.from_array(Y >= 0, chunks=rows)], y[y >= 0]
    source = DaskArraySource(x, y, LABELS)
    engine = DaskEngine(client)
    for index in (0, len(real_queries("labelled")) - 1):
        fractions: list[float] = []
        got = engine.run(context(source, index), source.plan(5000), fractions.append)
        assert integers(got) == in_memory(index)
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        source.require_unchanged()


class Graphs(distributed.SchedulerPlugin):
    """Looks for a value in every graph that the scheduler gets."""

    def __init__(self, value: float) -> None:
        self.value = np.float64(value).tobytes()
        self.found: list[str] = []
        self.seen = 0

    def update_graph(self, scheduler: Any, **_: Any) -> None:
        for key, task in scheduler.tasks.items():
            self.seen += 1
            if self.value in cloudpickle.dumps(task.run_spec):
                self.found.append(str(key))


def test_no_row_is_in_a_graph_that_the_scheduler_keeps(client):
    """This holds even where the array's own graph has all rows."""
    graphs = Graphs(SECRET)
    client.register_plugin(graphs, name="graphs")
    try:
        x = da.from_array(X, chunks=(100, 4))
        source = DaskArraySource(x, da.from_array(Y, chunks=50), LABELS)
        engine = DaskEngine(client)
        for index in (0, 1):
            got = engine.run(context(source, index), source.plan(5000), lambda _: None)
            assert integers(got) == in_memory(index)
        seen = client.run_on_scheduler(_graphs)
        assert seen[0] > 20
        assert seen[1] == []
        x.sum().compute(scheduler=client)  # Dask alone sends the rows, and the plugin sees them
        assert client.run_on_scheduler(_graphs)[1] != []
    finally:
        client.unregister_scheduler_plugin("graphs")


def _graphs(dask_scheduler: Any) -> tuple[int, list[str]]:
    plugin = dask_scheduler.plugins["graphs"]
    return plugin.seen, plugin.found


def test_only_sums_reach_the_driver(client, monkeypatch):
    got: list[type] = []
    whole = distributed.Future.result

    def result(self: Any, *arguments: Any, **options: Any) -> Any:
        value = whole(self, *arguments, **options)
        got.append(type(value))
        return value

    monkeypatch.setattr(distributed.Future, "result", result)
    monkeypatch.setattr(client, "gather", None)
    source = DaskArraySource(da.from_array(X, chunks=100), da.from_array(Y, chunks=100), LABELS)
    DaskEngine(client).run(context(source), source.plan(1), lambda _: None)
    assert set(got) == {Summed}


def test_large_arguments_in_a_graph_are_refused(client):
    x = da.from_array(X, chunks=100).map_blocks(_first, other=np.zeros((10_000, 4)))
    source = DaskArraySource(x)
    with pytest.raises(DataError, match="holds large arguments"):
        DaskEngine(client).run(context(source), source.plan(), lambda _: None)
    LocalEngine(1).run(context(source), source.plan(), lambda _: None)  # threads have no scheduler


def _first(block: np.ndarray, other: np.ndarray) -> np.ndarray:
    return block


def _quotes(block: np.ndarray) -> np.ndarray:
    if SECRET in block:
        raise ValueError(f"could not convert {block}")
    return block


def _masked(block: np.ndarray) -> np.ndarray:
    return np.ma.masked_array(block)


@pytest.mark.parametrize("where", ["threads", "cluster"])
@pytest.mark.parametrize(
    ("function", "text"),
    [(_quotes, r"cannot be computed \(ValueError\)"), (_masked, "got MaskedArray")],
)
def test_failures_carry_no_value_and_no_cause(client, caplog, where, function, text):
    x = da.from_array(X, chunks=(100, 4)).map_blocks(function, meta=np.empty((0, 0)))
    source = DaskArraySource(x)
    engine = LocalEngine(2) if where == "threads" else DaskEngine(client)
    caplog.set_level(logging.DEBUG, "dpgmm_dist")
    with pytest.raises(DataError, match=text) as caught:
        engine.run(context(source), source.plan(), lambda _: None)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "123.4" not in repr(caught.value)
    if function is _masked:  # our task fails; what Dask logs of a user's task is up to the user
        assert "123.4" not in caplog.text


def test_a_lost_cluster_is_not_an_unreadable_array():
    assert isinstance(failure_of(distributed.KilledWorker("t", None, 1)), ClusterError)
    assert isinstance(failure_of(distributed.client.FutureCancelledError("t", "r")), ClusterError)
    assert isinstance(failure_of(OSError("file of rows")), DataError)


@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_an_array_that_changes_between_passes_is_found_out(client, where):
    x = da.from_array(X, chunks=(100, 4)).map_blocks(_drawn, meta=np.empty((0, 0)))
    source = DaskArraySource(x)
    engine = LocalEngine(2) if where == "threads" else DaskEngine(client)
    engine.run(context(source), source.plan(), lambda _: None)
    source.require_unchanged()
    engine.run(context(source), source.plan(), lambda _: None)
    with pytest.raises(DataError, match="gave other rows"):
        source.require_unchanged()


def _drawn(block: np.ndarray) -> np.ndarray:
    return block + np.random.default_rng().normal(size=block.shape)


CALLS: list[int] = []


def _counted(block: np.ndarray) -> np.ndarray:
    CALLS.append(1)  # workers are in this process
    return block


def test_what_is_computed_for_several_chunks_is_computed_once_a_pass(client):
    x = da.from_array(np.nan_to_num(X), chunks=(100, 4))
    x = x.map_blocks(_counted, meta=np.empty((0, 0)))
    source = DaskArraySource(x - x.mean(axis=0))
    for engine in (LocalEngine(2), DaskEngine(client)):
        CALLS.clear()
        engine.run(context(source), source.plan(1), lambda _: None)
        assert len(CALLS) == 6


def test_the_engine_in_use_is_that_of_the_current_client(client):
    engine = engine_in_use()
    assert isinstance(engine, DaskEngine)
    assert engine.client is client
