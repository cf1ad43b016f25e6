"""The public schema of the input, so that sampled rows can be written with the same columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dpgmm_dist.data.labels import Labels, are_booleans, are_strings
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.data.provenance import from_metadata
from dpgmm_dist.data.source import AnySource, DaskFrameSource, FrameSource, ParquetSource
from dpgmm_dist.storage.parquet_files import opened


def describe_input(source: AnySource, table: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the names and types of the feature and label columns (``receipt.InputSchema``).

    ``table`` has the names of the columns of an array that is a table.
    """
    if isinstance(source, DaskFrameSource):
        source = source.example
    if isinstance(source, FrameSource):
        return _described(source, [source.types])
    if not isinstance(source, ParquetSource):
        item = source.X.dtype.name
        label = None
        if source.labels:
            kind = "string" if isinstance(source.labels[0], str) else "int64"
            kind = "bool" if isinstance(source.labels[0], bool) else kind
            label = {"name": "label", "type": kind}
        columns = [{"name": "features", "type": _FLOATS.get(item, "double")}]
        if table:
            kind = item if item in _WHOLE_NUMBERS else _FLOATS.get(item, "double")
            columns = [{"name": name, "type": kind} for name in table]
        return {
            "kind": "columns" if table else "list",
            "columns": columns,
            "width": source.width,
            "label": label,
        }
    return _describe_parquet(source)


_WHOLE_NUMBERS = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_FLOATS = {"float16": "halffloat", "float32": "float", "float64": "double"}


def _describe_parquet(source: ParquetSource) -> dict[str, Any]:
    footers = source.footers()
    described = _described(source, (footer.types.names for footer in footers))
    fs, _ = source.place.resolve()
    with opened(fs, footers[0].file.path, 1, 0) as file:
        encoder = from_metadata(file.schema_arrow.metadata)
    if encoder is not None:
        described["encoder"] = encoder.to_dict() | {"guarantee": encoder.guarantee()}
    return described


def _column_of(name: str, kind: str | None, read: Columns) -> dict[str, Any]:
    """A feature column: its name and type, and its public values where it holds categories."""
    values = read.categories.get(name)
    if values is None:
        return {"name": name, "type": kind or "double"}
    return {"name": name, "type": kind or _type_of(values), "values": list(values)}


def _type_of(values: Labels) -> str:
    if are_strings(values):
        return "string"
    return "bool" if are_booleans(values) else "int64"


def _described(
    source: ParquetSource | FrameSource, names: Iterable[tuple[str | None, ...]]
) -> dict[str, Any]:
    """The columns that are read, with the name of the first type that any file gives each."""
    read = source.columns
    first: dict[str, str] = {}
    for of_file in names:
        for column, name in zip(read.names, of_file, strict=True):
            if name is not None:
                first.setdefault(column, name)
        if len(first) == len(read.names):
            break
    # A column that directory names give has no type, nor has one that is missing in every row.
    columns = [_column_of(column, first.get(column), read) for column in read.features]
    label = None
    if read.label is not None:
        otherwise = "string" if isinstance(read.labels[0], str) else "int64"
        label = {"name": read.label, "type": first.get(read.label, otherwise)}
    kind = "columns" if read.table else "list"
    return {"kind": kind, "columns": columns, "width": source.width, "label": label}
