"""Ranges and middles of columns, from noisy counts of logarithmic bins."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.tables.bounds import log_edges, middle_of, range_of

EDGES = log_edges()
COLUMNS = {
    "tiny": (3e-7, 1e-8),
    "far": (-4e9, 3e8),
    "normal": (0.0, 1.0),
    "years": (2000.0, 10.0),
}


def counts_of(values: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    codes = np.searchsorted(EDGES, values, "right")
    exact = np.bincount(codes, minlength=len(EDGES) + 1)
    return exact + sigma * np.random.default_rng(seed).normal(size=len(EDGES) + 1)


def test_edges_are_both_signs_and_zero():
    assert (np.diff(EDGES) > 0).all() and (-EDGES[::-1] == EDGES).all()
    assert EDGES[-1] == 1e12 and EDGES[len(EDGES) // 2] == 1e-12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", COLUMNS)
def test_a_range_holds_nearly_all_rows_and_little_else(name, seed):
    """Noise of 40 rows a bin is what five columns of 30,000 rows have at epsilon 1."""
    mean, spread = COLUMNS[name]
    values = np.random.default_rng(seed).normal(mean, spread, 30_000)
    low, high = range_of(counts_of(values, 40.0, seed), 40.0, EDGES)
    assert low in EDGES and high in EDGES
    inside = ((values >= low) & (values <= high)).mean()
    assert inside > 0.985
    assert high - low < max(4 * np.ptp(values), 2 * abs(mean))


def test_skewed_columns_lose_little_of_their_tail():
    values = np.exp(np.random.default_rng(1).normal(7, 1.5, 30_000))
    low, high = range_of(counts_of(values, 40.0), 40.0, EDGES)
    assert np.quantile(values, 0.985) < high < 50 * values.max()
    assert 0 < low < np.quantile(values, 0.02)


def test_a_few_far_rows_do_not_widen_the_range():
    values = np.append(np.random.default_rng(2).normal(0, 1, 1_000_000), np.full(300, 1e9))
    assert range_of(counts_of(values, 40.0), 40.0, EDGES)[1] < 10


@pytest.mark.parametrize("value", [0.0, 1e-15, -1e15, 1e15, 1e300, 5.0])
def test_one_value_alone_has_a_range(value):
    low, high = range_of(counts_of(np.full(5000, value), 10.0), 10.0, EDGES)
    assert low < high and low >= -1e12 and high <= 1e12
    if abs(value) <= 1e12:
        assert low <= value <= high


@pytest.mark.parametrize("seed", range(20))
def test_no_rows_have_some_range(seed):
    assert range_of(counts_of(np.zeros(0), 40.0, seed), 40.0, EDGES) == (-1, 1)
    assert middle_of(counts_of(np.zeros(0), 40.0, seed), 40.0, EDGES) == 0


@pytest.mark.parametrize("seed", range(5))
def test_few_rows_have_a_range_where_no_bin_stands_out(seed):
    values = np.exp(np.random.default_rng(seed).normal(7, 1.0, 2000))
    low, high = range_of(counts_of(values, 40.0, seed), 40.0, EDGES)
    assert ((values >= low) & (values <= high)).mean() > 0.7
    assert low > 1 and high < 1e6


@pytest.mark.parametrize(("mean", "spread"), COLUMNS.values())
def test_the_middle_is_the_median_up_to_a_bin(mean, spread):
    values = np.random.default_rng(3).normal(mean, spread, 30_000)
    found = middle_of(counts_of(values, 40.0), 40.0, EDGES)
    assert abs(found - mean) < 0.2 * abs(mean) + 0.2 * spread
