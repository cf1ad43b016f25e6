"""The public schema of the input, so that sampled rows can be written with the same columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dpgmm_dist.data.column_types import embedding_items, field_type, find_fields, value_type
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.data.provenance import from_metadata
from dpgmm_dist.data.source import AnySource, FrameSource, ParquetSource
from dpgmm_dist.storage.parquet_files import opened


def describe_input(source: AnySource) -> dict[str, Any]:
    """Return the names and types of the feature and label columns (``receipt.InputSchema``)."""
    if isinstance(source, FrameSource):
        return describe_columns(source.table.schema, source.columns, source.width)
    if not isinstance(source, ParquetSource):
        item = source.X.dtype.name
        label = None
        if source.labels:
            kind = "string" if isinstance(source.labels[0], str) else "int64"
            kind = "bool" if isinstance(source.labels[0], bool) else kind
            label = {"name": "label", "type": kind}
        columns = [{"name": "features", "type": _FLOATS.get(item, "double")}]
        return {"kind": "list", "columns": columns, "width": source.width, "label": label}
    return _describe_parquet(source)


_FLOATS = {"float16": "halffloat", "float32": "float", "float64": "double"}


def _describe_parquet(source: ParquetSource) -> dict[str, Any]:
    footer = source.footers()[0]
    fs, _ = source.place.resolve()
    with opened(fs, footer.file.path, 1, 0) as file:
        schema = file.schema_arrow
    described = describe_columns(schema, source.columns, source.width)
    encoder = from_metadata(schema.metadata)
    if encoder is not None:
        described["encoder"] = encoder.to_dict() | {"guarantee": encoder.guarantee()}
    return described


def describe_columns(schema: Any, read: Columns, width: int) -> dict[str, Any]:
    """The names and types of the columns that are read, of those in an Arrow schema."""

    def type_of(column: str, otherwise: str, embeddings: bool = False) -> str:
        # A column that directory names give has no type in the file.
        places = find_fields(schema, column)
        if not places:
            return otherwise
        kind = value_type(field_type(schema, places[0]))
        if embeddings:
            kind, _ = embedding_items(kind) or (kind, None)
        return otherwise if pa.types.is_null(kind) else str(kind)

    label = None
    if read.label is not None:
        text = isinstance(read.labels[0], str)
        kind = type_of(read.label, "string" if text else "int64")
        label = {"name": read.label, "type": kind}
    columns = [
        {"name": column, "type": type_of(column, "double", embeddings=not read.table)}
        for column in read.features
    ]
    kind = "columns" if read.table else "list"
    return {"kind": kind, "columns": columns, "width": width, "label": label}
