"""The public part of a Parquet data set: its columns, their types, and the sizes of row groups.

Only footers are read. What this module refuses is refused before any budget is spent. Writers give
a column the type ``null`` where every value of a partition is missing. That is a private fact, so
such a column is accepted, and its rows are invalid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dpgmm_dist.data.labels import Labels, are_strings, check_labels, spells_integer
from dpgmm_dist.data.unit_values import USABLE, Kind, kind_of
from dpgmm_dist.data.windowed import column_problem
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.storage.parquet_files import FoundFile, Place, for_each_file, opened
from dpgmm_dist.windows import Window

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|nan", re.I | re.A)
_SHOWN_COLUMNS = 20
_SHOWN_TYPE = 80
_LIST_TYPES = "float16, float32, float64 or uint8"


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

    def __post_init__(self) -> None:
        """Raise SpecError for labels that are not a set of integers or of strings."""
        if self.label is not None:
            check_labels(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns to read, each once."""
        others = (self.label, self.unit, None if self.window is None else self.window.column)
        named = tuple(name for name in others if name is not None)
        return tuple(dict.fromkeys((*self.features, *named)))


@dataclass(frozen=True, repr=False)
class Footer(Opaque):
    """What is read from the footer of one file."""

    file: FoundFile
    list_size: int | None
    """Width that the type of the list column fixes; None if it fixes none."""
    item_bytes: int
    """Bytes of one feature (a list) or of the features of one row (a table)."""
    row_groups: tuple[tuple[int, int], ...]
    """(rows, stored bytes of the list column before compression) of each row group."""
    unit_kind: Kind | None = None
    """What the column of privacy units holds; None where no column type says."""


Gather = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""Calls a function of each of many items, on whichever worker is free; results are in order."""
_MANY_FILES = 1000
_FILES_PER_TASK = 200


def read_footers(
    place: Place, files: tuple[FoundFile, ...], columns: Columns, gather: Gather | None = None
) -> tuple[Footer, ...]:
    """Read and check the footers of all files; many are read on the workers behind ``gather``.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a column, or a column has a type that cannot be used.
    SpecError
        If the public labels are not of the label column's kind.
    """
    reader = _FooterReader(place, columns)
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

    def __call__(self, batch: _Files | tuple[FoundFile, ...]) -> tuple[Footer, ...]:
        files = batch.files if isinstance(batch, _Files) else batch
        fs, _ = self.place.resolve()
        return tuple(for_each_file(lambda file: self._read(fs, file), files))

    def _read(self, fs: Any, file: FoundFile) -> Footer:
        place, columns = self.place, self.columns
        name = place.message_path(fs, file.path)
        footer, problem = None, ""
        try:
            with opened(fs, file.path, 1, 0) as parquet:
                schema, groups = parquet.schema_arrow, _row_groups(parquet.metadata, columns)
            footer = _footer(file, schema, groups, columns, name)
        except (DataError, SpecError):
            raise
        except FileNotFoundError:
            problem = "it does not exist any more"
        except PermissionError:
            problem = "permission denied"
        except Exception:
            # Arrow's own message quotes bytes of the file.
            problem = "it is damaged or not a Parquet file"
        if footer is None:
            raise DataError(f"cannot read {name}: {problem}")
        return footer


def _row_groups(metadata: Any, columns: Columns) -> tuple[tuple[int, int], ...]:
    leaf = None
    if not columns.table:
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        prefix = columns.features[0] + "."
        leaf = next((i for i, path in enumerate(paths) if path.startswith(prefix)), None)
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    return tuple(
        (g.num_rows, 0 if leaf is None else g.column(leaf).total_uncompressed_size) for g in groups
    )


def _footer(
    file: FoundFile, schema: Any, groups: tuple[tuple[int, int], ...], columns: Columns, name: str
) -> Footer:
    types = {column: _type_of(schema, column, file, columns, name) for column in columns.names}
    list_size, item_bytes = None, 0
    for column in columns.features:
        kind = types[column]
        if kind is None:
            continue
        problem = _table_problem(column, kind) if columns.table else _list_problem(column, kind)
        if problem:
            raise DataError(f"{name}: column {column!r} is {_shown(kind)}, {problem}")
        if not columns.table and not pa.types.is_null(kind):
            list_size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
            kind = kind.value_type
        item_bytes += 4 if pa.types.is_null(kind) else kind.bit_width // 8
    if columns.label is not None and types[columns.label] is not None:
        _check_label(columns.label, types[columns.label], columns.labels, name)
    if columns.window is not None:
        _check_window(columns.window.column, types[columns.window.column], name)
    unit = None if columns.unit is None else _unit_kind(columns.unit, types[columns.unit], name)
    return Footer(file, list_size, item_bytes, groups, unit)


def _type_of(schema: Any, column: str, file: FoundFile, columns: Columns, name: str) -> Any:
    """Storage type of a column; None where a directory name gives the column."""
    places = schema.get_all_field_indices(column)
    if len(places) > 1:
        raise DataError(f"{name}: has {len(places)} columns named {column!r}; rename one")
    if places:
        kind = schema.field(places[0]).type
        return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    is_list = not columns.table and column == columns.features[0]
    if not is_list and column in dict(file.constants):
        return None
    names = list(dict.fromkeys(schema.names))
    has = ", ".join(names[:_SHOWN_COLUMNS]) + (", ..." if len(names) > _SHOWN_COLUMNS else "")
    raise DataError(f"{name}: no column {column!r}; it has {has or 'no columns'}")


def _shown(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= _SHOWN_TYPE else text[:_SHOWN_TYPE] + "..."


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _list_problem(column: str, kind: Any) -> str | None:
    if pa.types.is_null(kind):
        return None
    if _is_number(kind):
        return f"not a list: for a table of numeric columns write dataset.features: [{column}]"
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(kind) for is_kind in lists):
        return f"not a list of numbers: dataset.features needs a list of {_LIST_TYPES}"
    if pa.types.is_fixed_size_list(kind) and kind.list_size < 1:
        return "which has no features"
    if _is_number(kind.value_type) or pa.types.is_null(kind.value_type):
        return None
    return f"not a list of numbers: dataset.features needs a list of {_LIST_TYPES}"


def _table_problem(column: str, kind: Any) -> str | None:
    if pa.types.is_null(kind) or _is_number(kind):
        return None
    if pa.types.is_nested(kind):
        return f"not a numeric column: for one list column write dataset.features: {column}"
    return "not a numeric column: cast it to an integer or float column, or leave it out"


def _check_label(column: str, kind: Any, labels: Labels, name: str) -> None:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(value):
        return
    text = any(t(value) for t in (pa.types.is_string, pa.types.is_large_string, _is_string_view))
    if not text and not pa.types.is_integer(value):
        raise DataError(
            f"{name}: label column {column!r} is {_shown(kind)}: labels must be integers or "
            "strings; cast the column"
        )
    if text != are_strings(labels):
        stored, given = ("strings", "integers") if text else ("integers", "strings")
        hint = "in quotes" if text else "without quotes"
        raise SpecError(
            f"dataset.labels are {given} (such as {labels[0]!r}) but column {column!r} of {name} "
            f"holds {stored}: write the labels {hint}"
        )


def _unit_kind(column: str, kind: Any, name: str) -> Kind | None:
    if kind is None or pa.types.is_null(kind):
        return None
    unit_kind = kind_of(kind)
    if unit_kind is None:
        raise DataError(
            f"{name}: dataset.privacy_unit.column {column!r} is {_shown(kind)}: it must hold "
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
    kinds = {footer.unit_kind for footer in footers} - {None}
    texts = {dict(f.file.constants).get(columns.unit) for f in footers if f.unit_kind is None}
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
            f"{name}: the column {column!r} of dataset.window is {_shown(kind)}, {problem}"
        )


def _is_string_view(kind: Any) -> bool:
    return bool(pa.types.is_string_view(kind))


def _check_directory_names(footers: tuple[Footer, ...], columns: Columns, place: Place) -> None:
    """Check the columns given by directory names, whose type is that of all names together."""
    for column in columns.names:
        texts = {dict(footer.file.constants).get(column) for footer in footers} - {None}
        if not texts:
            continue
        if column in columns.features and not all(parse_number(text) is not None for text in texts):
            raise DataError(
                f"dataset.path {place.url}: column {column!r} comes from directory names that "
                "are not numbers: leave it out of dataset.features"
            )
        integers = column == columns.label and not are_strings(columns.labels)
        if integers and not any(text is not None and spells_integer(text) for text in texts):
            raise SpecError(
                f"dataset.labels are integers (such as {columns.labels[0]!r}) but the directories "
                f"of {place.url} named {column}=... hold strings: write the labels in quotes"
            )


def parse_number(text: str | None) -> float | None:
    """The number in a directory name, or None where the name is no number."""
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def resolve_width(columns: Columns, footers: tuple[Footer, ...], given: int | None) -> int:
    """Return the feature dimension d from the schema or the specification, never from rows.

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
    sizes = sorted({f.list_size for f in footers if f.list_size is not None})
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
