"""Sources of rows: partitioned Parquet, frames, and arrays.

A source is made on the driver, which checks everything public about the data. It is sent to the
workers, which read plan units from it. What a worker cannot read becomes a DataError that names the
file. Arrow's own exceptions quote values, so none of them leaves this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from dpgmm_dist.column_kinds import Kind as ColumnKind
from dpgmm_dist.data.arrays import ArraySource
from dpgmm_dist.data.arrow_rows import block_of
from dpgmm_dist.data.blocks import (
    ChunkRange,
    FilePiece,
    PlanUnit,
    RawBlock,
    RowRange,
    Source,
    join_small,
)
from dpgmm_dist.data.column_types import find_fields
from dpgmm_dist.data.dask_arrays import DaskArraySource
from dpgmm_dist.data.dask_frames import DaskFrameSource
from dpgmm_dist.data.frames import FrameSource
from dpgmm_dist.data.labels import Labels
from dpgmm_dist.data.parquet_schema import (
    Columns,
    Footer,
    Gather,
    read_footers,
    resolve_kinds,
    resolve_unit_kind,
    resolve_width,
)
from dpgmm_dist.data.unit_values import Kind
from dpgmm_dist.data.windowed import in_directories
from dpgmm_dist.errors import DataError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.parquet_files import Place, is_local, opened
from dpgmm_dist.storage.rereading import read_on
from dpgmm_dist.storage.small_files import with_contents
from dpgmm_dist.storage.snapshot_times import Snapshot
from dpgmm_dist.storage.snapshots import Listing, list_input
from dpgmm_dist.windows import Window

__all__ = [
    "AnySource",
    "ArraySource",
    "ChunkRange",
    "DaskArraySource",
    "DaskFrameSource",
    "FilePiece",
    "FrameSource",
    "ParquetSource",
    "PlanUnit",
    "RawBlock",
    "RowRange",
    "Source",
    "column_kinds",
]

SNAPSHOT = "snapshot of the table"
"""Key of the snapshot among the identifiers of the input; no path of a file is like it."""
TARGET_BYTES = 128 << 20
_FILE_BYTES = 1 << 20
"""What each file adds to the size of a unit, so that thousands of tiny files are spread."""

T = TypeVar("T")


@dataclass(frozen=True, repr=False, eq=False)
class ParquetSource(Opaque):
    """Rows of one or many Parquet files; made by :meth:`open`.

    Pickles leave out the footers, which only the plan needs, so tasks stay small.
    """

    place: Place
    columns: Columns
    width: int
    """Feature dimension d, from the schema or the specification."""
    unit_kind: Kind | None = None
    """Whether privacy units are named by integers or by text, where the source has any."""
    kinds: tuple[ColumnKind | None, ...] = ()
    """What each feature column of a table holds; empty for embeddings, None where none is known."""
    _footers: tuple[Footer, ...] | None = None
    _directories: Window | None = None
    """The window, where directory names decide which files are in it."""
    snapshot: int | None = None
    """The snapshot of a table, fixed when it was opened; None for plain Parquet."""

    @classmethod
    def open(
        cls,
        place: Place,
        columns: Columns,
        *,
        width: int | None = None,
        window: Window | None = None,
        gather: Gather | None = None,
        snapshot: Snapshot | None = None,
    ) -> ParquetSource:
        """Find the files and check everything public about them. Reads footers, never rows.

        Parameters
        ----------
        place : path or URL of the files, with the options of its store
        columns : which columns are read
        width : length of the list column, where its type does not fix it
        window : which rows are read; all by default
        gather : calls a function of each of many items on workers, to read many footers there
        snapshot : version, tag or time of a table; the newest by default

        Raises
        ------
        SpecError
            If the width is missing, or an argument contradicts the schema.
        DataError
            If the path is missing or empty, a file is damaged, or a column is missing or of a type
            that cannot be used.
        """
        listing, by_column = _in_window(place, window, snapshot)
        if by_column:
            columns = replace(columns, window=window)
        footers = read_footers(place, listing.files, columns, gather, listing.columns)
        width = resolve_width(columns, (footer.types.list_size for footer in footers), width)
        unit_kind = resolve_unit_kind(columns, footers, place)
        kinds = resolve_kinds(columns, (footer.types.kinds for footer in footers))
        directories = None if by_column else window
        return cls(place, columns, width, unit_kind, kinds, footers, directories, listing.snapshot)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_footers": None}

    @property
    def labels(self) -> Labels:
        """The public label set; empty when the data are not labelled."""
        return self.columns.labels

    def footers(self) -> tuple[Footer, ...]:
        """The checked footers of all files, sorted by path; read again after a pickle."""
        if self._footers is None:
            listing, _ = _in_window(self.place, self._directories, self.snapshot)
            footers = read_footers(self.place, listing.files, self.columns, table=listing.columns)
            object.__setattr__(self, "_footers", footers)
            return footers
        return self._footers

    def plan(self, target_bytes: int = TARGET_BYTES) -> list[PlanUnit]:
        """Join consecutive row groups, in order of path, to units of about ``target_bytes``.

        Sizes are those of the feature values in memory. A row group is never divided. A larger one
        is a unit by itself, and is still read in bounded memory.
        """
        units: list[PlanUnit] = []
        pieces: dict[int, list[int]] = {}
        size = weight = 0

        def close() -> None:
            nonlocal pieces, size, weight
            parts = tuple(self._piece(file, groups) for file, groups in pieces.items())
            units.append(PlanUnit(len(units), parts, size))
            pieces, size, weight = {}, 0, 0

        for file, footer in enumerate(self.footers()):
            # A file without row groups is planned too: that it is empty is private.
            groups: list[int | None] = [*range(len(footer.row_groups))] or [None]
            for group in groups:
                amount = 0 if group is None else self._bytes(footer, group)
                if pieces and weight + amount + (file not in pieces) * _FILE_BYTES > target_bytes:
                    close()
                weight += amount + (file not in pieces) * _FILE_BYTES
                size += amount
                pieces.setdefault(file, []).extend([] if group is None else [group])
        close()
        return units

    def _piece(self, file: int, groups: list[int]) -> FilePiece:
        footer = self.footers()[file]
        named = set(self.columns.names)
        constants = tuple((n, text) for n, text in footer.file.constants if n in named)
        top = {name.partition(".")[0] for name in named} | named
        renamed = tuple(pair for pair in footer.renamed if top & {*pair})
        return FilePiece(footer.file.path, tuple(groups), constants, renamed, footer.file.size)

    def _bytes(self, footer: Footer, group: int) -> int:
        rows, stored = footer.row_groups[group]
        width = 1 if self.columns.table else self.width
        # The stored size can be smaller (dictionaries) or larger (lists of another length).
        return max(rows * width * footer.types.item_bytes, stored)

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read a unit in blocks of 1 to ``max_rows`` rows.

        Raises
        ------
        DataError
            If a file cannot be read. The message names it and holds no value of it.
        """
        return join_small(self._blocks(unit, max_rows), max_rows)

    def _blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        fs, _ = self.place.resolve()
        pieces = [piece for piece in unit.pieces if isinstance(piece, FilePiece)]
        if len(pieces) < len(unit.pieces):
            raise TypeError("this unit was planned by another source")
        for piece, content in with_contents(fs, [piece for piece in pieces if piece.row_groups]):
            name = self.place.message_path(fs, piece.path)
            known = [(piece.size, content)]
            begin = partial(self._piece_blocks, fs, piece, max_rows, unit.bytes, known)
            # On a local disk a read that fails once fails again.
            blocks = begin() if is_local(fs) else read_on(begin)
            yield from _without_cause(blocks, f"cannot read {name}")

    def _piece_blocks(
        self,
        fs: Any,
        piece: FilePiece,
        max_rows: int,
        unit_bytes: int,
        known: list[tuple[int, bytes | None]],
    ) -> Iterator[RawBlock]:
        """Read a piece. ``known`` has size and content of its file, which are relied on once."""
        names, given = self.columns.names, dict(piece.constants)
        size, content = known.pop() if known else (0, None)
        called = {name: in_file for in_file, name in piece.renamed}
        texts = [called.get(name, name) for name in self.columns.texts if name not in given]
        with opened(fs, piece.path, len(names), unit_bytes, texts, size, content) as file:
            schema = _renamed(file.schema_arrow, dict(piece.renamed))
            places = [find_fields(schema, name) for name in names]
            batches = file.iter_batches(
                batch_size=max_rows,
                row_groups=list(piece.row_groups),
                columns=[
                    ".".join((called.get(place[0], place[0]), *place[1:]))
                    for found in places
                    for place in found
                ],
                use_threads=False,
            )
            missing = sum(file.metadata.row_group(i).num_rows for i in piece.row_groups)
            for batch in batches:
                missing -= batch.num_rows
                if piece.renamed:
                    batch = batch.rename_columns(_renamed(batch.schema, dict(piece.renamed)).names)
                yield block_of(batch, self.columns, self.width, given, self.unit_kind)
            if missing:
                raise ValueError("the footer declares other numbers of rows than the pages hold")

    def require_unchanged(self) -> None:
        """Refuse files that appeared, disappeared or changed since they were planned.

        A row that moved from one file to another may have been read twice, or not at all.

        Raises
        ------
        DataError
            Before anything is drawn for what was read.
        """
        fs, _ = self.place.resolve()
        fs.invalidate_cache()
        listing, _ = _in_window(self.place, self._directories, self.snapshot)
        if {file.path: (file.size, file.stamp) for file in listing.files} != {
            footer.file.path: (footer.file.size, footer.file.stamp) for footer in self.footers()
        }:
            raise DataError(
                f"the input at {self.place.url} changed while it was read, and nothing was drawn "
                "for that: put it back and run the same command again, or begin a new release"
            )

    def fingerprint(self) -> dict[str, str]:
        """Size and etag or time of each file. PRIVATE: in private storage, to detect changes."""
        files = (footer.file for footer in self.footers())
        found = {file.path: f"{file.size} {file.stamp}" for file in files}
        return found if self.snapshot is None else {**found, SNAPSHOT: str(self.snapshot)}


AnySource = ParquetSource | FrameSource | ArraySource | DaskArraySource | DaskFrameSource
"""The rows of a release."""


def column_kinds(rows: AnySource) -> tuple[ColumnKind | None, ...]:
    """What each feature column of a table holds; arrays hold numbers."""
    if isinstance(rows, ParquetSource | FrameSource | DaskFrameSource):
        return rows.kinds
    number: ColumnKind = "number"
    return (number,) * rows.width


def _in_window(
    place: Place, window: Window | None, snapshot: Snapshot | None
) -> tuple[Listing, bool]:
    """The files to read, and whether a column decides which rows are in the window."""
    listing = list_input(place, snapshot)
    if window is None:
        return listing, False
    chosen = in_directories(listing.files, window, place)
    return (listing, True) if chosen is None else (replace(listing, files=chosen), False)


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """A schema of a file with the columns as the table names them."""
    return pa.schema([field.with_name(names.get(field.name, field.name)) for field in schema])


def _without_cause(items: Iterator[T], message: str) -> Iterator[T]:
    """Yield the items; any exception becomes a DataError without a cause and without its text."""
    while True:
        problem = ""
        try:
            item = next(items)
        except StopIteration:
            return
        except MemoryError:
            problem = "the process ran out of memory; give workers more, or fewer threads"
        except FileNotFoundError:
            problem = "it went away after the plan was made; put it back"
        except PermissionError:
            problem = "its store refuses access; grant permission to read it"
        except Exception:
            problem = (
                "it is damaged, it changed after the plan was made, or its store fails; repair that"
            )
        if problem:
            # Raised outside the handler, so that __context__ does not hold the original either.
            raise DataError(f"{message}: {problem}, then run the same command again")
        yield item
