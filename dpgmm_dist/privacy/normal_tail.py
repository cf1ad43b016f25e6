"""Certified bounds on the normal tail and the exponential, in integer arithmetic only.

The rest of this package may compute the normal distribution in any fast way, because these
functions check what matters: the accountant certifies its results with them, and the sampler
decides its hard cases. They use Python integers (fixed point, no floating point, no library of
special functions). Each states its error bound with the proof.

Conventions: ``bits`` is the number of fractional bits; a pair ``(lo, hi)`` means
``lo <= value * 2**bits <= hi``. A floor division loses less than one unit in the last place (ulp).

One lemma covers both series. Let ``a_0 = 1`` ulp-exact and ``a_n = floor(a_{n-1} * h / n)``, an
approximation from below of ``A_n = A_0 h^n / n!``. Each floor loses less than one ulp, and a loss
at step j is multiplied by ``prod_{i=j+1..n} h/i = h^(n-j) j!/n! <= h^(n-j)/(n-j)!`` (because
``n! >= j! (n-j)!``), so

    0 <= A_n - a_n <= sum_m h^m / m! <= e^h  ulps.                                  (lemma)
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

_GRAIN = 64
"""Working precisions are rounded up to a multiple of this, so that constants can be cached."""


def exp_bounds(num: int, den: int, bits: int) -> tuple[int, int]:
    """Bounds on ``exp(num / den)`` for ``num / den >= 0``.

    Parameters
    ----------
    num, den : int
        The argument as an exact ratio, ``num >= 0``, ``den > 0``.
    bits : int
        Fractional bits of the bounds.

    Notes
    -----
    The Taylor series with floors is a lower bound. By the lemma each of the N summed terms is
    short by at most ``e^y`` ulps; the sum stops at the first computed term that is zero with
    ``n >= 2 y``, whose true value is thus at most ``e^y`` ulps and after which each term is at most
    half the one before: the rest is at most ``2 e^y`` ulps.
    """
    growth = _log2_exp(num, den)  # e^y <= 2^growth
    work = bits + growth + 24
    term, total, n = 1 << work, 1 << work, 0
    while term or n * den < 2 * num:
        n += 1
        term = term * num // (den * n)
        total += term
    slack = (n + 2) << growth
    return total >> (work - bits), ((total + slack) >> (work - bits)) + 1


def tail_bounds(num: int, den: int, bits: int) -> tuple[int, int]:
    """Bounds on the normal tail ``Q(x) = P(Z > x)`` at ``x = num / den``, with ``hi - lo <= 4``.

    Parameters
    ----------
    num, den : int
        The point as an exact ratio, ``den > 0``; any sign.
    bits : int
        Fractional bits of the bounds.

    Notes
    -----
    ``Q(-x) = 1 - Q(x)``. For x >= 0 let X be x truncated to ``places`` fractional bits and x0 the
    same to 8. If ``exp(-x0^2/2) <= 2^-bits`` then ``0 < Q(x) < exp(-x^2/2)`` is within one ulp of
    zero. On [X, x] the slope of Q is at most ``exp(-x0^2/2) <= 2^-drop``, so with
    ``places + drop >= bits``: ``Q(X) - 2^-bits <= Q(x) <= Q(X)``. With ``h = X^2/2``,

        1/2 - Q(X) = (X / sqrt(2 pi)) * sum_n (-1)^n  h^n / (n! (2n + 1)).

    By the lemma each term is short by at most ``e^h`` ulps, and one more for the division by
    2n+1. The terms fall from ``n >= h`` on and alternate, so the rest is at most the first term
    left out, whose computed value is zero: at most ``e^h + 1`` ulps. Together ``(N + 1)(e^h + 1)``
    ulps of the working precision, which is chosen so that this is less than one ulp of ``bits``.
    """
    if num < 0:
        lo, hi = tail_bounds(-num, den, bits)
        return (1 << bits) - hi, (1 << bits) - lo
    coarse = (num << 8) // den
    drop = (coarse * coarse * 14426) // (10000 << 17)  # <= (x0^2 / 2) log2(e), log2(e) > 1.4426
    if drop >= bits:
        return 0, 1
    places = max(bits - drop, 8)
    x = (num << places) // den
    square, shift = x * x, 2 * places + 1  # h = square / 2^shift
    growth = _log2_exp(square, 1 << shift)  # e^h <= 2^growth
    work = bits + growth + 24
    work += -work % _GRAIN
    term = x << (work - places)
    total, n = term, 0
    while term or n << shift < square:
        n += 1
        term = ((term * square) >> shift) // n
        share = term // (2 * n + 1)
        total += -share if n & 1 else share
    slack = (n + 1) * ((1 << growth) + 1)
    below, above = _inverse_root_two_pi(work)
    half = 1 << (bits - 1)
    inner_lo = (max(total - slack, 0) * below) >> (2 * work - bits)
    inner_hi = (((total + slack) * above) >> (2 * work - bits)) + 1
    return max(half - inner_hi - 1, 0), half - inner_lo


def _log2_exp(num: int, den: int) -> int:
    """An integer g with ``exp(num/den) <= 2^g`` (``log2(e) < 1.4427``)."""
    return (num * 14427) // (den * 10000) + 1


@lru_cache(maxsize=64)
def _inverse_root_two_pi(bits: int) -> tuple[int, int]:
    """Bounds on ``1 / sqrt(2 pi)``: isqrt of ``2^(2 bits) / (2 pi)`` from both bounds on pi."""
    lo, hi = pi_bounds(bits)
    return isqrt((1 << 3 * bits) // (2 * hi)), isqrt((1 << 3 * bits) // (2 * lo) + 1) + 1


@lru_cache(maxsize=64)
def pi_bounds(bits: int) -> tuple[int, int]:
    """Bounds on pi by Machin's formula, ``pi = 16 atan(1/5) - 4 atan(1/239)``."""
    work = bits + 16
    a_lo, a_hi = _atan_inverse_bounds(5, work)
    b_lo, b_hi = _atan_inverse_bounds(239, work)
    return (16 * a_lo - 4 * b_hi) >> 16, ((16 * a_hi - 4 * b_lo) >> 16) + 1


def _atan_inverse_bounds(m: int, bits: int) -> tuple[int, int]:
    """Bounds on ``atan(1/m)``, m >= 2: K terms of the alternating series, less than one ulp each.

    Repeated floor division gives the exact floor of ``2^bits / m^(2k+1)``, and a floor of a floor
    is the floor of the whole, so every summed term is short by less than one ulp; the rest is at
    most the first term left out, below one ulp.
    """
    power, total, k = (1 << bits) // m, 0, 0
    while power:
        share = power // (2 * k + 1)
        total += -share if k & 1 else share
        power //= m * m
        k += 1
    return total - k - 1, total + k + 1
