"""A dask array as a source of rows: chunks are computed and read on the workers.

The driver holds the lazy arrays and plans groups of chunks. On a worker a :class:`ChunkSource` gets
the computed chunks of one plan unit. No rows go from workers to the driver.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dpgmm_dist.data.arrays import ArraySource, check_dtype, check_label_dtype
from dpgmm_dist.data.blocks import ChunkRange, PlanUnit, RawBlock
from dpgmm_dist.data.labels import Labels, check_labels
from dpgmm_dist.data.lazy import ChunkReader, LazySource, is_dask
from dpgmm_dist.errors import DataError, SpecError

TARGET_BYTES = 16 << 20
"""Small, because all chunks of a unit are moved to one worker."""

Chunk = tuple[Sequence[Any], Any]
"""PRIVATE. Consecutive rows: their features in one or more adjacent arrays, and their y or None."""


@dataclass(frozen=True, repr=False, eq=False)
class DaskArraySource(LazySource):
    """Rows of a lazy array, which is computed again in each pass unless it is persisted.

    Parameters
    ----------
    X : dask array of shape (n, d), of any type that :class:`ArraySource` takes. n, and the sizes
        of chunks, may be unknown; d may not.
    y : dask array of integers, strings or booleans of shape (n,), or None when the rows are not
        labelled.
    labels : the public label set; required with ``y``. Rows with any other label are invalid.

    Raises
    ------
    SpecError, DataError
        As for :class:`ArraySource`, from what is known without computing anything.
    """

    collection: ClassVar[str] = "dask array"
    X: Any
    y: Any = None
    labels: Labels = ()

    def __post_init__(self) -> None:
        _check_shape(self.X)
        if self.y is None:
            if self.labels:
                raise SpecError("labels are given but y is not: give both or neither")
            return
        if not self.labels:
            raise SpecError("y is given without labels: list the public labels it may hold")
        object.__setattr__(self, "labels", check_labels(self.labels))
        object.__setattr__(self, "y", _alike(self.X, self.y, self.labels))

    @property
    def width(self) -> int:
        """Feature dimension d."""
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the features, as the array declares it."""
        declared: np.dtype[Any] = self.X.dtype
        return declared

    def plan(self, target_bytes: int = TARGET_BYTES) -> list[PlanUnit]:
        """Plan consecutive chunks, joined up to about ``target_bytes`` where sizes are known.

        A chunk is never divided.
        """
        units: list[PlanUnit] = []
        start = size = 0
        row_bytes = self.width * self.dtype.itemsize
        for index, rows in enumerate(self.X.chunks[0]):
            known = not math.isnan(rows)
            amount = int(rows) * row_bytes if known else 0
            if index > start and (not known or size + amount > target_bytes):
                units.append(PlanUnit(len(units), (ChunkRange(start, index),), size))
                start, size = index, 0
            size += amount
        return [*units, PlanUnit(len(units), (ChunkRange(start, len(self.X.chunks[0])),), size)]

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Raise TypeError: chunks are computed first, and read by :class:`ChunkSource`."""
        raise TypeError("a lazy array has no rows to read")

    def chunk_source(self) -> ChunkSource:
        """Return the source that reads computed chunks on a worker."""
        return ChunkSource(self.width, self.labels)

    def fingerprint(self) -> dict[str, str]:
        """Shape and type; rows are known only when computed. PRIVATE: kept in private storage."""
        return {"dask array": f"{self.X.shape} {self.X.dtype}"}


@dataclass(frozen=True, repr=False, eq=False)
class ChunkSource(ChunkReader):
    """PRIVATE on workers. The computed chunks of one plan unit, read like arrays in memory."""

    width: int
    labels: Labels
    chunks: Sequence[Chunk] = ()

    def __reduce__(self) -> Any:
        return ChunkSource, (self.width, self.labels, self.chunks)

    def of(self, chunks: Sequence[Any]) -> ChunkSource:
        """Return the source of these chunks."""
        return ChunkSource(self.width, self.labels, chunks)

    def _blocks(self, max_rows: int) -> Iterator[RawBlock]:
        for parts, y in self.chunks:
            chunk = ArraySource(_side_by_side(parts), y, self.labels, chunk_rows=max_rows)
            if chunk.width != self.width:
                raise DataError(
                    f"a chunk of X has {chunk.width} features, X says {self.width}: correct the "
                    "chunks or the meta of what computes it"
                )
            for piece in chunk.plan():
                yield from chunk.blocks(piece, max_rows)


def is_dask_array(value: object) -> bool:
    """Whether ``value`` is a dask array. Does not import Dask."""
    return is_dask(value, "array.Array")


def _side_by_side(parts: Sequence[Any]) -> Any:
    """Join chunks (n, d_1), (n, d_2), ... to (n, d); a part that is no plain array is returned."""
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if not isinstance(part, np.ndarray) or np.ma.isMaskedArray(part) or part.ndim != 2:
            return part  # ArraySource refuses it
    with np.errstate(all="ignore"):  # numpy would warn of a signalling NaN
        return np.concatenate(parts, axis=1)


def _check_shape(x: Any) -> None:
    if not is_dask_array(x):
        raise DataError(f"X is {type(x).__name__} and not a dask array: make X and y of one kind")
    if x.ndim != 2:
        raise DataError(f"X must have two dimensions (rows, features), got {x.ndim}")
    if math.isnan(x.shape[1]):
        raise DataError(
            "X has an unknown number of features: this number has to be public, so state it, for "
            "instance by X.map_blocks(..., chunks=...) or dask.array.from_delayed(..., shape=...)"
        )
    if x.shape[1] < 1:
        raise DataError("X has no features: its second dimension is 0")
    check_dtype(x.dtype)


def _alike(x: Any, y: Any, labels: Labels) -> Any:
    """Return ``y`` in the chunks of ``x``."""
    if not is_dask_array(y):
        raise DataError(
            f"X is a dask array but y is {type(y).__name__}: make y a dask array as well "
            "(dask.array.from_array)"
        )
    if y.ndim != 1:
        raise DataError(f"y must have one dimension, got {y.ndim}")
    check_label_dtype(y.dtype, labels)
    if y.chunks[0] == x.chunks[0]:
        return y
    if math.isnan(x.shape[0]) or math.isnan(y.shape[0]):
        if y.numblocks[0] != x.numblocks[0]:
            raise DataError(
                "X and y have chunks of unknown size, and different numbers of chunks: compute "
                "their sizes with X.compute_chunk_sizes() and y.compute_chunk_sizes(), or give "
                "them equal chunks"
            )
        return y
    if y.shape[0] != x.shape[0]:
        raise DataError("X and y must have the same number of rows")  # how many is private
    return y.rechunk((x.chunks[0],))
