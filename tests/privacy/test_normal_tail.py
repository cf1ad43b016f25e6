"""Certified bounds contain the values of mpmath at higher precision, and they are narrow."""

from __future__ import annotations

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.privacy.normal_tail import (
    _atan_inverse_bounds,
    _inverse_root_two_pi,
    _log2_exp,
    exp_bounds,
    pi_bounds,
    tail_bounds,
)


@pytest.mark.parametrize("bits", [8, 64, 127, 200, 1100])
@settings(deadline=None, max_examples=40)
@given(x=st.one_of(st.floats(-45.0, 45.0), st.floats(-1.0, 1.0)))
def test_tail_is_enclosed(bits: int, x: float) -> None:
    num, den = x.as_integer_ratio()
    low, high = tail_bounds(num, den, bits)
    with mpmath.workprec(6000):
        exact = mpmath.erfc(mpmath.mpf(x) / mpmath.sqrt(2)) / 2 * mpmath.mpf(2) ** bits
        assert low <= exact <= high
    assert high - low <= 4


@pytest.mark.parametrize("bits", [8, 64, 200])
@settings(deadline=None, max_examples=40)
@given(y=st.floats(0.0, 200.0))
def test_exponential_is_enclosed(bits: int, y: float) -> None:
    num, den = y.as_integer_ratio()
    low, high = exp_bounds(num, den, bits)
    with mpmath.workprec(1000):
        assert low <= mpmath.exp(mpmath.mpf(y)) * mpmath.mpf(2) ** bits <= high
    assert high - low <= 2


def ratio(x: mpmath.mpf) -> tuple[int, int]:
    return int(mpmath.floor(mpmath.ldexp(x, 300))), 1 << 300


@pytest.mark.parametrize("bits", [8, 40, 64])
def test_an_exponential_beside_an_integer_is_enclosed(bits: int) -> None:
    """There any unit of the working precision that the proof leaves out would show."""
    with mpmath.workprec(400):
        for k in range(1, 40):
            for beside in (-(mpmath.mpf(2) ** -90), mpmath.mpf(2) ** -90):
                value = mpmath.mpf((1 << bits) + k * k * k << k % 5) + beside
                low, high = exp_bounds(*ratio(mpmath.log(value / 2**bits)), bits)
                assert low <= value <= high


@pytest.mark.parametrize("bits", [8, 40, 64])
def test_a_tail_beside_an_integer_is_enclosed(bits: int) -> None:
    with mpmath.workprec(400):
        for k in range(1, 16):
            value = mpmath.mpf(k << (k * (bits - 5)) // 16)
            x = mpmath.sqrt(2) * mpmath.erfinv(1 - value / mpmath.mpf(2) ** (bits - 1))
            slope = mpmath.npdf(x) * 2**bits
            for beside in (-(mpmath.mpf(2) ** -90), mpmath.mpf(2) ** -90):
                low, high = tail_bounds(*ratio(x - beside / slope), bits)
                assert low <= value + beside <= high


@pytest.mark.parametrize("bits", [1, 8, 16, 64, 200])
def test_constants_are_enclosed(bits: int) -> None:
    with mpmath.workprec(800):
        low, high = pi_bounds(bits)
        assert low <= mpmath.ldexp(mpmath.pi, bits) <= high <= low + 2
        low, high = _inverse_root_two_pi(bits)
        assert low <= mpmath.ldexp(1 / mpmath.sqrt(2 * mpmath.pi), bits) <= high <= low + 2
        for m in (2, 3, 5, 239):
            low, high = _atan_inverse_bounds(m, bits)
            assert low <= mpmath.ldexp(mpmath.atan(mpmath.mpf(1) / m), bits) <= high


def test_powers_of_two_bound_exponentials() -> None:
    with mpmath.workprec(400):
        for m in (0, 1, 2, 10, 100, 1000, 9999):
            beyond = m * mpmath.log(2) + mpmath.mpf(2) ** -90
            assert _log2_exp(*ratio(beyond)) == m + 1


def test_ratios_need_not_be_floats() -> None:
    """The sampler evaluates the tail at (2k + 1) / (2 sigma), which is rarely a float."""
    low, high = tail_bounds(2 * 10**30 + 1, 3 * 10**30, 160)
    with mpmath.workprec(800):
        x = mpmath.mpf(2 * 10**30 + 1) / (3 * 10**30)
        assert low <= mpmath.ncdf(-x) * mpmath.mpf(2) ** 160 <= high


def test_far_tails_are_cheap_and_positive() -> None:
    """Where the tail is below one unit in the last place, no series is summed."""
    assert tail_bounds(10**12, 1, 300) == (0, 1)
    assert tail_bounds(-(10**12), 1, 300) == ((1 << 300) - 1, 1 << 300)
