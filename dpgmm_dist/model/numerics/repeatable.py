"""Matrix products whose result does not depend on the BLAS, its threads or its blocking.

Floating-point GEMM adds in an order of its own choosing, so its last bits differ between thread
counts and machines. Rounding both factors to grids coarse enough for every partial sum to be an
exact integer below 2^53 makes the order irrelevant: the same seed then gives the same sampled
rows everywhere, and nothing measurable is lost on rows that are random anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EXACT_BITS = 53


@dataclass(frozen=True, eq=False)
class Grid:
    """A right factor (k, m) rounded for products, to be used many times."""

    numbers: NDArray[np.float64]
    unit: float

    @classmethod
    def of(cls, right: NDArray[np.float64]) -> Grid:
        """Round a matrix (k, m)."""
        return cls(*_to_integers(right, _bits(right.shape[0])[1]))


def repeatable_matmul(
    left: NDArray[np.float64], right: NDArray[np.float64] | Grid
) -> NDArray[np.float64]:
    """``left @ right`` to about 2^-21 of the largest terms, with the same bits on every machine.

    Parameters
    ----------
    left
        Finite, shape (n, k).
    right
        Finite, shape (k, m), or the `Grid` of such a matrix. For k to 1,024 both factors keep at
        least 21 bits below their largest absolute value.

    Returns
    -------
    ndarray, shape (n, m)
    """
    grid = right if isinstance(right, Grid) else Grid.of(right)
    left_grid, left_unit = _to_integers(left, _bits(left.shape[1])[0])
    return np.asarray((left_grid @ grid.numbers) * (left_unit * grid.unit), dtype=np.float64)


def _bits(inner: int) -> tuple[int, int]:
    """Bits of the left and of the right factor, of products over ``inner`` terms."""
    # Every partial sum is at most inner * 2^left_bits * 2^right_bits <= 2^53.
    bits = _EXACT_BITS - math.ceil(math.log2(max(inner, 1)))
    return bits // 2, bits - bits // 2


def _to_integers(values: NDArray[np.float64], bits: int) -> tuple[NDArray[np.float64], float]:
    """Round to multiples of a power of two so that integers stay at most 2^bits; (grid, unit)."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0:
        return values, 1.0
    # frexp: largest <= 2^exponent, so dividing by 2^(exponent - bits) gives at most 2^bits.
    unit = math.ldexp(1.0, math.frexp(largest)[1] - bits)
    return np.rint(values / unit), unit
