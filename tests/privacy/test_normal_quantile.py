"""The quantile table is within its error bounds, by mpmath, at random points and at the edges."""

from __future__ import annotations

from fractions import Fraction
from math import erfc
from statistics import NormalDist

import mpmath
import numpy as np
import pytest

from dpgmm_dist.privacy import normal_quantile
from dpgmm_dist.privacy.normal_quantile import (
    DEGREE,
    OCTAVES,
    PIECES_LOG2,
    TAIL_BITS,
    QuantileTable,
    _anchor,
    _derivative_polynomials,
    evaluation_error,
    quantile_table,
)


def exact_quantile(p: Fraction, start: float) -> mpmath.mpf:
    """Q^{-1}(p) to about 90 digits, by Newton's iteration from a value near it."""
    target, z = mpmath.mpf(p.numerator) / p.denominator, mpmath.mpf(start)
    for _ in range(6):
        gap = mpmath.erfc(z / mpmath.sqrt(2)) / 2 - target
        z += gap * mpmath.sqrt(2 * mpmath.pi) * mpmath.exp(z * z / 2)
    return z


def shortfall(table: QuantileTable, piece: int, w: int) -> float:
    """Error of the polynomial over the cell of w, relative to its part of the slack."""
    centre, width = int(table.centre[piece]), 1 << int(table.width_log2[piece])
    coefficients = [float(c) for c in table.coefficients[:, piece]]
    with mpmath.workprec(300):
        t = mpmath.mpf(w - centre) / width
        z = mpmath.mpf(float(table.anchor[piece])) + mpmath.mpf(float(table.anchor_low[piece]))
        z += sum(c * t**n for n, c in enumerate(coefficients, start=1))
        ends = (Fraction(w + end, 1 << (TAIL_BITS + 1)) for end in (0, 1))
        error = max(abs(exact_quantile(p, float(z)) - z) for p in ends)
        # One of the 3 n + 4 roundings is that of the coefficient, which is part of this error.
        budget = float(table.slack[piece]) - evaluation_error(coefficients) * 6 / 7
        return float(error) / budget


def edges(table: QuantileTable, piece: int) -> tuple[int, int]:
    """First and last w of a piece."""
    centre, half = int(table.centre[piece]), 1 << int(table.width_log2[piece] - 1)
    return centre - half, centre + half - 1


def test_pieces_tile_the_octaves() -> None:
    table = quantile_table()
    pieces = OCTAVES << PIECES_LOG2
    assert table.slack.shape == (pieces,)
    assert table.coefficients.shape == (DEGREE, pieces)
    assert edges(table, 0)[0] == 1 << (TAIL_BITS - OCTAVES)
    assert edges(table, pieces - 1)[1] == (1 << TAIL_BITS) - 1
    for piece in range(1, pieces):
        assert edges(table, piece)[0] == edges(table, piece - 1)[1] + 1


@pytest.mark.parametrize("centre", [1 << 43, 3 << 50, (1 << 62) - (1 << 56)])
@pytest.mark.parametrize("wrong", [0.0, 2e-15, -2e-15])
def test_an_anchor_is_right_although_the_search_in_floats_is_not(
    monkeypatch, centre, wrong
) -> None:
    monkeypatch.setattr(normal_quantile, "erfc", lambda x: erfc(x) * (1 + wrong))
    z, g = _anchor(centre, 0.01 - NormalDist().inv_cdf(centre / 2.0 ** (TAIL_BITS + 1)))
    with mpmath.workprec(300):
        true = exact_quantile(Fraction(centre, 1 << (TAIL_BITS + 1)), z / 2**128)
        assert abs(true - mpmath.mpf(z) / 2**128) < mpmath.mpf(2) ** -80
        gradient = mpmath.sqrt(2 * mpmath.pi) * mpmath.exp(true**2 / 2)
        assert abs(gradient - mpmath.mpf(g) / 2**128) < gradient * mpmath.mpf(2) ** -76


def test_an_anchor_that_the_search_leaves_too_far_away_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(normal_quantile, "erfc", lambda x: erfc(x) * (1 + 1e-12))
    with pytest.raises(ArithmeticError, match="certified"):
        _anchor(1 << 60, 0.5)


def test_slack_covers_the_error_everywhere_tried() -> None:
    table = quantile_table()
    rng = np.random.default_rng(20260301)
    worst = 0.0
    for piece in range(0, table.slack.size, 5):
        first, last = edges(table, piece)
        for w in (first, last, int(rng.integers(first, last))):
            worst = max(worst, shortfall(table, piece, w))
    assert 0.3 < worst <= 1.0  # if the bound were never approached, the test could be wrong


@pytest.mark.parametrize("degree", [0, 1, 4, 9])
def test_the_check_has_power(degree: int) -> None:
    """A coefficient off by eight times the slack is noticed."""
    table = quantile_table()
    coefficients = table.coefficients.copy()
    coefficients[degree] += 8 * table.slack * 2.0 ** (degree + 1)
    wrong = QuantileTable(
        table.centre, table.width_log2, table.anchor, table.anchor_low, coefficients, table.slack
    )
    for piece in (0, 300, table.slack.size - 1):
        assert shortfall(wrong, piece, edges(table, piece)[1]) > 1.0


@pytest.mark.parametrize("piece", [0, 37, 300, 544, 576, 607])
def test_slack_is_the_sum_of_what_the_proof_says(piece: int) -> None:
    """Remainder, width of a cell, what the anchor lacks, and roundings; raised by 2^-20."""
    table = quantile_table()
    with mpmath.workprec(200):
        z = mpmath.mpf(float(table.anchor[piece])) + mpmath.mpf(float(table.anchor_low[piece]))
        g = mpmath.sqrt(2 * mpmath.pi) * mpmath.exp(z * z / 2)
        h = mpmath.ldexp(1, int(table.width_log2[piece]) - TAIL_BITS - 1)
        reach = mpmath.mpf(17) / 16 * g * h / 2
        assert mpmath.exp(z * reach + reach**2 / 2) < mpmath.mpf(17) / 16
        last = sum(c * (z + reach) ** n for n, c in enumerate(_derivative_polynomials()[DEGREE]))
        slack = last * reach ** (DEGREE + 1) / mpmath.factorial(DEGREE + 1)
        slack += mpmath.mpf(17) / 16 * g / 2 ** (TAIL_BITS + 1) + mpmath.mpf(2) ** -70
        for n, c in enumerate(table.coefficients[:, piece].tolist(), start=1):
            slack += (3 * n + 4) * mpmath.mpf(2) ** -(53 + n) * abs(c)
        raised = float(table.slack[piece]) / slack - 1
        assert abs(raised - mpmath.mpf(2) ** -20) < mpmath.mpf(2) ** -30


@pytest.mark.parametrize("piece", [0, 100, 320, 576, 607])
def test_slack_covers_the_error_at_the_ends_of_a_piece(piece: int) -> None:
    table = quantile_table()
    assert all(0.0 < shortfall(table, piece, w) <= 1.0 for w in edges(table, piece))


def test_first_derivatives_by_hand() -> None:
    assert _derivative_polynomials()[:5] == [
        [1],
        [0, 1],
        [1, 0, 2],
        [0, 7, 0, 6],
        [7, 0, 46, 0, 24],
    ]


def test_slack_is_small_enough_to_be_useful() -> None:
    """At sigma = 2^40 less than 1 cell in 10,000 of the common pieces is undecided."""
    slack = quantile_table().slack
    assert np.max(slack[-4 << PIECES_LOG2 :]) * 2.0**40 * 2 < 1e-4


def test_derivatives_of_the_quantile() -> None:
    """P_n agrees with mpmath's Taylor coefficients: d^n z / dp^n = (-1)^n P_n(z) g(z)^n."""
    with mpmath.workprec(400):
        p = mpmath.mpf(1) / 7
        z = exact_quantile(Fraction(1, 7), 1.0675705238781414)
        g = mpmath.sqrt(2 * mpmath.pi) * mpmath.exp(z * z / 2)

        def quantile(q: mpmath.mpf) -> mpmath.mpf:
            return -mpmath.sqrt(2) * mpmath.erfinv(2 * q - 1)

        taylor = mpmath.taylor(quantile, p, 6)
        for n, polynomial in enumerate(_derivative_polynomials()[:6], start=1):
            value = sum(c * z**power for power, c in enumerate(polynomial))
            derivative = taylor[n] * mpmath.factorial(n)
            assert mpmath.almosteq((-1) ** n * value * g**n, derivative, rel_eps=1e-20)


def test_arrays_of_the_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        quantile_table().coefficients[0, 0] = 1.0
