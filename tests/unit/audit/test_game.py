"""The membership game: bounds hold at their confidence, and have the power that they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from dpgmm_dist.audit.game import Bound, Difference, NoiseStatistics, Part, guesses_needed
from dpgmm_dist.privacy.accounting import epsilon_from_mu

DELTA = 1e-6


@pytest.mark.parametrize("mu", [0.05, 0.26, 0.9])
@pytest.mark.parametrize("draws", [500, 4000])
def test_a_bound_is_above_the_truth_no_more_often_than_it_says(mu, draws):
    """Summed exactly over all numbers of right guesses that there may be."""
    guesses = 2 * draws
    chance = stats.binom(guesses, special.ndtr(mu / 2))
    right = np.arange(int(chance.ppf(1e-9)), int(chance.ppf(1 - 1e-9)) + 1)
    above = [Bound.of(int(k), guesses, DELTA, 0.95).mu > mu for k in right]
    false_alarms = chance.pmf(right)[above].sum()
    assert 0.03 < false_alarms <= 0.05


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_the_number_of_draws_shows_the_share_that_is_asked_for(epsilon):
    mu = float(special.ndtri(0.5 + 0.1 * epsilon**0.7))
    draws = guesses_needed(mu, 0.7, 0.95)
    chance = stats.binom(2 * draws, special.ndtr(mu / 2))
    assert Bound.of(int(chance.ppf(0.17)), 2 * draws, DELTA, 0.95).mu >= 0.69 * mu
    assert Bound.of(int(chance.ppf(0.17)), 2 * (draws // 16), DELTA, 0.95).mu < 0.69 * mu


def test_no_right_guess_shows_nothing_and_all_right_much():
    assert Bound.of(0, 100, DELTA, 0.95).epsilon == 0
    assert Bound.of(50, 100, DELTA, 0.95).epsilon == 0
    everything = Bound.of(100, 100, DELTA, 0.95)
    assert everything.mu > 3
    assert everything.epsilon == epsilon_from_mu(everything.mu, DELTA)


def test_log_ratios_are_those_of_two_gaussians():
    rng = np.random.default_rng(0)
    base, shift = (
        [rng.normal(size=(1, 3)), rng.normal(size=(1, 2))],
        [
            rng.normal(size=(1, 3)),
            rng.normal(size=(1, 2)),
        ],
    )
    parts = [Part("count", 2.0), Part("sum", 0.5)]
    seen = [rng.normal(size=(4, 3)), rng.normal(size=(4, 2))]
    found = Difference(parts, base, shift).log_ratio(seen)
    want = sum(
        (stats.norm.logpdf(y, b + s, part.sd) - stats.norm.logpdf(y, b, part.sd)).sum(axis=1)
        for part, b, s, y in zip(parts, base, shift, seen, strict=True)
    )
    assert found == pytest.approx(want)


def statistics_of(noise: np.ndarray) -> NoiseStatistics:
    seen = NoiseStatistics()
    for part in np.array_split(noise, 7):
        seen.add(part)
    return seen


@pytest.mark.parametrize("scale", [0.7, 0.97, 1.0, 1.3])
def test_noise_below_its_scale_is_told_from_enough_of_it(scale):
    noise = np.random.default_rng(1).normal(size=(20_000, 3)) * scale
    seen = statistics_of(noise)
    assert seen.entries == 60_000
    assert seen.scale == pytest.approx(scale, rel=0.02)
    assert (seen.highest(1e-6) < 1) == (scale < 1)
    assert seen.highest(1e-6) > seen.scale


def test_the_highest_scale_is_exceeded_as_rarely_as_it_says():
    rng = np.random.default_rng(2)
    highest = [statistics_of(rng.normal(size=(100, 1))).highest(0.1) for _ in range(2000)]
    assert 0.07 < np.mean(np.array(highest) < 1) < 0.13


def test_answers_that_share_noise_are_noticed():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(4000, 2))
    assert not statistics_of(noise).repeats(1e-6)
    assert statistics_of(np.repeat(noise, 2, axis=0)).repeats(1e-6)
    assert statistics_of((noise + 1) / math.sqrt(2)).repeats(1e-6)
    once = rng.normal(size=(1000, 2))
    again = NoiseStatistics()
    for _ in range(3):
        again.add(once)
    assert again.repeats(1e-6)
