"""What a source gives to the passes: plan units, and raw blocks of rows.

All types of this module may be arguments or results of a Dask task. Dask logs both when a task
fails, so none of these types shows its content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dpgmm_dist.opaque import Opaque

_SMALL_SHARE = 8
"""Blocks below one eighth of the requested size are joined: a block costs the kernel a fixed amount
of work, and copying a small block costs almost nothing."""


@dataclass(frozen=True, repr=False, eq=False)
class RawBlock(Opaque):
    """PRIVATE. Rows as stored, before any check of their values."""

    features: npt.NDArray[Any]
    """Shape (n, d), C-contiguous, float32, float64 or uint8, in input units; possibly read-only.
    Rows that are not valid hold arbitrary values."""
    valid: npt.NDArray[np.bool_] | None
    """Shape (n,): False where a value is null or the row has the wrong length; None when there is
    no such row. NaN and infinity are found later, by the lattice."""
    labels: npt.NDArray[np.int64]
    """Shape (n,): index into the public label set, -1 for null and for any other label; all 0
    when the data are not labelled."""
    units: npt.NDArray[np.uint8] | None = None
    """Shape (n, 32): digest of the row's privacy unit; None where the source has no units. A row
    whose unit is null is not valid."""
    kept: npt.NDArray[np.int64] | None = None
    """Shape (n,): how many rows of the row's unit were kept; None where nothing was selected."""

    @property
    def rows(self) -> int:
        """Number of rows n."""
        return len(self.labels)


@dataclass(frozen=True, repr=False)
class FilePiece(Opaque):
    """Some row groups of one Parquet file."""

    path: str
    """Path within the source's file system."""
    row_groups: tuple[int, ...]
    constants: tuple[tuple[str, str | None], ...] = ()
    """Columns given by the names of directories (``label=3``): (column, text, or None for null)."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Columns of a table that have another name in the file: (name there, name)."""
    size: int = 0
    """Bytes of the file as it was planned; 0 where they are not known."""


@dataclass(frozen=True, repr=False)
class RowRange(Opaque):
    """Consecutive rows of an array in memory."""

    start: int
    stop: int


@dataclass(frozen=True, repr=False)
class ChunkRange(Opaque):
    """Consecutive chunks, along the rows, of a dask array."""

    start: int
    stop: int


@dataclass(frozen=True)
class PlanUnit:
    """What one task reads. Frozen, picklable, and readable without the footers of other files."""

    index: int
    pieces: tuple[FilePiece | RowRange | ChunkRange, ...]
    bytes: int
    """Size of the unit's feature values in memory, before any conversion."""

    def __repr__(self) -> str:
        return f"<PlanUnit {self.index}>"


class Source(Protocol):
    """Rows in units that tasks can read independently of each other."""

    @property
    def width(self) -> int:
        """Feature dimension d, from the schema or the specification, never from rows."""

    @property
    def labels(self) -> tuple[int, ...] | tuple[str, ...]:
        """The public label set; empty when the data are not labelled."""

    def plan(self, target_bytes: int = ...) -> list[PlanUnit]:
        """Split the rows into units of about ``target_bytes``; at least one, always the same."""

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read a unit in blocks of 1 to ``max_rows`` rows.

        Raises
        ------
        DataError
            If the unit cannot be read. The message names the file and holds no value of it.
        """

    def fingerprint(self) -> dict[str, str]:
        """Identifiers of the input. PRIVATE: kept in private storage, to detect changes."""


def join_small(blocks: Iterable[RawBlock], max_rows: int) -> Iterator[RawBlock]:
    """Join adjacent small blocks and drop empty ones; the rows and their order do not change."""
    waiting: list[RawBlock] = []
    waiting_rows = 0
    for block in blocks:
        if waiting and waiting_rows + block.rows > max_rows:
            yield _concatenate(waiting)
            waiting, waiting_rows = [], 0
        if block.rows * _SMALL_SHARE >= max_rows and not waiting:
            yield block
        elif block.rows:
            waiting.append(block)
            waiting_rows += block.rows
    if waiting:
        yield _concatenate(waiting)


def _concatenate(blocks: list[RawBlock]) -> RawBlock:
    if len(blocks) == 1:
        return blocks[0]
    valid = None
    if any(block.valid is not None for block in blocks):
        valid = np.concatenate(
            [np.ones(b.rows, dtype=np.bool_) if b.valid is None else b.valid for b in blocks]
        )
    return RawBlock(
        # Any two of uint8, float32 and float64 have a common type that holds both exactly.
        features=_joined([block.features for block in blocks]),
        valid=valid,
        labels=np.concatenate([block.labels for block in blocks]),
        units=_all_or_none([block.units for block in blocks]),
        kept=_all_or_none([block.kept for block in blocks]),
    )


def _all_or_none(parts: list[Any]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate(parts)


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Concatenate without warnings, which numpy gives for a signalling NaN among float32 rows."""
    with np.errstate(all="ignore"):
        return np.concatenate(parts)
