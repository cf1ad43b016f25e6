"""A table in memory as a source of rows: a pandas or polars frame, or a pyarrow table.

Columns are found by name and read like those of a Parquet file, so every type means the same.
Neither pandas nor polars is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dpgmm_dist.column_kinds import Kind as ColumnKind
from dpgmm_dist.data.arrow_rows import block_of
from dpgmm_dist.data.blocks import PlanUnit, RawBlock, RowRange, join_small
from dpgmm_dist.data.labels import Labels
from dpgmm_dist.data.parquet_schema import Columns, check_types, resolve_kinds, resolve_width
from dpgmm_dist.data.unit_values import Kind
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.windows import Window

TARGET_BYTES = 64 << 20


@dataclass(frozen=True, repr=False, eq=False)
class FrameSource(Opaque):
    """PRIVATE. The rows of a table in memory; made by :meth:`open`."""

    table: Any
    """pyarrow.Table of the columns that are read."""
    columns: Columns
    width: int
    """Feature dimension d."""
    kinds: tuple[ColumnKind | None, ...] = ()
    """What each feature column of a table holds; empty for embeddings, None where none is known."""
    unit_kind: Kind | None = None
    """Whether privacy units are named by integers or by text, where the source has any."""
    types: tuple[str | None, ...] = ()
    """Names of the types of the columns that are read, for the receipt."""
    row_bytes: int = 1

    @classmethod
    def open(
        cls,
        frame: Any,
        columns: Columns,
        *,
        width: int | None = None,
        window: Window | None = None,
        argument: str = "source",
    ) -> FrameSource:
        """Check everything public about a frame. Copies no rows that Arrow can view.

        Parameters
        ----------
        frame : pandas or polars DataFrame, pyarrow Table, or any object that gives an Arrow stream
        columns : which columns are read
        width : length of the list column, where its type does not fix it
        window : which rows are read, by a column of dates or times; all by default
        argument : the name of the argument that ``frame`` was, for messages

        Raises
        ------
        SpecError
            If the width is missing, or an argument contradicts the types.
        DataError
            If the frame has no such column, or one of a type that cannot be used.
        """
        if window is not None:
            if window.kind != "time":
                raise SpecError(
                    f"dataset.window.equals selects a directory, and {argument} is a frame: use "
                    "start and end, or select the rows beforehand"
                )
            columns = replace(columns, window=window)
        table = table_of(frame, columns.names, argument)
        types = check_types(table.schema, columns, argument)
        width = resolve_width(columns, [types.list_size], width)
        kinds = resolve_kinds(columns, [types.kinds])
        row_bytes = types.item_bytes * (1 if columns.table else width)
        wanted = {name for name in table.column_names if _leads_to(name, columns.names)}
        table = table.select(sorted(wanted, key=table.column_names.index))
        return cls(table, columns, width, kinds, types.unit_kind, types.names, max(1, row_bytes))

    @property
    def labels(self) -> Labels:
        """The public label set; empty when the data are not labelled."""
        return self.columns.labels

    def plan(self, target_bytes: int = TARGET_BYTES) -> list[PlanUnit]:
        """Split the rows into consecutive ranges; at least one, which may be empty."""
        rows, step = self.table.num_rows, max(1, target_bytes // self.row_bytes)
        ranges = [(start, min(start + step, rows)) for start in range(0, max(rows, 1), step)]
        return [
            PlanUnit(index, (RowRange(start, stop),), (stop - start) * self.row_bytes)
            for index, (start, stop) in enumerate(ranges)
        ]

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read a unit in blocks of 1 to ``max_rows`` rows."""
        return join_small(self._blocks(unit, max_rows), max_rows)

    def _blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        for piece in unit.pieces:
            if not isinstance(piece, RowRange):
                raise TypeError("this unit was planned by another source")
            part = self.table.slice(piece.start, piece.stop - piece.start)
            for batch in part.to_batches(max_chunksize=max_rows):
                if batch.num_rows:
                    yield block_of(batch, self.columns, self.width, {}, self.unit_kind)

    def require_unchanged(self) -> None:
        """Check nothing: the frame belongs to the caller, and comparing it would take a pass."""

    def fingerprint(self) -> dict[str, str]:
        """Digest of the content. PRIVATE: kept in private storage, to detect changes."""
        digests = [hashlib.blake2b(digest_size=32) for _ in range(4)]
        for block in (b for unit in self.plan() for b in self.blocks(unit, 1 << 16)):
            valid = b"" if block.valid is None else block.valid.tobytes()
            parts = (block.features, block.labels, block.units)
            for digest, part in zip(digests, parts, strict=False):
                digest.update(b"" if part is None else part.data)
            digests[3].update(valid)
        return {"frame": " ".join(digest.hexdigest() for digest in digests)}


def is_frame(value: object) -> bool:
    """Whether ``value`` is a table with named columns that Arrow can read."""
    if isinstance(value, pa.Table | pa.RecordBatch):
        return True
    named = hasattr(value, "columns") or hasattr(value, "column_names")
    return named and (hasattr(value, "__arrow_c_stream__") or _library(value) == "pandas")


def is_pandas_frame(value: object) -> bool:
    """Whether ``value`` is a pandas DataFrame or Series. Does not import pandas."""
    return _library(value) == "pandas" and hasattr(value, "iloc")


def refuse_lazy_frame(value: object, argument: str) -> None:
    """Raise SpecError for a frame whose rows are not in memory, with what to give in its place."""
    if _library(value) == "polars" and hasattr(value, "collect"):
        raise SpecError(f"{argument} is a lazy frame: give {argument}.collect()")


def column_names(frame: Any) -> list[str]:
    """The names of the columns of a frame, as texts."""
    return [str(name) for name in getattr(frame, "column_names", None) or frame.columns]


def table_of(frame: Any, names: Iterable[str], argument: str) -> Any:
    """The frame as a pyarrow Table; of a pandas frame at least the columns that are named.

    Raises
    ------
    DataError
        If Arrow cannot read it. The message holds no value.
    """
    if isinstance(frame, pa.Table):
        return frame
    table = None
    try:
        if isinstance(frame, pa.RecordBatch):
            table = pa.Table.from_batches([frame])
        elif _library(frame) == "pandas":
            wanted = list(names)
            read = [name for name in frame.columns if _leads_to(str(name), wanted)]
            all_there = all(any(_leads_to(str(n), [name]) for n in read) for name in wanted)
            frame = frame[read] if all_there else frame.iloc[:0]  # then the check names the columns
            table = pa.Table.from_pandas(frame, preserve_index=False)
        else:
            table = pa.table(frame)
    except Exception:
        table = None  # Arrow's own message quotes values
    if table is None:
        raise DataError(
            f"{argument} cannot be read as an Arrow table: give each column one type (numbers, "
            "booleans, strings, dates, times or lists of numbers)"
        )
    return table


def _leads_to(column: str, names: Iterable[str]) -> bool:
    """Whether one of the names is this column or a field of it."""
    return any(name == column or name.startswith(f"{column}.") for name in names)


def with_labels(table: Any, name: str, y: Any) -> Any:
    """The table with the labels ``y`` (n,) as its column ``name``.

    Raises
    ------
    DataError
        If Arrow cannot read them, or there are not as many as rows.
    """
    column = None
    try:
        column = pa.chunked_array(y) if hasattr(y, "__arrow_c_stream__") else pa.array(y)
    except Exception:
        column = None  # Arrow's own message quotes values
    if column is None:
        raise DataError("y cannot be read as an Arrow column: give all labels one type")
    if len(column) != table.num_rows:
        raise DataError("X and y must have the same number of rows")  # how many is private
    others = [other for other in table.column_names if other != name]
    return table.select(others).append_column(name, column)


def numbers_of(source: FrameSource) -> Any:
    """All rows as an array (n, d) of float64, in input units; NaN where a row is not valid."""
    blocks = [block for unit in source.plan() for block in source.blocks(unit, 1 << 16)]
    parts = [np.empty((0, source.width))]
    for block in blocks:
        rows = block.features.astype(np.float64)
        if block.valid is not None:
            rows[~block.valid] = np.nan
        parts.append(rows)
    return np.concatenate(parts)


def no_rows_of(frame: Any) -> Any:
    """A frame of the same kind without a row, from which :func:`frame_like` knows what to make.

    Nothing of the rows is left. Schemas and indexes tell of them: pandas writes the number of rows
    into the metadata of an Arrow schema, and columns and indexes list the values that they had.
    """
    library = _library(frame)
    if library == "polars":
        return type(frame)()
    if library != "pandas":
        return pa.table({})
    empty = frame.iloc[:0].reset_index(drop=True).copy()
    empty.attrs = {}
    for name in empty.columns[[str(kind) == "category" for kind in empty.dtypes]]:
        empty[name] = empty[name].cat.remove_unused_categories()
    return empty


def frame_like(example: Any, table: Any, categories: Mapping[str, Labels] | None = None) -> Any:
    """A pyarrow Table as a frame of the kind that :func:`no_rows_of` gave.

    Parameters
    ----------
    categories : the public values of columns of categories. A pandas column of categories lists
        them.
    """
    if _library(example) == "pandas":
        frame = table.to_pandas()
        for name in example.columns:
            if str(name) in frame:
                frame[str(name)] = _as_before(
                    table[str(name)], frame[str(name)], example[name], (categories or {}).get(name)
                )
        return frame.rename(columns={str(name): name for name in example.columns})
    return type(example)(table) if _library(example) == "polars" else table


def _as_before(column: Any, values: Any, example: Any, categories: Labels | None) -> Any:
    """A pandas column of the type that it had: of categories, or one that knows missing values."""
    if str(example.dtype) == "category" and categories is not None:
        listed = values.astype("category").cat
        return listed.set_categories(list(categories), ordered=example.cat.ordered)
    read = getattr(example.dtype, "__from_arrow__", None)
    return values if read is None else type(example)(read(column), index=values.index)


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]
