"""Labels of rows as indices into the public label set.

A label that is null or not in the set becomes -1, whatever it is: rows are compared with the
public labels, never the other way round, so nothing about the others can appear anywhere.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError

Labels = tuple[int, ...] | tuple[str, ...]
Codes = npt.NDArray[np.int64]

_TABLE_SIZE = 1 << 12  # labels within such a span are looked up in a table, three times as fast

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)


def check_labels(labels: Labels | None) -> Labels:
    """Refuse a label set that is empty, mixed, repeated or neither integers nor strings.

    Raises
    ------
    SpecError
    """
    labels = tuple(labels or ())  # type: ignore[assignment]
    if not labels:
        raise SpecError("dataset.labels is empty: list every label that may be released")
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise SpecError(f"dataset.labels: {label!r} is neither an integer nor a string")
    if len({isinstance(label, str) for label in labels}) > 1:
        raise SpecError("dataset.labels mixes integers and strings: use one kind")
    if len(set(labels)) < len(labels):
        raise SpecError("dataset.labels names a label twice: list each once")
    return labels


def are_strings(labels: Labels) -> bool:
    """Whether the (non-empty) public labels are strings."""
    return isinstance(labels[0], str)


def encode_integers(values: npt.NDArray[Any], labels: Labels) -> Codes:
    """Index of each integer in ``labels``, -1 if absent; compared in the values' own type.

    Parameters
    ----------
    values : shape (n,), any integer dtype.
    labels : the public labels, integers.

    Returns
    -------
    codes : shape (n,), int64.
    """
    # A public label that the column's type cannot hold never occurs. Casting it, or the values,
    # would let 2**64 - 1 pass for -1.
    limits = np.iinfo(values.dtype)
    integers = [(x, i) for i, x in enumerate(labels) if isinstance(x, int)]
    known = [(x, i) for x, i in integers if limits.min <= x <= limits.max]
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
    """``values - least``, never negative, exactly: where it wraps it is right as unsigned."""
    wrapped: npt.NDArray[Any] = np.subtract(values, least)
    return wrapped.view(f"u{values.dtype.itemsize}")


def encode_text(text: str | None, labels: Labels) -> int:
    """Index of the label that a directory name spells (``label=3``), -1 if it is none of them."""
    if text is None:
        return -1
    value: int | str = text
    if not are_strings(labels):
        if not _INTEGER.fullmatch(text):
            return -1
        value = int(text)
    return labels.index(value) if value in labels else -1


def spells_integer(text: str) -> bool:
    """Whether a directory name's value is an integer in plain decimal digits."""
    return _INTEGER.fullmatch(text) is not None


def encode_objects(values: npt.NDArray[Any], labels: Labels) -> Codes:
    """Index of each Python object or numpy string of a one-dimensional array; -1 if absent."""
    index = {label: i for i, label in enumerate(labels)}
    kinds: tuple[type, ...] = (str,) if are_strings(labels) else (int, np.integer)
    return np.array(
        [
            # True equals 1 and 3.0 equals 3 for a dict: only the labels' own kind may match.
            index.get(x, -1) if isinstance(x, kinds) and not isinstance(x, bool) else -1
            for x in values.tolist()
        ],
        dtype=np.int64,
    )


def encode_arrow(array: Any, labels: Labels) -> Codes:
    """Index of each value of an Arrow array of integers, strings or a dictionary of them.

    Parameters
    ----------
    array : pyarrow.Array of a type that the schema check admitted; sliced or not.
    labels : the public labels, of the column's kind.

    Returns
    -------
    codes : shape (n,), int64; -1 for null and for any value not in ``labels``.
    """
    import pyarrow as pa

    from dpgmm_dist.data.parquet_columns import numbers, validity

    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), -1, dtype=np.int64)
    if pa.types.is_dictionary(kind):
        # The last entry stands for null rows, whose stored index may be anything.
        entries = np.append(encode_arrow(array.dictionary, labels), np.int64(-1))
        places = numbers(array.indices).astype(np.int64)
        valid = validity(array.indices)
        return entries[places if valid is None else np.where(valid, places, len(entries) - 1)]
    if pa.types.is_integer(kind):
        codes = encode_integers(numbers(array), labels)
    else:
        import pyarrow.compute as pc

        if pa.types.is_string_view(kind):  # Arrow looks up only the other string types
            kind = pa.large_string()
            array = array.cast(kind, safe=False)
        known = pa.array(labels, type=kind)
        codes = numbers(pc.index_in(array, value_set=known).fill_null(-1)).astype(np.int64)
    valid = validity(array)
    return codes if valid is None else np.where(valid, codes, np.int64(-1))
