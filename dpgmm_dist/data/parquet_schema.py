"""The public part of a Parquet data set: its columns, their types, and the sizes of row groups.

Only footers are read. What this module refuses is refused before any budget is spent. Writers give
a column the type ``null`` where every value of a partition is missing. That is a private fact, so
such a column is accepted, and its rows are invalid.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from dpgmm_dist.column_kinds import HOLDS
from dpgmm_dist.column_kinds import Kind as ColumnKind
from dpgmm_dist.data.column_types import (
    check_label_type,
    embedding_items,
    embedding_problem,
    feature_kind,
    field_type,
    find_fields,
    shown,
    table_problem,
    value_type,
)
from dpgmm_dist.data.labels import (
    Labels,
    are_booleans,
    are_strings,
    check_labels,
    spells_boolean,
    spells_integer,
)
from dpgmm_dist.data.unit_values import USABLE, Kind, kind_of
from dpgmm_dist.data.windowed import column_problem
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.other_formats import conversion
from dpgmm_dist.storage.parquet_files import FoundFile, Place, for_each_file, opened
from dpgmm_dist.storage.table_columns import TableColumns
from dpgmm_dist.windows import Window

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|nan", re.I | re.A)
_SHOWN_COLUMNS = 20
_CATEGORY_BYTES = 8
"""A category is read as the number of its value."""
_NONE_GIVEN: Mapping[str, str | None] = {}
_LARGE_CHUNK = 256 << 20
"""Bytes of one column in a row group that a task may hold at once, as engine/memory.py plans."""
_MOST_INFLATED = 1000
"""Beyond this ratio to the bytes on disk, a large chunk may be one page, made to fill memory."""


@dataclass(frozen=True, repr=False)
class Columns(Opaque):
    """The columns to read, by name, and the public values of the labels."""

    features: tuple[str, ...]
    table: bool
    """Whether ``features`` are numeric columns; otherwise it is one list column."""
    label: str | None
    labels: Labels
    """Public label set; empty without a label column."""
    unit: str | None = None
    """The column that names privacy units."""
    window: Window | None = None
    """The rows to read, by a column of times; None for all rows of the files."""
    categories: Mapping[str, Labels] = field(default_factory=dict)
    """The public values of those of the features of a table that are categories."""
    keeps_nulls: bool = False
    """Whether a row of a table may lack values; without it such a row is not valid."""

    def __post_init__(self) -> None:
        """Raise SpecError for labels that are not a set of integers or of strings."""
        if self.label is not None:
            check_labels(self.labels)
        for values in self.categories.values():
            check_labels(values)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns to read, each once."""
        others = (self.label, self.unit, None if self.window is None else self.window.column)
        named = tuple(name for name in others if name is not None)
        return tuple(dict.fromkeys((*self.features, *named)))

    @property
    def texts(self) -> tuple[str, ...]:
        """Those that may hold text."""
        others = (self.label, self.unit)
        return (*self.categories, *(name for name in others if name is not None))


@dataclass(frozen=True)
class ReadTypes:
    """Facts about the columns to read from their types, in one file or frame."""

    list_size: int | None
    """Width that the type of the list column fixes; None if it fixes none."""
    item_bytes: int
    """Bytes of one feature (a list) or of the features of one row (a table)."""
    kinds: tuple[ColumnKind | None, ...] = ()
    """What each feature column of a table holds; None where no column type says."""
    unit_kind: Kind | None = None
    """What the column of privacy units holds; None where no column type says."""
    names: tuple[str | None, ...] = ()
    """The name of the type of each of ``Columns.names``, as a receipt states it: that of the
    entries of a dictionary, of the numbers of an embedding; None where no column type says."""


@dataclass(frozen=True, repr=False)
class Footer(Opaque):
    """Facts from the footer of one file."""

    file: FoundFile
    types: ReadTypes
    row_groups: tuple[tuple[int, int], ...]
    """(rows, stored bytes of the list column before compression) of each row group."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Columns of a table that have another name in this file: (name there, name)."""


Gather = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""Calls a function of each of many items, on whichever worker is free; results are in order."""
_MANY_FILES = 1000
_FILES_PER_TASK = 200


def read_footers(
    place: Place,
    files: tuple[FoundFile, ...],
    columns: Columns,
    gather: Gather | None = None,
    table: TableColumns | None = None,
) -> tuple[Footer, ...]:
    """Read and check the footers of all files; many are read on the workers behind ``gather``.

    ``table`` has the columns of a Delta Lake or Iceberg table, which its files need not all have.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a column, or a column has a type that cannot be used.
    SpecError
        If the public labels are not of the label column's kind.
    """
    reader = _FooterReader(place, columns, table)
    if gather is None or len(files) < _MANY_FILES:
        footers = reader(files)
    else:
        starts = range(0, len(files), _FILES_PER_TASK)
        parts = gather(reader, [_Files(files[i : i + _FILES_PER_TASK]) for i in starts])
        footers = tuple(footer for part in parts for footer in part)
    _check_directory_names(footers, columns, place)
    return footers


@dataclass(frozen=True, repr=False)
class _Files(Opaque):
    """Some files. Opaque, because Dask logs the arguments of failed tasks."""

    files: tuple[FoundFile, ...]


@dataclass(frozen=True, repr=False)
class _FooterReader(Opaque):
    """Reads the footers of some files; sent to workers."""

    place: Place
    columns: Columns
    table: TableColumns | None

    def __call__(self, batch: _Files | tuple[FoundFile, ...]) -> tuple[Footer, ...]:
        files = batch.files if isinstance(batch, _Files) else batch
        fs, _ = self.place.resolve()
        return tuple(for_each_file(lambda file: self._read(fs, file), files))

    def _read(self, fs: Any, file: FoundFile) -> Footer:
        place, columns = self.place, self.columns
        name = place.message_path(fs, file.path)
        footer, problem = None, ""
        try:
            with opened(fs, file.path, 1, 0, size=file.size) as parquet:
                schema = parquet.schema_arrow
                renamed: tuple[tuple[str, str], ...] = ()
                if self.table is not None:
                    file, schema, renamed = _as_in_table(file, schema, self.table, columns, name)
                called = {in_table: in_file for in_file, in_table in renamed}
                names = [called.get(column, column) for column in columns.names]
                first = called.get(columns.features[0], columns.features[0])
                groups = _row_groups(parquet.metadata, columns, first)
                inflates = _inflates(parquet.metadata, names)
            if inflates:
                raise DataError(
                    f"cannot read {name}: a column to read takes {_LARGE_CHUNK >> 20} MiB or more "
                    "in a row group, and less than a thousandth of that in the file, so that its "
                    "pages may not fit in memory; write it with smaller row groups"
                )
            given = dict(file.constants)
            types = check_types(schema, columns, name, given)
            footer = Footer(file, types, groups, renamed)
        except (DataError, SpecError):
            raise
        except FileNotFoundError:
            problem = "it does not exist any more"
        except PermissionError:
            problem = "permission denied"
        except Exception:
            # Arrow's own message quotes bytes of the file.
            problem = conversion(name) or "it is damaged or not a Parquet file"
        if footer is None:
            raise DataError(f"cannot read {name}: {problem}")
        return footer


def _as_in_table(
    file: FoundFile, schema: Any, table: TableColumns, columns: Columns, name: str
) -> tuple[FoundFile, Any, tuple[tuple[str, str], ...]]:
    """The file and its schema with the columns of a table: renamed, dropped, or added as null."""
    in_file = table.in_file(schema, name)
    known = {*in_file, *dict(file.constants)}
    wanted = {column for column in columns.names if column in table.names}
    added = tuple((column, None) for column in sorted(wanted - known))
    constants = tuple((n, text) for n, text in file.constants if n in set(table.names) - {*in_file})
    # A column that the table has dropped must not be taken for one that has its name now.
    dropped = set(schema.names) & set(table.names) - set(in_file.values())
    renamed = (
        *((place, column) for column, place in in_file.items() if place != column),
        *((place, f"\0{place}") for place in sorted(dropped)),
    )
    fields = [schema.field(place).with_name(column) for column, place in in_file.items()]
    return replace(file, constants=(*constants, *added)), pa.schema(fields), renamed


def _row_groups(metadata: Any, columns: Columns, name: str) -> tuple[tuple[int, int], ...]:
    """``name`` is what the file calls the first feature."""
    leaf = None
    if not columns.table:
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        within = [i for i, path in enumerate(paths) if f"{path}.".startswith(f"{name}.")]
        values = [i for i in within if paths[i].startswith(f"{name}.values.")]  # Spark's vectors
        leaf = next(iter(values or within), None)
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    return tuple(
        (g.num_rows, 0 if leaf is None else g.column(leaf).total_uncompressed_size) for g in groups
    )


def _inflates(metadata: Any, names: Sequence[str]) -> bool:
    """Whether a column to read, by its name in the file, holds much more than its bytes there."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    read = [i for i, path in enumerate(paths) if any(f"{path}.".startswith(f"{n}.") for n in names)]
    chunks = (metadata.row_group(g).column(i) for g in range(metadata.num_row_groups) for i in read)
    return any(
        chunk.total_uncompressed_size >= _LARGE_CHUNK
        and chunk.total_uncompressed_size > _MOST_INFLATED * chunk.total_compressed_size
        for chunk in chunks
    )


def check_types(
    schema: Any, columns: Columns, name: str, given: Mapping[str, str | None] = _NONE_GIVEN
) -> ReadTypes:
    """Check the types of the columns to read, in the Arrow schema of a file or a frame.

    Parameters
    ----------
    schema : the schema of all its columns.
    columns : what is read.
    name : the file, or the argument that the frame is, for messages.
    given : text of columns that the names of directories give where the schema lacks them, or None.

    Raises
    ------
    DataError
        If a column is missing, or has a type that cannot be used.
    SpecError
        If the public labels are not of the label column's kind.
    """
    types = {column: _type_of(schema, column, columns, name, given) for column in columns.names}
    list_size, item_bytes = None, 0
    check = table_problem if columns.table else embedding_problem
    for column in columns.features:
        kind = types[column]
        if column in columns.categories:
            item_bytes += _CATEGORY_BYTES
            if kind is not None:
                values = columns.categories[column]
                check_label_type(column, kind, values, name, "dataset.categories")
            continue
        if kind is None:
            continue
        problem = check(column, kind)
        if problem:
            raise DataError(f"{name}: column {column!r} is {shown(kind)}, {problem}")
        if not columns.table:
            kind, list_size = embedding_items(kind) or (kind, None)
        item_bytes += _bytes_of(kind)
    if columns.label is not None and types[columns.label] is not None:
        check_label_type(columns.label, types[columns.label], columns.labels, name)
    if columns.window is not None and types[columns.window.column] is not None:
        _check_window(columns.window.column, types[columns.window.column], name)
    unit = None if columns.unit is None else _unit_kind(columns.unit, types[columns.unit], name)
    of_features = tuple(
        None if column in columns.categories else types[column]
        for column in (columns.features if columns.table else ())
    )
    return ReadTypes(
        list_size,
        item_bytes,
        tuple(None if kind is None else feature_kind(kind) for kind in of_features),
        unit,
        tuple(_type_name(types[name], columns, name) for name in columns.names),
    )


def _type_name(kind: Any, columns: Columns, name: str) -> str | None:
    """The name of a column's type as a receipt states it; None where no type says."""
    if kind is None:
        return None
    kind = value_type(kind)
    if not columns.table and name == columns.features[0]:
        kind, _ = embedding_items(kind) or (kind, None)
    return None if pa.types.is_null(kind) else sys.intern(str(kind))


def _bytes_of(kind: Any) -> int:
    kind = value_type(kind)
    return 4 if pa.types.is_null(kind) else max(1, kind.bit_width // 8)


def _type_of(
    schema: Any, column: str, columns: Columns, name: str, given: Mapping[str, str | None]
) -> Any:
    """Storage type of a column; None where a directory name gives the column."""
    places = find_fields(schema, column)
    if len(places) > 1:
        raise DataError(f"{name}: has {len(places)} columns named {column!r}; rename one")
    if places:
        return field_type(schema, places[0])
    is_list = not columns.table and column == columns.features[0]
    # A table's column that was added after a file was written is null there; the name of a
    # directory is no embedding.
    if column in given and (not is_list or given[column] is None):
        return None
    names = list(dict.fromkeys(schema.names))
    has = ", ".join(names[:_SHOWN_COLUMNS]) + (", ..." if len(names) > _SHOWN_COLUMNS else "")
    raise DataError(f"{name}: no column {column!r}; it has {has or 'no columns'}")


def _unit_kind(column: str, kind: Any, name: str) -> Kind | None:
    if kind is None or pa.types.is_null(kind):
        return None
    unit_kind = kind_of(kind)
    if unit_kind is None:
        raise DataError(
            f"{name}: dataset.privacy_unit.column {column!r} is {shown(kind)}: it must hold "
            f"{USABLE}; cast the column"
        )
    return unit_kind


def resolve_unit_kind(columns: Columns, footers: tuple[Footer, ...], place: Place) -> Kind | None:
    """Whether privacy units are named by integers or by text, the same in every file.

    None where there are no units, or where every value is null.

    Raises
    ------
    DataError
        If 5 in one file could be "5" in another, so that one person would count as two.
    """
    if columns.unit is None:
        return None
    kinds = {footer.types.unit_kind for footer in footers} - {None}
    texts = {dict(f.file.constants).get(columns.unit) for f in footers if f.types.unit_kind is None}
    texts -= {None}
    integers = all(text is not None and spells_integer(text) for text in texts)
    if texts and (not kinds or "integer" in kinds):
        kinds.add("integer" if integers else "text")
    if len(kinds) > 1:
        raise DataError(
            f"dataset.path {place.url}: dataset.privacy_unit.column {columns.unit!r} holds "
            "integers in some files and text in others, so one person could count as two: cast "
            "the column"
        )
    return kinds.pop() if kinds else None


def _check_window(column: str, kind: Any, name: str) -> None:
    problem = column_problem(kind)
    if problem:
        raise DataError(
            f"{name}: the column {column!r} of dataset.window is {shown(kind)}, {problem}"
        )


def _check_directory_names(footers: tuple[Footer, ...], columns: Columns, place: Place) -> None:
    """Check the columns given by directory names, whose type is that of all names together."""
    for column in columns.names:
        texts = {dict(footer.file.constants).get(column) for footer in footers} - {None}
        if not texts:
            continue
        numeric = column in columns.features and column not in columns.categories
        if numeric and not all(parse_number(text) is not None for text in texts):
            raise DataError(
                f"dataset.path {place.url}: column {column!r} comes from directory names that "
                "are not numbers: leave it out of dataset.features"
            )
        integers = column == columns.label and not are_strings(columns.labels)
        spells = spells_boolean if integers and are_booleans(columns.labels) else spells_integer
        if integers and not any(text is not None and spells(text) for text in texts):
            raise SpecError(
                f"dataset.labels are integers (such as {columns.labels[0]!r}) but the directories "
                f"of {place.url} named {column}=... hold strings: write the labels in quotes"
            )


def parse_number(text: str | None) -> float | None:
    """The number in a directory name, or None where the name is no number."""
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def resolve_kinds(
    columns: Columns, kinds: Iterable[tuple[ColumnKind | None, ...]]
) -> tuple[ColumnKind | None, ...]:
    """Return what each feature column of a table holds, the same in every file.

    Parameters
    ----------
    kinds : what the columns hold in each file; None where no type says, as all values are missing.

    Raises
    ------
    DataError
        If a date in one file could be a number in another.
    """
    if not columns.table:
        return ()
    found: list[ColumnKind | None] = []
    for column, in_files in zip(columns.features, zip(*kinds, strict=True), strict=True):
        different = list(dict.fromkeys(kind for kind in in_files if kind is not None))
        if len(different) > 1:
            raise DataError(
                f"column {column!r} holds {HOLDS[different[0]]} in some files and "
                f"{HOLDS[different[1]]} in others: cast it to one type"
            )
        found.append(different[0] if different else None)
    return tuple(found)


def resolve_width(columns: Columns, list_sizes: Iterable[int | None], given: int | None) -> int:
    """Return the feature dimension d from the schema or the specification, never from rows.

    Parameters
    ----------
    list_sizes : the width that the type of the list column fixes in each file; None for none.
    given : the width in the specification, or None.

    Raises
    ------
    SpecError
        If neither gives it, or they disagree.
    DataError
        If files disagree.
    """
    if columns.table:
        if given not in (None, len(columns.features)):
            raise SpecError(
                f"dataset.width is {given} but dataset.features names {len(columns.features)} "
                "columns: leave width out for a table"
            )
        return len(columns.features)
    column = columns.features[0]
    sizes = sorted({size for size in list_sizes if size is not None})
    if len(sizes) > 1:
        raise DataError(
            f"column {column!r} is a list of {sizes[0]} in some files and of {sizes[1]} in others: "
            "give one of them in dataset.path"
        )
    if sizes and given not in (None, sizes[0]):
        raise SpecError(
            f"dataset.width is {given} but column {column!r} is a list of {sizes[0]}: leave "
            "dataset.width out or correct it"
        )
    if not sizes and given is None:
        raise SpecError(
            f"dataset.width is missing: column {column!r} is a list of any length, and its width "
            "is never taken from rows; set dataset.width to the length of the vectors"
        )
    return sizes[0] if sizes else int(given or 0)
