"""Columns of a table as numbers: every type, exact and the same in every storage, no error."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.column_kinds import kind_of
from dpgmm_dist.data.column_numbers import column_numbers, table_rows

CUT = st.tuples(st.integers(0, 4), st.integers(0, 8))
CONTEXT = Context(prec=80)
NOT_CODED = (pa.decimal32(1).id, pa.decimal64(1).id)
"""Types of which pyarrow makes no dictionaries."""


def check(array, wanted, cut=(0, 99)):
    """``wanted`` are floats, None where the column is null; also of a part and a dictionary."""
    lo, n = cut
    part = array.slice(lo, n)
    plain = pa.types.is_dictionary(array.type) or array.type.id in NOT_CODED
    coded = [] if plain else [part.dictionary_encode()]
    for column in (part, *coded):
        (features, valid), want = table_rows([column], len(column)), wanted[lo : lo + n]
        good = [value is not None for value in want]
        assert all(good) if valid is None else valid.tolist() == good
        found = [value for value, ok in zip(features[:, 0].tolist(), good, strict=True) if ok]
        assert found == [value for value in want if value is not None]


def test_booleans():
    check(pa.array([True, None, False]), [1.0, None, 0.0])
    check(pa.array([True, None, False]), [1.0, None, 0.0], (2, 1))


DATES = st.none() | st.dates()
TIMES = st.none() | st.datetimes()


@given(st.lists(DATES, max_size=6), CUT)
def test_dates_are_days(days, cut):
    wanted = [None if day is None else float((day - date(1970, 1, 1)).days) for day in days]
    for kind in (pa.date32(), pa.date64()):
        check(pa.array(days, kind), wanted, cut)


@given(st.lists(TIMES, max_size=6), CUT)
def test_timestamps_are_seconds_in_every_resolution_and_zone(times, cut):
    micro = timedelta(microseconds=1)
    steps = [None if t is None else (t - datetime(1970, 1, 1)) // micro for t in times]
    # The number nearest to the exact fraction of the second, added to the whole seconds.
    wanted = [None if s is None else s // 10**6 + s % 10**6 / 10**6 for s in steps]
    for kind in (pa.timestamp("us"), pa.timestamp("us", "Asia/Kolkata")):
        array = pa.array(steps, pa.int64()).view(kind)
        check(array, wanted, cut)
    if all(s is None or abs(s) < 2**63 // 1000 for s in steps):
        nano = pa.array([None if s is None else s * 1000 for s in steps], pa.int64())
        check(nano.view(pa.timestamp("ns")), wanted, cut)
    if all(s is None or s % 10**6 == 0 for s in steps):
        whole = pa.array([None if s is None else s // 10**6 for s in steps], pa.int64())
        check(whole.view(pa.timestamp("s")), wanted, cut)


def test_a_zone_is_how_a_timestamp_is_shown_and_not_when_it_is():
    moment = datetime(2020, 1, 31, 12, tzinfo=UTC)
    for zone in ("UTC", "America/New_York", "+05:30"):
        check(pa.array([moment], pa.timestamp("ms", zone)), [moment.timestamp()])
    check(pa.array([moment.replace(tzinfo=None)], pa.timestamp("ms")), [moment.timestamp()])


def test_times_of_day_and_durations_are_seconds():
    times = [time(), None, time(23, 59, 59), time(6, 30)]
    for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        check(pa.array(times, kind), [0.0, None, 86_399.0, 23_400.0])
    check(pa.array([time(0, 0, 0, 500_000)], pa.time64("us")), [0.5])
    spans = [timedelta(days=-1), timedelta(0), None, timedelta(seconds=1.5)]
    for unit in ("ms", "us", "ns"):
        check(pa.array(spans, pa.duration(unit)), [-86_400.0, 0.0, None, 1.5])
    check(pa.array([-1, 7], pa.int64()).view(pa.duration("s")), [-1.0, 7.0])


@given(
    st.lists(st.none() | st.integers(-(10**38) + 1, 10**38 - 1), max_size=6),
    st.sampled_from([0, 1, 2, 9, 22, 23, 38]),
    CUT,
)
def test_decimals_are_rounded_once(unscaled, scale, cut):
    exact = [None if value is None else Fraction(value, 10**scale) for value in unscaled]
    wanted = [None if value is None else float(value) for value in exact]
    values = [None if v is None else Decimal(v).scaleb(-scale, CONTEXT) for v in unscaled]
    check(pa.array(values, pa.decimal128(38, scale)), wanted, cut)
    check(pa.array(values, pa.decimal256(60, scale)), wanted, cut)
    small = [None if v is None or abs(v) > 10**9 else v for v in unscaled]
    if small == unscaled and scale <= 9:
        check(pa.array(values, pa.decimal32(9, scale)), wanted, cut)
        check(pa.array(values, pa.decimal64(18, scale)), wanted, cut)


def test_a_decimal_is_the_number_of_its_text():
    for text in ("0.10", "12.34", "-99999999999999999999.99", "0.30"):
        check(pa.array([Decimal(text)], pa.decimal128(38, 2)), [float(text)])


@pytest.mark.parametrize("size", [16, 32])
def test_any_bits_of_a_decimal_are_a_number(size):
    kind = pa.decimal128(38, 3) if size == 16 else pa.decimal256(76, 70)
    rows = [bytes([byte]) * size for byte in (0x00, 0xFF, 0x7F, 0x80)]
    rows.append(b"\xff" * 8 + bytes(size - 8))
    array = pa.Array.from_buffers(kind, len(rows), [None, pa.py_buffer(b"".join(rows))])
    features, valid = table_rows([array], len(rows))
    assert valid is None
    exact = [Fraction(int.from_bytes(row, "little", signed=True), 10**kind.scale) for row in rows]
    assert features[:, 0].tolist() == [float(value) for value in exact]


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("ns", "UTC"),
        pa.date64(),
        pa.duration("us"),
        pa.time64("ns"),
        pa.int64(),
    ],
)
def test_hostile_integers_are_numbers_and_change_no_other_row(kind):
    stored = [2**63 - 1, 0, -(2**63), 86_400_000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features, valid = table_rows([pa.array(stored, pa.int64()).view(kind)], 4)
        alone, _ = table_rows([pa.array(stored[3:], pa.int64()).view(kind)], 1)
    assert valid is None
    assert np.isfinite(features).all()
    assert features[1, 0] == 0
    assert features[3] == alone[0]
    days = pa.array([2**31 - 1, -(2**31)], pa.int32()).view(pa.date32())
    assert table_rows([days], 2)[0][:, 0].tolist() == [2.0**31 - 1, -(2.0**31)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.bool_(),
        pa.date32(),
        pa.timestamp("us"),
        pa.time32("s"),
        pa.duration("s"),
        pa.decimal128(38, 2),
        pa.decimal32(5, 2),
        pa.dictionary(pa.int8(), pa.float64()),
        pa.int16(),
        pa.null(),
    ],
)
def test_columns_of_nulls_and_columns_without_rows(kind):
    features, valid = table_rows([pa.nulls(3, kind)], 3)
    assert features.shape == (3, 1)
    assert valid.tolist() == [False] * 3
    assert table_rows([pa.array([], kind)], 0)[0].shape == (0, 1)


def test_dictionaries_with_null_and_repeated_entries():
    entries = pa.array([1.5, None, -2.0, 1.5])
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None, 3], pa.int8()), entries)
    check(array, [1.5, None, -2.0, None, 1.5])
    check(array, [1.5, None, -2.0, None, 1.5], (2, 2))


def test_types_that_are_not_numbers():
    for kind in (
        pa.string(),
        pa.binary(4),
        pa.list_(pa.int8()),
        pa.month_day_nano_interval(),
        pa.decimal128(5, -101),
        pa.null(),
    ):
        assert kind_of(kind) is None


def test_extension_types_are_read_as_they_are_stored():
    array = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8()))
    check(array.storage, [1.0, 0.0, None])
    assert column_numbers(array)[0][:2].tolist() == [1, 0]


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
    single = np.array([0x7FA00000, 0x3F800000], dtype=np.uint32).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table, _ = table_rows([pa.array(single)], 2)
        table_rows([pa.array(single).dictionary_encode()], 2)
    assert np.isnan(table[0, 0])
    assert table[1, 0] == 1
