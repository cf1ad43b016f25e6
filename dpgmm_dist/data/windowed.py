"""Which rows are in a window: decided by directory names, or by a column of times.

A directory name decides for all files below it. This happens on the driver and uses only names,
which are public. A column decides row by row on the workers, as one more condition for a row to be
valid. A row outside the window, or without a time, contributes zero.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dpgmm_dist.data.parquet_columns import storage, validity
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.parquet_files import FoundFile, Place
from dpgmm_dist.windows import Window, instant

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = 8
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY = 86_400 * 10**9


def in_directories(
    files: tuple[FoundFile, ...], window: Window, place: Place
) -> tuple[FoundFile, ...] | None:
    """Return the files in the directories of a window; None if a column of times decides instead.

    Raises
    ------
    DataError
        If some files are in such directories and others are not, a name is not a date, or no
        directory is in the window.
    SpecError
        If the window is a partition, and no directory is named by its column.
    """
    named = [file for file in files if window.column in dict(file.constants)]
    if not named and window.kind == "time":
        return None
    if not named:
        raise SpecError(
            f"dataset.window.column: no directory below {place.url} is named"
            f" {window.column}=...; equals selects such a partition, start and end select rows by a"
            " column of times"
        )
    if len(named) < len(files):
        raise DataError(
            f"dataset.path {place.url}: some files are below directories {window.column}=... and"
            f" others are not, so the window of {window.column!r} is not defined: move them"
        )
    names = {file.path: dict(file.constants)[window.column] for file in named}
    inside = tuple(file for file in named if _holds(window, names[file.path], place))
    if not inside:
        existing = sorted({name for name in names.values() if name is not None})
        raise DataError(
            f"dataset.path {place.url}: no directory is in the window {window}; there are"
            f" {', '.join(existing[-_SHOWN:])}{' and others' if len(existing) > _SHOWN else ''}"
        )
    return inside


def _holds(window: Window, name: str | None, place: Place) -> bool:
    if name is None:
        return False
    if window.kind == "partition":
        return window.holds(name)
    try:
        return window.holds(instant(name))
    except SpecError:
        raise DataError(
            f"dataset.path {place.url}: the directory {window.column}={name} is not a date, so"
            " start and end cannot select it: use equals"
        ) from None


def column_problem(kind: Any) -> str | None:
    """Return what is wrong with the type of a window's column; None for dates and times."""
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_null(kind):
        return None
    return "not a date or timestamp: cast it, or partition the data set by it and use equals"


def inside(column: Any, window: Window) -> npt.NDArray[np.bool_]:
    """Return shape (n,), True where a time is in [start, end); False for null.

    Times without a zone are read as UTC. The result is exact although the bounds are rounded up to
    the column's unit, because no value lies between a bound and its rounded value.
    """
    column = storage(column)
    if not len(column) or pa.types.is_null(column.type):
        return np.zeros(len(column), dtype=np.bool_)
    plain = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
    stored = pa.Array.from_buffers(
        plain, len(column), [None, column.buffers()[1]], 0, column.offset
    )
    values = np.asarray(stored.to_numpy(zero_copy_only=True)).astype(np.int64)
    unit = _unit(column.type)
    low, high = (_at_least(instant(text), unit) for text in (window.start, window.end))
    within: npt.NDArray[np.bool_] = (values >= low) & (values < high)
    present = validity(column)
    return within if present is None else within & present


def _unit(kind: Any) -> int:
    """Nanoseconds in one unit of a type of dates or times."""
    if pa.types.is_date32(kind):
        return _DAY
    return _NANOSECONDS["ms" if pa.types.is_date64(kind) else kind.unit]


def _at_least(moment: datetime, unit: int) -> int:
    """The least int64 value, in units of ``unit`` nanoseconds, that is not before the moment."""
    exact = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    return max(-(2**63), min(-(-exact // unit), 2**63 - 1))
