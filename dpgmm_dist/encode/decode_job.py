"""``dpgmm decode``: pictures or texts of released rows, contact sheets and a map."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpgmm_dist.artifact.part_files import (
    ForEach,
    make_empty_folder,
    new_file,
    new_parquet,
    one_after_another,
    part_name,
    resolve,
    storage_errors,
)
from dpgmm_dist.data.embeddings import embedding_rows
from dpgmm_dist.encode.contact_sheets import SIDE, file_name, picture_pages, png, text_page
from dpgmm_dist.encode.decoder_recipe import (
    Decoded,
    DecodeOptions,
    Recipe,
    decode_rows,
    prepared,
)
from dpgmm_dist.encode.embedding_map import Panel, draw, map_axes
from dpgmm_dist.encode.nearest import NearestItems
from dpgmm_dist.encode.protocol import parse_shape
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.parquet_files import FoundFile, Place, list_files, opened
from dpgmm_dist.storage.urls import check_no_password, safe_url

IMAGE = "image"
"""Name of the column of pictures."""
TEXT = "text"
"""Name of the column of texts."""
PUBLIC_ROW = "public_row"
"""Name of the column with the number of the public item that a row became, from 0."""
MAP = "map.png"
_BATCH_ROWS = 4096
_SHEET_BATCHES = 4
"""Batches that are searched for the pictures of the contact sheets."""


class DecodeResult(TypedDict):
    """The files that `write_images` wrote."""

    files: int
    decoder: str
    contact_sheets: list[str]
    map: str
    output: str


def write_images(
    input_url: str,
    output: str,
    *,
    decoder: str,
    shape: str | None = None,
    column: str | None = None,
    label: str | None = None,
    form: str = "parquet",
    options: DecodeOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
    for_each: ForEach = one_after_another,
) -> DecodeResult:
    """Write pictures or texts of sampled rows, contact sheets of the first rows, and a map.

    Parameters
    ----------
    input_url : Parquet files as `write_samples` writes them.
    output : directory or URL; it is empty or does not exist yet.
    decoder : ``nearest:PUBLIC`` and ``fit:PUBLIC`` with public items, or as for `find_decoder`.
    shape : shape of the pictures, ``HxW`` or ``HxWxC``. Texts, and decoders that were kept as a
        file, need none.
    column : the list column that holds the rows; None if there is only one.
    label : the column that groups the contact sheets. If None and there is exactly one other
        column, it is that one.
    form : "parquet" (a column ``image`` of uint8 pixels, or ``text``, beside the other columns) or
        "png".
    options : of decoders that use public items.
    storage_options, output_options : storage options of the input and of the output.
    progress : called with the fraction of files done.
    for_each : decodes the files; `dpgmm_dist.engine.tasks.for_each_on` gives that of an engine.

    Raises
    ------
    SpecError
        When an argument is not valid, or the pictures do not have the given shape.
    DataError
        When the input does not have the columns, or a file cannot be read or written.
    """
    options = options or DecodeOptions()
    _check_arguments(form, decoder, options, output)
    place = Place(input_url, dict(storage_options or {}))
    files = list_files(place)
    recipe, name = prepared(decoder, parse_shape(shape), options)
    column, label = _columns(place, files[0], column, label)
    task = _FileDecoder(recipe, place, column, label, form, output, output_options)
    pages = _decode_files(task, task.planned(files, options.repeat), for_each, progress)
    sheets = [page for page in pages if page != MAP]
    return DecodeResult(
        files=len(files), decoder=name, contact_sheets=sheets, map=MAP, output=safe_url(output)
    )


def _check_arguments(form: str, decoder: str, options: DecodeOptions, output: str) -> None:
    if form not in ("parquet", "png"):
        raise SpecError(f"--format must be parquet or png, got {form!r}")
    options.check(decoder)
    check_no_password(output)


def _decode_files(
    task: _FileDecoder,
    items: list[_Item],
    for_each: ForEach,
    progress: Callable[[float], None] | None,
) -> list[str]:
    """Write the decoded files, contact sheets and the map; returns the names of the last two."""
    # Before anything is written, so that a decoder that does not fit the rows is noticed.
    first_rows = _FirstRows.of(task, items)
    if task.form == "png" and not task.recipe.shape:
        raise SpecError("--format png is for pictures, but the public items are texts")
    with storage_errors("write images", task.output):
        make_empty_folder(task.output, task.options)
        report = progress or (lambda _: None)
        report(0.0)  # so that the rate counts the first file
        for_each(task, items, report)
        pages = first_rows.pages()
        for page, data in pages.items():
            with new_file(task.output, task.options, page) as file:
                file.write(data)
    return list(pages)


def _columns(
    place: Place, file: FoundFile, column: str | None, label: str | None
) -> tuple[str, str | None]:
    fs, _ = place.resolve()
    with opened(fs, file.path, 1, 0) as parquet:
        schema = parquet.schema_arrow
    lists = [field.name for field in schema if pa.types.is_fixed_size_list(field.type)]
    if column is None:
        if len(lists) != 1:
            raise SpecError(f"{place.url} has {len(lists)} list columns: choose one with --column")
        column = lists[0]
    if column not in lists:
        raise DataError(f"{place.url}: no fixed-size list column {column!r}; it has {lists}")
    others = [name for name in schema.names if name != column]
    if label is None and len(others) == 1:
        label = others[0]
    if label is not None and label not in others:
        raise DataError(f"{place.url}: no column {label!r}; it has {', '.join(schema.names)}")
    for name in (IMAGE, TEXT, PUBLIC_ROW):
        if name in others:
            raise SpecError(
                f"{place.url} has a column {name!r}, which is a name of the output: rename it"
            )
    return column, label


@dataclass(frozen=True, eq=False)
class _Item:
    """One file to decode, with the public items that its rows become where these are planned."""

    index: int
    file: FoundFile
    chosen: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some rows of a file, decoded."""

    record: pa.RecordBatch
    rows: NDArray[Any]
    labels: list[str]
    decoded: Decoded
    chosen: NDArray[np.int64] | None


@dataclass(frozen=True, eq=False, repr=False)
class _FileDecoder:
    """Decodes one file. It is sent to workers, so its repr shows no storage options."""

    recipe: Recipe
    place: Place
    column: str
    label: str | None
    form: str
    output: str
    options: Mapping[str, Any] | None

    def __call__(self, item: _Item) -> int:
        with storage_errors("write images", self.output):
            if self.form == "png":
                self._pngs(item)
            else:
                self._parquet(item)
        return item.index

    def planned(self, files: tuple[FoundFile, ...], repeat: int | None) -> list[_Item]:
        """The files. With ``repeat`` all rows of all files choose their public items here."""
        items = [_Item(index, file) for index, file in enumerate(files)]
        decoder = self.recipe.load()
        if repeat is None or not isinstance(decoder, NearestItems):
            return items
        parts, labels, counts = [], [], []
        for item in items:
            count = 0
            for record, rows in self._records(item.file):
                parts.append(rows)
                labels += self._labels(record)
                count += len(rows)
            counts.append(count)
        rows = np.concatenate(parts) if parts else np.empty((0, decoder.items.embeddings.shape[1]))
        chosen = decoder.choose(rows, labels, repeat)
        pieces = np.split(chosen, np.cumsum(counts)[:-1])
        return [replace(item, chosen=piece) for item, piece in zip(items, pieces, strict=True)]

    def batches(self, item: _Item) -> Iterator[_Batch]:
        """The rows of a file with their pictures (n, h, w, c) or texts."""
        position = 0
        for record, rows in self._records(item.file):
            labels = self._labels(record)
            planned = item.chosen
            if planned is not None:
                planned = planned[position : position + len(rows)]
            position += len(rows)
            decoded, chosen = decode_rows(self.recipe, rows, labels, planned)
            yield _Batch(record, rows, labels, decoded, chosen)

    def _records(self, file: FoundFile) -> Iterator[tuple[pa.RecordBatch, NDArray[Any]]]:
        fs, _ = self.place.resolve()
        with opened(fs, file.path, 2, 0) as parquet:
            for record in parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                column = record.column(self.column)
                rows, _ = embedding_rows(column, column.type.list_size)
                if pa.types.is_integer(column.type.value_type) and rows.dtype.kind == "f":
                    rows = rows.astype(np.int64)
                yield record, rows

    def _labels(self, record: pa.RecordBatch) -> list[str]:
        """The label of each row as text; "all" without a label column."""
        if self.label is None:
            return ["all"] * record.num_rows
        return [str(value) for value in record.column(self.label).to_pylist()]

    def _parquet(self, item: _Item) -> None:
        fs, _ = self.place.resolve()
        with opened(fs, item.file.path, 1, 0) as parquet:
            input_schema = parquet.schema_arrow
        kept = [field for field in input_schema if field.name != self.column]
        kind = pa.list_(pa.uint8(), int(np.prod(self.recipe.shape)))
        decoded = pa.field(IMAGE, kind) if self.recipe.shape else pa.field(TEXT, pa.string())
        nearest = isinstance(self.recipe.load(), NearestItems)
        number = [pa.field(PUBLIC_ROW, pa.int64())] if nearest else []
        schema = pa.schema([*kept, decoded, *number])
        with new_parquet(self.output, self.options, part_name(item.index), schema) as write:
            for batch in self.batches(item):
                columns = [batch.record.column(field.name) for field in kept]
                columns.append(_column(batch.decoded, kind))
                columns += [pa.array(batch.chosen)] if nearest else []
                write(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _pngs(self, item: _Item) -> None:
        number = 0
        for batch in self.batches(item):
            images = np.asarray(batch.decoded)  # texts were refused before
            for label, image in zip(batch.labels, images, strict=True):
                name = f"{item.index:05d}-{number:07d}.png"
                folder = f"{self.output.rstrip('/')}/{file_name(label)}"
                fs, root = resolve(folder, self.options)
                fs.makedirs(root, exist_ok=True)
                with new_file(folder, self.options, name) as out:
                    out.write(png(image))
                number += 1


def _column(decoded: Decoded, kind: pa.DataType) -> pa.Array:
    if isinstance(decoded, list):
        return pa.array(decoded, pa.string())
    return pa.FixedSizeListArray.from_arrays(pa.array(decoded.reshape(-1)), type=kind)


@dataclass(frozen=True, eq=False)
class _FirstRows:
    """The first rows of a job, for its contact sheets and its map."""

    sheets: dict[str, list[Any]]
    """Pictures or texts by label, at most one sheet of each."""
    rows: NDArray[np.float64]
    labels: list[str] | None

    @classmethod
    def of(cls, task: _FileDecoder, items: list[_Item]) -> _FirstRows:
        """From the first batches."""
        sheets: dict[str, list[Any]] = {}
        rows, labels = [], []
        batches = (batch for item in items for batch in task.batches(item))
        for batch in itertools.islice(batches, _SHEET_BATCHES):
            rows.append(np.asarray(batch.rows, np.float64))
            labels += batch.labels
            for label, example in zip(batch.labels, batch.decoded, strict=True):
                sheet = sheets.setdefault(label, [])
                if len(sheet) < SIDE**2:
                    sheet.append(example)
            if all(len(sheet) == SIDE**2 for sheet in sheets.values()):
                break
        all_rows = np.concatenate(rows) if rows else np.empty((0, 1))
        return cls(sheets, all_rows, None if task.label is None else labels)

    def pages(self) -> dict[str, bytes]:
        """The files with contact sheets and the map, by name."""
        if not len(self.rows):
            return {}
        example = next(page[0] for page in self.sheets.values())
        pages = text_page(self.sheets) if isinstance(example, str) else picture_pages(self.sheets)
        axes = map_axes(self.rows, self.labels)
        title = f"synthetic rows on two {axes.name} axes"
        return {**pages, MAP: draw([Panel(title, axes(self.rows), self.labels)])}
