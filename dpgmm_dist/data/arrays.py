"""A numpy array in memory as a source of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.data.blocks import PlanUnit, RawBlock, RowRange
from dpgmm_dist.data.labels import (
    Codes,
    Labels,
    are_booleans,
    are_strings,
    check_labels,
    encode_integers,
    encode_objects,
)
from dpgmm_dist.data.unit_values import object_digests
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque

TARGET_BYTES = 64 << 20


@dataclass(frozen=True, repr=False, eq=False)
class ArraySource(Opaque):
    """PRIVATE. Rows held in memory.

    Parameters
    ----------
    X : numpy array of shape (n, d), float16, float32, float64 or any integers, in input units.
    y : integers, strings or booleans of shape (n,), or None when the rows are not labelled.
    labels : the public label set; required with ``y``. Rows with any other label are invalid.
    chunk_rows : rows of a plan unit; by default as many as take 64 MB.
    units : integers or strings of shape (n,) that name each row's privacy unit. None marks a row
        without one, which contributes nothing. Required where the specification has privacy units.

    Raises
    ------
    SpecError
        If ``labels`` and ``y`` do not match, or ``chunk_rows`` is not positive.
    DataError
        If the arrays have the wrong shape or type.
    """

    X: npt.NDArray[Any]
    y: npt.NDArray[Any] | None = None
    labels: Labels = ()
    chunk_rows: int | None = None
    units: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        _check_features(self.X)
        _check_units(self.units, len(self.X))
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise SpecError(f"chunk_rows must be at least 1, got {self.chunk_rows}")
        if self.y is None:
            if self.labels:
                raise SpecError("labels are given but y is not: give both or neither")
            return
        if not self.labels:
            raise SpecError("y is given without labels: list the public labels it may hold")
        object.__setattr__(self, "labels", check_labels(self.labels))
        _check_y(self.y, len(self.X), self.labels)

    @property
    def width(self) -> int:
        """Feature dimension d."""
        return int(self.X.shape[1])

    def plan(self, target_bytes: int = TARGET_BYTES) -> list[PlanUnit]:
        """Split the rows into consecutive ranges; at least one, which may be empty."""
        row_bytes = self.width * self.X.dtype.itemsize
        step = self.chunk_rows or max(1, target_bytes // row_bytes)
        return [
            PlanUnit(
                index,
                (RowRange(start, min(start + step, len(self.X))),),
                (min(start + step, len(self.X)) - start) * row_bytes,
            )
            for index, start in enumerate(range(0, max(len(self.X), 1), step))
        ]

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read a unit in blocks of 1 to ``max_rows`` rows."""
        for piece in unit.pieces:
            if not isinstance(piece, RowRange):
                raise TypeError("this unit was planned by another source")
            for start in range(piece.start, piece.stop, max_rows):
                yield self._block(slice(start, min(start + max_rows, piece.stop)))

    def _block(self, rows: slice) -> RawBlock:
        x = self.X[rows]
        if self.y is None:
            codes: Codes = np.zeros(len(x), dtype=np.int64)
        elif self.y.dtype.kind in "biu":
            values = self.y[rows]
            values = values.astype(np.int8) if values.dtype.kind == "b" else values
            codes = encode_integers(values.astype(values.dtype.newbyteorder("=")), self.labels)
        else:
            codes = encode_objects(self.y[rows], self.labels)
        if self.units is None:
            return RawBlock(_plain(x), None, codes)
        digests, named = object_digests(self.units[rows].tolist())
        return RawBlock(_plain(x), named, codes, digests)

    def require_unchanged(self) -> None:
        """Check nothing: the array belongs to the caller, and comparing it would take a pass."""

    def fingerprint(self) -> dict[str, str]:
        """Digest of the content. PRIVATE: kept in private storage, to detect changes."""
        digest = hashlib.blake2b(f"{self.X.shape} {self.X.dtype}".encode(), digest_size=32)
        for block in (b for unit in self.plan() for b in self.blocks(unit, 1 << 16)):
            digest.update(block.features.data)
            digest.update(block.labels.data)
            if block.units is not None:
                digest.update(block.units.data)
        return {"array": digest.hexdigest()}


def _plain(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows as a C-contiguous native array of uint8, float32 or float64.

    Only integers of more than 53 bits may be rounded.
    """
    if x.dtype != np.uint8 and x.dtype.kind in "iu":
        kind: type = np.float32 if x.dtype.itemsize <= 2 else np.float64
    else:
        kind = {1: np.uint8, 2: np.float32, 4: np.float32}.get(x.dtype.itemsize, np.float64)
    with np.errstate(all="ignore"):  # a warning would depend on the data
        return np.ascontiguousarray(x, dtype=kind)


def _check_features(x: object) -> None:
    if not isinstance(x, np.ndarray) or np.ma.isMaskedArray(x):
        raise DataError(
            f"X must be a plain numpy array, got {type(x).__name__}: convert it first, with NaN "
            "for what is missing"
        )
    if x.ndim != 2:
        raise DataError(f"X must have two dimensions (rows, features), got {x.ndim}")
    if x.shape[1] < 1:
        raise DataError("X has no features: its second dimension is 0")
    check_dtype(x.dtype)


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse features of a type that is not numeric.

    Raises
    ------
    DataError
        With the type and the types that can be used.
    """
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise DataError(
            f"X has dtype {dtype}: use float16, float32, float64 or integers (X.astype(float))"
        )


def _check_units(units: object, rows: int) -> None:
    if units is None:
        return
    if not isinstance(units, np.ndarray) or np.ma.isMaskedArray(units) or units.ndim != 1:
        raise DataError("units must be a plain numpy array of one dimension")
    if len(units) != rows:
        raise DataError("X and units must have the same number of rows")  # how many is private
    if units.dtype.kind not in "iuUSO":
        raise DataError(f"units has dtype {units.dtype}: it must hold integers or strings")


def _check_y(y: object, rows: int, labels: Labels) -> None:
    if not isinstance(y, np.ndarray) or np.ma.isMaskedArray(y):
        raise DataError(f"y must be a plain numpy array, got {type(y).__name__}: convert it first")
    if y.ndim != 1:
        raise DataError(f"y must have one dimension, got {y.ndim}")
    if len(y) != rows:
        raise DataError("X and y must have the same number of rows")  # how many is private
    check_label_dtype(y.dtype, labels)


def check_label_dtype(dtype: np.dtype[Any], labels: Labels) -> None:
    """Refuse labels of another kind than the public ones.

    Raises
    ------
    DataError
        If labels of this type are neither integers, strings nor booleans.
    SpecError
        If ``labels`` and ``y`` hold different kinds; booleans are the integers 0 and 1 as well.
    """
    if dtype.kind not in "biuUO":
        raise DataError(f"y has dtype {dtype}: labels must be integers, strings or booleans")
    given = "strings" if are_strings(labels) else "integers"
    given = "booleans" if are_booleans(labels) else given
    held = {"U": "strings", "b": "booleans", "O": given}.get(dtype.kind, "integers")
    if held != given and (held, given) != ("booleans", "integers"):
        raise SpecError(
            f"labels are {given} (such as {labels[0]!r}) but y holds {held}: make them alike"
        )
