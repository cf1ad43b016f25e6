"""Clipping radii and what clipping leaves, against scipy's incomplete gamma functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammainc, gammaincc, gammainccinv

from dpgmm_dist.model.allocation import CLIPPED, clipped_share, component_radius


@pytest.mark.parametrize("p", [1, 2, 3, 10, 63, 64, 384, 1536, 4096])
def test_the_radius_clips_the_share_it_should(p):
    want = math.sqrt(2 * gammainccinv(p / 2, CLIPPED))
    assert math.isclose(component_radius(p), want, rel_tol=1e-12)


@given(p=st.integers(1, 2000), radius=st.floats(0.0, 200.0))
def test_what_clipping_leaves_is_that_of_chi_squared(p, radius):
    half = radius**2 / 2
    want = gammainc(p / 2 + 1, half) + radius**2 / p * gammaincc(p / 2, half)
    assert math.isclose(clipped_share(p, radius), want, rel_tol=1e-9, abs_tol=1e-11)


def test_what_clipping_leaves_is_what_draws_have_left():
    x = np.random.default_rng(3).standard_normal((200_000, 7))
    length = np.linalg.norm(x, axis=1)
    left = (np.minimum(length, 2.5) ** 2).mean() / 7
    assert math.isclose(clipped_share(7, 2.5), left, rel_tol=3e-3)
