"""Rows in input units as Arrow columns, with the names and types of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from dpgmm_dist.artifact.receipt import InputSchema
    from dpgmm_dist.model.mixture import LabelValue

_TEXT = ("string", "large_string", "string_view")


def rows_schema(schema: InputSchema, labels: tuple[LabelValue, ...]) -> pa.Schema:
    """Arrow schema of sampled rows.

    Integer labels keep the type of the input, or become int64 if a public label does not fit it.
    """
    import pyarrow as pa

    kinds = [_number_type(column.type) for column in schema.columns]
    if schema.kind == "list":
        kinds = [pa.list_(kinds[0], schema.width)]
    names = [column.name for column in schema.columns]
    fields = [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]
    if labels and schema.label is not None:
        fields.append(pa.field(schema.label.name, _label_type(schema.label.type, labels)))
    return pa.schema(fields)


def rows_batch(
    rows: NDArray[np.float64], labels: list[LabelValue] | pa.Array, schema: pa.Schema
) -> pa.RecordBatch:
    """Rows (n, d) in input units and their n labels (a list or a column) as a batch of ``schema``.

    Where a column has an integer type, its numbers are rounded and kept in the range of the type.
    """
    import pyarrow as pa

    columns: list[pa.Array] = []
    first = schema.field(0).type
    if pa.types.is_fixed_size_list(first):
        flat = _cast(rows.reshape(-1), first.value_type)
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=first))
    else:
        columns += [_cast(rows[:, j], schema.field(j).type) for j in range(rows.shape[1])]
    if len(columns) < len(schema):
        if not isinstance(labels, pa.Array):
            labels = pa.array(labels, schema.field(len(columns)).type)
        columns.append(labels)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def stored_values(rows: NDArray[np.float64], schema: pa.Schema) -> NDArray[np.float64]:
    """A copy of rows (n, d) as float64, rounded as `rows_batch` stores them."""
    import pyarrow as pa

    first = schema.field(0).type
    if pa.types.is_fixed_size_list(first):
        return _rounded(rows, first.value_type).astype(np.float64)
    out = np.empty(rows.shape)
    for j in range(rows.shape[1]):
        out[:, j] = _rounded(rows[:, j], schema.field(j).type)
    return out


def _number_type(name: str) -> pa.DataType:
    import pyarrow as pa

    kind = pa.float64() if name == "null" else _alias(name)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"the receipt lists a feature column of type {name!r}, not a number")
    return kind


def _label_type(name: str, labels: tuple[LabelValue, ...]) -> pa.DataType:
    import pyarrow as pa

    if isinstance(labels[0], str):
        return _alias(name) if name in _TEXT else pa.string()
    kind = pa.int64() if name in ("null", *_TEXT) else _alias(name)
    if not pa.types.is_integer(kind):
        return pa.int64()
    limits = np.iinfo(kind.to_pandas_dtype())
    fits = all(limits.min <= int(label) <= limits.max for label in labels)
    return kind if fits else pa.int64()


def _alias(name: str) -> pa.DataType:
    import pyarrow as pa

    try:
        return pa.type_for_alias(name)
    except ValueError:
        raise DataError(
            f"the receipt lists a column of type {name!r}, which this version cannot write"
        ) from None


def _cast(values: NDArray[np.float64], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.array(_rounded(values, kind), kind)


def _rounded(values: NDArray[np.float64], kind: pa.DataType) -> NDArray[Any]:
    """Values in the numeric type of a column, kept in its range."""
    target: Any = np.dtype(kind.to_pandas_dtype())
    if target.kind == "f":
        limit = float(np.finfo(target).max)
        return np.clip(values, -limit, limit).astype(target)
    limits = np.iinfo(target)
    # The largest float64 that the type can hold: 2^63 - 1 itself would round up to 2^63.
    top = float(limits.max)
    top = float(np.nextafter(top, 0)) if int(top) > limits.max else top
    return np.clip(np.rint(values), float(limits.min), top).astype(target)
