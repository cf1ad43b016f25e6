"""Embeddings in every storage: lists of every kind, lists of lists, bytes, Spark's vectors."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.column_types import embedding_items
from dpgmm_dist.data.embeddings import embedding_rows

WIDTH = 3
ELEMENT = st.none() | st.integers(0, 200)
ROW = st.none() | st.lists(ELEMENT, min_size=WIDTH, max_size=WIDTH)
RAGGED = st.none() | st.lists(ELEMENT, max_size=WIDTH + 2)
TYPES = st.sampled_from([pa.float16(), pa.float32(), pa.float64(), pa.uint8(), pa.int16()])
CUT = st.tuples(st.integers(0, 8), st.integers(0, 8))


def check(array, plain, width=WIDTH):
    features, valid = embedding_rows(array, width)
    assert features.shape == (len(plain), width)
    good = [r is not None and len(r) == width and None not in r for r in plain]
    assert all(good) if valid is None else valid.tolist() == good, (valid, good)
    for row, ok, want in zip(features, good, plain, strict=True):
        if ok:
            assert row.tolist() == want


def lists_of(kind):
    return pa.list_(kind), pa.large_list(kind), pa.list_view(kind), pa.large_list_view(kind)


@given(st.lists(ROW, max_size=8), TYPES, CUT)
def test_lists_of_the_right_length(plain, kind, cut):
    lo, n = cut
    for list_type in (*lists_of(kind), pa.list_(kind, WIDTH)):
        array = pa.array(plain, type=list_type)
        check(array.slice(lo, n), plain[lo : lo + n])


@given(st.lists(RAGGED, max_size=8), TYPES, CUT)
def test_lists_of_any_length(plain, kind, cut):
    lo, n = cut
    for list_type in lists_of(kind):
        check(pa.array(plain, type=list_type).slice(lo, n), plain[lo : lo + n])


def test_null_rows_that_still_hold_values():
    # Arrow allows values under a null list, of any number.
    array = pa.ListArray.from_arrays(
        pa.array([0, 2, 5, 7], pa.int32()),
        pa.array(np.arange(7, dtype=np.float32)),
        mask=pa.array([False, True, False]),
    )
    check(array, [[0, 1], None, [5, 6]], width=2)
    check(array.slice(1), [None, [5, 6]], width=2)


def test_whole_columns_are_views():
    values = pa.array(np.arange(12, dtype=np.float32))
    columns = (
        pa.FixedSizeListArray.from_arrays(values, 3),
        pa.ListArray.from_arrays(pa.array([0, 3, 6, 9, 12], pa.int32()), values),
    )
    for array in columns:
        features, valid = embedding_rows(array.slice(1, 2), 3)
        assert valid is None
        assert features.tolist() == [[3, 4, 5], [6, 7, 8]]
        assert features.ctypes.data == values.buffers()[1].address + 12


def test_all_missing_columns_are_invalid_rows():
    for array in (pa.nulls(2), pa.array([None, [None, None]], pa.list_(pa.null()))):
        features, valid = embedding_rows(array, 2)
        assert features.shape == (2, 2)
        assert valid.tolist() == [False, False]


def test_fixed_shape_tensors():
    kind = pa.fixed_shape_tensor(pa.float32(), [2])
    storage = pa.array([[1, 2], None], pa.list_(pa.float32(), 2))
    check(pa.ExtensionArray.from_storage(kind, storage), [[1, 2], None], width=2)


def test_views_that_overlap_or_are_out_of_order():
    values = pa.array([1, 2, 3, 4, None], pa.float32())
    array = pa.ListViewArray.from_arrays(
        pa.array([2, 0, 0, 3, 1], pa.int32()),
        pa.array([2, 2, 2, 2, 1], pa.int32()),
        values,
        mask=pa.array([False, False, True, False, False]),
    )
    plain = [[3, 4], [1, 2], None, [4, None], [2]]
    check(array, plain, width=2)
    check(array.slice(1, 3), plain[1:4], width=2)


@given(st.lists(st.none() | st.lists(st.none() | st.lists(ELEMENT, max_size=3)), max_size=6), CUT)
def test_lists_of_lists_are_their_numbers_one_after_the_other(plain, cut):
    lo, n = cut

    def flat(row):
        if row is None or None in row:
            return None
        return [value for inner in row for value in inner]

    inner = pa.list_(pa.int16())
    for kind in (pa.list_(inner), pa.large_list(pa.large_list(pa.int16())), pa.list_view(inner)):
        array = pa.array(plain, kind)
        check(array.slice(lo, n), [flat(row) for row in plain][lo : lo + n])


def test_lists_of_lists_of_a_fixed_shape():
    kind = pa.list_(pa.list_(pa.float32(), 2), 3)
    plain = [[[1, 2], [3, 4], [5, 6]], None, [[1, 2], None, [5, 6]], [[1, None], [3, 4], [5, 6]]]
    flat = [[1, 2, 3, 4, 5, 6], None, None, [1, None, 3, 4, 5, 6]]
    array = pa.array(plain, kind)
    check(array, flat, width=6)
    check(array.slice(2), flat[2:], width=6)
    assert embedding_items(kind) == (pa.float32(), 6)
    features, valid = embedding_rows(array.slice(0, 1), 6)
    assert valid is None
    assert features.ctypes.data == array.values.values.buffers()[1].address


def test_bytes_of_float32():
    rows = np.array([[1.5, -2.0], [np.nan, 3.0], [7.0, 8.0]], "<f4")
    data = [rows[0].tobytes(), None, rows[1].tobytes(), rows[2].tobytes()]
    array = pa.array(data, pa.binary(8))
    features, valid = embedding_rows(array, 2)
    assert valid.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(features[[0, 2, 3]], rows)
    np.testing.assert_array_equal(embedding_rows(array.slice(3), 2)[0], rows[2:])
    assert embedding_rows(array.slice(3), 2)[1] is None
    assert embedding_items(pa.binary(8)) == (pa.float32(), 2)
    assert embedding_items(pa.binary(7)) is None
    assert embedding_items(pa.binary()) is None
    assert embedding_rows(pa.nulls(2, pa.binary(8)), 2)[1].tolist() == [False, False]


VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)
DENSE = {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0, 3.0]}
SPARSE = {"type": 0, "size": 3, "indices": [0, 2], "values": [5.0, 7.0]}


def test_vectors_of_spark_dense_and_sparse():
    rows = [DENSE, SPARSE, None, SPARSE | {"indices": [], "values": []}, DENSE]
    wanted = [[1, 2, 3], [5, 0, 7], None, [0, 0, 0], [1, 2, 3]]
    array = pa.array(rows, VECTOR)
    check(array, wanted)
    check(array.slice(1, 3), wanted[1:4])
    check(array.slice(4), wanted[4:])
    assert embedding_items(VECTOR) == (pa.float64(), None)


BAD_VECTORS = [
    DENSE | {"values": [1.0, 2.0]},
    DENSE | {"values": [1.0, None, 3.0]},
    DENSE | {"values": None},
    DENSE | {"type": None},
    DENSE | {"type": 2},
    SPARSE | {"size": 4},
    SPARSE | {"size": None},
    SPARSE | {"indices": [0, 3]},
    SPARSE | {"indices": [-1, 0]},
    SPARSE | {"indices": [2, 0]},
    SPARSE | {"indices": [1, 1]},
    SPARSE | {"indices": [0, None]},
    SPARSE | {"indices": [0, 1, 2]},
    SPARSE | {"indices": None},
    SPARSE | {"values": [5.0, None]},
    SPARSE | {"values": None},
    dict.fromkeys(DENSE),
]


@given(st.lists(st.sampled_from([DENSE, SPARSE, None, *BAD_VECTORS]), max_size=8), CUT)
def test_a_bad_vector_is_invalid_and_changes_no_other(rows, cut):
    lo, n = cut
    good = {id(DENSE): [1, 2, 3], id(SPARSE): [5, 0, 7]}
    check(pa.array(rows, VECTOR).slice(lo, n), [good.get(id(r)) for r in rows][lo : lo + n])


def test_a_column_without_rows():
    for kind in (pa.list_(pa.float32()), pa.binary(8), VECTOR, pa.list_view(pa.float32())):
        assert embedding_rows(pa.array([], kind), 2)[0].shape == (0, 2)


def test_signalling_nan_raises_no_warning():
    half = np.array([0x7D01, 0x3C00], dtype=np.uint16).view(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features, _ = embedding_rows(pa.FixedSizeListArray.from_arrays(pa.array(half), 2), 2)
    assert np.isnan(features[0, 0])
    assert features[0, 1] == 1
