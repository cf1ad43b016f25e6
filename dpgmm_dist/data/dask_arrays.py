"""Rows of a dask array as a source: chunks are computed and read where Dask puts them.

The driver holds the lazy arrays and plans blocks of chunks; what runs on a worker is
:class:`ChunkSource`, which is handed the computed chunks of one plan unit. Rows are in neither.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dpgmm_dist.data.arrays import ArraySource, check_dtype, check_label_dtype
from dpgmm_dist.data.blocks import ChunkRange, PlanUnit, RawBlock, join_small
from dpgmm_dist.data.labels import Labels, check_labels
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.opaque import Opaque

TARGET_BYTES = 16 << 20
"""Small: chunks of one unit come together on one worker, wherever Dask has put them."""

Chunk = tuple[Sequence[Any], Any]
"""PRIVATE. Some consecutive rows: their features in one or more arrays side by side, their y."""


@dataclass(frozen=True, repr=False, eq=False)
class DaskArraySource(Opaque):
    """Rows of a lazy array, which is computed anew in each pass unless it is persisted.

    Parameters
    ----------
    X : dask array of shape (n, d), of any type that :class:`ArraySource` takes. n, and the sizes
        of chunks, may be unknown; d may not.
    y : dask array of integers or strings of shape (n,), or None when rows are not labelled.
    labels : the public label set; required with ``y``, and no other label counts.

    Raises
    ------
    SpecError, DataError
        As :class:`ArraySource`, from what is known without computing anything.
    """

    X: Any
    y: Any = None
    labels: Labels = ()
    _seen: list[bytes] = field(default_factory=list)
    """PRIVATE. Digests of what each pass read; see :meth:`note`."""

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
        """Consecutive blocks of chunks, joined up to about ``target_bytes`` where sizes are known.

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
        """Never called: chunks are computed first, and read by :class:`ChunkSource`."""
        raise TypeError("a lazy array has no rows to read")

    def chunk_source(self) -> ChunkSource:
        """What reads the computed chunks on a worker."""
        return ChunkSource(self.width, self.labels)

    def note(self, digest: bytes) -> None:
        """Remember what the pass that just ended has read."""
        self._seen.append(digest)

    def require_unchanged(self) -> None:
        """Refuse an array that gave other rows than in the pass before.

        Raises
        ------
        DataError
            Before anything is drawn for what was read.
        """
        if len(set(self._seen)) > 1:
            raise DataError(
                "the dask array gave other rows than in the pass before, and nothing was drawn for "
                "these: call X.persist(), or make what computes it give the same rows each time "
                "(fixed seeds, files that do not change)"
            )

    def fingerprint(self) -> dict[str, str]:
        """Shape and type. PRIVATE: what the rows are is known once they have been computed."""
        return {"dask array": f"{self.X.shape} {self.X.dtype}"}


@dataclass(frozen=True, repr=False, eq=False)
class ChunkSource(Opaque):
    """PRIVATE on workers. The computed chunks of one plan unit, read like arrays in memory."""

    width: int
    labels: Labels
    chunks: Sequence[Chunk] = ()
    _read: tuple[Any, Any] = field(default_factory=lambda: (hashlib.sha256(), hashlib.sha256()))

    def __reduce__(self) -> Any:
        return ChunkSource, (self.width, self.labels, self.chunks)

    def plan(self, target_bytes: int = TARGET_BYTES) -> list[PlanUnit]:
        """Never called: the driver planned."""
        raise TypeError("chunks are planned by the array they are of")

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read the chunks in blocks of 1 to ``max_rows`` rows.

        Raises
        ------
        DataError
            If a chunk is no array of the declared kind; the message holds no value of it.
        """
        return join_small(self._blocks(max_rows), max_rows)

    def _blocks(self, max_rows: int) -> Iterator[RawBlock]:
        for parts, y in self.chunks:
            chunk = ArraySource(_side_by_side(parts), y, self.labels, chunk_rows=max_rows)
            if chunk.width != self.width:
                raise DataError(
                    f"a chunk of X has {chunk.width} features, X says {self.width}: correct the "
                    "chunks or the meta of what computes it"
                )
            for piece in chunk.plan():
                for block in chunk.blocks(piece, max_rows):
                    # Two streams: where blocks end differs between passes.
                    self._read[0].update(block.features.data)
                    self._read[1].update(block.labels.data)
                    yield block

    def digest(self, unit: PlanUnit) -> int:
        """What was read, as a number that adds up over units in any order."""
        whole = hashlib.sha256(f"{unit.index} ".encode())
        for one in self._read:
            whole.update(one.digest())
        return int.from_bytes(whole.digest(), "big")

    def fingerprint(self) -> dict[str, str]:
        """Nothing: the driver's source has it."""
        return {}


def is_dask_array(value: object) -> bool:
    """Whether ``value`` is a dask array; does not import Dask."""
    import sys

    module = sys.modules.get("dask.array")
    return module is not None and isinstance(value, module.Array)


def _side_by_side(parts: Sequence[Any]) -> Any:
    """Features (n, d) of chunks (n, d_1), (n, d_2), ...; one that is no plain array as it is."""
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if not isinstance(part, np.ndarray) or np.ma.isMaskedArray(part) or part.ndim != 2:
            return part  # to be refused
    with np.errstate(all="ignore"):  # a signalling NaN must not make numpy warn
        return np.concatenate(parts, axis=1)


def _check_shape(x: Any) -> None:
    if not is_dask_array(x):
        raise DataError(f"X is {type(x).__name__} and not a dask array: make X and y of one kind")
    if x.ndim != 2:
        raise DataError(f"X must have two dimensions (rows, features), got {x.ndim}")
    if math.isnan(x.shape[1]):
        raise DataError(
            "X has an unknown number of features: it must be public, so say it, for instance by "
            "X.map_blocks(..., chunks=...) or dask.array.from_delayed(..., shape=...)"
        )
    if x.shape[1] < 1:
        raise DataError("X has no features: its second dimension is 0")
    check_dtype(x.dtype)


def _alike(x: Any, y: Any, labels: Labels) -> Any:
    """Labels in chunks like those of the rows."""
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
                "X and y have chunks of unknown size, and not equally many: compute their sizes "
                "with X.compute_chunk_sizes() and y.compute_chunk_sizes(), or chunk them alike"
            )
        return y
    if y.shape[0] != x.shape[0]:
        raise DataError("X and y must have the same number of rows")  # how many is private
    return y.rechunk((x.chunks[0],))
