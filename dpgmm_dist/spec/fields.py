"""Readers of single fields of a specification, with the messages of refusals.

Each function takes a raw value (from YAML or Python). It returns the value in its canonical form,
or raises ``ValueError`` with the end of the sentence "<key>: ...". A boolean is never a number:
YAML's ``true`` in a list of labels is a mistake, not a 1.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from typing import Literal, TypeVar

from dpgmm_dist.column_kinds import number_of, range_of
from dpgmm_dist.errors import SpecError
from dpgmm_dist.windows import instant

T = TypeVar("T")

LARGEST = 1e100  # so that squares and their sums stay far from float overflow
SMALLEST = 1e-100
MAX_WIDTH = 65536
MAX_COMPONENTS = 1024
MAX_CATEGORIES = 1 << 14
MAX_EPSILON = 100.0

_SECRET_IN_URL = re.compile(
    r"://[^/@]*:[^/@]*@|[?&][^=&]*(sig|signature|token|secret|credential|password)=", re.IGNORECASE
)


def show(value: object, limit: int = 60) -> str:
    """Return ``value`` for an error: short, on one line, and never the content of a mapping."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple, set, frozenset)):
        if any(isinstance(item, (Mapping, list, tuple, set)) for item in value):
            return "a nested list"
        if len(value) > 8:
            return f"a list of {len(value)} values"
    if not isinstance(value, (str, int, float, list, tuple, set, frozenset, type(None))):
        return f"a value of type {type(value).__name__}"
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number with thousands of digits"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def number(value: object) -> float:
    """Return a finite float; integers are allowed, booleans and texts are not."""
    if isinstance(value, (bool, str)) or not isinstance(value, numbers.Real):
        raise ValueError(f"got {show(value)}; must be a number")
    try:
        result = float(value) + 0.0  # the sum turns -0.0 into 0.0: one value, one digest
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"got {show(value)}; must be a finite number")
    return result


def whole(low: int, high: int) -> Callable[[object], int]:
    """Return a reader of integers from ``low`` to ``high``, both included."""

    def read(value: object) -> int:
        result = _integer(value)
        if result is None or not low <= result <= high:
            raise ValueError(f"got {show(value)}; must be a whole number from {low} to {high}")
        return result

    return read


def _integer(value: object) -> int | None:
    if isinstance(value, (bool, str)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def optional(read: Callable[[object], T]) -> Callable[[object], T | None]:
    """Let ``read`` pass None through."""
    return lambda value: None if value is None else read(value)


def choice(*words: str) -> Callable[[object], str]:
    """Return a reader of one of ``words``."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"got {show(value)}; must be one of {', '.join(words)}")
        return value

    return read


def text(value: object) -> str:
    """Return a non-empty string that UTF-8 can hold."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"got {show(value)}; must be a non-empty text (quote a number)")
    return _encodable(value)


def moment(value: object) -> str:
    """Return a date alone as it is, and a time in UTC, in ISO 8601."""
    if not isinstance(value, str):
        raise ValueError("must be a date or time in quotes, such as '2026-11-25'")
    try:
        time = instant(value)
    except SpecError as error:
        raise ValueError(str(error)) from None
    return time.date().isoformat() if time.time().isoformat() == "00:00:00" else time.isoformat()


def snapshot(value: object) -> int | str:
    """Return a version or id as it is, a time in UTC in ISO 8601, or the name of a tag."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    if not isinstance(value, str):
        raise ValueError(
            f"got {show(value)}; must be a version or id (a whole number), the name of a tag, or a "
            "time in quotes, such as '2026-11-25T06:00'"
        )
    return moment(value) if value[:4].isdigit() and value[4:5] == "-" else text(value)


def _encodable(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"got {show(value)}; must be text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"got {show(value)}; must be text that UTF-8 can hold") from None
    return value


def place(value: object) -> str:
    """Return a path or URL. One with a secret in it is refused without being shown."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    result = text(value)
    if _SECRET_IN_URL.search(result):
        raise ValueError(
            "holds a password or token, and the receipt would publish it; "
            "give credentials in dataset.storage_options or the environment"
        )
    return result


def features(value: object) -> str | tuple[str, ...]:
    """Return the name of a list column, or the names of numeric columns."""
    if isinstance(value, str):
        return text(value)
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(
            f"got {show(value)}; must be the name of a list column or a list of numeric columns"
        )
    names = tuple(_item(text, index, name) for index, name in enumerate(value))
    _unique(names)
    return names


def labels(value: object) -> tuple[int, ...] | tuple[str, ...]:
    """Return the public label set: unique; all int64, all text or all booleans.

    Dates are texts, such as "2026-11-25".
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"got {show(value)}; must be a non-empty list of labels")
    result: tuple[int, ...] | tuple[str, ...]
    value = [label.isoformat() if type(label) is date else label for label in value]
    if all(isinstance(label, str) for label in value):
        result = tuple(_item(_encodable, index, label) for index, label in enumerate(value))
    elif all(isinstance(label, bool) for label in value):
        result = tuple(value)
    else:
        result = tuple(_item(_int64, index, label) for index, label in enumerate(value))
    _unique(result)
    return result


def categories(value: object) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
    """Return the public values of each column of categories, as :func:`labels` reads them."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"got {show(value)}; must map each column to its public values, for example "
            "{colour: [red, green, blue]}"
        )
    result: dict[str, tuple[int, ...] | tuple[str, ...]] = {}
    for name, values in value.items():
        if not isinstance(name, str):
            raise ValueError(f"got the column name {show(name)}; column names are text, quote it")
        try:
            result[text(name)] = labels(values)
        except ValueError as problem:
            raise ValueError(f"column {show(name)} {problem}") from None
        if len(values) > MAX_CATEGORIES:
            raise ValueError(
                f"column {show(name)} has {len(values)} values; at most {MAX_CATEGORIES}: join the "
                "rare ones beforehand"
            )
    # Sorted, because the order of a mapping is not in the digest of a specification.
    return dict(sorted(result.items()))


def _int64(value: object) -> int:
    result = _integer(value)
    if result is None:
        raise ValueError(
            f"got {show(value)}; labels must be all whole numbers, all text (quote them) or all "
            "booleans"
        )
    if not -(2**63) <= result < 2**63:
        raise ValueError(
            f"got {show(value)}; a label that is a number must fit 64 bits with a sign: cast the "
            "column to strings, and quote the labels"
        )
    return result


def or_auto(read: Callable[[object], T]) -> Callable[[object], T | Literal["auto"]]:
    """Let ``read`` pass the word "auto" through."""

    def read_or_auto(value: object) -> T | Literal["auto"]:
        if isinstance(value, str) and value == "auto":
            return "auto"
        try:
            return read(value)
        except ValueError as problem:
            raise ValueError(f"{problem}, or auto") from None

    return read_or_auto


def center(value: object) -> tuple[float, ...]:
    """Return a public centre in input units, shape (d,)."""
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"got {show(value)}; must be a list with one number per feature")
    return tuple(_item(_within_largest, index, item) for index, item in enumerate(value))


def _within_largest(value: object) -> float:
    result = number(value)
    if abs(result) > LARGEST:
        raise ValueError(f"got {show(value)}; must be from {-LARGEST} to {LARGEST}")
    return result


def norm(value: object) -> float:
    """Return a norm bound in input units."""
    result = number(value)
    if not SMALLEST <= result <= LARGEST:
        raise ValueError(f"got {show(value)}; must be positive, from {SMALLEST} to {LARGEST}")
    return result


Bound = float | str
"""A public bound of a column: a number, or the ISO 8601 text of a date or time."""


def columns(value: object) -> dict[str, tuple[Bound, Bound] | Literal["auto"]]:
    """Return the public range of each column, as numbers or as texts of dates and times.

    "auto" stands for a range that is found privately.
    """
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"got {show(value)}; must map each column to [low, high], for example {{age: [0, 120]}}"
        )
    result: dict[str, tuple[Bound, Bound] | Literal["auto"]] = {}
    for name, interval in value.items():
        if not isinstance(name, str):
            raise ValueError(f"got the column name {show(name)}; column names are text, quote it")
        try:
            result[text(name)] = or_auto(_interval)(interval)
        except ValueError as problem:
            raise ValueError(f"column {show(name)} {problem}") from None
    return result


def _interval(value: object) -> tuple[Bound, Bound]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"got {show(value)}; must be [low, high]")
    if all(isinstance(bound, bool) for bound in value):
        value = [float(bound) for bound in value]  # a column of booleans has the bounds [0, 1]
    low, high = _bound(value[0]), _bound(value[1])
    try:
        numbers = range_of(low, high)
    except ValueError as problem:
        raise ValueError(f"got {show(value)}; {problem}") from None
    if numbers[1] - numbers[0] < SMALLEST:
        raise ValueError(f"got {show(value)}; low must be less than high, by at least {SMALLEST}")
    return low, high


def _bound(value: object) -> Bound:
    """Return a number, or the ISO 8601 text of a date, time or duration."""
    if isinstance(value, (date, time)):  # a datetime is a date
        value = value.isoformat()
    elif isinstance(value, timedelta):
        sign = "-" if value < timedelta(0) else ""
        value = f"{sign}PT{abs(value) // timedelta(microseconds=1) / 10**6:.6f}S"
    if not isinstance(value, str):
        return _within_largest(value)
    try:
        number_of(value)
    except ValueError as problem:
        raise ValueError(f"got {show(value)}, which {problem}") from None
    return value


def epsilon(value: object) -> float:
    """Return a privacy budget epsilon."""
    result = number(value)
    if not 0.0 < result <= MAX_EPSILON:
        raise ValueError(f"got {show(value)}; must be above 0 and at most {MAX_EPSILON:g}")
    return result


def delta(value: object) -> float:
    """Return a privacy budget delta."""
    result = number(value)
    if not 0.0 < result < 1.0:
        raise ValueError(
            f"got {show(value)}; must be above 0 and below 1, "
            "and well below one over the number of rows (for example 1e-6)"
        )
    return result


def components(value: object) -> int | tuple[int, ...] | str:
    """Return K, the candidates for K, or ``"auto"``."""
    read = whole(1, MAX_COMPONENTS)
    if value == "auto" and isinstance(value, str):
        return "auto"
    if isinstance(value, (list, tuple)) and value:
        candidates = tuple(_item(read, index, item) for index, item in enumerate(value))
        _unique(candidates)
        return candidates
    if _integer(value) is None:
        raise ValueError(
            f"got {show(value)}; must be a whole number from 1 to {MAX_COMPONENTS}, "
            "a list of candidates, or auto"
        )
    return read(value)


def dimension(value: object) -> int | None:
    """Return the number of latent coordinates; None, or ``"auto"``, for one a feature."""
    if value is None or (isinstance(value, str) and value == "auto"):
        return None
    if _integer(value) is None:
        raise ValueError(
            f"got {show(value)}; must be a whole number from 1 to {MAX_WIDTH}, or auto"
        )
    return whole(1, MAX_WIDTH)(value)


def storage_options(value: object) -> dict[str, object]:
    """Return the options of a store. They are never shown, because they hold credentials."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("must be a mapping from option names to values (not shown: it is secret)")
    return dict(value)


def _item(read: Callable[[object], T], index: int, value: object) -> T:
    try:
        return read(value)
    except ValueError as problem:
        raise ValueError(f"item {index} {problem}") from None


def _unique(values: tuple[object, ...]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"got {show(value)} twice; all must be different")
        seen.add(value)
