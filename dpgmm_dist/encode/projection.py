"""Public linear maps whose result for a row is a function of that row alone, to the bit.

A floating-point matrix product adds in an order that depends on the shape of the batch. Here each
row is first brought to a grid of its own (a power of two below its largest entry) and the matrix
to another, so that all sums are exact integers and no order matters.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import SpecError

Floats = NDArray[np.float64]

_EXACT_BITS = 53


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates of (row - mean) along the columns of a matrix.

    Parameters
    ----------
    matrix : (d, p).
    mean : (d,).
    """

    matrix: Floats
    mean: Floats

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Projection:
        """Read an ``.npz`` with ``matrix`` and perhaps ``mean``; no pickles."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                matrix = np.asarray(arrays["matrix"], dtype=np.float64)
                has_mean = "mean" in arrays.files
                mean = np.asarray(arrays["mean"], np.float64) if has_mean else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise SpecError(
                f"{where}: not a projection; save one with numpy.savez(path, matrix=..., mean=...)"
            ) from None
        mean = np.zeros(len(matrix)) if mean is None and matrix.ndim else mean
        if (
            matrix.ndim != 2
            or mean is None
            or mean.shape != matrix.shape[:1]
            or not (np.isfinite(matrix).all() and np.isfinite(mean).all() and matrix.size)
        ):
            raise SpecError(f"{where}: matrix must be (d, p) and mean (d,), finite, not empty")
        return cls(matrix, mean)

    def to_bytes(self) -> bytes:
        """As an ``.npz``."""
        out = io.BytesIO()
        np.savez(out, matrix=self.matrix, mean=self.mean)
        return out.getvalue()

    def forward(self, rows: Floats) -> Floats:
        """Coordinates (n, p) of rows (n, d)."""
        if rows.shape[1] != len(self.mean):
            raise SpecError(
                f"the projection maps vectors of {len(self.mean)} numbers, these have "
                f"{rows.shape[1]}"
            )
        return rowwise_product(rows - self.mean, self.matrix)

    def backward(self, coordinates: Floats) -> Floats:
        """The vectors (n, d) nearest to the mean that have coordinates (n, p)."""
        if coordinates.shape[1] != self.matrix.shape[1]:
            raise SpecError(
                f"the projection has {self.matrix.shape[1]} coordinates, these rows "
                f"{coordinates.shape[1]}"
            )
        return np.asarray(coordinates @ np.linalg.pinv(self.matrix) + self.mean)


def rowwise_product(rows: Floats, matrix: Floats) -> Floats:
    """``rows @ matrix`` (n, p), each row from itself alone, to about 2^-20 of its largest entry."""
    bits = _EXACT_BITS - math.ceil(math.log2(max(rows.shape[1], 1)))
    left, right = bits // 2, bits - bits // 2
    # Every partial sum is at most d 2^left 2^right <= 2^53.
    with np.errstate(all="ignore"):  # rows that are not finite stay so
        unit = _power_above(np.abs(rows).max(axis=1, initial=0.0), left)[:, None]
        grid = np.rint(rows / unit)
    scale = _power_above(np.abs(matrix).max(initial=0.0), right)
    finite = np.isfinite(grid).all(axis=1)
    out = np.full((len(rows), matrix.shape[1]), np.nan)
    out[finite] = (grid[finite] @ np.rint(matrix / scale)) * (unit[finite] * scale)
    return out


def _power_above(largest: Floats, bits: int) -> Floats:
    """The power of two by which values up to ``largest`` become integers of at most ``bits``."""
    exponent = np.frexp(np.where(np.isfinite(largest) & (largest > 0), largest, 1.0))[1]
    return np.asarray(np.ldexp(1.0, exponent - bits))
