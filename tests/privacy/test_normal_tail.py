"""Certified bounds contain the values of mpmath at higher precision, and they are narrow."""

from __future__ import annotations

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.privacy.normal_tail import exp_bounds, tail_bounds


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
