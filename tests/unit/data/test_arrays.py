"""Arrays in memory as a source: every chunking and type, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.arrays import ArraySource
from dpgmm_dist.errors import DataError, SpecError

from .reading import expected, read, rows


@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 40))
def test_any_chunking_reads_the_same(n, chunk_rows, max_rows):
    x = np.arange(n * 2, dtype=np.float32).reshape(n, 2)
    y = np.arange(n) % 4
    source = ArraySource(x, y, (3, 1), chunk_rows)
    codes = [{3: 0, 1: 1}.get(int(v), -1) for v in y]
    assert rows(read(source, max_rows)) == expected(x.tolist(), codes, 2)
    plan = source.plan()
    assert [u.index for u in plan] == list(range(max(1, -(-n // chunk_rows))))
    assert sum(u.bytes for u in plan) == x.nbytes


@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [
        ("f2", "f4"),
        ("f4", "f4"),
        ("f8", "f8"),
        (">f4", "f4"),
        ("u1", "u1"),
        ("i1", "f4"),
        ("i2", "f4"),
        ("i4", "f8"),
        (">u8", "f8"),
    ],
)
def test_types_and_layouts(dtype, read_as):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    for array in (x, np.asfortranarray(x), x[::-1], x[:, ::2], x[:0]):
        source = ArraySource(array)
        assert rows(read(source)) == expected(array.tolist(), [0] * len(array), array.shape[1])
        for block in read(source):
            assert block.features.dtype == np.dtype(read_as)


@pytest.mark.parametrize(
    ("y", "labels", "codes"),
    [
        (np.array([1, 2, 2**64 - 1], np.uint64), (-1, 2), [-1, 1, -1]),
        (np.array([1, 2, 3], ">i4"), (3, 1), [1, -1, 0]),
        (np.array(["a", "b", ""]), ("b",), [-1, 0, -1]),
        (np.array(["a", None, 1], object), ("a",), [0, -1, -1]),
    ],
)
def test_labels(y, labels, codes):
    x = np.zeros((3, 1))
    assert rows(read(ArraySource(x, y, labels))) == expected(x.tolist(), codes, 1)


def test_default_chunks_follow_the_target():
    source = ArraySource(np.zeros((1000, 4), np.float32))
    assert len(source.plan()) == 1
    assert len(source.plan(target_bytes=1600)) == 10
    assert len(source.plan(target_bytes=1)) == 1000


def test_pickles_and_shows_nothing():
    source = ArraySource(np.full((2, 2), 12345.0), np.array([1, 2]), (1,))
    assert repr(source) == "<ArraySource>"
    copy = pickle.loads(pickle.dumps(source))
    assert rows(read(copy)) == rows(read(source))
    assert copy.fingerprint() == source.fingerprint()
    changed = ArraySource(np.full((2, 2), 12346.0), np.array([1, 2]), (1,))
    assert changed.fingerprint() != source.fingerprint()


X = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "word"),
    [
        (([[1.0]],), DataError, "list"),
        ((np.ma.masked_array(X),), DataError, "MaskedArray"),
        ((np.zeros(3),), DataError, "two dimensions"),
        ((np.zeros((3, 0)),), DataError, "no features"),
        ((X.astype(object),), DataError, "object"),
        ((X.astype(bool),), DataError, "bool"),
        ((X.astype(complex),), DataError, "complex"),
        ((X.astype(np.longdouble),), DataError, "float128"),
        ((X, None, (1,)), SpecError, "both or neither"),
        ((X, np.zeros(3, int)), SpecError, "labels"),
        ((X, np.zeros(2, int), (0,)), DataError, "same number of rows"),
        ((X, np.zeros((3, 1), int), (0,)), DataError, "one dimension"),
        ((X, [0, 0, 0], (0,)), DataError, "list"),
        ((X, np.zeros(3), (0,)), DataError, "float64"),
        ((X, np.zeros(3, "M8[D]"), (0,)), DataError, "datetime64"),
        ((X, np.zeros(3, bool), ("a",)), SpecError, "booleans"),
        ((X, np.zeros(3, int), (False,)), SpecError, "booleans"),
        ((X, np.array(["a"] * 3), (0,)), SpecError, "integers"),
        ((X, np.zeros(3, int), ("a",)), SpecError, "strings"),
        ((X, None, (), 0), SpecError, "chunk_rows"),
    ],
)
def test_refusals(arguments, error, word):
    with pytest.raises(error, match=word):
        ArraySource(*arguments)


def test_no_error_states_the_number_of_rows():
    with pytest.raises(DataError) as caught:
        ArraySource(np.zeros((1234, 1)), np.zeros(987, int), (0,))
    assert not any(character.isdigit() for character in str(caught.value))


def test_booleans_as_labels():
    y = np.array([True, False, True])
    for labels, codes in (((True, False), [0, 1, 0]), ((0, 1), [1, 0, 1]), ((True,), [0, -1, 0])):
        for values in (y, y.astype(object)):
            if labels == (0, 1) and values.dtype == object:
                continue  # an object of another kind is not a label
            (block,) = read(ArraySource(X, values, labels))
            assert block.labels.tolist() == codes
