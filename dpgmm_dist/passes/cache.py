"""Rows on the lattice, kept in memory between the passes of one release."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.data.lattice import Reals
from dpgmm_dist.opaque import Opaque

Ints = npt.NDArray[np.int64]
Lattice = tuple[Reals, Ints, Ints | None]
"""Rows (n, d), integers of at most FEATURE_RADIUS; their label indices (n,), -1 for none; and how
many rows of the row's privacy unit were kept (n,), None where the unit is one row."""
_KeptBlock = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.int32] | None]

MEMORY_SHARE = 0.25
"""The part of this process's memory that the cache may take."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class LatticeCache(Opaque):
    """PRIVATE. The rows of as many plan units as fit ``max_bytes``. Other units are read again.

    Lattice coordinates are integers below 2**24. float32 holds them exactly, in half the space.
    Threads may share a cache if they work on different units.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._lock = threading.Lock()
        self._units: dict[PlanUnit, list[_KeptBlock]] = {}

    def rows(self, unit: PlanUnit, read: Iterable[Lattice]) -> Iterator[Lattice]:
        """Yield the blocks of a unit from memory, or from ``read``, keeping them if all fit."""
        kept = self._units.get(unit)
        if kept is not None:
            yield from ((u, labels.astype(np.int64), _wide(counts)) for u, labels, counts in kept)
            return
        taken = 0
        blocks: list[_KeptBlock] | None = []
        try:
            for u, labels, counts in read:
                size = u.size * 4 + labels.size * (4 if counts is None else 8)
                if blocks is not None and self._take(size):
                    taken += size
                    narrow = None if counts is None else counts.astype(np.int32)
                    blocks.append((u.astype(np.float32), labels.astype(np.int32), narrow))
                else:
                    blocks = None
                yield u, labels, counts
            if blocks is not None:
                self._units[unit], taken = blocks, 0
        finally:
            self._take(-taken)  # the unit did not fit, or was not read to its end

    def _take(self, size: int) -> bool:
        with self._lock:
            if size > self._room:
                return False
            self._room -= size
            return True


def _wide(counts: npt.NDArray[np.int32] | None) -> Ints | None:
    return None if counts is None else counts.astype(np.int64)


def default_cache_bytes() -> int:
    """Return ``MEMORY_SHARE`` of :func:`memory_bytes`."""
    return int(memory_bytes() * MEMORY_SHARE)


def memory_bytes() -> int:
    """Return the memory of this machine or, where it is less, of this container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        total = min(total, int(_CGROUP_LIMIT.read_text()))
    return total
