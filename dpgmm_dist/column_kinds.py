"""The numbers that the values of a column stand for, and the texts that bounds may be given in.

A model knows only numbers. A boolean is 0 or 1. A date is a number of days, and a timestamp a
number of seconds, since 1970-01-01 in UTC; a timestamp without a zone is read as UTC. A time of day
is a number of seconds since midnight, and a duration a number of seconds. The resolution that a
file stores them in makes no difference.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError
from dpgmm_dist.windows import instant

Kind = Literal["number", "date", "timestamp", "time", "duration"]

HOLDS: dict[Kind, str] = {
    "number": "numbers",
    "date": "dates",
    "timestamp": "timestamps",
    "time": "times of day",
    "duration": "durations",
}
"""What a column of each kind holds, for messages."""

DAY = 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST_DIGITS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]{1,9})?))?")
_DURATION = re.compile(
    r"(-?)P(?=[0-9T])(?:([0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)S)?)?"
)


def kind_of(dtype: Any) -> Kind | None:
    """The kind of a column of an Arrow type; None if its values do not stand for numbers."""
    import pyarrow as pa

    types = pa.types
    if types.is_decimal(dtype):
        return "number" if abs(dtype.scale) <= _MOST_DIGITS else None
    if types.is_boolean(dtype) or types.is_integer(dtype) or types.is_floating(dtype):
        return "number"
    if types.is_date(dtype):
        return "date"
    if types.is_timestamp(dtype):
        return "timestamp"
    if types.is_time(dtype):
        return "time"
    return "duration" if types.is_duration(dtype) else None


def steps_of(dtype: Any) -> int:
    """How many steps of the stored integers of a date or time type make up one day or second."""
    import pyarrow as pa

    if pa.types.is_date(dtype):
        return 1 if pa.types.is_date32(dtype) else DAY * 1000
    return _PER_SECOND[dtype.unit]


def from_steps(stored: npt.NDArray[Any], steps: int) -> npt.NDArray[np.float64]:
    """The numbers of stored integers (n,); equal times give equal numbers in every resolution.

    The whole part is exact up to 2^53, and the fraction is rounded once whatever the resolution.
    """
    if steps == 1:
        return stored.astype(np.float64)
    whole, rest = np.divmod(stored.astype(np.int64), steps)
    return np.asarray(whole + rest / steps, dtype=np.float64)


def number_of(bound: float | str, kind: Kind | None = None) -> float:
    """The number of a public bound of a column.

    Parameters
    ----------
    bound : a number, or an ISO 8601 date, timestamp, time of day or duration.
    kind : what the column holds; None if it is not known, and a date then counts days.

    Raises
    ------
    ValueError
        With the end of a sentence that begins with the bound.
    """
    if not isinstance(bound, str):
        return float(bound)
    form, value = _parsed(bound)
    if form == "date" and kind == "timestamp":
        return value * DAY
    if kind is not None and kind != form:
        raise ValueError(f"{bound!r} is of {HOLDS[form]}, but the column holds {HOLDS[kind]}")
    return value


def range_of(low: float | str, high: float | str, kind: Kind | None = None) -> tuple[float, float]:
    """The numbers of two bounds of a column; ValueError if they are of different kinds."""
    if isinstance(low, str) and isinstance(high, str):
        forms = {_parsed(low)[0], _parsed(high)[0]}
        if kind is None and forms == {"date", "timestamp"}:
            kind = "timestamp"
        elif kind is None and len(forms) > 1:
            raise ValueError("must be alike: two dates, two times of day or two durations")
    elif isinstance(low, str) or isinstance(high, str):
        raise ValueError("must be alike: two numbers, or two texts")
    return number_of(low, kind), number_of(high, kind)


def _parsed(text: str) -> tuple[Kind, float]:
    """The kind and the number of a text."""
    if match := _DURATION.fullmatch(text):
        days, hours, minutes = (int(part or 0) for part in match.groups()[1:4])
        seconds = days * DAY + hours * 3600 + minutes * 60 + float(match[5] or 0)
        return "duration", -seconds if match[1] else seconds
    if match := _TIME.fullmatch(text):
        seconds = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3] or 0)
        if int(match[2]) < 60 and float(match[3] or 0) < 60 and seconds <= DAY:
            return "time", seconds
    try:
        if _DATE.fullmatch(text):
            return "date", float((date.fromisoformat(text) - _EPOCH.date()).days)
        microseconds = (instant(text) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, SpecError, OverflowError):
        raise ValueError(
            "is neither a number nor a date (2026-11-25), a timestamp (2026-11-25T06:00:00Z), a "
            "time of day (06:30) or a duration (P1DT12H)"
        ) from None
    return "timestamp", microseconds / 10**6
