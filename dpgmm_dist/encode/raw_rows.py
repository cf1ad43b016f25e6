"""PRIVATE. Raw rows from Parquet columns, prepared for an encoder.

A row that cannot be read (null, a damaged picture, a list of another length) is not an error: an
error would reveal something about the rows. It is encoded as null, and a release silently leaves
out nulls.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpgmm_dist.data.embeddings import embedding_rows
from dpgmm_dist.data.parquet_columns import storage
from dpgmm_dist.encode.picture_input import PictureInput
from dpgmm_dist.encode.protocol import Batch, Shape
from dpgmm_dist.errors import DataError, SpecError

_LONGEST_SIDE = 1 << 14


def row_shape(
    column: str, kind: pa.DataType, shape: Shape, picture: PictureInput | None = None
) -> Shape:
    """The shape of one raw row of a column, before a model's own preparation.

    The shape of text is (). Pictures have the shape that is given. Lists of uint8 are pictures if
    a shape is given. Without a shape, fixed-size lists are vectors.

    Parameters
    ----------
    column
        Name of the column, for messages.
    kind
        Arrow type of the column.
    shape
        The shape of pictures that the user gave; () for none.
    picture
        How the model prepares pictures. If that gives them a size, picture files need no shape.

    Raises
    ------
    SpecError
        When the shape is missing or does not fit the type.
    DataError
        When a column of this type cannot be encoded.
    """
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if shape:
            raise SpecError(f"column {column!r} holds text: leave --shape out")
        return ()
    if _is_bytes(kind):
        return _file_shape(column, shape, picture)
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)):
        raise DataError(
            f"column {column!r} has the type {str(kind)[:80]}: encode takes text, pictures (bytes, "
            "or a struct with bytes) and lists of numbers"
        )
    if not shape:
        if not pa.types.is_fixed_size_list(kind):
            raise SpecError(
                f"column {column!r} has lists of any length: give --shape, or use fixed-size lists"
            )
        return (int(kind.list_size),)
    if not pa.types.is_uint8(kind.value_type):
        raise DataError(f"column {column!r} has the type {kind}: pixels must be uint8")
    size = int(np.prod(shape))
    if pa.types.is_fixed_size_list(kind) and kind.list_size != size:
        raise SpecError(
            f"column {column!r} has {kind.list_size} pixels a row, but --shape "
            f"{'x'.join(map(str, shape))} has {size}: make them agree"
        )
    return shape


def _file_shape(column: str, shape: Shape, picture: PictureInput | None) -> Shape:
    if picture is not None and picture.size is not None:
        if shape:
            raise SpecError(
                f"the model takes pictures of {'x'.join(map(str, picture.size))} pixels, to which "
                f"those of column {column!r} are resized and cropped: leave --shape out"
            )
        return (*picture.size, picture.channels)
    if not shape:
        raise SpecError(f"column {column!r} holds pictures: give their shape, --shape HxW or HxWxC")
    return shape


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):  # {bytes, path}, as in many picture data sets
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return "bytes" in names and _is_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def prepared_shape(shape: Shape, picture: PictureInput | None) -> Shape:
    """The shape of a row that an encoder gets, for raw rows of a shape (see `row_shape`)."""
    if picture is None or len(shape) != 3:
        return shape
    return (*(picture.size or shape[:2]), picture.channels)


def raw_batch(
    array: pa.Array, shape: Shape, picture: PictureInput | None = None
) -> tuple[Batch, NDArray[np.bool_]]:
    """The n rows of a column, and whether each could be read, as (n,).

    A row that cannot be read is blank: zeros, or an empty text.

    Parameters
    ----------
    array
        The rows.
    shape
        The shape of a raw row, see `row_shape`.
    picture
        How the model prepares pictures; None keeps them as they are.
    """
    array = storage(array)
    if not shape:
        # As bytes: a text that is not UTF-8 would end the conversion of all.
        large = pa.types.is_large_string(array.type)
        stored = array.view(pa.large_binary() if large else pa.binary()).to_pylist()
        texts = [_text(value) for value in stored]
        readable = np.array([text is not None for text in texts], bool)
        return ["" if text is None else text for text in texts], readable
    if _is_bytes(array.type):
        return _pictures(array, shape, picture)
    rows, valid = embedding_rows(array, int(np.prod(shape)))
    readable = np.ones(len(rows), bool) if valid is None else valid.copy()
    if len(shape) == 1:
        values = rows.astype(np.float64)
        readable &= np.isfinite(values).all(axis=1)
        values[~readable] = 0
        return values, readable
    pixels = rows.astype(np.uint8)
    pixels[~readable] = 0
    pixels = pixels.reshape(len(pixels), *shape)
    return pixels if picture is None else _prepared(pixels, picture), readable


def _text(value: bytes | None) -> str | None:
    """A text from its bytes; None where it is null or no UTF-8."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _prepared(pictures: NDArray[np.uint8], picture: PictureInput) -> NDArray[np.uint8]:
    from PIL import Image

    shape = prepared_shape(pictures.shape[1:], picture)
    prepared = np.zeros((len(pictures), *shape), np.uint8)
    for row, pixels in enumerate(pictures):
        prepared[row] = picture.prepared(
            Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        )
    return prepared


def _pictures(
    array: pa.Array, shape: Shape, prepare: PictureInput | None
) -> tuple[Batch, NDArray[np.bool_]]:
    pictures = np.zeros((len(array), *prepared_shape(shape, prepare)), np.uint8)
    readable = np.zeros(len(array), bool)
    for i, item in enumerate(array.to_pylist()):
        data = item.get("bytes") if isinstance(item, dict) else item
        picture = None if data is None else read_picture(data, shape, prepare)
        if picture is not None:
            pictures[i], readable[i] = picture, True
    return pictures, readable


def read_picture(
    data: bytes, shape: Shape, prepare: PictureInput | None = None
) -> NDArray[np.uint8] | None:
    """Pixels (h, w, c) of a picture file (PNG, JPEG, ...), prepared or scaled to the shape.

    None if the picture cannot be read or is too large.
    """
    from PIL import Image

    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > _LONGEST_SIDE:
                return None
            if prepare is not None and prepare.size is not None:
                return prepare.prepared(image)
            if prepare is not None:
                channels = prepare.channels
            picture = image.convert("L" if channels == 1 else "RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(picture, dtype=np.uint8).reshape(shape)
    except Exception:
        # The message of the decoder is about a private picture.
        return None


def embedding_column(rows: NDArray[np.float32], readable: NDArray[np.bool_]) -> Any:
    """Embeddings (n, d) as a column of fixed-size lists.

    A row is null if its raw row was not readable (n,), or if its embedding is not finite.
    """
    valid = readable & np.isfinite(rows).all(axis=1)
    values = np.where(valid[:, None], rows, np.float32(0))
    kind = pa.list_(pa.float32(), rows.shape[1])
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), type=kind, mask=pa.array(~valid)
    )
