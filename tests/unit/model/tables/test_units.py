"""The round numbers that all values of a column are multiples of."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.pass_plan import ObservedBins
from dpgmm_dist.model.tables.marginals import FineBins, first_plan, refine
from dpgmm_dist.model.tables.units import CLOCK, candidates, multiples

DAY = 86_400.0
N = 20_000
RNG = np.random.default_rng(0)
CASES = {
    "whole numbers among floats": (np.rint(RNG.normal(50, 9, N)), (0.0, 237.1), False, 1.0),
    "thousands": (1000 * RNG.poisson(40, N), (-1.0, 1e6), False, 1000.0),
    "cents": (RNG.integers(1, 900, N) / 100, (0.0, 9.0), False, 0.01),
    "cents of 32 bits": ((RNG.integers(1, 900, N) / 100).astype("f4"), (0.0, 9.0), False, 0.01),
    "days at midnight": (DAY * RNG.integers(19_000, 19_700, N), (1.33e9, 1.78e9), True, DAY),
    "mostly zero, the rest whole": (
        RNG.poisson(40, N) * (RNG.random(N) < 0.1),
        (0.0, 100.0),
        False,
        1.0,
    ),
    "stars among floats": (RNG.integers(1, 6, N).astype(float), (1.0, 5.7), False, 1.0),
    "few whole numbers among floats": (RNG.poisson(1, N).clip(0, 5) / 1.0, (0.0, 5.7), False, 1.0),
    "zero or one among floats": (RNG.integers(0, 2, N) / 1.0, (0.0, 1.4), False, 1.0),
    "near one": (RNG.normal(1, 0.001, N), (0.0, 1.4), False, 0.0),
    "one value": (np.full(N, 3.7), (3.1, 4.3), False, 0.1),
    "no unit": (RNG.normal(50, 9, N), (0.0, 237.1), False, 0.0),
    "no unit beside zeros": (
        RNG.normal(50, 9, N) * (RNG.random(N) < 0.1),
        (0.0, 237.1),
        False,
        0.0,
    ),
    "a tenth off": (
        np.where(RNG.random(N) < 0.1, RNG.normal(50, 9, N), 50),
        (0.0, 237.1),
        False,
        0.0,
    ),
    "small and far from zero": (RNG.normal(3e-7, 1e-8, N), (2.4e-7, 4.2e-7), False, 0.0),
}


def refined(values: np.ndarray, bins: FineBins, noise: float) -> FineBins:
    plan = first_plan((bins,), 1.0)
    codes = np.searchsorted(plan.edges[0], values, "right")
    answers = []
    for block in plan.blocks:
        count = np.bincount(block.bins[0][codes], minlength=block.bins[0].max() + 1)
        answers.append(ObservedBins((count + noise * RNG.normal(size=len(count)),), noise))
    return refine((bins,), *answers)[0]


@pytest.mark.parametrize("case", CASES)
def test_the_unit_of_a_column_is_found(case):
    values, (low, high), clock, unit = CASES[case]
    bins = refined(values, FineBins.of(low, high, 0.0, 4, clock), 30.0)
    assert bins.unit == unit
    if unit:
        assert bins.single.all()
        place = bins.places[np.searchsorted(bins.edges, values, "right")]
        assert np.asarray(place, values.dtype).tolist() == values.tolist()


def test_a_unit_that_is_known_is_kept_where_no_larger_one_is_found():
    whole = FineBins.of(0.0, 99.0, 1.0, 4)
    assert refined(RNG.integers(0, 100, N), whole, 30.0).unit == 1.0
    assert refined(10 * RNG.integers(0, 10, N), whole, 30.0).unit == 10.0


@pytest.mark.parametrize("noise", [30.0, 1e5])
def test_few_rows_beside_the_noise_have_no_unit(noise):
    bins = FineBins.of(0.0, 99.0, 0.0, 4)
    found = refined(np.rint(RNG.normal(50, 9, 100)), bins, noise).unit
    assert found == 0.0


def test_candidates_are_public_and_have_enough_multiples():
    assert candidates(0.0, 237.1, 0.0, False, 8192) == (100.0, 10.0, 1.0, 0.1)
    assert candidates(0.0, 237.1, 1.0, False, 8192) == (100.0, 10.0)
    assert candidates(0.9, 5.7, 1.0, False, 8192) == ()
    assert candidates(0.9, 1.4, 0.0, False, 40) == (0.1,)
    assert candidates(1.33e9, 1.78e9, 1e-6, True, 8192) == (DAY,)
    assert candidates(1.33e9, 1.78e9, 1e-6, True, 4096) == ()
    assert candidates(0.0, 3600.0, 0.0, True, 8192) == CLOCK[1:]
    assert candidates(1e12, 1e12 + 1e-3, 0.0, False, 8192) == ()


def test_multiples_are_the_numbers_that_are_read():
    assert multiples(57, 57, 0.01).tolist() == [0.57]
    assert multiples(18_500, 18_500, 0.0002).tolist() == [3.7]
    assert multiples(-2, 1, 1000.0).tolist() == [-2000.0, -1000.0, 0.0, 1000.0]


def test_steps_of_a_clock_are_whole_hours_and_days():
    for width, step in ((50, 60), (4000, 7200), (90_000, 2 * DAY), (0.3, 0.5)):
        bins = FineBins.of(DAY, DAY + width * 8188, 0.0, 4, clock=True)
        assert np.diff(bins.places[1:-1]) == pytest.approx(step)
