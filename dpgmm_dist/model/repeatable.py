"""Matrix products whose result does not depend on the BLAS, its threads or its blocking.

Floating-point GEMM adds in an order of its own choosing, so its last bits differ between thread
counts and machines. Rounding both factors to grids coarse enough for every partial sum to be an
exact integer below 2^53 makes the order irrelevant: the same seed then gives the same sampled
rows everywhere, and nothing measurable is lost on rows that are random anyway.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_EXACT_BITS = 53


def repeatable_matmul(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """``left @ right`` to about 2^-21 of the largest terms, with the same bits on every machine.

    Parameters
    ----------
    left
        Finite, shape (n, k).
    right
        Finite, shape (k, m). For k to 1,024 both factors keep at least 21 bits below their
        largest absolute value.

    Returns
    -------
    ndarray, shape (n, m)
    """
    inner = left.shape[1]
    # Every partial sum is at most inner * 2^left_bits * 2^right_bits <= 2^53.
    bits = _EXACT_BITS - math.ceil(math.log2(max(inner, 1)))
    left_bits, right_bits = bits // 2, bits - bits // 2
    left_grid, left_unit = _to_integers(left, left_bits)
    right_grid, right_unit = _to_integers(right, right_bits)
    return np.asarray((left_grid @ right_grid) * (left_unit * right_unit), dtype=np.float64)


def _to_integers(values: NDArray[np.float64], bits: int) -> tuple[NDArray[np.float64], float]:
    """Round to multiples of a power of two so that integers stay at most 2^bits; (grid, unit)."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0:
        return values, 1.0
    # frexp: largest <= 2^exponent, so dividing by 2^(exponent - bits) gives at most 2^bits.
    unit = math.ldexp(1.0, math.frexp(largest)[1] - bits)
    return np.rint(values / unit), unit
