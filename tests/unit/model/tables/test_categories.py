"""Columns of categories: their order, their shares, and how many rows lack a value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpgmm_dist.model.pass_plan import ObservedBins
from dpgmm_dist.model.tables.categories import (
    association_order,
    categories_plan,
    estimate,
    on_simplex,
)

RATES = np.array([0.5, 0.1, 0.9, 0.3])


def counts(sigma: float = 0.0, missing: tuple[float, ...] = ()) -> np.ndarray:
    """Counts (2, B) of four values with these rates of the second label, and of what is missing."""
    exact = 1000 * np.stack([1 - RATES, RATES])
    if missing:
        exact = np.column_stack([exact, np.array(missing)])
    return exact + np.random.default_rng(0).normal(scale=sigma, size=exact.shape)


def test_values_are_in_the_order_of_their_labels():
    order = association_order(counts(), 1.0).tolist()
    assert order in ([1, 3, 0, 2], [2, 0, 3, 1])
    assert association_order(counts(20.0), 20.0).tolist() == order


def test_a_value_that_noise_alone_tells_apart_is_in_the_middle():
    rare = np.column_stack([counts(), [0.0, 40.0]])
    order = association_order(rare, 40.0).tolist()
    assert order.index(4) in (1, 2, 3)
    # The same counts without noise put it at the end.
    assert association_order(rare, 1e-9).tolist().index(4) in (0, 4)


def test_without_labels_the_order_is_the_public_one():
    assert association_order(counts()[:1], 1.0).tolist() == [0, 1, 2, 3]


def test_three_labels_have_the_order_that_tells_most_of_them_apart():
    shares = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.45, 0.45, 0.1]]).T
    order = association_order(1000 * shares, 1.0).tolist()
    assert order in ([0, 2, 1], [1, 2, 0])


def test_shares_are_in_the_order_of_the_values():
    seen = ObservedBins((counts(),), 1.0)
    marginal = estimate(np.array([4]), seen)[0]
    assert marginal.mass == pytest.approx(0.25, abs=1e-3)
    assert marginal.bins.places.tolist() == association_order(counts(), 1.0).tolist()
    assert np.argsort(marginal.bins.places).tolist() == marginal.bins.rank.tolist()
    assert marginal.missing == 0 and marginal.atoms.all()


@pytest.mark.parametrize(("sigma", "share"), [(5.0, 0.2), (1000.0, 0.0)])
def test_the_share_of_missing_values_is_told_where_noise_does_not_explain_it(sigma, share):
    seen = ObservedBins((counts(missing=(400.0, 600.0)),), sigma)
    assert estimate(np.array([4]), seen)[0].missing == pytest.approx(share, abs=1e-6)


def test_the_counts_of_one_label_are_a_row():
    marginal = estimate(np.array([4]), ObservedBins((counts()[0],), 1.0))[0]
    assert marginal.mass == pytest.approx((1 - RATES) / (1 - RATES).sum(), abs=1e-3)


@given(arrays(float, st.integers(1, 9), elements=st.floats(-1e6, 1e6)), st.floats(1e-3, 1e6))
def test_shares_are_not_negative_and_add_up(values, total):
    found = on_simplex(values, total)
    assert (found >= 0).all() and found.sum() == pytest.approx(total, rel=1e-6, abs=1e-6)
    # No other such numbers are nearer: what is kept was moved by the same amount.
    moved = (found - values)[found > 0]
    assert np.ptp(moved) <= 1e-6 * max(1.0, np.abs(values).max())


def test_every_value_has_a_code():
    plan = categories_plan(np.array([1, 2, 5]), np.array([3, 4, 5]), 1.0, missing=True)
    assert [len(edges) + 1 for edges in plan.edges] == [1, 2, 5]
    assert plan.columns.tolist() == [3, 4, 5] and plan.missing and plan.blocks[0].by_label
