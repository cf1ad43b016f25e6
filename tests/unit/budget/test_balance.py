"""Charges compose exactly, in their currency, and never exceed the limit."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.budget.balance import admits, affordable_epsilon, balance, epsilon_of
from dpgmm_dist.budget.records import Charge, rho_of_mu
from dpgmm_dist.budget.rounding import round_down, round_up, sqrt_down, sqrt_up
from dpgmm_dist.privacy import accounting

from .budgets import DIGEST, charge, in_mu, in_rho

EPSILONS = st.floats(0.01, 20.0)
DELTAS = st.floats(1e-12, 1e-3)
SHARES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8)


@pytest.mark.parametrize("gaussian", [False, True])
@given(epsilon=EPSILONS, delta=DELTAS)
def test_a_ledger_admits_exactly_one_release_of_its_size(
    gaussian: bool, epsilon: float, delta: float
) -> None:
    whole = charge("a", epsilon, delta, gaussian=gaussian)
    least = Charge("b", DIGEST, 5e-324, None, epsilon, delta)
    assert admits([whole], epsilon, delta)
    assert not admits([whole, charge("b", 0.01, 1e-12, gaussian=gaussian)], epsilon, delta)
    if not gaussian:
        assert not admits([whole, least], epsilon, delta)


@pytest.mark.parametrize("gaussian", [False, True])
def test_two_smaller_releases_fit_and_three_do_not(gaussian: bool) -> None:
    charges = [charge(f"w-{i}", 1.0, 1e-6, gaussian=gaussian) for i in range(3)]
    assert admits(charges[:2], 1.5, 1e-5)
    assert not admits(charges, 1.5, 1e-5)


@given(epsilon=EPSILONS, delta=DELTAS, shares=SHARES)
def test_rho_is_summed_without_rounding(epsilon: float, delta: float, shares: list[float]) -> None:
    limit = accounting.rho_from_epsilon_delta(epsilon, delta)
    parts = [limit * share / 4 for share in shares]
    fits = sum(map(Fraction, parts)) <= Fraction(limit)
    assert admits([in_rho(part) for part in parts], epsilon, delta) == fits


@given(epsilon=EPSILONS, delta=DELTAS, shares=SHARES)
def test_mu_is_summed_in_squares_without_rounding(
    epsilon: float, delta: float, shares: list[float]
) -> None:
    limit = accounting.mu_from_epsilon_delta(epsilon, delta)
    parts = [limit * share / 2 for share in shares]
    fits = sum(Fraction(part) ** 2 for part in parts) <= Fraction(limit) ** 2
    assert admits([in_mu(part) for part in parts], epsilon, delta) == fits


def test_one_unit_in_the_last_place_too_much_is_refused() -> None:
    rho = accounting.rho_from_epsilon_delta(1.0, 1e-6)
    mu = accounting.mu_from_epsilon_delta(1.0, 1e-6)
    assert not admits([in_rho(math.nextafter(rho, 1))], 1.0, 1e-6)
    assert not admits([in_mu(math.nextafter(mu, 1))], 1.0, 1e-6)
    third = rho / 3
    thirds = [in_rho(third), in_rho(third), in_rho(math.nextafter(rho - 2 * third, 1))]
    assert math.fsum(c.rho for c in thirds) <= math.nextafter(rho, 1)
    assert not admits(thirds, 1.0, 1e-6)


def test_a_mixed_ledger_composes_in_zcdp() -> None:
    gaussian, discrete = charge("a", 0.5, 1e-6, gaussian=True), charge("b", 0.5, 1e-6)
    assert balance([gaussian], 1.0, 1e-6).currency == "mu"
    mixed = balance([gaussian, discrete], 1.0, 1e-6)
    assert mixed.currency == "rho"
    assert Fraction(mixed.spent) >= Fraction(gaussian.rho) + Fraction(discrete.rho)
    # A Gaussian release that spends the whole budget in mu exceeds it in rho.
    spent = balance([charge("c", 1.0, 1e-6, gaussian=True)], 1.0, 1e-6, "rho")
    assert spent.remaining == 0.0
    assert spent.epsilon_remaining == 0.0


@pytest.mark.parametrize("gaussian", [False, True])
@given(epsilon=EPSILONS, delta=DELTAS, share=st.floats(0.01, 0.99))
def test_the_balance_is_on_the_safe_side(
    gaussian: bool, epsilon: float, delta: float, share: float
) -> None:
    first = charge("a", max(epsilon * share, 0.005), delta, gaussian=gaussian)
    state = balance([first], epsilon, delta)
    assert state.epsilon_limit == epsilon
    assert state.epsilon_spent >= first.epsilon * (1 - 1e-9)
    power = 2 if gaussian else 1
    amounts = (state.spent, state.remaining, state.limit)
    spent, remaining, limit = (Fraction(amount) ** power for amount in amounts)
    assert spent + remaining <= limit * (1 + Fraction(1, 10**14))
    assert remaining <= limit - Fraction(first.mu if gaussian else first.rho) ** power  # type: ignore[arg-type]
    if state.epsilon_remaining:
        more = charge("b", state.epsilon_remaining, delta, gaussian=gaussian)
        assert admits([first, more], epsilon, delta)


def test_an_empty_ledger_has_its_whole_budget() -> None:
    state = balance([], 1.5, 1e-5)
    assert (state.spent, state.epsilon_spent) == (0.0, 0.0)
    assert state.remaining == state.limit
    assert balance([], 1.5, 1e-5, "mu").remaining == balance([], 1.5, 1e-5, "mu").limit
    assert state.currency == "rho"
    assert state.epsilon_remaining == pytest.approx(1.5, rel=1e-5)
    assert state.epsilon_remaining <= 1.5


@given(remaining=st.floats(1e-15, 10.0), delta=DELTAS)
def test_an_affordable_epsilon_fits_and_is_near_the_largest(remaining: float, delta: float) -> None:
    epsilon = affordable_epsilon(remaining, "rho", delta)
    if epsilon:
        assert accounting.rho_from_epsilon_delta(epsilon, delta) <= remaining
        assert epsilon >= 0.98 * epsilon_of(remaining, "rho", delta)
    else:
        assert epsilon_of(remaining, "rho", delta) < 1.02 * accounting.EPSILON_RANGE[0]


@given(value=st.fractions(min_value=0, max_value=100))
def test_roundings_enclose_the_value(value: Fraction) -> None:
    assert Fraction(round_down(value)) <= value <= Fraction(round_up(value))
    assert Fraction(sqrt_down(value)) ** 2 <= value <= Fraction(sqrt_up(value)) ** 2
    assert round_up(value) <= math.nextafter(round_down(value), math.inf)
    assert sqrt_up(value) <= math.nextafter(sqrt_down(value), math.inf)


@given(mu=st.floats(1e-6, 100.0))
def test_rho_of_mu_is_the_least_float_that_covers_it(mu: float) -> None:
    exact = Fraction(mu) ** 2 / 2
    assert Fraction(rho_of_mu(mu)) >= exact > Fraction(math.nextafter(rho_of_mu(mu), 0))


@pytest.mark.parametrize("root", [1.5, 3.0, 2.0**-40])
def test_the_root_of_a_square_is_exact(root: float) -> None:
    square = Fraction(root) ** 2
    assert sqrt_up(square) == sqrt_down(square) == root


@pytest.mark.parametrize("currency", ["rho", "mu"])
@pytest.mark.parametrize("cost", [1.0, 2.0])
def test_no_cost_but_zero_is_free(currency, cost: float) -> None:
    below = math.nextafter(cost, 0.0)
    assert epsilon_of(0.0, currency, 1e-6) == 0.0
    assert epsilon_of(cost, currency, 1e-6) == pytest.approx(epsilon_of(below, currency, 1e-6))
