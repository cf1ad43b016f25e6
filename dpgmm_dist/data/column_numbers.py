"""The numbers that the values of a column of a table stand for; see `dpgmm_dist.column_kinds`.

Equal values give equal numbers whatever their type, resolution or scale: each is rounded to float64
once, from its exact value. No value raises an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dpgmm_dist.column_kinds import from_steps, steps_of
from dpgmm_dist.data.parquet_columns import Numbers, Valid, numbers, storage, validity

Floats = npt.NDArray[np.float64]

_EXACT = 1 << 53
_EXACT_POWER = 22
"""10 to this power is the largest that float64 holds exactly."""
_STORED = {4: "<i4", 8: "<i8"}


def column_numbers(array: Any) -> tuple[Numbers, Valid]:
    """The numbers (n,) of a column, arbitrary where null; and which rows are not null, or None.

    Integers and floats keep their stored type. All else becomes float64.

    Parameters
    ----------
    array : pyarrow array of a type that :func:`column_types.table_problem` admits; sliced or not.
    """
    array = storage(array)
    dtype = array.type
    if not len(array) or pa.types.is_null(dtype):
        return np.zeros(len(array)), np.zeros(len(array), dtype=np.bool_)
    if pa.types.is_dictionary(dtype):
        return _entries(array)
    if pa.types.is_boolean(dtype):
        bits = array.fill_null(False).to_numpy(zero_copy_only=False)
        return bits.astype(np.float64), validity(array)
    if pa.types.is_decimal(dtype):
        return _decimals(array), validity(array)
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return numbers(array), validity(array)
    return from_steps(stored_integers(array), steps_of(dtype)), validity(array)


def stored_integers(array: Any) -> npt.NDArray[Any]:
    """The integers that dates, times and durations are stored as (n,); arbitrary where null."""
    data = array.buffers()[1]
    size = array.type.bit_width // 8
    return np.frombuffer(data, _STORED[size], len(array), array.offset * size)


def _entries(array: Any) -> tuple[Numbers, Valid]:
    """The numbers of a dictionary's entries, by the places that the rows name."""
    entries, known = column_numbers(array.dictionary)
    with np.errstate(all="ignore"):
        entries = np.append(entries, 0.0)  # for null rows, whose stored place is arbitrary
    known = np.append(np.ones(len(entries) - 1, np.bool_) if known is None else known, False)
    places, valid = numbers(array.indices).astype(np.int64), validity(array.indices)
    if valid is not None:
        places = np.where(valid, places, len(entries) - 1)
    return entries[places], known[places]


def _decimals(array: Any) -> Floats:
    """Decimal numbers (n,), each rounded once to the nearest float64."""
    size, scale = array.type.bit_width // 8, array.type.scale
    raw = np.frombuffer(array.buffers()[1], np.uint8, len(array) * size, array.offset * size)
    words = raw.view(_STORED[min(size, 8)]).reshape(len(array), -1)
    least = words[:, 0].astype(np.int64)
    short = (words[:, 1:] == (least >> 63)[:, None]).all(axis=1)  # the other words are its sign
    short &= (least >= -_EXACT) & (least <= _EXACT) & (abs(scale) <= _EXACT_POWER)
    power = 10.0 ** min(abs(scale), _EXACT_POWER)
    # Both operands are exact where the integer is short, so the result is rounded once.
    values = least / power if scale >= 0 else least * power
    rows = raw.reshape(len(array), size)
    for i in np.flatnonzero(~short).tolist():
        value = int.from_bytes(rows[i].tobytes(), "little", signed=True)
        values[i] = value / 10**scale if scale >= 0 else float(value * 10**-scale)
    return np.asarray(values, dtype=np.float64)


def table_rows(columns: list[Any], rows: int, keeps_nulls: bool = False) -> tuple[Floats, Valid]:
    """Rows of a table.

    Parameters
    ----------
    columns : for each feature a pyarrow array, as :func:`column_numbers` takes it; or its numbers
        (n,); or, for a column given by directory names, the value of all rows as a float, None for
        null.
    rows : number of rows n.
    keeps_nulls : whether a row may lack values.

    Returns
    -------
    features : shape (n, d), float64; NaN for what a row lacks, where it may.
    valid : shape (n,), False where any column is null; or None. Always None where rows may lack
        values.
    """
    features = np.empty((rows, len(columns)), dtype=np.float64)
    valid: Valid = None
    for j, column in enumerate(columns):
        if isinstance(column, float | np.ndarray):
            features[:, j] = column
            continue
        values, present = column_numbers(pa.nulls(rows) if column is None else column)
        with np.errstate(all="ignore"):  # numpy would warn of a signalling NaN
            features[:, j] = values
        if present is not None and keeps_nulls:
            features[~present, j] = np.nan
        elif present is not None:
            valid = present if valid is None else np.logical_and(valid, present)
    return features, valid
