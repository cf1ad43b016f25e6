"""A dask array as a source: what is known without computing it, and how its chunks are read."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.blocks import ChunkRange, PlanUnit
from dpgmm_dist.data.dask_arrays import ChunkSource, DaskArraySource
from dpgmm_dist.errors import DataError, SpecError

from .reading import expected, rows

UNIT = PlanUnit(0, (ChunkRange(0, 1),), 0)


def lazy(n: int = 12, d: int = 2, chunks: object = 5) -> da.Array:
    return da.zeros((n, d), chunks=chunks)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(1, 200),
)
def test_every_chunk_is_planned_once_in_order_and_never_divided(sizes, columns, target):
    x = da.zeros((sum(sizes), 3), chunks=(tuple(sizes), columns))
    plan = DaskArraySource(x).plan(target)
    assert [unit.index for unit in plan] == list(range(len(plan)))
    pieces = [piece for unit in plan for piece in unit.pieces]
    assert [i for p in pieces for i in range(p.start, p.stop)] == list(range(len(sizes)))
    assert sum(unit.bytes for unit in plan) == sum(sizes) * 24
    for unit in plan:
        [piece] = unit.pieces
        assert unit.bytes <= target or piece.stop == piece.start + 1


def test_chunks_of_unknown_size_are_planned_one_by_one():
    x = lazy(chunks=(3, 1))
    selected = x[x[:, 0] >= 0]
    assert np.isnan(selected.shape[0])
    plan = DaskArraySource(selected).plan()
    assert [unit.pieces[0].stop for unit in plan] == [1, 2, 3, 4]
    assert {unit.bytes for unit in plan} == {0}


def test_labels_are_put_into_the_chunks_of_the_rows():
    source = DaskArraySource(lazy(), da.arange(12, chunks=7), (1, 2))
    assert source.y.chunks == ((5, 5, 2),)
    assert source.labels == (1, 2)


@pytest.mark.parametrize(
    ("x", "y", "labels", "error", "text"),
    [
        (np.zeros((2, 2)), None, (), DataError, "X is ndarray and not a dask array"),
        (lazy()[0], None, (), DataError, "two dimensions"),
        (lazy(d=0, chunks=(5, -1)), None, (), DataError, "no features"),
        (lazy().astype("complex64"), None, (), DataError, "dtype complex64"),
        (lazy().T[:, da.ones(12, chunks=5) > 0].T, None, (), None, ""),
        (lazy()[:, da.ones(2, chunks=2) > 0], None, (), DataError, "unknown number of features"),
        (lazy(), da.zeros(12, dtype=int, chunks=5), (), SpecError, "without labels"),
        (lazy(), None, (1,), SpecError, "y is not"),
        (lazy(), np.zeros(12, int), (1,), DataError, "make y a dask array"),
        (lazy(), da.zeros(11, dtype=int, chunks=5), (1,), DataError, "same number of rows"),
        (lazy(), da.zeros((12, 1), dtype=int, chunks=5), (1,), DataError, "one dimension"),
        (lazy(), da.zeros(12, chunks=5), (1,), DataError, "dtype float64"),
        (lazy(), da.zeros(12, dtype=int, chunks=5), ("a",), SpecError, "make them alike"),
        (
            lazy()[da.ones(12, chunks=5) > 0],
            da.zeros(12, dtype=int, chunks=6),
            (1,),
            DataError,
            "size",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_computed(x, y, labels, error, text):
    if error is None:
        DaskArraySource(x, y, labels)
        return
    with pytest.raises(error, match=text):
        DaskArraySource(x, y, labels)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 7))
def test_chunks_are_read_like_arrays(sizes, max_rows):
    x = np.arange(sum(sizes) * 3, dtype=np.float32).reshape(-1, 3)
    y = np.arange(len(x)) % 3
    cuts = np.cumsum(sizes)[:-1]
    chunks = [
        ([part[:, :1], part[:, 1:]], label)
        for part, label in zip(np.split(x, cuts), np.split(y, cuts), strict=True)
    ]
    source = ChunkSource(3, (2, 1), chunks)
    codes = [{2: 0, 1: 1}.get(int(v), -1) for v in y]
    assert rows(source.blocks(UNIT, max_rows)) == expected(x.tolist(), codes, 3)


def digest(x: np.ndarray, y: np.ndarray, max_rows: int = 3) -> int:
    source = ChunkSource(2, (0, 1), [([x], y)])
    for _ in source.blocks(UNIT, max_rows):
        pass
    return source.digest(UNIT)


def test_a_digest_is_of_the_rows_however_they_are_read():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    same = digest(x, y)
    assert same == digest(x.copy(), y, 10)
    other = x.copy()
    other[9, 1] += 1e-9
    assert digest(other, y) != same
    assert digest(x, 1 - y) != same
    assert digest(x[::-1], y) != same


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([np.zeros((2, 3))], "has 3 features, X says 2"),
        ([np.ma.zeros((2, 2))], "plain numpy array, got MaskedArray"),
        ([np.zeros((2, 1)), np.ma.zeros((2, 1))], "plain numpy array, got MaskedArray"),
        ([np.zeros((2, 1)), [1, 2]], "plain numpy array, got list"),
        ([np.zeros((2, 2), complex)], "dtype complex128"),
        ([np.zeros(2)], "two dimensions"),
    ],
)
def test_a_chunk_that_is_not_what_the_array_declares(parts, text):
    with pytest.raises(DataError, match=text):
        list(ChunkSource(2, (), [(parts, None)]).blocks(UNIT, 5))


def test_rows_that_changed_between_passes_are_refused():
    source = DaskArraySource(lazy())
    source.note(b"first")
    source.note(b"first")
    source.require_unchanged()
    source.note(b"second")
    with pytest.raises(DataError, match="gave other rows"):
        source.require_unchanged()


def test_shows_nothing_and_pickles():
    source = ChunkSource(1, (1,), [([np.full((2, 1), 12345.0)], np.array([1, 2]))])
    assert repr(source) == "<ChunkSource>"
    assert repr(DaskArraySource(lazy())) == "<DaskArraySource>"
    again = pickle.loads(pickle.dumps(source))
    assert rows(again.blocks(UNIT, 5)) == rows(source.blocks(UNIT, 5))
