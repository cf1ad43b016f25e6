"""Arrow columns as numpy arrays: every list type, null and slice, without a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.column_numbers import table_rows
from dpgmm_dist.data.embeddings import embedding_rows
from dpgmm_dist.data.parquet_columns import numbers, validity

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


@given(st.lists(ROW, max_size=8), TYPES, CUT)
def test_lists_of_the_right_length(plain, kind, cut):
    lo, n = cut
    for list_type in (pa.list_(kind), pa.large_list(kind), pa.list_(kind, WIDTH)):
        array = pa.array(plain, type=list_type)
        check(array.slice(lo, n), plain[lo : lo + n])


@given(st.lists(RAGGED, max_size=8), TYPES, CUT)
def test_lists_of_any_length(plain, kind, cut):
    lo, n = cut
    for list_type in (pa.list_(kind), pa.large_list(kind)):
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


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64(), pa.float16(), pa.float64()],
)
def test_numbers_are_views_of_sliced_arrays(kind):
    array = pa.array([1, 2, None, 4], kind)
    values = numbers(array.slice(1, 3))
    assert values[0] == 2
    assert values[2] == 4
    assert validity(array.slice(1, 3)).tolist() == [True, False, True]
    assert validity(array.slice(0, 2)) is None
    assert len(numbers(array.slice(0, 0))) == 0


def test_tables():
    columns = [
        pa.array([1, None, 3], pa.uint64()),
        pa.array([0.5, 1.5, 2.5], pa.float16()),
        7.0,
    ]
    features, valid = table_rows(columns, 3)
    assert valid.tolist() == [True, False, True]
    assert features[valid].tolist() == [[1, 0.5, 7], [3, 2.5, 7]]
    assert table_rows([*columns, None], 3)[1].tolist() == [False] * 3
    assert table_rows([*columns, pa.nulls(3)], 3)[1].tolist() == [False] * 3
    assert table_rows(columns[1:], 3)[1] is None


def test_integers_of_more_than_53_bits_round_to_nearest():
    features, _ = table_rows([pa.array([2**63 + 1, 2**53 + 3], pa.uint64())], 2)
    assert features[:, 0].tolist() == [float(2**63), float(2**53 + 4)]


def test_signalling_nan_raises_no_warning():
    half = np.array([0x7D01, 0x3C00], dtype=np.uint16).view(np.float16)
    single = np.array([0x7FA00000, 0x3F800000], dtype=np.uint32).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features, _ = embedding_rows(pa.FixedSizeListArray.from_arrays(pa.array(half), 2), 2)
        table, _ = table_rows([pa.array(single)], 2)
    assert np.isnan(features[0, 0])
    assert np.isnan(table[0, 0])
    assert features[0, 1] == table[1, 0] == 1
