"""Labels of rows as indices into the public label set.

A label that is null or not in the set becomes -1. Rows are compared with the public labels, never
the other way round, so nothing about any other label can appear anywhere.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError

Labels = tuple[int, ...] | tuple[str, ...]
Codes = npt.NDArray[np.int64]

_TABLE_SIZE = 1 << 12
"""Labels within a span of this size are looked up in a table, which is three times as fast."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)


def check_labels(labels: Labels | None) -> Labels:
    """Return the labels as a tuple; refuse what is not a set of integers, strings or booleans.

    Raises
    ------
    SpecError
        If there are none, one occurs twice, or they are not all of one kind.
    """
    labels = tuple(labels or ())  # type: ignore[assignment]
    if not labels:
        raise SpecError("dataset.labels is empty: list every label that may be released")
    for label in labels:
        if not isinstance(label, int | str):
            raise SpecError(f"dataset.labels: {label!r} is not an integer, a string or a boolean")
    if len({(isinstance(label, str), isinstance(label, bool)) for label in labels}) > 1:
        raise SpecError("dataset.labels mixes integers, strings or booleans: use one kind")
    if len(set(labels)) < len(labels):
        raise SpecError("dataset.labels names a label twice: list each once")
    return labels


def are_booleans(labels: Labels) -> bool:
    """Whether the (non-empty) public labels are booleans; each is the integer 0 or 1 as well."""
    return isinstance(labels[0], bool)


def are_strings(labels: Labels) -> bool:
    """Whether the (non-empty) public labels are strings."""
    return isinstance(labels[0], str)


def encode_integers(values: npt.NDArray[Any], labels: Labels) -> Codes:
    """Index of each integer in ``labels``, -1 if absent; compared in the type of the values.

    Parameters
    ----------
    values : shape (n,), any integer dtype.
    labels : the public labels, integers.

    Returns
    -------
    codes : shape (n,), int64.
    """
    # A public label that the column's type cannot hold never occurs. Casting it, or casting the
    # values, would take 2**64 - 1 for -1.
    limits = np.iinfo(values.dtype)
    integers = [(label, i) for i, label in enumerate(labels) if isinstance(label, int)]
    known = [(label, i) for label, i in integers if limits.min <= label <= limits.max]
    codes = np.full(len(values), -1, dtype=np.int64)
    if not known or not len(values):
        return codes
    known.sort()
    keys = np.array([key for key, _ in known], dtype=values.dtype)
    index = np.array([i for _, i in known], dtype=np.int64)
    if known[-1][0] - known[0][0] < _TABLE_SIZE:
        near = np.clip(values, keys[0], keys[-1])
        table = np.full(known[-1][0] - known[0][0] + 1, -1, dtype=np.int64)
        table[_distance(keys, keys[0])] = index
        return np.where(near == values, table[_distance(near, keys[0])], codes)
    place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[place] == values, index[place], codes)


def _distance(values: npt.NDArray[Any], least: Any) -> npt.NDArray[Any]:
    """``values - least``, which is not negative, exactly: wrapped values are right as unsigned."""
    wrapped: npt.NDArray[Any] = np.subtract(values, least)
    return wrapped.view(f"u{values.dtype.itemsize}")


def encode_text(text: str | None, labels: Labels) -> int:
    """Index of the label in a directory name such as ``label=3``; -1 if it is not in ``labels``."""
    if text is None:
        return -1
    value: int | str = text
    if not are_strings(labels):
        value = text.lower() == "true"
        if not (are_booleans(labels) and spells_boolean(text)):
            if not spells_integer(text):
                return -1
            value = int(text)
    return labels.index(value) if value in labels else -1


def spells_integer(text: str) -> bool:
    """Whether the value in a directory name is an integer in decimal digits."""
    return _INTEGER.fullmatch(text) is not None


def spells_boolean(text: str) -> bool:
    """Whether the value in a directory name is true or false."""
    return text.lower() in ("true", "false")


def encode_objects(values: npt.NDArray[Any], labels: Labels) -> Codes:
    """Index of each Python object or numpy string of an array (n,); -1 if absent."""
    index = {label: i for i, label in enumerate(labels)}
    booleans = are_booleans(labels)
    kinds: tuple[type, ...] = (str,) if are_strings(labels) else (int, np.integer)
    kinds = (bool, np.bool_) if booleans else kinds

    def code(value: Any) -> int:
        # A dict takes True for 1 and 3.0 for 3, so values of other kinds are left out first.
        is_kind = isinstance(value, kinds) and isinstance(value, bool | np.bool_) == booleans
        return index.get(value, -1) if is_kind else -1

    return np.array([code(value) for value in values.tolist()], dtype=np.int64)


def encode_arrow(array: Any, labels: Labels) -> Codes:
    """Index of each value of an Arrow array of integers, strings, booleans or dates.

    Parameters
    ----------
    array : pyarrow.Array of a type that the schema check admitted, or a dictionary of such values;
        sliced or not.
    labels : the public labels, of the column's kind. Those of dates are ISO 8601 texts.

    Returns
    -------
    codes : shape (n,), int64; -1 for null and for any value not in ``labels``.
    """
    import pyarrow as pa

    from dpgmm_dist.data.parquet_columns import numbers, storage, validity

    array = storage(array)
    kind = array.type
    if not len(array) or pa.types.is_null(kind):
        return np.full(len(array), -1, dtype=np.int64)
    if pa.types.is_dictionary(kind):
        # The last entry stands for null rows, whose stored index is arbitrary.
        entries = np.append(encode_arrow(array.dictionary, labels), np.int64(-1))
        places = numbers(array.indices).astype(np.int64)
        valid = validity(array.indices)
        return entries[places if valid is None else np.where(valid, places, len(entries) - 1)]
    valid = validity(array)
    if pa.types.is_integer(kind):
        codes = encode_integers(numbers(array), labels)
    elif pa.types.is_boolean(kind):
        bits = array.fill_null(False).to_numpy(zero_copy_only=False)
        codes = encode_integers(bits.astype(np.int8), labels)
    elif pa.types.is_date(kind):
        codes = _encode_dates(array, labels)
    else:
        codes = _encode_strings(array, labels)
    return codes if valid is None else np.where(valid, codes, np.int64(-1))


def category_numbers(array: Any, values: Labels) -> npt.NDArray[np.float64]:
    """The number (n,) of each row's value in the public list; NaN for null and any other value.

    Parameters
    ----------
    array : as :func:`encode_arrow` takes it.
    """
    codes = encode_arrow(array, values)
    return np.where(codes < 0, np.nan, codes.astype(np.float64))


def _encode_dates(array: Any, labels: Labels) -> Codes:
    """Codes (n,) of dates, arbitrary where null; a date64 within a day has no label."""
    from dpgmm_dist.column_kinds import number_of, steps_of
    from dpgmm_dist.data.column_numbers import stored_integers

    steps = steps_of(array.type)
    days = tuple(int(number_of(str(label), "date")) * steps for label in labels)
    return encode_integers(stored_integers(array), days)


def _encode_strings(array: Any, labels: Labels) -> Codes:
    import pyarrow as pa
    import pyarrow.compute as pc

    from dpgmm_dist.data.parquet_columns import numbers

    kind = array.type
    if pa.types.is_string_view(kind):  # Arrow's index_in does not take this type
        kind = pa.large_string()
        array = array.cast(kind, safe=False)
    known = pa.array(labels, type=kind)
    return numbers(pc.index_in(array, value_set=known).fill_null(-1)).astype(np.int64)
