"""The sampler's certificates, proved a second time: by interval arithmetic, over whole pieces.

This module does not use the package's series, bounds or derivatives. The normal tail is another
series, with positive terms only. The error of a piece's polynomial Z(t) is bounded for every t of
the piece, and not only at samples, by the residual of the differential equation of the quantile:

    Q(Z(t)) - p(t) = Q(Z(0)) - p(0) + integral of D,   D = -phi(Z) Z' - dp/dt,

where D is expanded at the centre, and its last coefficient is enclosed on the whole piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import nextafter, pi
from typing import Any

import numpy as np
import pytest
from mpmath import iv

from dpgmm_dist.privacy.normal_quantile import (
    DEGREE,
    OCTAVES,
    PIECES_LOG2,
    TAIL_BITS,
    QuantileTable,
    quantile_table,
)
from dpgmm_dist.privacy.rounded_gaussian import (
    SIGMA_RANGE,
    RoundedGaussian,
    _evaluate,
    _scale,
)

SCALE = 1 << (TAIL_BITS + 1)
"""A word w stands for the tail probabilities [w, w + 1) / SCALE."""
ORDER = 12
PIECES = OCTAVES << PIECES_LOG2
Interval = Any


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    before, iv.prec = iv.prec, 144
    yield
    iv.prec = before


def tail(x: Interval) -> Interval:
    """Q(x), x >= 0: ``1/2 - phi(x) (x + x^3/3 + x^5/(3 5) + ...)``, with a geometric remainder."""
    if x.a > 30:
        return iv.mpf([0, 1]) / 2**600  # below exp(-450)
    term, total, n = x, x, 0
    while not (term.b < 2.0**-130 and (x * x / (2 * n + 3)).b < 0.5):
        n += 1
        term = term * x * x / (2 * n + 1)
        total += term
    return iv.mpf(1) / 2 - density(x) * (total + iv.mpf([0, 1]) * term)


def signed_tail(x: Interval) -> Interval:
    return tail(x) if x.a >= 0 else 1 - tail(-x)


def density(x: Interval) -> Interval:
    return iv.exp(-x * x / 2) / iv.sqrt(2 * iv.pi)


def ratio(value: Fraction) -> Interval:
    return iv.mpf(value.numerator) / iv.mpf(value.denominator)


def residual(z: Sequence[Interval], last: int) -> list[Interval]:
    """Coefficients 0 to ``last`` of ``-phi(Z) Z'``, Z with the coefficients ``z``."""
    z = [*z, *[iv.mpf(0)] * (last + 2 - len(z))]
    steep = [k * z[k] for k in range(1, last + 2)]
    # (phi(Z))' = -Z Z' phi(Z), order by order.
    pull = [sum((z[j] * steep[k - j] for j in range(k + 1)), iv.mpf(0)) for k in range(last)]
    phi = [density(z[0])]
    for k in range(last):
        phi.append(-sum((pull[j] * phi[k - j] for j in range(k + 1)), iv.mpf(0)) / (k + 1))
    return [-sum((phi[j] * steep[k - j] for j in range(k + 1)), iv.mpf(0)) for k in range(last + 1)]


def moved(z: Sequence[Interval], at: Interval) -> list[Interval]:
    """Coefficients of Z about ``at``."""
    shifted = list(z)
    for first in range(DEGREE):
        for k in range(DEGREE - 1, first - 1, -1):
            shifted[k] += at * shifted[k + 1]
    return shifted


def share_of_slack(table: QuantileTable, piece: int) -> float:
    """Upper bound on the error over the piece, relative to the slack less the evaluation error."""
    centre, width = int(table.centre[piece]), 1 << int(table.width_log2[piece])
    z = [iv.mpf(float(table.anchor[piece])) + iv.mpf(float(table.anchor_low[piece]))]
    z += [iv.mpf(float(c)) for c in table.coefficients[:, piece]]
    everywhere = moved(z, iv.mpf([-0.5, 0.5]))
    steps = residual(z, ORDER - 1)
    steps[0] -= iv.mpf(width) / SCALE
    steps.append(residual(everywhere, ORDER)[ORDER])
    gap = abs(tail(z[0]) - iv.mpf(centre) / SCALE)
    gap += sum(abs(step) / ((k + 1) * 2 ** (k + 1)) for k, step in enumerate(steps))
    gap += iv.mpf(1) / SCALE  # the cell's other end

    # sigma c_n, n times r, n products, n + 1 sums; the coefficients here are the rounded ones.
    unit = iv.mpf(2) ** -53
    rounding = sum(
        ((3 * n + 2) * unit / (1 - (3 * n + 2) * unit) * abs(z[n]) / 2**n)
        for n in range(1, DEGREE + 1)
    )
    budget = iv.mpf(float(table.slack[piece])) - rounding
    return float((gap / density(everywhere[0].b + budget) / budget).b)


def worst_share(table: QuantileTable, pieces: Sequence[int]) -> float:
    return max(share_of_slack(table, piece) for piece in pieces)


def test_slack_covers_every_point_of_every_piece() -> None:
    assert worst_share(quantile_table(), range(PIECES)) <= 1.0


SPOILT: dict[str, Callable[[QuantileTable], QuantileTable]] = {
    "slack": lambda t: replace(t, slack=t.slack * 0.9),
    "anchor": lambda t: replace(t, anchor_low=t.anchor_low + 2.0**-50),
    "slope": lambda t: replace(t, coefficients=t.coefficients * (1 + 2.0**-44)),
    "centre": lambda t: replace(t, centre=t.centre + (1 << 20)),
    "degree": lambda t: replace(
        t, coefficients=np.where(np.arange(1, DEGREE + 1)[:, None] > 8, 0.0, t.coefficients)
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_table_is_noticed(what: str) -> None:
    assert worst_share(SPOILT[what](quantile_table()), range(0, PIECES, 32)) > 1.0


SIGMAS = [
    SIGMA_RANGE[0],
    nextafter(0.25, 1.0),
    1.0,
    pi * 2.0**10,
    (2.0 - 2.0**-52) * 2.0**29,
    (1.0 + 2.0**-27) * 2.0**40,
    nextafter(2.0**50, 0.0),
    nextafter(2.0**54, 2.0**55),
    SIGMA_RANGE[1],
]


def adversarial_digits() -> list[int]:
    """Ends, centres and one-bit neighbours of pieces, octave boundaries, and extreme patterns."""
    table, rng = quantile_table(), np.random.default_rng(0)
    digits = {(1 << TAIL_BITS) - 1, (1 << TAIL_BITS) - 2, 1 << (TAIL_BITS - OCTAVES)}
    digits |= {int("10" * 31, 2), int("01" * 31, 2)}
    for piece in {0, 1, 31, 32, PIECES - 1, PIECES - 2, *rng.integers(0, PIECES, 6).tolist()}:
        centre, half = int(table.centre[piece]), 1 << int(table.width_log2[piece] - 1)
        # Offsets with 54 bits and more are rounded when they become floats.
        for offset in (-half, 1 - half, -1, 0, half // 3, (half // 3) * 2 + 1, half - 1):
            digits.add(centre + offset)
    octaves = range(TAIL_BITS - OCTAVES + 1, TAIL_BITS)
    digits |= {(1 << j) + end for j in octaves for end in (-1, 0)}
    return sorted(digits)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_evaluation_in_floats_stays_within_its_bound(sigma: float) -> None:
    digits = adversarial_digits()
    scaled = _scale(sigma)
    piece, value = _evaluate(np.array(digits, dtype=np.int64), scaled)
    assert piece.min() >= 1  # all are covered
    for w, entry, rest in zip(digits, piece.tolist(), value.tolist(), strict=True):
        bound = Fraction(1, 2) - Fraction(float(scaled.limit[entry]))
        middle = int(scaled.whole[entry]) + Fraction(rest)
        low, high = ((middle + side * bound) / Fraction(sigma) for side in (-1, 1))
        assert (signed_tail(ratio(high)) * SCALE).b <= w
        assert w + 1 <= (signed_tail(ratio(low)) * SCALE).a


class Words:
    """A stream of given words, then of constant digits; it records the sizes of its calls."""

    def __init__(self, words: Sequence[int], further: int) -> None:
        self._words = np.array(words, dtype=np.int64)
        self._further = further
        self.calls: list[int] = []

    def words(self, count: int) -> np.ndarray:
        self.calls.append(count)
        if len(self.calls) == 1:
            return self._words[:count]
        return np.full(count, self._further, dtype=np.int64)


def drawn(sigma: float, words: Sequence[int], further: int = 0) -> list[int]:
    stream = Words(words, further)
    samples: list[int] = RoundedGaussian(_bits=lambda: stream).draw(sigma, len(words)).tolist()
    assert stream.calls[0] == len(words)
    assert set(stream.calls[1:]) <= {1}
    return samples


def near_boundaries(sigma: float) -> list[int]:
    """Words in and beside the cells that hold a boundary k + 1/2, for small and for large k."""
    cells = set()
    for z in (0.0, 0.02, 0.4, 1.0, 2.0, 3.3, 4.7):
        point = (2 * int(sigma * z) + 1) / (2 * Fraction(sigma))
        if point < 5:
            cell = int((tail(ratio(point)) * SCALE).a)
            cells |= {cell + step for step in (-2, -1, 0, 1, 2)}
    return sorted(w for w in cells if 0 < w < 1 << TAIL_BITS)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("further", [0, -1])
def test_what_is_drawn_is_what_all_its_digits_say(sigma: float, further: int) -> None:
    words = near_boundaries(sigma) + adversarial_digits()[::7]
    bit = 1 if further else 0
    for w, n in zip(words, drawn(sigma, words, further), strict=True):
        # U has the digits read, then 64 equal bits, then any digits.
        point = iv.mpf([(w << 64) + bit * ((1 << 64) - 1), (w << 64) + bit * ((1 << 64) - 1) + 1])
        point /= SCALE << 64
        assert n >= 0
        assert signed_tail(ratio((2 * n + 1) / (2 * Fraction(sigma)))).b <= point.b
        if n:
            assert point.a <= signed_tail(ratio((2 * n - 1) / (2 * Fraction(sigma)))).a


@pytest.mark.parametrize("sigma", [0.25, 1000.0, 2.0**50])
def test_the_sign_is_a_digit_of_its_own_and_one_digit_is_unused(sigma: float) -> None:
    words = near_boundaries(sigma) + adversarial_digits()[::5]
    plain = drawn(sigma, words)
    assert drawn(sigma, [w | 1 << 62 for w in words]) == plain
    assert drawn(sigma, [w - (1 << 63) for w in words]) == [-n for n in plain]
