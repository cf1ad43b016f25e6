"""N = round(sigma Z), Z standard normal, drawn exactly and fast.

For an integer x, ``x + round(sigma Z) = round(x + sigma Z)``: the answer is the ideal Gaussian
mechanism rounded, so its guarantee is that of the ideal mechanism (Gaussian DP with
mu = sensitivity / sigma), by post-processing. This needs N to have exactly that distribution,
in every tail, for the very float sigma that the accountant uses. docs/noise.md has the proof.

A normal variable is ``Z = +-Q^{-1}(U)``, U uniform on (0, 1/2), whose binary digits are an endless
stream of random bits. The digits read so far say that U lies in a cell. N is returned only when
every U in the cell has the same N; otherwise more digits are read. So N is exactly the right
function of the endless digits, whatever cells were looked at.

The fast path reads 62 digits and evaluates a polynomial for Q^{-1} with a proved error bound
(`normal_quantile`), vectorised. What it cannot decide goes to `gaussian_cell`, in integer
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.gaussian_cell import TailCell
from dpgmm_dist.privacy.keystream import BitSource, Keystream
from dpgmm_dist.privacy.normal_quantile import (
    DEGREE,
    OCTAVES,
    PIECES_LOG2,
    TAIL_BITS,
    quantile_table,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SIGMA_RANGE = (2.0**-32, 2.0**55)
"""Standard deviations that can be drawn, in units of the integer lattice."""

_CHUNK = 8192
"""Samples drawn at a time, so that the arrays of a chunk stay in the processor's cache."""

_TAIL_MASK = (1 << TAIL_BITS) - 1
_FLOAT_MASK = -(1 << (TAIL_BITS - 53))
"""Keeps the leading 53 of TAIL_BITS bits, which float64 holds exactly."""

_PIECE_SHIFT = 52 - PIECES_LOG2
_BEFORE_FIRST_PIECE = ((1023 + TAIL_BITS - OCTAVES) << PIECES_LOG2) - 1
"""Exponent and leading digits of a float64, one below those of the first covered piece."""


class RoundedGaussian:
    """Exact rounded Gaussian noise with secure randomness.

    Attributes
    ----------
    name : str
        The mechanism's name in specifications and receipts.
    accounting : str
        ``"gdp"``: answers compose in Gaussian DP, mu^2 adds up.
    private : bool
        Whether a release made with its draws is private: True unless a test injected its own bits.
    """

    def __init__(self, *, _bits: Callable[[], BitSource] | None = None) -> None:
        self.name = "gaussian"
        self.accounting: Literal["zcdp", "gdp"] = "gdp"
        self.private = _bits is None
        self._bits: Callable[[], BitSource] = Keystream if _bits is None else _bits

    def draw(self, sigma: float, size: int) -> Ints:
        """Draw independent ``round(sigma Z)`` under a fresh key from the operating system.

        Parameters
        ----------
        sigma : float
            Standard deviation before rounding, in `SIGMA_RANGE`, used as the exact double it is.
        size : int
            Number of samples, not negative.

        Returns
        -------
        ndarray of int64, shape (size,)

        Raises
        ------
        SpecError
            If sigma or size is out of range.
        OverflowError
            If a sample passes 2^63: |Z| > 256 at the largest sigma, with a chance below 2^-47000
            that does not depend on any data.
        """
        _check(sigma, size)
        scaled = _scale(sigma)
        stream = self._bits()
        out = np.empty(size, dtype=np.int64)
        for start in range(0, size, _CHUNK):
            part = out[start : start + _CHUNK]
            words = stream.words(part.size)
            for hard in _round_cells(words, scaled, part):
                word = int(words[hard.index])
                cell = TailCell(word & _TAIL_MASK, TAIL_BITS + 1, sigma, stream)
                magnitude = cell.settle(hard.low, hard.low + 1) if hard.narrow else cell.search()
                part[hard.index] = -magnitude if word < 0 else magnitude
        return out

    def __repr__(self) -> str:
        return f"RoundedGaussian(private={self.private})"


@dataclass(frozen=True, eq=False)
class _Scaled:
    """The quantile table times sigma; entry 0 of every array stands for "not covered".

    ``sigma z = whole + rest + sum_n powers[n-1] (w - centre)^n``, up to ``1/2 - limit``.
    """

    centre: Ints
    whole: Ints
    rest: Floats
    powers: tuple[Floats, ...]
    limit: Floats


@dataclass(frozen=True)
class _Hard:
    """An undecided sample of a chunk; |N| is ``low`` or ``low + 1`` if ``narrow``."""

    index: int
    narrow: bool
    low: int


def _round_cells(words: Ints, scaled: _Scaled, out: Ints) -> list[_Hard]:
    """Write the samples of a chunk that their 62 digits decide to ``out``; return the others."""
    piece, value = _evaluate(words, scaled)
    nearest = np.rint(value)
    magnitude = scaled.whole.take(piece, mode="clip") + nearest.astype(np.int64)
    sign = words >> 63  # 0 or -1
    np.subtract(magnitude ^ sign, sign, out=out)

    limit = scaled.limit.take(piece, mode="clip")
    undecided = np.flatnonzero(np.abs(value - nearest) >= limit)
    return [
        # With an error below 1/2 the answer is nearest or its neighbour on the side of value.
        _Hard(int(i), bool(limit[i] > 0.0), int(magnitude[i]) - int(value[i] < nearest[i]))
        for i in undecided
    ]


def _evaluate(words: Ints, scaled: _Scaled) -> tuple[Ints, Floats]:
    """Piece of each word and ``sigma z - whole`` there, up to ``1/2 - limit`` of the piece.

    A word is a sign (bit 63), an unused bit, and the 62 digits w of the tail probability. Pieces
    that are not covered are 0 or less: ``mode="clip"`` makes that entry 0.
    """
    tail = words & _TAIL_MASK
    leading = (tail & _FLOAT_MASK).astype(np.float64)
    piece = (leading.view(np.int64) >> _PIECE_SHIFT) - _BEFORE_FIRST_PIECE
    tail -= scaled.centre.take(piece, mode="clip")
    offset = tail.astype(np.float64)
    value = scaled.powers[-1].take(piece, mode="clip")
    gathered = np.empty_like(value)
    for column in (*scaled.powers[-2::-1], scaled.rest):
        value *= offset
        value += column.take(piece, out=gathered, mode="clip")
    return piece, value


def _scale(sigma: float) -> _Scaled:
    """Scale the table by sigma; section 4.4 of docs/noise.md bounds every rounding of this step."""
    table = quantile_table()
    product, error = _exact_product(sigma, table.anchor)
    whole = np.rint(product)
    rest = ((product - whole) + error) + sigma * table.anchor_low
    shift = np.rint(rest)
    powers = (
        np.ldexp(sigma * table.coefficients[n - 1], -n * table.width_log2)
        for n in range(1, DEGREE + 1)
    )
    return _Scaled(
        centre=_after(0, table.centre),
        whole=_after(0, whole.astype(np.int64) + shift.astype(np.int64)),
        rest=_after(0.0, rest - shift),
        powers=tuple(_after(0.0, power) for power in powers),
        limit=_after(-1.0, 0.5 - (sigma * table.slack * (1.0 + 2.0**-20) + 2.0**-45)),
    )


def _exact_product(a: float, b: Floats) -> tuple[Floats, Floats]:
    """``a * b`` as an exact sum of two floats (Veltkamp's split, Dekker's product)."""
    a_high, a_low = _split(np.float64(a))
    b_high, b_low = _split(b)
    product = a * b
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _split(value: Any) -> tuple[Any, Any]:
    """Two halves of 26 bits whose sum is ``value`` exactly."""
    large = value * (2.0**27 + 1.0)
    high = large - (large - value)
    return high, value - high


def _after(first: float, values: NDArray[Any]) -> NDArray[Any]:
    """``values`` with the entry ``first`` before them."""
    return np.concatenate([np.array([first], dtype=values.dtype), values])


def _check(sigma: float, size: int) -> None:
    low, high = SIGMA_RANGE
    if not (isinstance(sigma, float) and isfinite(sigma) and low <= sigma <= high):
        raise SpecError(
            f"sigma must be a float between {low:g} and {high:g} lattice units, got sigma={sigma}"
        )
    if size < 0:
        raise SpecError(f"size must not be negative, got size={size}")
