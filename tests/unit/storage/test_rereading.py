"""A read continues after temporary failures: each row comes once, and the retries end."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.errors import DataError
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.storage.rereading import ATTEMPTS, read_on


def failing(items, failures, error=OSError):
    """Return a function whose calls in turn fail before the items at these positions."""
    pending = list(failures)

    def begin():
        for index, item in enumerate(items):
            if pending and pending[0] == index:
                pending.pop(0)
                raise error("503 slow down")
            yield item

    return begin


@given(st.lists(st.integers(0, 9), max_size=30))
def test_each_item_comes_once_and_in_order(failures):
    failures.sort()
    most = max((failures.count(index) for index in failures), default=0)
    items = list(range(10))
    if most < ATTEMPTS:
        assert list(read_on(failing(items, failures), wait=lambda _: None)) == items
    else:
        with pytest.raises(OSError, match="503"):
            list(read_on(failing(items, failures), wait=lambda _: None))


def test_waiting_grows_and_ends():
    waits: list[float] = []
    with pytest.raises(OSError, match="503"):
        list(read_on(failing([1], [0] * 9), wait=waits.append))
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, MemoryError])
def test_failures_that_waiting_does_not_fix_are_raised_at_once(error):
    with pytest.raises(error):
        list(read_on(failing([1], [0], error), wait=lambda _: pytest.fail("waited")))


# ---------------------------------------------------------------- a store that throttles


class Trouble:
    """The numbers, from 1, of the next reads of a store that fail."""

    def __init__(self):
        self.fails, self.reads = set(), 0

    def now(self, *fails):
        self.fails, self.reads = set(fails), 0

    def check(self):
        self.reads += 1
        if self.reads in self.fails:
            raise OSError("503 Slow Down: secret row 123.4")


@pytest.fixture
def trouble(monkeypatch):
    trouble = Trouble()

    def read(self, *args):
        trouble.check()
        return io.BytesIO.read(self, *args)

    monkeypatch.setattr("dpgmm_dist.storage.rereading._FIRST_WAIT_SECONDS", 0.001)
    # Without coalescing there is one read per row group, so reads can fail within a file.
    monkeypatch.setattr("dpgmm_dist.storage.parquet_files._PRE_BUFFER_BYTES", 0)
    monkeypatch.setattr(MemoryFile, "read", read, raising=False)
    return trouble


@pytest.fixture
def source(trouble):
    x = np.arange(6000, dtype=np.float32).reshape(-1, 2)
    for part in range(2):
        table = pa.table({"x": pa.array(list(x[part * 1500 : (part + 1) * 1500]))})
        with MemoryFileSystem().open(f"/rows/{part}.parquet", "wb") as handle:
            pq.write_table(table, handle, row_group_size=300)
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory://rows", "features": "x", "width": 2},
            "bounds": {"norm": 1.0},
            "privacy": {"epsilon": 1, "delta": 1e-6},
        }
    )
    yield open_dataset(spec.dataset)
    MemoryFileSystem().rm("/rows", recursive=True)


def rows_of(source):
    blocks = [b.features for unit in source.plan() for b in source.blocks(unit, 100)]
    return np.concatenate(blocks).tolist()


@pytest.mark.parametrize("fails", [[1], [2], [3], [4, 5], [7], [6, 7, 8]])
def test_a_throttled_store_gives_every_row_once(fails, trouble, source):
    trouble.now()
    expected = rows_of(source)
    assert len(expected) == 3000
    assert trouble.reads >= 8
    trouble.now(*fails)
    assert rows_of(source) == expected
    assert trouble.reads > max(fails)


def test_a_store_that_stays_busy_is_exit_code_4(trouble, source):
    trouble.now(*range(1, 1000))
    with pytest.raises(DataError, match=r"cannot read .*0\.parquet") as caught:
        rows_of(source)
    assert trouble.reads == ATTEMPTS
    assert caught.value.exit_code == 4
    assert "123.4" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
