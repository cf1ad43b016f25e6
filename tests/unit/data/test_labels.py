"""Labels as indices into the public set; every other value, of any type, is -1."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.labels import (
    check_labels,
    encode_arrow,
    encode_integers,
    encode_objects,
    encode_text,
)
from dpgmm_dist.errors import SpecError

INTEGERS = (pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64())
STRINGS = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
)


def plain(values, labels):
    return [labels.index(v) if v is not None and v in labels else -1 for v in values]


@given(st.lists(st.none() | st.integers(0, 9), max_size=12), st.permutations([3, 0, -7, 9, 2**70]))
def test_integers_of_every_type(values, labels):
    labels = tuple(labels)
    for kind in (*INTEGERS, pa.dictionary(pa.int8(), pa.int64())):
        array = pa.array([None, *values], kind)
        assert encode_arrow(array, labels).tolist() == plain([None, *values], labels)
        assert encode_arrow(array.slice(1), labels).tolist() == plain(values, labels)


@given(st.lists(st.none() | st.sampled_from(["a", "", "é", "zz"]), max_size=12))
def test_strings_of_every_type(values):
    labels = ("zz", "é", "b")
    for kind in STRINGS:
        array = pa.array(["b", *values], pa.string())
        array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)
        assert encode_arrow(array, labels).tolist() == plain(["b", *values], labels)
        assert encode_arrow(array.slice(1), labels).tolist() == plain(values, labels)


def test_large_unsigned_labels_do_not_wrap():
    array = pa.array([2**64 - 1, 2**63, 1], pa.uint64())
    assert encode_arrow(array, (-1, -(2**63), 1)).tolist() == [-1, -1, 2]
    assert encode_arrow(array, (2**64 - 1, 2**63)).tolist() == [0, 1, -1]
    assert encode_arrow(pa.array([-1, 255], pa.int16()), (2**16 - 1,)).tolist() == [-1, -1]
    # Neighbouring integers beyond 2**53 stay different.
    assert encode_arrow(pa.array([2**60 + 1], pa.int64()), (2**60, 2**60 + 1)).tolist() == [1]


@given(st.data())
def test_integers_over_the_whole_range_of_their_type(data):
    info = np.iinfo(data.draw(st.sampled_from(["i1", "u1", "i2", "i8", "u8"])))
    lo, hi = int(info.min), int(info.max)
    near = [*range(lo, lo + 3), *range(hi - 2, hi + 1), -1, 0, 1]
    inside = st.sampled_from([value for value in near if lo <= value <= hi]) | st.integers(lo, hi)
    anywhere = inside | st.integers(-(2**66), 2**66)
    labels = tuple(data.draw(st.lists(anywhere, min_size=1, max_size=8, unique=True)))
    values = data.draw(st.lists(inside | st.sampled_from(labels), max_size=10))
    values = [value for value in values if lo <= value <= hi]
    codes = encode_integers(np.array(values, dtype=info.dtype), labels)
    assert codes.tolist() == plain(values, labels)
    assert codes.dtype == np.int64


def test_dictionaries_with_null_and_repeated_entries():
    entries = pa.array(["a", None, "b", "a"])
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, None], pa.int8()), entries)
    assert encode_arrow(array, ("b", "a")).tolist() == [1, -1, 0, 1, -1]
    assert encode_arrow(array.slice(2, 2), ("b", "a")).tolist() == [0, 1]
    empty = pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.array([], pa.string()))
    assert encode_arrow(empty, ("b", "a")).tolist() == [-1]


def test_booleans():
    array = pa.array([True, None, False, True])
    for values in (array, array.dictionary_encode()):
        assert encode_arrow(values, (False, True)).tolist() == [1, -1, 0, 1]
        assert encode_arrow(values.slice(1), (True,)).tolist() == [-1, -1, 0]
        assert encode_arrow(values, (1, 0)).tolist() == [0, -1, 1, 0]


def test_dates_of_every_type():
    days = [date(2020, 1, 31), None, date(1, 1, 1), date(2021, 1, 1)]
    labels = ("2021-01-01", "2020-01-31", "1900-01-01")
    for kind in (pa.date32(), pa.date64()):
        for array in (pa.array(days, kind), pa.array(days, kind).dictionary_encode()):
            assert encode_arrow(array, labels).tolist() == [1, -1, -1, 0]
            assert encode_arrow(array.slice(2), labels).tolist() == [-1, 0]
    within = pa.array([0, 1, 86_400_000], pa.int64()).view(pa.date64())
    assert encode_arrow(within, ("1970-01-01", "1970-01-02")).tolist() == [0, -1, 1]
    extreme = pa.array([-(2**31), 2**31 - 1], pa.int32()).view(pa.date32())
    assert encode_arrow(extreme, labels).tolist() == [-1, -1]
    assert encode_arrow(pa.nulls(2, pa.date32()), labels).tolist() == [-1, -1]


def test_values_under_nulls_do_not_count():
    buffers = [pa.py_buffer(b"\x02"), pa.py_buffer(np.array([3, 3], np.int64))]
    assert encode_arrow(pa.Array.from_buffers(pa.int64(), 2, buffers), (3,)).tolist() == [-1, 0]


def test_no_label_in_range_and_no_rows():
    assert encode_integers(np.array([1, 2], np.int8), (1000,)).tolist() == [-1, -1]
    assert encode_arrow(pa.array([], pa.string()), ("a",)).tolist() == []
    assert encode_arrow(pa.nulls(2), ("a",)).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("text", "labels", "code"),
    [
        ("3", (1, 3), 1),
        ("03", (1, 3), 1),
        ("-1", (-1,), 0),
        ("3.0", (3,), -1),
        ("٣", (3,), -1),
        ("9" * 5000, (3,), -1),
        (None, (3,), -1),
        ("3", ("3",), 0),
        ("03", ("3",), -1),
        ("True", (False, True), 1),
        ("false", (False, True), 0),
        ("1", (False, True), 1),
        ("yes", (False, True), -1),
        ("true", (0, 1), -1),
    ],
)
def test_text_of_directory_names(text, labels, code):
    assert encode_text(text, labels) == code


def test_objects_match_only_labels_of_their_kind():
    values = np.array([1, True, 1.0, "1", None, np.int8(1), [1]], dtype=object)
    assert encode_objects(values, (1,)).tolist() == [0, -1, -1, -1, -1, 0, -1]
    assert encode_objects(values, ("1",)).tolist() == [-1, -1, -1, 0, -1, -1, -1]
    assert encode_objects(values, (False, True)).tolist() == [-1, 1, -1, -1, -1, -1, -1]
    assert encode_objects(np.array(["a", "bb"]), ("bb",)).tolist() == [-1, 0]


@pytest.mark.parametrize("labels", [(), None, (1, "a"), (True, 1), (True, "a"), (1.5,), (1, 1)])
def test_bad_label_sets(labels):
    with pytest.raises(SpecError, match=r"dataset\.labels"):
        check_labels(labels)
