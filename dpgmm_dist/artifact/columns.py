"""Rows in input units as Arrow columns, with the names and types of the input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.column_kinds import DAY, from_steps, kind_of, steps_of
from dpgmm_dist.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from dpgmm_dist.artifact.receipt import InputSchema
    from dpgmm_dist.model.mixture import LabelValue

_TEXT = ("string", "large_string", "string_view")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\(([0-9]+), (-?[0-9]+)\)")
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=(.+))?\]")
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The years 1 to 9999, in days since 1970-01-01."""
_BEYOND = 1e100
"""Beyond all types but floats; numbers are clipped to it first, so that none overflows."""
_MOST_SECONDS = 10**9 * DAY - DAY
"""The longest duration that Python shows."""


def rows_schema(schema: InputSchema, labels: tuple[LabelValue, ...]) -> pa.Schema:
    """Arrow schema of sampled rows.

    Columns keep the types of the input; embeddings are lists of a fixed size, whatever they were.
    Integer labels become int64 if a public label does not fit the type of the input.
    """
    import pyarrow as pa

    kinds = [
        number_type(column.type)
        if column.values is None
        else _label_type(column.type, tuple(column.values))
        for column in schema.columns
    ]
    if schema.kind == "list":
        kinds = [pa.list_(kinds[0], schema.width)]
    names = [column.name for column in schema.columns]
    fields = [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]
    if labels and schema.label is not None:
        fields.append(pa.field(schema.label.name, _label_type(schema.label.type, labels)))
    return pa.schema(fields)


Categories = Mapping[str, Sequence["LabelValue"]]
"""The public values of each column of categories, by its name."""


def categories_of(schema: InputSchema) -> Categories:
    """The columns of a release that hold categories."""
    return {column.name: column.values for column in schema.columns if column.values is not None}


def rows_batch(
    rows: NDArray[np.float64],
    labels: list[LabelValue] | pa.Array,
    schema: pa.Schema,
    categories: Categories = MappingProxyType({}),
) -> pa.RecordBatch:
    """Rows (n, d) in input units and their n labels (a list or a column) as a batch of ``schema``.

    Numbers are rounded to what the type of their column holds, and kept in its range. NaN is
    written as null. A category is the number of one of its values.
    """
    import pyarrow as pa

    columns: list[pa.Array] = []
    first = schema.field(0).type
    if pa.types.is_fixed_size_list(first):
        flat = _cast(rows.reshape(-1), first.value_type)
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=first))
    else:
        for j in range(rows.shape[1]):
            values = categories.get(schema.field(j).name)
            kind = schema.field(j).type
            columns.append(
                _cast(rows[:, j], kind) if values is None else _named(rows[:, j], values, kind)
            )
    if len(columns) < len(schema):
        if not isinstance(labels, pa.Array):
            labels = label_column(labels, schema.field(len(columns)).type)
        columns.append(labels)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def stored_values(
    rows: NDArray[np.float64], schema: pa.Schema, categories: Categories = MappingProxyType({})
) -> NDArray[np.float64]:
    """A copy of rows (n, d) as float64, rounded as `rows_batch` stores them."""
    import pyarrow as pa

    first = schema.field(0).type
    if pa.types.is_fixed_size_list(first):
        return _read_back(rows, first.value_type)
    out = np.empty(rows.shape)
    for j in range(rows.shape[1]):
        values = categories.get(schema.field(j).name)
        if values is None:
            out[:, j] = _read_back(rows[:, j], schema.field(j).type)
        else:
            out[:, j] = np.clip(np.rint(rows[:, j]), 0, len(values) - 1)
    return out


def _named(numbers: NDArray[np.float64], values: Sequence[LabelValue], kind: pa.DataType) -> Any:
    """The values with these numbers (n,) as a column; null for NaN."""
    import pyarrow as pa

    missing = np.isnan(numbers)
    places = np.clip(np.where(missing, 0, np.rint(numbers)), 0, len(values) - 1).astype(np.int64)
    # Arrow cannot take from a column of string views.
    plain = pa.string() if pa.types.is_string_view(kind) else kind
    column = label_column(values, plain).take(pa.array(places, mask=missing))
    return column if kind == plain else column.cast(kind)


def label_column(values: Sequence[LabelValue], kind: pa.DataType) -> pa.Array:
    """Labels of a release as a column of a type of `rows_schema`."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return pa.array([bool(value) for value in values], kind)
    if pa.types.is_date(kind):
        return pa.array([date.fromisoformat(str(value)) for value in values], kind)
    return pa.array(list(values), kind)


def number_type(name: str) -> pa.DataType:
    """The Arrow type of a feature column that a receipt names; DataError if it holds no numbers."""
    import pyarrow as pa

    kind = pa.float64() if name == "null" else _alias(name)
    if kind_of(kind) is None:
        raise DataError(f"the receipt lists a feature column of type {name!r}, not a number")
    return kind


def _label_type(name: str, labels: tuple[LabelValue, ...]) -> pa.DataType:
    import pyarrow as pa

    if isinstance(labels[0], str):
        if name not in ("date32[day]", "date64[ms]"):
            return _alias(name) if name in _TEXT else pa.string()
        return _alias(name)
    if name == "bool" and set(labels) <= {0, 1}:
        return pa.bool_()
    kind = pa.int64() if name in ("null", *_TEXT) else _alias(name)
    if not pa.types.is_integer(kind):
        return pa.int64()
    limits = np.iinfo(kind.to_pandas_dtype())
    fits = all(limits.min <= int(label) <= limits.max for label in labels)
    return kind if fits else pa.int64()


def _alias(name: str) -> pa.DataType:
    import pyarrow as pa

    try:
        if match := _DECIMAL.fullmatch(name):
            bits, precision, scale = match.groups()
            return getattr(pa, f"decimal{bits}")(int(precision), int(scale))
        if match := _TIMESTAMP.fullmatch(name):
            return pa.timestamp(*match.groups())
        return pa.type_for_alias(name)
    except ValueError:
        raise DataError(
            f"the receipt lists a column of type {name!r}, which this version cannot write"
        ) from None


def _cast(values: NDArray[np.float64], kind: pa.DataType) -> pa.Array:
    """Numbers (n,) as a column, rounded to what its type holds; NaN as null."""
    import pyarrow as pa

    missing = np.isnan(values)
    if missing.any():
        places = pa.array(np.arange(len(values)), mask=missing)
        return _cast(np.where(missing, 0.0, values), kind).take(places)
    stored = _rounded(values, kind)
    if pa.types.is_decimal(kind):
        return pa.array(stored / 10.0**kind.scale).cast(kind, safe=False)
    if pa.types.is_boolean(kind):
        return pa.array(stored.astype(np.bool_))
    if kind_of(kind) == "number":
        return pa.array(stored.astype(kind.to_pandas_dtype()), kind)
    integers = stored.astype(np.int32 if kind.bit_width == 32 else np.int64)
    return pa.array(integers).view(kind)


def _read_back(values: NDArray[np.float64], kind: pa.DataType) -> NDArray[np.float64]:
    """The numbers, of any shape, that a column holds where these are written to it."""
    import pyarrow as pa

    missing = np.isnan(values)
    if missing.any():
        return np.where(missing, np.nan, _read_back(np.where(missing, 0.0, values), kind))
    stored = _rounded(values, kind)
    if pa.types.is_decimal(kind):
        return np.asarray(stored / 10.0**kind.scale)
    return from_steps(stored, 1 if kind_of(kind) == "number" else steps_of(kind))


def _rounded(values: NDArray[np.float64], kind: pa.DataType) -> NDArray[Any]:
    """Numbers of any shape as a column stores them: floats, or whole steps, kept in its range."""
    import pyarrow as pa

    types = pa.types
    if types.is_floating(kind):
        target = np.dtype(kind.to_pandas_dtype())
        limit = float(np.finfo(target).max)
        kept: NDArray[Any] = np.clip(values, -limit, limit).astype(target)
        return kept
    values = np.clip(values, -_BEYOND, _BEYOND)
    if types.is_decimal(kind):
        most = _below(10**kind.precision - 1)
        return np.asarray(np.clip(np.rint(values * 10.0**kind.scale), -most, most))
    low, high = _steps(kind)
    if kind_of(kind) == "number":
        steps = np.rint(values)
    elif types.is_date(kind):
        steps = np.rint(values) * steps_of(kind)
    else:
        steps = np.rint(values * steps_of(kind))
    target = np.dtype(np.uint64 if low >= 0 else np.int64)
    whole: NDArray[Any] = np.clip(steps, float(low), _below(high)).astype(target)
    return whole


def _below(largest: int) -> float:
    """The largest float64 that is at most an integer: 2^63 - 1 itself would round up to 2^63."""
    value = float(largest)
    return value if int(value) <= largest else float(np.nextafter(value, 0))


def _steps(kind: pa.DataType) -> tuple[int, int]:
    """The least and the largest integer that a type is stored as, and that Python can show."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return 0, 1
    if pa.types.is_integer(kind):
        limits = np.iinfo(kind.to_pandas_dtype())
        return int(limits.min), int(limits.max)
    steps, limits = steps_of(kind), np.iinfo(np.int64)
    low, high = {
        "date": (_FIRST_DAY, _LAST_DAY),
        "timestamp": (_FIRST_DAY * DAY, (_LAST_DAY + 1) * DAY - 1),
        "time": (0, DAY),
        "duration": (-_MOST_SECONDS, _MOST_SECONDS),
    }[str(kind_of(kind))]
    high = high * steps - 1 if pa.types.is_time(kind) else high * steps
    return max(low * steps, int(limits.min)), min(high, int(limits.max))
