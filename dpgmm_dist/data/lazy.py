"""The common part of sources whose rows Dask computes: all passes must see the same rows."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dpgmm_dist.data.blocks import PlanUnit, RawBlock, join_small
from dpgmm_dist.errors import DataError
from dpgmm_dist.opaque import Opaque


@dataclass(frozen=True, repr=False, eq=False)
class LazySource(Opaque):
    """Rows of a Dask collection, computed again in each pass unless they are persisted."""

    collection: ClassVar[str] = "dask collection"
    """What it is, for messages."""
    _digests: list[bytes] = field(default_factory=list, kw_only=True)
    """PRIVATE. A digest of the rows that each pass read; see :meth:`note`."""

    def note(self, digest: bytes) -> None:
        """Remember the digest of the rows that the pass which just ended read."""
        self._digests.append(digest)

    def require_unchanged(self) -> None:
        """Refuse a collection that gave other rows than in the previous pass.

        Raises
        ------
        DataError
            Before anything is drawn for what was read.
        """
        if len(set(self._digests)) > 1:
            raise DataError(
                f"the {self.collection} gave other rows than in the previous pass, and nothing was "
                "drawn for these: call X.persist(), or make its computation give the same rows "
                "each time (fixed seeds, files that do not change)"
            )


class RowDigest(Opaque):
    """PRIVATE. A digest of rows that does not depend on where blocks end."""

    def __init__(self) -> None:
        # A stream for each part, because blocks end at different rows in different passes.
        self._streams = tuple(hashlib.sha256() for _ in range(3))

    def update(self, block: RawBlock) -> None:
        """Add the rows of a block."""
        valid = b"\x01" * block.rows if block.valid is None else block.valid.tobytes()
        parts: tuple[Any, ...] = (block.features.data, block.labels.data, valid)
        for stream, part in zip(self._streams, parts, strict=True):
            stream.update(part)

    def number(self, unit: PlanUnit) -> int:
        """The digest of what was added, as a number that belongs to a plan unit."""
        whole = hashlib.sha256(f"{unit.index} ".encode())
        for stream in self._streams:
            whole.update(stream.digest())
        return int.from_bytes(whole.digest(), "big")


@dataclass(frozen=True, repr=False, eq=False)
class ChunkReader(Opaque, ABC):
    """PRIVATE on workers. Reads the computed chunks of one plan unit."""

    _read: RowDigest = field(default_factory=RowDigest, kw_only=True)

    def plan(self, target_bytes: int = 0) -> list[PlanUnit]:
        """Raise TypeError: the driver planned already."""
        raise TypeError("chunks are planned by the source of their collection")

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        """Read the chunks in blocks of 1 to ``max_rows`` rows.

        Raises
        ------
        DataError
            If a chunk is not of the declared kind. The message holds no value of it.
        """
        return join_small(self._noted(max_rows), max_rows)

    def _noted(self, max_rows: int) -> Iterator[RawBlock]:
        for block in self._blocks(max_rows):
            self._read.update(block)
            yield block

    @abstractmethod
    def _blocks(self, max_rows: int) -> Iterator[RawBlock]:
        """Read the chunks, in blocks that may be small."""

    def digest(self, unit: PlanUnit) -> int:
        """Digest of the rows that were read; the digests of units can be added in any order."""
        return self._read.number(unit)

    def fingerprint(self) -> dict[str, str]:
        """Return nothing: the source of the driver has the fingerprint."""
        return {}


def is_dask(value: object, kind: str) -> bool:
    """Whether ``value`` is an ``array.Array`` or ``dataframe.DataFrame``. Does not import Dask."""
    module, _, name = kind.partition(".")
    loaded = sys.modules.get(f"dask.{module}")
    return loaded is not None and isinstance(value, getattr(loaded, name))
