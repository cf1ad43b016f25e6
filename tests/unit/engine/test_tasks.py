"""Independent tasks: the same files on every engine, and failures that quote nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.artifact.part_files import one_after_another
from dpgmm_dist.artifact.receipt import build_receipt
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.sample_options import SampleOptions
from dpgmm_dist.artifact.write import write_release
from dpgmm_dist.engine.cluster import DaskEngine
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.engine.tasks import for_each_on
from dpgmm_dist.errors import ClusterError, DataError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import Mixture, StandardErrors


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(params=["threads", "dask", "plain"])
def for_each(request: pytest.FixtureRequest) -> Any:
    if request.param == "dask":
        return for_each_on(DaskEngine(request.getfixturevalue("client")))
    return one_after_another if request.param == "plain" else for_each_on(LocalEngine(threads=3))


def write_small_release(folder: Path) -> str:
    mixture = Mixture(
        np.array([0.5, 0.5]), np.array([[0.0, 1], [1, 0]]), np.stack([np.eye(2), 2 * np.eye(2)])
    )
    zeros = StandardErrors(np.zeros(2), np.zeros((2, 2)), np.zeros((2, 2, 2)))
    receipt = build_receipt(
        release_id="r",
        specification={"bounds": {"norm": 2.0}},
        specification_digest="0" * 64,
        epsilon=1.0,
        delta=1e-6,
        mechanism="insecure",
        accounting="zcdp",
        queries=[],
        private=False,
        privacy_reason="a test",
    )
    columns = [{"name": "x", "type": "float"}]
    write_release(
        str(folder),
        mixture=mixture,
        standard_errors=zeros,
        transform=Transform.identity(2),
        receipt=receipt,
        input_schema={"kind": "list", "columns": columns, "width": 2, "label": None},
    )
    return str(folder)


def test_every_engine_writes_the_same_bytes(for_each: Any, tmp_path: Path) -> None:
    release = write_small_release(tmp_path / "release")
    for name, engine in (("engine", for_each), ("plain", one_after_another)):
        write_samples(
            release,
            1000,
            str(tmp_path / name),
            partitions=7,
            seed=3,
            options=SampleOptions(bounds="reject"),
            for_each=engine,
        )
    files = sorted(path.name for path in (tmp_path / "engine").iterdir())
    assert len(files) == 7
    for name in files:
        assert (tmp_path / "engine" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_every_item_once_and_progress_to_the_end(for_each: Any, tmp_path: Path) -> None:
    def mark(item: int) -> int:
        with (tmp_path / str(item)).open("x"):  # fails if called twice
            return item

    fractions: list[float] = []
    for_each(mark, range(20), fractions.append)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(20))
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_a_refusal_ends_it_and_arrives_as_it_is(for_each: Any) -> None:
    def refuse(item: int) -> int:
        raise DataError("no such store")

    with pytest.raises(DataError, match="no such store"):
        for_each(refuse, range(50), lambda _: None)


def test_after_a_failure_no_thread_begins_another(tmp_path: Path) -> None:
    begun: list[int] = []
    failed = threading.Event()

    def fail_first(item: int) -> int:
        begun.append(item)
        if item == 0:
            failed.set()
            raise DataError("first")
        assert failed.wait(10)
        return 0

    with pytest.raises(DataError, match="first"):
        for_each_on(LocalEngine(threads=2))(fail_first, range(100), lambda _: None)
    assert len(begun) < 10


def test_a_cluster_hides_what_a_task_says(client: Any) -> None:
    def quote(item: int) -> int:
        raise RuntimeError("row 17 is 3.25")

    with pytest.raises(ClusterError, match="RuntimeError") as caught:
        for_each_on(DaskEngine(client))(quote, range(3), lambda _: None)
    assert "3.25" not in str(caught.value) and caught.value.__cause__ is None
