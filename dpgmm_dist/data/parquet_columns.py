"""Primitive Arrow arrays of private values as numpy arrays, with the validity of each value.

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
