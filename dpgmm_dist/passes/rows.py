"""A selection of the rows of a block, gathered a part at a time, for the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.data.lattice import Reals

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]

_SMALL_PRODUCT = 1_000_000
"""Up to this many multiplications OpenBLAS uses the factors in place; it copies larger ones."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of ``u`` (n, d) in a given order. Nothing is copied until :meth:`parts` is used."""

    u: Reals
    index: Index | None = None
    """Which rows, in which order; None for all rows in the order of ``u``."""
    weight: Ints | None = None
    """The weight of each row of ``u`` (n,); None where all rows weigh the same."""

    def __len__(self) -> int:
        return len(self.u if self.index is None else self.index)

    def between(self, start: int, stop: int) -> Rows:
        """The rows from ``start`` to ``stop`` in this order."""
        if self.index is None:
            weight = None if self.weight is None else self.weight[start:stop]
            return Rows(self.u[start:stop], None, weight)
        return Rows(self.u, self.index[start:stop], self.weight)

    def at(self, positions: Index) -> Rows:
        """The rows at these positions of this order."""
        index = positions if self.index is None else self.index[positions]
        return Rows(self.u, index, self.weight)

    def weights(self) -> Ints | None:
        """The weights of the rows, in this order; None where all weigh the same."""
        return self.weight if self.weight is None or self.index is None else self.weight[self.index]

    def parts(self, buffer: Floats) -> Iterator[Floats]:
        """Yield the rows, as many at a time as ``buffer`` holds; each part may overwrite it."""
        for start in range(0, len(self), len(buffer)):
            stop = min(start + len(buffer), len(self))
            part = buffer[: stop - start]
            if self.index is not None and self.u.dtype == np.float64:
                # Without a mode numpy allocates a second buffer to check the indices.
                np.take(self.u, self.index[start:stop], axis=0, out=part, mode="clip")
            elif self.index is not None:
                part[...] = np.take(self.u, self.index[start:stop], axis=0)
            elif self.u.dtype != np.float64:
                part[...] = self.u[start:stop]
            else:
                part = np.asarray(self.u[start:stop], np.float64)
            yield part


def stable_order(key: npt.NDArray[np.int16]) -> Index:
    """The indices that sort small numbers stably; 16-bit keys sort in linear time."""
    return np.argsort(key, kind="stable")


def multiply(u: Floats, matrix: Floats, out: Floats) -> Floats:
    """Write ``u @ matrix`` to ``out`` (n, p), in pieces that OpenBLAS multiplies without a copy."""
    rows = min(1024, _SMALL_PRODUCT // max(matrix.size, 1))
    whole = len(u) // rows * rows if rows >= 16 else 0
    if whole:
        pieces = u[:whole].reshape(-1, rows, u.shape[1])
        np.matmul(pieces, matrix, out=out[:whole].reshape(-1, rows, out.shape[1]))
    if whole < len(u):
        np.matmul(u[whole:], matrix, out=out[whole:])
    return out
