"""PRIVATE. Raw rows as Parquet holds them, made ready for an encoder.

A row that cannot be read (null, a damaged picture, another length) is not an error: it would tell
something of the rows. It is encoded as null, which a release leaves out without a word.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpgmm_dist.data.parquet_columns import list_rows, storage
from dpgmm_dist.encode.protocol import Batch, Shape
from dpgmm_dist.errors import DataError, SpecError

_LONGEST_SIDE = 1 << 14


def kind_of(column: str, kind: pa.DataType, shape: Shape) -> Shape:
    """The shape of one raw row of a column, or why it cannot be encoded.

    Text gives (); pictures need ``--shape``; lists of numbers are pictures of uint8 or, without a
    shape, vectors whose length their type fixes.
    """
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if shape:
            raise SpecError(f"column {column!r} holds text: leave --shape out")
        return ()
    if _is_bytes(kind):
        if not shape:
            raise SpecError(f"column {column!r} holds pictures: give their --shape HxW or HxWxC")
        return shape
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)):
        raise DataError(
            f"column {column!r} is {str(kind)[:80]}: encode takes text, pictures (bytes, or a "
            "struct with bytes) and lists of numbers"
        )
    if not shape:
        if not pa.types.is_fixed_size_list(kind):
            raise SpecError(
                f"column {column!r} is a list of any length: give --shape, or a fixed-size list"
            )
        return (int(kind.list_size),)
    if not pa.types.is_uint8(kind.value_type):
        raise DataError(f"column {column!r} is {kind}: pixels must be uint8")
    size = int(np.prod(shape))
    if pa.types.is_fixed_size_list(kind) and kind.list_size != size:
        raise SpecError(
            f"column {column!r} has {kind.list_size} pixels a row, --shape "
            f"{'x'.join(map(str, shape))} has {size}: make them agree"
        )
    return shape


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # {bytes, path}, as picture data sets often have
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return "bytes" in names and _is_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def raw_batch(array: pa.Array, shape: Shape) -> tuple[Batch, NDArray[np.bool_]]:
    """The rows of a column (n), blank where they cannot be read, and whether each could be."""
    array = storage(array)
    if not shape:
        texts = array.to_pylist()
        return ["" if t is None else t for t in texts], np.array(
            [t is not None for t in texts], bool
        )
    if _is_bytes(array.type):
        return _pictures(array, shape)
    rows, valid = list_rows(array, int(np.prod(shape)))
    good = np.ones(len(rows), bool) if valid is None else valid.copy()
    if len(shape) == 1:
        values = rows.astype(np.float64)
        good &= np.isfinite(values).all(axis=1)
        values[~good] = 0
        return values, good
    pixels = rows.astype(np.uint8)
    pixels[~good] = 0
    return pixels.reshape(len(pixels), *shape), good


def _pictures(array: pa.Array, shape: Shape) -> tuple[Batch, NDArray[np.bool_]]:
    out = np.zeros((len(array), *shape), np.uint8)
    good = np.zeros(len(array), bool)
    for i, item in enumerate(array.to_pylist()):
        data = item.get("bytes") if isinstance(item, dict) else item
        picture = None if data is None else read_picture(data, shape)
        if picture is not None:
            out[i], good[i] = picture, True
    return out, good


def read_picture(data: bytes, shape: Shape) -> NDArray[np.uint8] | None:
    """Pixels (h, w, c) of a PNG, JPEG, ... scaled to the shape; None when it cannot be read."""
    from PIL import Image

    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > _LONGEST_SIDE:
                return None
            picture = image.convert("L" if channels == 1 else "RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(picture, dtype=np.uint8).reshape(shape)
    except Exception:
        # Whatever the decoder says is about a private picture.
        return None


def embedding_column(rows: NDArray[np.float32], good: NDArray[np.bool_]) -> Any:
    """A fixed-size-list column, null where a row was not read or its embedding is not finite."""
    valid = good & np.isfinite(rows).all(axis=1)
    values = np.where(valid[:, None], rows, np.float32(0))
    kind = pa.list_(pa.float32(), rows.shape[1])
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), type=kind, mask=pa.array(~valid)
    )
