"""``dpgmm decode``: pictures of released rows as Parquet or PNG files, and contact sheets."""

from __future__ import annotations

import functools
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
from dpgmm_dist.encode.decoders import Decoder, find_decoder, pictures
from dpgmm_dist.encode.protocol import Shape, parse_shape
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.parquet_files import FoundFile, Place, list_files, opened
from dpgmm_dist.storage.urls import check_no_password, safe_url

IMAGE = "image"
"""Name of the column of pictures."""
_BATCH_ROWS = 4096
_SHEET_SIDE = 10
"""A contact sheet has at most this many pictures in a row, and this many rows for a label."""
_GAP = 1
"""Pixels between the pictures of a sheet."""
_SHEET_BATCHES = 4
"""Batches that are searched for the pictures of the contact sheets."""


class DecodeResult(TypedDict):
    """What `write_images` wrote."""

    files: int
    decoder: str
    contact_sheets: list[str]
    output: str


def write_images(
    input_url: str,
    output: str,
    *,
    decoder: str,
    shape: str,
    column: str | None = None,
    label: str | None = None,
    form: str = "parquet",
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
    for_each: ForEach = one_after_another,
) -> DecodeResult:
    """Write pictures of sampled rows, and contact sheets of the first rows of each label.

    Parameters
    ----------
    input_url : Parquet files as `write_samples` writes them.
    output : directory or URL; it is empty or does not exist yet.
    decoder : name of a decoder, see `find_decoder`.
    shape : shape of the pictures, ``HxW`` or ``HxWxC``.
    column : the list column that holds the rows; None if there is only one.
    label : the column that groups the contact sheets. If None and there is exactly one other
        column, it is that one.
    form : "parquet" (a column ``image`` of uint8 pixels beside the other columns) or "png".
    storage_options, output_options : storage options of the input and of the output.
    progress : called with the fraction of files done.
    for_each : decodes the files. `dpgmm_dist.engine.tasks.for_each_on` gives the function of an
        engine.

    Raises
    ------
    SpecError
        When an argument is not valid, or the pictures do not have the given shape.
    DataError
        When the input does not have the columns, or a file cannot be read or written.
    """
    if form not in ("parquet", "png"):
        raise SpecError(f"--format must be parquet or png, got {form!r}")
    check_no_password(output)
    place = Place(input_url, dict(storage_options or {}))
    files = list_files(place)
    column, label = _columns(place, files[0], column, label)
    size = parse_shape(shape)
    task = _FileDecoder(decoder, size, place, column, label, form, output, output_options)
    name = _decoder(decoder).name
    # Before anything is written, so that a decoder that does not fit the rows is noticed.
    sheets = _first_of_each_label(task, files)
    with storage_errors("write images", output):
        make_empty_folder(output, output_options)
        for_each(task, list(enumerate(files)), progress or (lambda _: None))
        written = _write_sheets(sheets, output, output_options)
    return DecodeResult(
        files=len(files), decoder=name, contact_sheets=written, output=safe_url(output)
    )


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
    if IMAGE in others:
        raise SpecError(
            f"{place.url} has a column {IMAGE!r}, which is the name of the column of pictures: "
            "rename it"
        )
    return column, label


@functools.lru_cache(maxsize=2)
def _decoder(text: str) -> Decoder:
    return find_decoder(text)


@dataclass(frozen=True, eq=False, repr=False)
class _FileDecoder:
    """Decodes one file. It is sent to workers, so its repr shows no storage options."""

    decoder: str
    shape: Shape
    place: Place
    column: str
    label: str | None
    form: str
    output: str
    options: Mapping[str, Any] | None

    def __call__(self, item: tuple[int, FoundFile]) -> int:
        index, file = item
        with storage_errors("write images", self.output):
            if self.form == "png":
                self._pngs(index, file)
            else:
                self._parquet(index, file)
        return index

    def batches(self, file: FoundFile) -> Iterator[tuple[pa.RecordBatch, NDArray[np.uint8]]]:
        """The rows of a file and their pictures (n, h, w, c)."""
        fs, _ = self.place.resolve()
        with opened(fs, file.path, 2, 0) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                column = batch.column(self.column)
                rows, _ = embedding_rows(column, column.type.list_size)
                if pa.types.is_integer(column.type.value_type) and rows.dtype.kind == "f":
                    rows = rows.astype(np.int64)
                yield batch, pictures(_decoder(self.decoder), rows, self.shape)

    def labels(self, batch: pa.RecordBatch) -> list[str]:
        """The label of each row as text; "all" without a label column."""
        if self.label is None:
            return ["all"] * batch.num_rows
        return [str(value) for value in batch.column(self.label).to_pylist()]

    def _parquet(self, index: int, file: FoundFile) -> None:
        fs, _ = self.place.resolve()
        with opened(fs, file.path, 1, 0) as parquet:
            found = parquet.schema_arrow
        kind = pa.list_(pa.uint8(), int(np.prod(self.shape)))
        fields = [field for field in found if field.name != self.column]
        schema = pa.schema([*fields, pa.field(IMAGE, kind)])
        with new_parquet(self.output, self.options, part_name(index), schema) as write:
            for batch, images in self.batches(file):
                kept = [batch.column(field.name) for field in fields]
                flat = pa.array(images.reshape(-1))
                column = pa.FixedSizeListArray.from_arrays(flat, type=kind)
                write(pa.RecordBatch.from_arrays([*kept, column], schema=schema))

    def _pngs(self, index: int, file: FoundFile) -> None:
        number = 0
        for batch, images in self.batches(file):
            for label, image in zip(self.labels(batch), images, strict=True):
                name = f"{index:05d}-{number:07d}.png"
                folder = f"{self.output.rstrip('/')}/{file_name(label)}"
                fs, root = resolve(folder, self.options)
                fs.makedirs(root, exist_ok=True)
                with new_file(folder, self.options, name) as out:
                    out.write(png(image))
                number += 1


def _first_of_each_label(
    task: _FileDecoder, files: tuple[FoundFile, ...]
) -> dict[str, list[NDArray[np.uint8]]]:
    """The first pictures of each label, at most one sheet of them, from the first batches."""
    sheets: dict[str, list[NDArray[np.uint8]]] = {}
    batches = (batch for file in files for batch in task.batches(file))
    for batch, images in itertools.islice(batches, _SHEET_BATCHES):
        for label, image in zip(task.labels(batch), images, strict=True):
            sheet = sheets.setdefault(label, [])
            if len(sheet) < _SHEET_SIDE**2:
                sheet.append(image)
        if all(len(sheet) == _SHEET_SIDE**2 for sheet in sheets.values()):
            break
    return sheets


def _write_sheets(
    sheets: Mapping[str, list[NDArray[np.uint8]]], output: str, options: Mapping[str, Any] | None
) -> list[str]:
    """Write ``contact.png`` with a row for each label, and ``contact-LABEL.png`` for each label."""
    order = sorted(sheets, key=_label_order)
    rows = [sheets[label][:_SHEET_SIDE] for label in order]
    pages = {"contact.png": rows}
    for label in order:
        images = sheets[label]
        pages[f"contact-{file_name(label)}.png"] = [
            images[start : start + _SHEET_SIDE] for start in range(0, len(images), _SHEET_SIDE)
        ]
    written = [name for name, page in pages.items() if page]
    for name in written:
        with new_file(output, options, name) as file:
            file.write(png(contact_sheet(pages[name])))
    return written


def _label_order(label: str) -> tuple[bool, int, str]:
    """Sort key: integers by value, then other labels by text."""
    if label.lstrip("-").isdecimal():
        return False, int(label), ""
    return True, 0, label


def contact_sheet(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """One page (H, W, c) with pictures (h, w, c) in rows, separated by thin white lines."""
    height, width, channels = rows[0][0].shape
    columns = max(len(row) for row in rows)
    page = np.full(
        (len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels),
        255,
        np.uint8,
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = _GAP + i * (height + _GAP), _GAP + j * (width + _GAP)
            page[top : top + height, left : left + width] = image
    return page


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture (h, w, c) as a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    Image.fromarray(flat).save(out, format="PNG", optimize=True)
    return out.getvalue()


def file_name(label: str) -> str:
    """A label made safe for use in a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", label).lstrip(".")[:60] or "_"
