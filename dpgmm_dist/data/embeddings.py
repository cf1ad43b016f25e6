"""Columns of embeddings as arrays: lists of every kind, lists of lists, bytes, Spark's vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dpgmm_dist.data.column_types import is_list
from dpgmm_dist.data.parquet_columns import Numbers, Valid, numbers, plain_floats, storage, validity

Offsets = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_FLOAT32_BYTES = 4
_SPARSE, _DENSE = 0, 1


def embedding_rows(array: Any, width: int) -> tuple[Numbers, Valid]:
    """Rows of a column of embeddings.

    Parameters
    ----------
    array : pyarrow array of a type that :func:`column_types.embedding_items` accepts.
    width : number of values of a row.

    Returns
    -------
    features : shape (n, width), uint8, float32 or float64; a view of the column when every row of
        a list column has ``width`` values.
    valid : shape (n,), False for null rows, other lengths and rows with a null value; or None.
    """
    array = storage(array)
    dtype = array.type
    if not len(array) or pa.types.is_null(dtype):
        return _no_rows(len(array), width)
    if pa.types.is_fixed_size_binary(dtype):
        return _byte_rows(array, width)
    if pa.types.is_struct(dtype):
        return _vector_rows(array, width)
    values, offsets, valid = _flat(array)
    if pa.types.is_null(values.type):
        return _no_rows(len(array), width)
    right = np.diff(offsets) == width
    if right.all():
        return _rows_of(values.slice(int(offsets[0]), len(array) * width), width, valid)
    return _scattered_rows(values, offsets, width, right if valid is None else right & valid)


def _flat(array: Any) -> tuple[Any, Offsets, Valid]:
    """The numbers of all rows; where those of each row begin (n + 1,); and which rows are valid.

    A list of lists is the numbers of its lists one after the other; with a null among them it is
    not valid.
    """
    dtype = array.type
    valid = validity(array)
    if pa.types.is_fixed_size_list(dtype):
        values = array.values
        offsets = (array.offset + np.arange(len(array) + 1, dtype=np.int64)) * dtype.list_size
    elif pa.types.is_list_view(dtype) or pa.types.is_large_list_view(dtype):
        sizes = numbers(array.sizes).astype(np.int64)
        values = array.flatten()  # in the order of the rows, without those that are null
        offsets = np.append(0, np.cumsum(sizes if valid is None else np.where(valid, sizes, 0)))
    else:
        values, offsets = array.values, numbers(array.offsets).astype(np.int64)
    if not is_list(values.type):
        return values, offsets, valid
    inner = values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    offsets = offsets - offsets[0]
    if not len(inner):
        return pa.nulls(0), np.zeros_like(offsets), valid
    numbers_of, starts, present = _flat(inner)
    if present is not None:
        missing = np.append(0, np.cumsum(~present))
        whole = np.diff(missing[offsets]) == 0
        valid = whole if valid is None else whole & valid
    return numbers_of, starts[offsets], valid


def _rows_of(values: Any, width: int, valid: Valid) -> tuple[Numbers, Valid]:
    """Rows that are stored one after the other; ``values`` is their child array."""
    present = validity(values)
    if present is not None:
        whole = np.all(present.reshape(-1, width), axis=1)
        valid = whole if valid is None else np.logical_and(whole, valid)
    return plain_floats(numbers(values)).reshape(-1, width), valid


def _scattered_rows(
    values: Any, offsets: Offsets, width: int, keep: Bools
) -> tuple[Numbers, Bools]:
    """Rows of which some (``keep`` False) are null or have another length."""
    values = values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    element = np.repeat(keep, np.diff(offsets))
    kept = plain_floats(numbers(values)[element])
    features = np.zeros((len(keep), width), dtype=kept.dtype)
    features[keep] = kept.reshape(-1, width)
    valid = keep.copy()
    present = validity(values)
    if present is not None:
        valid[keep] = present[element].reshape(-1, width).all(axis=1)
    return features, valid


def _no_rows(rows: int, width: int) -> tuple[Numbers, Bools]:
    return np.zeros((rows, width), dtype=np.float32), np.zeros(rows, dtype=np.bool_)


def _byte_rows(array: Any, width: int) -> tuple[Numbers, Valid]:
    """Rows of float32 numbers, little-endian, in bytes of a fixed size."""
    size, data = array.type.byte_width, array.buffers()[1]
    if size != width * _FLOAT32_BYTES or data is None:
        return _no_rows(len(array), width)
    stored = np.frombuffer(data, np.uint8, len(array) * size, array.offset * size)
    return plain_floats(stored.view("<f4").astype(np.float32)).reshape(-1, width), validity(array)


def _vector_rows(array: Any, width: int) -> tuple[Numbers, Bools]:
    """Rows of Spark's vectors: a dense one has all its values, a sparse one those of its indices.

    A sparse vector is valid if its size is the width, and its indices rise and are below it.
    """
    kind, size, indices, values = array.flatten()
    features, dense = embedding_rows(values, width)
    kinds = numbers(kind)
    valid = (kinds == _DENSE) & _known(kind)
    valid &= True if dense is None else dense
    places, place_starts, place_valid = _flat(indices)
    amounts, amount_starts, amount_valid = _flat(values)
    counts = np.diff(place_starts)
    sparse = (kinds == _SPARSE) & _known(kind) & (numbers(size) == width) & _known(size)
    sparse &= counts == np.diff(amount_starts)
    for present in (place_valid, amount_valid):
        sparse &= True if present is None else present
    if not sparse.any():
        return features, valid
    index, index_known = _entries(places, place_starts, sparse)
    amount, amount_known = _entries(amounts, amount_starts, sparse)
    row = np.repeat(np.flatnonzero(sparse), counts[sparse])
    good = index_known & amount_known & (index >= 0) & (index < width)
    good[1:] &= (index[1:] > index[:-1]) | (row[1:] != row[:-1])
    sparse[row[~good]] = False
    features, used = np.array(features), sparse[row]
    features[sparse] = 0
    features = features.astype(np.result_type(features.dtype, amount.dtype), copy=False)
    features[row[used], index[used]] = amount[used]
    return features, valid | sparse


def _entries(values: Any, offsets: Offsets, keep: Bools) -> tuple[Numbers, Bools]:
    """The numbers of the rows to keep, one after the other, and which of them are not null."""
    values = values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    element = np.repeat(keep, np.diff(offsets))
    return numbers(values)[element], _known(values)[element]


def _known(array: Any) -> Bools:
    present = validity(array)
    return np.ones(len(array), dtype=np.bool_) if present is None else present
