"""The public schema of the input, so that sampled rows can be written with the same columns."""

from __future__ import annotations

from typing import Any

from dpgmm_dist.data.provenance import from_metadata
from dpgmm_dist.data.source import AnySource, ParquetSource
from dpgmm_dist.storage.parquet_files import opened


def describe_input(source: AnySource) -> dict[str, Any]:
    """Return the names and types of the feature and label columns (``receipt.InputSchema``)."""
    if not isinstance(source, ParquetSource):
        item = source.X.dtype.name
        label = None
        if source.labels:
            kind = "string" if isinstance(source.labels[0], str) else "int64"
            label = {"name": "label", "type": kind}
        columns = [{"name": "features", "type": _FLOATS.get(item, "double")}]
        return {"kind": "list", "columns": columns, "width": source.width, "label": label}
    return _describe_parquet(source)


_FLOATS = {"float16": "halffloat", "float32": "float", "float64": "double"}


def _describe_parquet(source: ParquetSource) -> dict[str, Any]:
    import pyarrow as pa

    footer = source.footers()[0]
    fs, _ = source.place.resolve()
    with opened(fs, footer.file.path, 1, 0) as file:
        schema = file.schema_arrow
    read = source.columns
    text = bool(read.labels) and isinstance(read.labels[0], str)

    def name_of(column: str, otherwise: str) -> str:
        # A column that directory names give has no type in the file.
        index = schema.get_field_index(column)
        if index < 0:
            return otherwise
        kind = schema.field(index).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if hasattr(kind, "value_type"):
            kind = kind.value_type
        return otherwise if pa.types.is_null(kind) else str(kind)

    label = None
    if read.label is not None:
        kind = name_of(read.label, "string" if text else "int64")
        label = {"name": read.label, "type": kind}
    described = {
        "kind": "columns" if read.table else "list",
        "columns": [{"name": c, "type": name_of(c, "double")} for c in read.features],
        "width": source.width,
        "label": label,
    }
    encoder = from_metadata(schema.metadata)
    if encoder is not None:
        described["encoder"] = encoder.to_dict() | {"guarantee": encoder.guarantee()}
    return described
