"""Rows of a window: exactly those, to the microsecond, by directory or by column."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.data.windowed import inside
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.windows import Window

START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
NOVEMBER = Window("t", start="2026-11-01", end="2026-12-01")
EDGES = [START, START - timedelta(microseconds=1), END, END - timedelta(microseconds=1)]
TIMES = st.datetimes(
    datetime(2026, 10, 30), datetime(2026, 12, 2), timezones=st.just(UTC)
) | st.sampled_from(EDGES)
TYPES = [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC", "Asia/Tokyo")]


@given(times=st.lists(TIMES | st.none(), max_size=20), kind=st.sampled_from(TYPES))
def test_times_to_the_microsecond(times: list[datetime | None], kind: pa.DataType) -> None:
    plain = [t.replace(tzinfo=None) if t and kind.tz is None else t for t in times]
    expected = [t is not None and START <= t < END for t in times]
    column = pa.array([None, *plain], kind)
    assert inside(column, NOVEMBER).tolist() == [False, *expected]
    assert inside(column.slice(1), NOVEMBER).tolist() == expected


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ms")])
def test_coarser_units_and_bounds_between_their_steps(kind: pa.DataType) -> None:
    days = [date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 30), date(2026, 12, 1), None]
    column = pa.array(days, pa.date32()).cast(kind)
    assert inside(column, NOVEMBER).tolist() == [False, True, True, False, False]
    later = Window("t", start="2026-11-01T00:00:00.000001", end="2026-12-01T00:00:00.000001")
    assert inside(column, later).tolist() == [False, False, True, True, False]


def test_bounds_beyond_what_the_type_holds() -> None:
    column = pa.array([0, 2**62, -(2**62)], pa.timestamp("ns"))
    everything = Window("t", start="0001-01-01", end="9999-12-31")
    assert inside(column, everything).all()
    assert inside(pa.array([None, None], pa.null()), NOVEMBER).tolist() == [False, False]
    assert inside(pa.array([], pa.timestamp("ns")), NOVEMBER).tolist() == []


def spec(path: Path, **window: str) -> ReleaseSpec:
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": str(path), "features": "x", "width": 2, "window": window},
            "bounds": {"norm": 1.0},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
        }
    )


def write(path: Path, first: int, rows: int = 4, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = pa.array([[float(i), 0.5] for i in range(first, first + rows)], pa.list_(pa.float32()))
    pq.write_table(pa.table({"x": x, **columns}), path)


def kept(source: ParquetSource) -> list[float]:
    """First features of the valid rows, read through the plan units."""
    values: list[float] = []
    for unit in source.plan():
        for block in source.blocks(unit, 3):
            valid = np.ones(block.rows, bool) if block.valid is None else block.valid
            values += block.features[valid, 0].tolist()
    return values


def days(*which: int) -> pa.Array:
    return pa.array([datetime(2026, 11, d) for d in which], pa.timestamp("us"))


def test_rows_by_a_column_of_times(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 0, t=days(1, 2, 3, 4))
    write(tmp_path / "b.parquet", 4, t=days(4, 1, 3, 2))
    write(tmp_path / "c.parquet", 8, t=pa.nulls(4))
    window = {"column": "t", "start": "2026-11-02", "end": "2026-11-04"}
    assert kept(open_dataset(spec(tmp_path, **window).dataset)) == [1, 2, 6, 7]


def test_invalid_rows_in_the_window_stay_invalid(tmp_path: Path) -> None:
    x = pa.array([[1.0, 2.0], None, [3.0], [4.0, None], [5.0, 1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"x": x, "t": days(2, 2, 2, 2, 9)}), tmp_path / "a.parquet")
    window = {"column": "t", "start": "2026-11-02", "end": "2026-11-04"}
    assert kept(open_dataset(spec(tmp_path, **window).dataset)) == [1]


@pytest.fixture
def months(tmp_path: Path) -> Path:
    for index, month in enumerate(("2026-09", "2026-10", "2026-11")):
        write(tmp_path / f"month={month}" / "part.parquet", 4 * index)
    return tmp_path


def test_a_partition(months: Path) -> None:
    source = open_dataset(spec(months, column="month", equals="2026-10").dataset)
    assert kept(source) == [4, 5, 6, 7]
    assert [Path(path).parent.name for path in source.fingerprint()] == ["month=2026-10"]
    again = ParquetSource.__new__(ParquetSource)
    again.__dict__.update(source.__getstate__())  # as on a worker: footers are read again
    assert kept(again) == [4, 5, 6, 7]


def test_dated_partitions(tmp_path: Path) -> None:
    for day in range(1, 6):
        write(tmp_path / f"day=2026-11-{day:02d}" / "part.parquet", day, rows=1)
    window = {"column": "day", "start": "2026-11-02", "end": "2026-11-04"}
    assert kept(open_dataset(spec(tmp_path, **window).dataset)) == [2, 3]


@pytest.mark.parametrize(
    ("window", "kind", "message"),
    [
        ({"column": "month", "equals": "2026-12"}, DataError, "no directory is in the window"),
        (
            {"column": "week", "equals": "1"},
            SpecError,
            r"no directory below .* is named week=\.\.\.",
        ),
        (
            {"column": "month", "start": "2026-01-01", "end": "2026-02-01"},
            DataError,
            "month=2026-09 is not a date.*use equals",
        ),
        ({"column": "t", "start": "2026-01-01", "end": "2026-02-01"}, DataError, "no column 't'"),
    ],
)
def test_windows_that_select_nothing_are_clear_errors(
    months: Path, window: dict[str, str], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        open_dataset(spec(months, **window).dataset)


def test_files_outside_the_partitions_are_refused(months: Path) -> None:
    write(months / "loose.parquet", 0)
    with pytest.raises(DataError, match="others are not"):
        open_dataset(spec(months, column="month", equals="2026-10").dataset)


def test_a_column_that_holds_no_times_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 0, t=pa.array(["2026-11-01"] * 4))
    window = {"column": "t", "start": "2026-11-02", "end": "2026-11-04"}
    with pytest.raises(DataError, match="is string, not a date or timestamp"):
        open_dataset(spec(tmp_path, **window).dataset)
