"""Bins, distributions and scores of single columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpgmm_dist.model.pass_plan import ObservedBins
from dpgmm_dist.model.tables.marginals import (
    FineBins,
    Marginal,
    _coarse_masses,
    _Counts,
    estimate,
    first_plan,
    marginals_plan,
    refine,
)


def test_whole_numbers_have_a_bin_each():
    bins = FineBins.of(-1e-12, 99.99, True, 5)
    assert bins.count == 100
    assert bins.places.tolist() == list(range(100))
    assert bins.single.all()
    codes = np.searchsorted(bins.edges, [-7, 0, 1, 99, 200], "right")
    assert codes.tolist() == [0, 0, 1, 99, 99]


def test_other_bins_are_about_multiples_of_a_round_number():
    bins = FineBins.of(0.0, 1000.0, False, 5)
    assert np.allclose(np.diff(bins.edges)[1:-1], 0.2)
    for value in (1.0, 0.2, 999.6):
        code = int(np.searchsorted(bins.edges, value, "right"))
        assert bins.places[code] == pytest.approx(value, abs=1e-9)


def test_zero_has_a_bin_of_its_own():
    bins = FineBins.of(-3.0, 1000.0, False, 5)
    code = int(np.searchsorted(bins.edges, 0.0, "right"))
    assert bins.places[code] == 0 and bins.single[code]
    assert bins.single.sum() == 1
    near = np.searchsorted(bins.edges, [-1e-300, 1e-300], "right")
    assert near.tolist() == [code - 1, code + 1]


RANGES = [
    (0, 1),
    (-1, 1),
    (-1.9, 0),
    (0, 5e5),
    (2.4e-7, 4.2e-7),
    (-5.6e9, -3.2e9),
    (-1e-12, 10.0),
    (-1e12, 1e12),
]
any_range = st.sampled_from(RANGES) | st.tuples(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12)).map(
    lambda p: (p[0], p[0] + p[1])
)


@settings(max_examples=100, deadline=None)
@given(
    any_range,
    st.booleans(),
    st.integers(1, 256),
)
def test_bins_of_any_range_are_in_order_and_within_it(interval, whole, columns):
    low, high = map(float, interval)
    assume(high > low)
    bins = FineBins.of(low, high, whole, columns)
    assert 1 <= bins.count <= max(1 << 17, 256 * columns) // columns + 8
    assert len(bins.places) == len(bins.single) == bins.count
    assert (np.diff(bins.edges) > 0).all()
    assert ((bins.edges > low) & (bins.edges < high)).all()
    assert ((bins.places >= low) & (bins.places <= high)).all()
    codes = np.searchsorted(bins.edges, bins.places, "right")
    assert (np.abs(codes - np.arange(bins.count)) <= 1).all()
    coarse = bins.coarse
    assert coarse[0] == 0 and set(np.diff(coarse).tolist()) <= {0, 1}


def counted(values: np.ndarray, bins: FineBins, noise: float, rng: np.random.Generator):
    """Noisy fine and coarse counts."""
    exact = np.bincount(np.searchsorted(bins.edges, values, "right"), minlength=bins.count)
    return [
        ObservedBins((count + noise * rng.normal(size=len(count)),), noise)
        for count in (exact, np.bincount(bins.coarse, exact))
    ]


def measured(values: np.ndarray, bins: FineBins, noise: float, seed: int = 0) -> Marginal:
    rng = np.random.default_rng(seed)
    _, first = counted(values, bins, noise, rng)
    (refined,) = refine((bins,), first)
    fine, coarse = counted(values, refined, noise, rng)
    return estimate((refined,), first, coarse, fine)[0]


def test_a_distribution_is_found_with_its_atoms():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(50_000) < 0.4, 0.0, np.exp(rng.normal(3, 0.7, 50_000)))
    bins = FineBins.of(-1e-12, 400.0, False, 5)
    found = measured(values, bins, 30.0)
    zero = int(np.searchsorted(found.bins.edges, 0.0, "right"))
    assert found.atoms[zero] and found.mass[zero] == pytest.approx(0.4, abs=0.01)
    for q in (0.5, 0.7, 0.9, 0.97):
        place = int(np.searchsorted(found.upto, q))
        assert found.bins.edges[place - 1] == pytest.approx(np.quantile(values, q), rel=0.1)


def test_a_steep_distribution_is_found_within_one_coarse_bin():
    values = np.random.default_rng(4).uniform(2.0, 4.0, 50_000)
    bins = FineBins.of(0.0, 1000.0, False, 5)
    found = measured(values, bins, 10.0)
    for q in (0.1, 0.5, 0.9):
        place = int(np.searchsorted(found.upto, q))
        assert found.bins.edges[place - 1] == pytest.approx(np.quantile(values, q), abs=0.25)


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_a_distribution_too(seed):
    bins = FineBins.of(-1.0, 1.0, False, 2)
    found = measured(np.zeros(0), bins, 30.0, seed)
    assert (found.mass > 0).all() and found.mass.sum() == pytest.approx(1)
    assert np.isfinite(found.scores).all()


def test_scores_are_the_means_of_a_normal_variable_in_each_share():
    values = np.random.default_rng(1).normal(0, 1, 20_000)
    found = measured(values, FineBins.of(-4.0, 4.0, False, 1), 1.0)
    scores, ends = found.scores, norm.ppf(found.upto)
    assert (np.diff(scores) >= 0).all()
    assert np.abs(scores).max() <= 4.3
    inner = (np.abs(ends[:-1]) < 4) & (np.abs(ends[1:]) < 4)
    assert (scores[inner] >= ends[:-1][inner]).all() and (scores[inner] <= ends[1:][inner]).all()
    assert found.mass @ scores == pytest.approx(0, abs=1e-3)
    assert found.mass @ scores**2 == pytest.approx(1, abs=0.02)


def test_the_plans_cost_their_shares_and_group_every_bin():
    bins = (FineBins.of(0, 9, True, 2), FineBins.of(0, 1, False, 2))
    first, plan = first_plan(bins, 0.5), marginals_plan(bins, 0.5)
    assert first.rho + plan.rho == pytest.approx(0.5 * 0.22)
    assert [len(edges) + 1 for edges in plan.edges] == [b.count for b in bins]
    for asked in (first, plan):
        codes = [len(edges) + 1 for edges in asked.edges]
        for block in asked.blocks:
            assert block.bins is None or [len(table) for table in block.bins] == codes
    assert math.isclose(plan.blocks[1].rho, 0.06)


@settings(max_examples=100, deadline=None)
@given(
    any_range,
    st.booleans(),
    st.integers(1, 256),
    st.integers(0, 2**32 - 1),
)
def test_refined_bins_are_in_order_and_divide_those_of_the_first_count(
    interval, whole, columns, seed
):
    low, high = map(float, interval)
    assume(high - low > 1e-9 * max(abs(low), abs(high)))
    before = FineBins.of(low, high, whole, columns)
    rng = np.random.default_rng(seed)
    mass = rng.dirichlet(np.full(int(before.coarse[-1]) + 1, 0.05))
    bins = before.refined(mass, columns)
    assert (np.diff(bins.edges) > 0).all()
    assert ((bins.edges > low) & (bins.edges < high)).all()
    assert len(bins.places) == len(bins.single) == len(bins.coarse) == bins.count
    assert bins.coarse[0] == 0 and set(np.diff(bins.coarse).tolist()) <= {0, 1}
    assert len(bins.within) == bins.coarse[-1] + 1 <= 3 * 64
    values = rng.uniform(low, high, 500)
    values = np.rint(values[np.abs(values) < 2**53]) if whole else values
    values = values[(values >= low) & (values <= high)]
    first, then = (b.coarse[np.searchsorted(b.edges, values, "right")] for b in (before, bins))
    assert (bins.within[then] == first).all()


@pytest.mark.parametrize("whole", [False, True])
def test_bounds_a_hundred_times_too_wide_cost_little(whole):
    rng = np.random.default_rng(3)
    values = np.rint(rng.normal(400, 60, 30_000)) + (0 if whole else rng.random(30_000))
    wide = measured(values, FineBins.of(-40_000.0, 60_000.0, whole, 5), 30.0)
    for q in (0.05, 0.1, 0.5, 0.9, 0.95):
        place = int(np.searchsorted(wide.upto, q))
        assert wide.bins.edges[place - 1] == pytest.approx(np.quantile(values, q), abs=8)


@pytest.mark.parametrize("seed", range(6))
def test_noise_far_from_the_rows_adds_no_outliers(seed):
    values = np.rint(np.random.default_rng(seed).normal(400, 60, 30_000))
    found = measured(values, FineBins.of(0.0, 10_000.0, True, 5), 30.0, seed)
    middle = found.mass @ found.bins.places
    spread = math.sqrt(found.mass @ (found.bins.places - middle) ** 2)
    assert spread == pytest.approx(60, rel=0.1)


def test_zero_keeps_its_bin_where_bins_are_refined():
    bins = FineBins.of(-1000.0, 1000.0, False, 5)
    mass = np.zeros(64)
    mass[np.unique(bins.coarse[np.searchsorted(bins.edges, [0.0], "right")])] = 1.0
    refined = bins.refined(mass, 5)
    code = int(np.searchsorted(refined.edges, 0.0, "right"))
    assert refined.places[code] == 0 and refined.single[code]
    near = np.searchsorted(refined.edges, [-1e-300, 1e-300], "right")
    assert near.tolist() == [code - 1, code + 1]


def test_the_three_counts_are_combined_by_their_precision():
    rng = np.random.default_rng(6)
    values = rng.uniform(0, 64, 20_000)
    before = FineBins.of(0.0, 64.0, False, 1)
    bins = before.refined(np.full(64, 1 / 64), 1)
    true = np.bincount(bins.coarse[np.searchsorted(bins.edges, values, "right")])
    errors = {"all": [], "coarse": []}
    for _ in range(40):
        first = counted(values, before, 20.0, rng)[1]
        fine, coarse = counted(values, bins, 20.0, rng)
        mass, variance = _coarse_masses(bins, _Counts.of(0, first, coarse, fine))
        errors["all"].append((mass - true) ** 2)
        errors["coarse"].append((coarse.counts[0] - true) ** 2)
    mean = {name: np.mean(found) for name, found in errors.items()}
    assert mean["all"] == pytest.approx(variance.mean(), rel=0.1)
    assert mean["all"] < 0.6 * mean["coarse"]


@pytest.mark.parametrize("columns", [1, 512, 2000])
@pytest.mark.parametrize("interval", [(-5.17, 0.0), (0.0, 5.17), (-5.17, 3.0), (-51.3, 0.0)])
def test_bins_are_divided_wherever_the_rows_are_found(interval, columns):
    """With few bins, zero at a bound had a coarse bin of its own, which has no width."""
    bins = FineBins.of(*interval, 0.0, columns)
    groups = int(bins.coarse[-1]) + 1
    for mass in (np.full(groups, 1 / groups), np.eye(groups)[0], np.eye(groups)[-1]):
        finer = bins.refined(mass, columns)
        assert (np.diff(finer.edges) > 0).all()
        assert len(finer.places) == len(finer.single) == finer.count
        assert finer.single[np.searchsorted(finer.edges, 0.0, "right")]
