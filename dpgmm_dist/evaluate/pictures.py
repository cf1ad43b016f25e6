"""A page of real pictures beside synthetic ones. TRUSTED side: NOT PRIVATE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.encode.contact_sheets import SIDE, side_by_side
from dpgmm_dist.encode.protocol import Shape, parse_shape
from dpgmm_dist.encode.raw_rows import raw_batch, row_shape
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.parquet_files import Place, list_files, opened

TITLES = ("REAL: NOT PRIVATE", "synthetic")
_MOST_ROWS = 50_000
"""Rows that are searched for pictures of every label."""
_BATCH_ROWS = 512


def real_beside_synthetic(
    real: str,
    synthetic: str,
    *,
    shape: str,
    label: str | None = None,
    real_column: str | None = None,
) -> bytes:
    """A PNG with a row for each label: real pictures, marked NOT PRIVATE, beside synthetic ones.

    Parameters
    ----------
    real
        Parquet with raw pictures.
    synthetic
        The output of ``dpgmm decode``.
    shape
        ``HxW`` or ``HxWxC`` of the pictures; real picture files of another size are scaled.
    label
        The column of labels, which both have; None shows no labels.
    real_column
        The column of real pictures; None for the only one.

    Raises
    ------
    SpecError
        When the shape does not fit.
    DataError
        When files cannot be read or do not have the columns, or hold no pictures.
    """
    size = parse_shape(shape)
    left = _first_pictures(real, real_column, label, size)
    right = _first_pictures(synthetic, "image", label, size)
    if not left and not right:
        raise DataError(f"{real} and {synthetic} hold no pictures")
    return side_by_side(left, right, TITLES)


def page_of(
    release: str,
    real: str | None,
    synthetic: str | None,
    shape: str | None,
    real_column: str | None,
    output: str | None,
) -> bytes | None:
    """The page for the options of ``dpgmm evaluate``; None if no pictures are given.

    Raises
    ------
    SpecError
        When only some of the options are given.
    """
    needed = {"--pictures": real, "--decoded": synthetic, "--shape": shape}
    if all(value is None for value in (*needed.values(), real_column)):
        return None
    needed["--output"] = output
    missing = [name for name, value in needed.items() if value is None]
    if real is None or synthetic is None or shape is None or missing:
        raise SpecError(f"a page of pictures needs {', '.join(missing)} too")
    dataset = load_release(release).receipt["specification"]["dataset"]
    return real_beside_synthetic(
        real, synthetic, shape=shape, label=dataset.get("label"), real_column=real_column
    )


def _first_pictures(
    url: str, column: str | None, label: str | None, shape: Shape
) -> dict[str, list[NDArray[np.uint8]]]:
    """The first pictures of each label."""
    pictures_of: dict[str, list[NDArray[np.uint8]]] = {}
    rows_read = 0
    for pictures, readable, labels in _batches(url, column, label, shape):
        for picture, good, value in zip(pictures, readable, labels, strict=True):
            row = pictures_of.setdefault(value, [])
            if good and len(row) < SIDE:
                row.append(picture)
        rows_read += len(labels)
        if rows_read >= _MOST_ROWS or all(len(row) == SIDE for row in pictures_of.values()):
            break
    return pictures_of


def _batches(
    url: str, column: str | None, label: str | None, shape: Shape
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]]:
    place = Place(url, {})
    fs, _ = place.resolve()
    for file in list_files(place):
        with opened(fs, file.path, 2, 0) as parquet:
            schema = parquet.schema_arrow
            name = column or _only_pictures(schema, url)
            for needed in (name, *([label] if label else [])):
                if needed not in schema.names:
                    raise DataError(f"{url}: no column {needed!r}; it has {schema.names[:20]}")
            row_shape(name, schema.field(name).type, shape)
            columns = [name, *([label] if label else [])]
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                rows, readable = raw_batch(batch.column(name), shape)
                yield np.asarray(rows), readable, _labels(batch, label)


def _labels(batch: pa.RecordBatch, label: str | None) -> list[str]:
    if label is None:
        return ["all"] * batch.num_rows
    return [str(value) for value in batch.column(label).to_pylist()]


def _only_pictures(schema: pa.Schema, url: str) -> str:
    from dpgmm_dist.encode.public_items import is_item

    found: list[Any] = [
        f.name for f in schema if is_item(f.type) and not pa.types.is_string(f.type)
    ]
    if len(found) != 1:
        raise SpecError(
            f"{url}: {len(found)} columns hold pictures ({found}): use --picture-column"
        )
    return str(found[0])
