"""Digests of the values of a privacy unit's column; two are equal only if the values are.

Digests take the place of the values, so that no identifier of a person is written to scratch
storage. Nothing in this module fails because of a value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dpgmm_dist.data.parquet_columns import numbers, storage, validity

Kind = Literal["integer", "text"]
Digests = npt.NDArray[np.uint8]

DIGEST_BYTES = 32
USABLE = "integers, strings or binary values"


def kind_of(kind: Any) -> Kind | None:
    """Whether a column type holds integers or text; None for a type that cannot name a unit.

    Floating-point numbers and times cannot: 0.0 and -0.0, or one time in two resolutions, would
    give one person two names.
    """
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "integer"
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
    )
    return "text" if any(test(kind) for test in tests) else None


def digest(value: int | bytes) -> bytes:
    """BLAKE2b digest of one value: an integer of any width, or text as its bytes."""
    data = b"i%d" % value if isinstance(value, int) else b"t" + value
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, person=b"dpgmm unit").digest()


def digests_of(array: Any) -> tuple[Digests, npt.NDArray[np.bool_]]:
    """Digest of each value of an Arrow array, of a type that :func:`kind_of` accepts or null.

    Returns
    -------
    digests : shape (n, 32); zeros where the value is null
    valid : shape (n,), False where it is null
    """
    array = storage(array)
    out = np.zeros((len(array), DIGEST_BYTES), dtype=np.uint8)
    if not len(array) or pa.types.is_null(array.type):
        return out, np.zeros(len(array), dtype=np.bool_)
    if not pa.types.is_dictionary(array.type):
        array = _plain(array).dictionary_encode()
    valid = validity(array.indices)
    valid = np.ones(len(array), dtype=np.bool_) if valid is None else valid.copy()
    # Only the entries in use: each batch may carry the dictionary of the whole file.
    used, position = np.unique(numbers(array.indices)[valid], return_inverse=True)
    entries, known = _entries(_plain(array.dictionary).take(pa.array(used)))
    out[valid] = entries[position]
    valid[valid] = known[position]
    return out, valid


def constant_digest(text: str | None, kind: Kind) -> bytes | None:
    """Digest of a value in a directory name; None for null."""
    if text is None:
        return None
    return digest(int(text)) if kind == "integer" else digest(text.encode())


def object_digests(values: Iterable[Any]) -> tuple[Digests, npt.NDArray[np.bool_]]:
    """Digest of each Python or numpy integer, string or bytes; anything else counts as null.

    Returns
    -------
    digests : shape (n, 32); zeros where the value is null
    valid : shape (n,), False where it is null
    """
    digests: list[bytes | None] = []
    for value in values:
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            digests.append(digest(int(value)))
        elif isinstance(value, str):
            digests.append(digest(value.encode("utf-8", "surrogatepass")))
        else:
            digests.append(digest(value) if isinstance(value, bytes) else None)
    valid = np.array([item is not None for item in digests], dtype=np.bool_)
    data = b"".join(item or bytes(DIGEST_BYTES) for item in digests)
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, DIGEST_BYTES), valid


def _plain(array: Any) -> Any:
    """View text as bytes, so that text which is not valid UTF-8 is a value like any other."""
    kind = array.type
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_string(), safe=False).view(pa.large_binary())
    if pa.types.is_string(kind):
        return array.view(pa.binary())
    return array.view(pa.large_binary()) if pa.types.is_large_string(kind) else array


def _entries(array: Any) -> tuple[Digests, npt.NDArray[np.bool_]]:
    known = validity(array)
    known = np.ones(len(array), dtype=np.bool_) if known is None else known
    integers = pa.types.is_integer(array.type)
    values = numbers(array).tolist() if integers else array.to_pylist()
    data = b"".join(digest(b"" if value is None else value) for value in values)
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, DIGEST_BYTES), known
