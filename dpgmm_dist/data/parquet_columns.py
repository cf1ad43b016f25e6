"""Arrow columns of private values as numpy arrays, with the validity of each row.

No Arrow cast is used, because a checked cast quotes the value it fails on. numpy views or converts
the values without an error. Every function takes sliced arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[Any]
Valid = npt.NDArray[np.bool_] | None


def numbers(array: Any) -> Numbers:
    """The values of a primitive Arrow array, shape (n,), without a copy; arbitrary where null."""
    if not len(array):
        return np.empty(0, dtype=array.type.to_pandas_dtype())
    data = array.buffers()[1]
    plain = pa.Array.from_buffers(array.type, len(array), [None, data], 0, array.offset)
    return np.asarray(plain.to_numpy(zero_copy_only=True))


def validity(array: Any) -> Valid:
    """Shape (n,), False where the array is null; None when no value is null."""
    if not array.null_count:
        return None
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


def storage(array: Any) -> Any:
    """The array itself, or the storage of an extension type such as a fixed-shape tensor."""
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


def plain_floats(values: Numbers) -> Numbers:
    """Convert values to uint8, float32 or float64, whichever is smallest and exact.

    Only integers of more than 53 bits are rounded, each to the nearest float64.
    """
    if values.dtype in (np.uint8, np.float32, np.float64):
        return values
    small = values.dtype.itemsize <= 2  # float16 and integers up to 16 bits fit float32 exactly
    with np.errstate(all="ignore"):  # numpy would warn of a signalling NaN, and warnings are logged
        return values.astype(np.float32 if small else np.float64)


def list_rows(array: Any, width: int) -> tuple[Numbers, Valid]:
    """Rows of a list column of any kind.

    Parameters
    ----------
    array : pyarrow array of type list, large_list, fixed_size_list or null.
    width : number of values of a row.

    Returns
    -------
    features : shape (n, width), uint8, float32 or float64; a view of the column when no row is
        null or has another length.
    valid : shape (n,), False for null rows, other lengths and rows with a null value; or None.
    """
    array = storage(array)
    if pa.types.is_null(array.type) or pa.types.is_null(array.type.value_type):
        return _no_rows(len(array), width)
    if pa.types.is_fixed_size_list(array.type):
        if array.type.list_size != width:
            return _no_rows(len(array), width)
        values = array.values.slice(array.offset * width, len(array) * width)
        return _rows_of(values, width, validity(array))
    offsets = numbers(array.offsets)
    lengths = np.diff(offsets)
    valid = validity(array)
    right = lengths == width
    if valid is None and right.all():
        return _rows_of(array.values.slice(int(offsets[0]), len(array) * width), width, None)
    return _scattered_rows(array, width, right if valid is None else right & valid)


def _rows_of(values: Any, width: int, valid: Valid) -> tuple[Numbers, Valid]:
    """Rows that are stored one after the other; ``values`` is their child array."""
    present = validity(values)
    if present is not None:
        whole = np.all(present.reshape(-1, width), axis=1)
        valid = whole if valid is None else np.logical_and(whole, valid)
    return plain_floats(numbers(values)).reshape(-1, width), valid


def _scattered_rows(
    array: Any, width: int, keep: npt.NDArray[np.bool_]
) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Rows of a variable list, of which some (``keep`` False) are null or have another length."""
    offsets = numbers(array.offsets)
    values = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    element = np.repeat(keep, np.diff(offsets))
    kept = plain_floats(numbers(values)[element])
    features = np.zeros((len(keep), width), dtype=kept.dtype)
    features[keep] = kept.reshape(-1, width)
    valid = keep.copy()
    present = validity(values)
    if present is not None:
        valid[keep] = present[element].reshape(-1, width).all(axis=1)
    return features, valid


def _no_rows(rows: int, width: int) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    return np.zeros((rows, width), dtype=np.float32), np.zeros(rows, dtype=np.bool_)


def table_rows(columns: list[Any], rows: int) -> tuple[npt.NDArray[np.float64], Valid]:
    """Rows of a table of numeric columns.

    Parameters
    ----------
    columns : for each feature a pyarrow array of a numeric type or null; or, for a column given by
        directory names, the value of all rows as a float, None for null.
    rows : number of rows n.

    Returns
    -------
    features : shape (n, d), float64.
    valid : shape (n,), False where any column is null; or None.
    """
    features = np.empty((rows, len(columns)), dtype=np.float64)
    valid: Valid = None
    present: Valid
    for j, column in enumerate(columns):
        if column is None or (not isinstance(column, float) and pa.types.is_null(column.type)):
            features[:, j], present = 0.0, np.zeros(rows, dtype=np.bool_)
        elif isinstance(column, float):
            features[:, j] = column
            continue
        else:
            with np.errstate(all="ignore"):
                features[:, j] = numbers(column)
            present = validity(column)
        if present is not None:
            valid = present if valid is None else np.logical_and(valid, present)
    return features, valid
