"""The two steps that select each privacy unit's rows, as tasks that any engine runs.

:class:`Spread` makes integers of the rows of a plan unit, lattice points or codes, drops invalid
ones, and writes the rest in buckets by privacy unit. :class:`Gather` reads the rows of one bucket
from all files, and keeps, weighs or averages the rows of each privacy unit. Whenever the rows in
memory exceed a public number of bytes, both drop all but the least rows of each unit. Tasks may run
again: they write the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dpgmm_dist.data.blocks import FilePiece, PlanUnit, RawBlock, Source
from dpgmm_dist.data.lattice import RowMap
from dpgmm_dist.data.unit_files import read_bucket, write_buckets, write_kept
from dpgmm_dist.data.unit_rows import (
    KeptRows,
    UnitRows,
    buckets_of,
    coefficients,
    content_hashes,
    kept_of,
    means_of,
    smallest,
)
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.passes.run import guarded
from dpgmm_dist.storage.parquet_files import Place

Aggregate = Literal["rows", "weight", "mean"]

BUFFER_BYTES = 128 << 20
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, repr=False, eq=False)
class UnitRule(Opaque):
    """What is done with the rows of a privacy unit. Public, except for the salt."""

    most: int
    """The most rows of a unit that are kept."""
    aggregate: Aggregate
    key: bytes
    """Decides which rows are kept. Public, and the same for every run of a specification."""
    salt: int
    """Decides in which bucket a unit is, and nothing else. Secret, and new in every run."""
    buckets: int


@dataclass(frozen=True, repr=False, eq=False)
class Spread(Opaque):
    """First step: writes the valid rows of a plan unit in buckets by privacy unit."""

    source: Source
    features: RowMap
    width: int
    """Number of integers that the map makes of a row."""
    rule: UnitRule
    scratch: Place
    buffer_bytes: int = BUFFER_BYTES

    def __call__(self, unit: PlanUnit) -> int:
        """Write the files of a plan unit and return their number."""
        return guarded(f"unit {unit.index}", lambda: self._write(unit))

    def _write(self, unit: PlanUnit) -> int:
        files = 0
        for rows in _bounded(self._rows(unit), self.rule.most, self.buffer_bytes):
            buckets = buckets_of(rows.units, self.rule.salt, self.rule.buckets)
            write_buckets(self.scratch, f"{unit.index:08d}-{files:04d}", rows, buckets)
            files += 1
        return files

    def _rows(self, unit: PlanUnit) -> Iterator[UnitRows]:
        factors = coefficients(self.rule.key, self.width)
        for block in self.source.blocks(unit, max(1, _BLOCK_BYTES // (8 * self.source.width))):
            yield self._valid_rows(block, factors)

    def _valid_rows(self, block: RawBlock, factors: np.ndarray) -> UnitRows:
        if block.units is None:
            raise ValueError("the source has no privacy units")
        u, valid = self.features.to_lattice(block.features, block.valid)
        use = np.flatnonzero(valid & (block.labels >= 0))
        rows, labels = u[use].astype(np.int32), block.labels[use].astype(np.int32)
        return UnitRows(rows, labels, block.units[use], content_hashes(rows, labels, factors))


@dataclass(frozen=True, repr=False, eq=False)
class Gather(Opaque):
    """Second step: writes what the privacy units of a bucket contribute."""

    files: tuple[str, ...]
    """All files of the first step."""
    width: int
    rule: UnitRule
    scratch: Place
    buffer_bytes: int = BUFFER_BYTES

    def __call__(self, bucket: int) -> int:
        """Write the file of a bucket and return 1, the number of files written."""
        return guarded(f"bucket {bucket}", lambda: self._write(bucket))

    def _write(self, bucket: int) -> int:
        write_kept(self.scratch, bucket, self._kept(bucket), self.width)
        return 1

    def _kept(self, bucket: int) -> KeptRows | None:
        parts: list[UnitRows] = []
        limit = self.buffer_bytes
        for part in read_bucket(self.scratch, self.files, bucket, self.width):
            parts.append(part)
            if sum(part.bytes for part in parts) > limit:
                parts = [smallest(UnitRows.joined(parts), self.rule.most)]
                limit = max(self.buffer_bytes, 2 * parts[0].bytes)
        if not parts:
            return None
        rows = UnitRows.joined(parts)
        if self.rule.aggregate == "mean":
            return means_of(rows, self.rule.most)
        return kept_of(rows, self.rule.most)


def _bounded(blocks: Iterator[UnitRows], most: int, limit: int) -> Iterator[UnitRows]:
    """The least rows of each unit, in portions of at most about ``limit`` bytes."""
    parts: list[UnitRows] = []
    for block in blocks:
        parts.append(block)
        if sum(part.bytes for part in parts) > limit:
            parts = [smallest(UnitRows.joined(parts), most)]
            if parts[0].bytes > limit // 2:
                yield parts.pop()
    if parts and sum(map(len, parts)):
        yield smallest(UnitRows.joined(parts), most)


@dataclass(frozen=True, repr=False, eq=False)
class KeptSource(Opaque):
    """PRIVATE. The rows that privacy units contribute, on the lattice, as the source of passes."""

    scratch: Place
    width: int
    labels: tuple[int, ...] | tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]
    """(path, row groups, bytes) of each bucket's file."""

    def plan(self, target_bytes: int = 64 << 20) -> list[PlanUnit]:
        """Plan one unit for each bucket."""
        del target_bytes
        return [
            PlanUnit(index, (FilePiece(path, tuple(range(groups))),), size)
            for index, (path, groups, size) in enumerate(self.files)
        ]

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read a bucket in blocks of 1 to ``max_rows`` rows."""
        from dpgmm_dist.data.unit_files import read_kept

        for piece in unit.pieces:
            if not isinstance(piece, FilePiece):
                raise TypeError("this unit was planned by another source")
            yield from read_kept(self.scratch, piece, max_rows, self.width)

    def fingerprint(self) -> dict[str, str]:
        """Return nothing: the input may change, the files made from it do not."""
        return {}
