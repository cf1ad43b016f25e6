"""A piecewise polynomial for the normal quantile, with a certified error on every piece.

The table covers ``z(p) = Q^{-1}(p)``, Q the normal tail, for p in [2^-(OCTAVES+1), 1/2). It is
computed, and its error bounds are proved, in integer arithmetic when it is first used (in 0.1 s).
So there is no data file to trust, and no special function of a library.

Geometry. A 62-bit integer w stands for the cell of tail probabilities ``[w, w+1) / 2^63``. Octave j
holds the w with 2^j <= w < 2^(j+1) and is cut into PIECES equal pieces of ``width = 2^j / PIECES``
integers with a centre integer c. On a piece, with ``t = (w - c) / width`` in [-1/2, 1/2],

    z((w + theta) / 2^63) = anchor + sum_{n=1..DEGREE} c_n t^n  +- slack,   0 <= theta < 1.

Proof of the slack. Let ``g(z) = 1/phi(z) = sqrt(2 pi) exp(z^2/2)`` and ``h = width / 2^63``.

1. From z' = -g and g' = z g: ``d^n z / dp^n = (-1)^n P_n(z) g(z)^n`` with P_1 = 1 and
   P_{n+1} = P_n' + n z P_n, whose coefficients are not negative. So for z >= 0 the size of every
   derivative grows with z, and is largest at the low end of a piece in p.
2. Let z0 = z(c / 2^63), a = g(z0) h / 2, d = 17 a / 16. If exp(z0 d + d^2/2) < 17/16 then
   z <= z0 + d on the piece: otherwise z reaches z0 + d inside it, and the mean value theorem with
   g <= g(z0 + d) < (17/16) g(z0) up to there gives d < (17/16) a. Also g <= (17/16) g(z0) on it.
3. Taylor's theorem: the remainder is at most
   ``P_{D+1}(z0 + d) (17 a / 16)^{D+1} / (D+1)!``  with D = DEGREE.
4. The cell moves z by at most ``(17/16) g(z0) / 2^63``.
5. z0 is known to 2^-80 (certified by the tail at the approximation; see `_anchor`). The anchor is
   a pair of floats that represents it to 2^-100. The coefficients are functions of z0 with
   ``d c_n / d z0 = -(n+1) c_{n+1} / (g h)``, below one, and computed to 2^-80. Together these are
   below 2^-70.
6. The slack includes the error of the evaluation in floats; see `evaluation_error`.

The bounds themselves are computed in floats to a relative error below 2^-40 and raised by 2^-20.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import erfc, exp, factorial, isqrt, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.privacy.normal_tail import exp_bounds, pi_bounds, tail_bounds

TAIL_BITS = 62
"""Bits of w; the tail probability of a cell is [w, w+1) / 2^(TAIL_BITS+1)."""

OCTAVES = 19
"""Octaves of the table. A w below 2^(TAIL_BITS-OCTAVES) is not covered: chance 2^-OCTAVES."""

PIECES_LOG2 = 5
DEGREE = 10

_PIECES = 1 << PIECES_LOG2
_BITS = 128
"""Fractional bits of the integer arithmetic."""

_GROWTH = 17.0 / 16.0
_UNIT = 2.0**-53


@dataclass(frozen=True, eq=False)
class QuantileTable:
    """The pieces in the order of growing w; all arrays have OCTAVES * 2^PIECES_LOG2 entries.

    Attributes
    ----------
    centre : int64
        The integer c of the piece.
    width_log2 : int64
        Base-2 logarithm of the number of integers w in the piece.
    anchor, anchor_low : float64
        z at the centre, as an unevaluated sum.
    coefficients : float64, shape (DEGREE, pieces)
        c_1 to c_DEGREE, for t in units of the piece's width.
    slack : float64
        Bound on the error, evaluation of the polynomial included, per unit of sigma.
    """

    centre: NDArray[np.int64]
    width_log2: NDArray[np.int64]
    anchor: NDArray[np.float64]
    anchor_low: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    slack: NDArray[np.float64]


@lru_cache(maxsize=1)
def quantile_table() -> QuantileTable:
    """Compute and certify the table, once per process."""
    rows = []
    start = 0.0
    for octave in range(TAIL_BITS - 1, TAIL_BITS - 1 - OCTAVES, -1):
        width_log2 = octave - PIECES_LOG2
        for piece in range(_PIECES - 1, -1, -1):
            centre = (1 << octave) + (piece << width_log2) + (1 << (width_log2 - 1))
            row = _piece(centre, width_log2, start)
            start = row[0]
            rows.append((centre, width_log2, *row))
    rows.reverse()
    columns = list(zip(*rows, strict=True))
    floats = np.array(columns[2:], dtype=np.float64)
    floats.setflags(write=False)
    return QuantileTable(
        centre=np.array(columns[0], dtype=np.int64),
        width_log2=np.array(columns[1], dtype=np.int64),
        anchor=floats[0],
        anchor_low=floats[1],
        coefficients=floats[2 : 2 + DEGREE],
        slack=floats[2 + DEGREE],
    )


def _piece(centre: int, width_log2: int, start: float) -> tuple[float, ...]:
    """Anchor (two floats), coefficients and slack of one piece; ``start`` is a z nearby."""
    z, g = _anchor(centre, start)
    anchor = z / (1 << _BITS)
    anchor_low = (z - _fixed(anchor)) / (1 << _BITS)
    width_bits = TAIL_BITS + 1 - width_log2  # h = 2^-width_bits
    coefficients, power = [], 1 << _BITS
    for n, polynomial in enumerate(_derivative_polynomials()[:DEGREE], start=1):
        power = (power * g) >> (_BITS + width_bits)
        size = ((_horner(polynomial, z) * power) >> _BITS) // factorial(n)
        coefficients.append((-size if n & 1 else size) / (1 << _BITS))
    gradient = _GROWTH * g / (1 << _BITS)
    reach = gradient * 2.0 ** -(width_bits + 1)
    if exp(anchor * reach + reach * reach / 2.0) >= _GROWTH:
        raise ArithmeticError("a piece of the quantile table is too wide for its error bound")
    last = _horner(_derivative_polynomials()[DEGREE], _fixed(anchor + reach)) / (1 << _BITS)
    slack = (
        last * reach ** (DEGREE + 1) / factorial(DEGREE + 1)
        + gradient * 2.0 ** -(TAIL_BITS + 1)
        + 2.0**-70
        + evaluation_error(coefficients)
    )
    return (anchor, anchor_low, *coefficients, slack * (1.0 + 2.0**-20))


def evaluation_error(coefficients: list[float]) -> float:
    """Bound on the rounding errors of the scaled polynomial in float64, per unit of sigma.

    With u = 2^-53, the term of degree n carries at most: one rounding of c_n to a float, one of
    sigma c_n, n of t (w - c rounded to a float), n products and n + 1 sums of Horner's scheme.
    That is 3 n + 3 factors (1 + u), and 3 n + 4 covers their higher orders. The bound is taken at
    |t| <= 1/2. (Scaling t by powers of two is exact.)
    """
    terms = enumerate(coefficients, start=1)
    return sum((3 * n + 4) * _UNIT * abs(c) * 0.5**n for n, c in terms)


def _anchor(centre: int, start: float) -> tuple[int, int]:
    """z(centre / 2^63) to 2^-80 and g there, as integers with `_BITS` fractional bits.

    A float Newton search from ``start`` ends at z1, near enough for one more step to be exact. Let
    Q1 = Q(z1) and D = Q1 - target, both within the tail's bounds. By Taylor's theorem in p, with
    d^2 z / dp^2 = z g^2,

        z(target) = z1 + g(z1) D + z g^2 D^2 / 2    at some p between,

    where ``far = 4 g D``, g taken where the step ends, bounds twice the distance: g is below twice
    as much anywhere near, as long as the distance is far below 1/16 (z < 6). With far < 2^-44 the
    remainder is at most 6 (far / 2)^2 / 2 < 2^-88, g D as a float is wrong by less than
    2^-40 far < 2^-84, and the tail's bounds, 4 units apart, by less than 8 g 2^-128 < 2^-106.
    """
    target = centre / 2.0 ** (TAIL_BITS + 1)
    for _ in range(6):
        start += (0.5 * erfc(start / sqrt(2.0)) - target) * sqrt(2.0 * pi) * exp(start**2 / 2.0)
    exact = centre << (_BITS - TAIL_BITS - 1)
    z = _fixed(start)
    low, high = tail_bounds(z, 1 << _BITS, _BITS)
    z += int((low - exact) * sqrt(2.0 * pi) * exp(start**2 / 2.0))
    g = _gradient(z)
    if 4 * (max(high - exact, exact - low) * g >> _BITS) >= 1 << (_BITS - 44):
        raise ArithmeticError("an anchor of the quantile table could not be certified")
    return z, g


def _gradient(z: int) -> int:
    """g(z) = sqrt(2 pi) exp(z^2 / 2), to some units in the last place (z < 6)."""
    root = isqrt((2 * pi_bounds(_BITS)[0]) << _BITS)
    return exp_bounds(z * z, 1 << (2 * _BITS + 1), _BITS)[0] * root >> _BITS


def _horner(polynomial: list[int], z: int) -> int:
    """Value of an integer polynomial (lowest degree first) at a fixed-point z >= 0."""
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * z >> _BITS) + (coefficient << _BITS)
    return value


@lru_cache(maxsize=1)
def _derivative_polynomials() -> list[list[int]]:
    """P_1 to P_{DEGREE+1}, coefficients lowest degree first."""
    polynomials = [[1]]
    for n in range(1, DEGREE + 1):
        last = polynomials[-1]
        following = [0, *(n * c for c in last)]
        for power in range(1, len(last)):
            following[power - 1] += power * last[power]
        polynomials.append(following)
    return polynomials


def _fixed(value: float) -> int:
    """A float as a fixed-point integer, exactly where its last bit is above 2^-`_BITS`."""
    num, den = value.as_integer_ratio()
    return (num << _BITS) // den
