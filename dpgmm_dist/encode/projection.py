"""Public linear maps. The result for a row depends on that row alone, to the bit.

A floating-point matrix product adds in an order that depends on the shape of the batch. Here each
row is first rounded to a grid (multiples of a power of two relative to its largest entry), and the
matrix to another grid. All sums are then exact integers, so their order does not matter.
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
    """A linear map of a row to the coordinates (row - mean) @ matrix.

    Parameters
    ----------
    matrix : (d, p).
    mean : (d,).
    """

    matrix: Floats
    mean: Floats

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Projection:
        """Read an ``.npz`` file with ``matrix`` and, optionally, ``mean``; no pickles are read.

        Raises
        ------
        SpecError
            When the bytes are not such a file. The message names it as ``where``.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                matrix = np.asarray(arrays["matrix"], dtype=np.float64)
                has_mean = "mean" in arrays.files
                mean = np.asarray(arrays["mean"], np.float64) if has_mean else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise SpecError(
                f"{where} is not a projection: save one with numpy.savez(path, matrix=..., "
                "mean=...)"
            ) from None
        mean = np.zeros(len(matrix)) if mean is None and matrix.ndim else mean
        if (
            matrix.ndim != 2
            or mean is None
            or mean.shape != matrix.shape[:1]
            or not (np.isfinite(matrix).all() and np.isfinite(mean).all() and matrix.size)
        ):
            raise SpecError(f"{where}: matrix must be (d, p) and mean (d,), finite and not empty")
        return cls(matrix, mean)

    def to_bytes(self) -> bytes:
        """The bytes of an ``.npz`` file that `from_bytes` reads."""
        file = io.BytesIO()
        np.savez(file, matrix=self.matrix, mean=self.mean)
        return file.getvalue()

    def forward(self, rows: Floats) -> Floats:
        """Coordinates (n, p) of rows (n, d); SpecError if the rows have another width."""
        if rows.shape[1] != len(self.mean):
            raise SpecError(
                f"the projection maps vectors of {len(self.mean)} numbers, but the rows have "
                f"{rows.shape[1]}"
            )
        return rowwise_product(rows - self.mean, self.matrix)

    def backward(self, coordinates: Floats) -> Floats:
        """The vectors (n, d) nearest to the mean that have the coordinates (n, p)."""
        if coordinates.shape[1] != self.matrix.shape[1]:
            raise SpecError(
                f"the projection has {self.matrix.shape[1]} coordinates, but the rows have "
                f"{coordinates.shape[1]}"
            )
        return np.asarray(coordinates @ np.linalg.pinv(self.matrix) + self.mean)


def rowwise_product(rows: Floats, matrix: Floats) -> Floats:
    """``rows @ matrix`` (n, p), where each result depends on its own row alone.

    The error is about 2^-20 relative to the largest entry of the row. A row that is not finite
    gives NaN.
    """
    bits = _EXACT_BITS - math.ceil(math.log2(max(rows.shape[1], 1)))
    row_bits, matrix_bits = bits // 2, bits - bits // 2
    # Every partial sum is at most d 2^row_bits 2^matrix_bits <= 2^53.
    with np.errstate(all="ignore"):  # for rows that are not finite
        row_step = _grid_step(np.abs(rows).max(axis=1, initial=0.0), row_bits)[:, None]
        grid = np.rint(rows / row_step)
    matrix_step = _grid_step(np.abs(matrix).max(initial=0.0), matrix_bits)
    finite = np.isfinite(grid).all(axis=1)
    product = np.full((len(rows), matrix.shape[1]), np.nan)
    product[finite] = (grid[finite] @ np.rint(matrix / matrix_step)) * (
        row_step[finite] * matrix_step
    )
    return product


def _grid_step(largest: Floats, bits: int) -> Floats:
    """The power of two in units of which values up to ``largest`` are integers of ``bits`` bits."""
    exponent = np.frexp(np.where(np.isfinite(largest) & (largest > 0), largest, 1.0))[1]
    return np.asarray(np.ldexp(1.0, exponent - bits))
