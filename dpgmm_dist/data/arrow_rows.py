"""PRIVATE. A batch of Arrow columns as a block of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpgmm_dist.data.blocks import RawBlock
from dpgmm_dist.data.column_numbers import table_rows
from dpgmm_dist.data.column_types import find_fields
from dpgmm_dist.data.embeddings import embedding_rows
from dpgmm_dist.data.labels import category_numbers, encode_arrow, encode_text
from dpgmm_dist.data.parquet_columns import storage
from dpgmm_dist.data.parquet_schema import Columns, parse_number
from dpgmm_dist.data.unit_values import DIGEST_BYTES, Kind, constant_digest, digests_of
from dpgmm_dist.data.windowed import inside

Constants = Mapping[str, str | None]
"""Columns given by the names of directories or by a table: their text, or None for null."""


def block_of(
    batch: Any, columns: Columns, width: int, constants: Constants, unit_kind: Kind | None
) -> RawBlock:
    """The rows of a batch, whose columns were checked.

    Parameters
    ----------
    batch : pyarrow RecordBatch; columns that it lacks are in ``constants``.
    columns : which columns are read, and how.
    width : number of features.
    unit_kind : what the column of privacy units holds, where directory names give it.
    """
    arrays = {name: _column(batch, name) for name in columns.names}
    if columns.table:
        values = [_values(name, arrays[name], columns, constants) for name in columns.features]
        features, valid = table_rows(values, batch.num_rows, columns.keeps_nulls)
    elif arrays[columns.features[0]] is None:  # the table got this column after the file
        features = np.zeros((batch.num_rows, width), dtype=np.float32)
        valid = np.zeros(batch.num_rows, dtype=np.bool_)
    else:
        features, valid = embedding_rows(arrays[columns.features[0]], width)
    codes = _codes(batch.num_rows, columns, arrays, constants)
    if columns.window is not None:
        times = arrays[columns.window.column]
        within = inside(pa.nulls(batch.num_rows) if times is None else times, columns.window)
        valid = within if valid is None else valid & within
    if columns.unit is None:
        return RawBlock(features, valid, codes)
    units, named = _units(batch.num_rows, arrays[columns.unit], constants, columns.unit, unit_kind)
    return RawBlock(features, named if valid is None else valid & named, codes, units)


def _values(name: str, array: Any, columns: Columns, constants: Constants) -> Any:
    """The values of a feature of a table, as :func:`table_rows` takes them."""
    if name in columns.categories:
        values = columns.categories[name]
        if array is not None:
            return category_numbers(array, values)
        code = encode_text(constants[name], values)
        return float(code) if code >= 0 else float("nan")
    return parse_number(constants[name]) if array is None else array


def _column(batch: Any, name: str) -> Any:
    """A column, or a field of a struct column; null where the struct is. None if there is none."""
    places = find_fields(batch.schema, name)
    if not places:
        return None
    first, *rest = places[0]
    array = batch.column(first)
    for field in rest:
        array = storage(array)
        array = pc.struct_field(array, [array.type.get_field_index(field)])
    return array


def _codes(rows: int, columns: Columns, arrays: Mapping[str, Any], constants: Constants) -> Any:
    """The index of each row's label (n,)."""
    if columns.label is None:
        return np.zeros(rows, dtype=np.int64)
    array = arrays[columns.label]
    if array is not None:
        return encode_arrow(array, columns.labels)
    code = encode_text(constants[columns.label], columns.labels)
    return np.full(rows, code, dtype=np.int64)


def _units(
    rows: int, array: Any, constants: Constants, column: str, kind: Kind | None
) -> tuple[Any, Any]:
    """Digests (n, 32) of the rows' privacy units, and which rows have one (n,)."""
    if array is not None:
        return digests_of(array)
    constant = constant_digest(constants[column], kind or "text")
    digest = np.frombuffer(constant or bytes(DIGEST_BYTES), dtype=np.uint8)
    return np.tile(digest, (rows, 1)), np.full(rows, constant is not None)
