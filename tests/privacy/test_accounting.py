"""The accountant: on the safe side, tight, and in agreement with dp-accounting and mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.accounting import (
    _delta_upper,
    delta_from_mu,
    delta_from_rho,
    epsilon_from_mu,
    epsilon_from_rho,
    mu_from_epsilon_delta,
    rho_from_epsilon_delta,
)

EPSILONS = st.floats(math.log(1e-3), math.log(100.0)).map(math.exp)
DELTAS = st.one_of(
    st.floats(math.log(1e-60), math.log(0.5)).map(math.exp), st.floats(0.4, 0.999999)
)
GRID = [0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]


def exact_gaussian_delta(mu: float, epsilon: float) -> mpmath.mpf:
    """Delta of the Gaussian mechanism with 400 digits (the reference of these tests)."""
    with mpmath.workdps(400):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)

        def tail(x: mpmath.mpf) -> mpmath.mpf:
            return mpmath.erfc(x / mpmath.sqrt(2)) / 2

        return tail(e / m - m / 2) - mpmath.exp(e) * tail(e / m + m / 2)


def exact_zcdp_log_delta(rho: float, epsilon: float) -> mpmath.mpf:
    """Log of the tight delta of rho-zCDP, by bisection on the derivative at 60 digits."""
    with mpmath.workdps(60):
        r, e = mpmath.mpf(rho), mpmath.mpf(epsilon)
        low, high = mpmath.mpf("1e-30"), mpmath.mpf("1e30")
        for _ in range(400):
            a = mpmath.sqrt(low * high)
            rising = 2 * a * r + r - e + mpmath.log(a / (1 + a)) > 0
            low, high = (low, a) if rising else (a, high)
        a = low
        return a * ((1 + a) * r - e) - mpmath.log(a) + (1 + a) * mpmath.log(a / (1 + a))


def test_known_values() -> None:
    """At (1, 1e-5) the rho of the Gaussian-DP budget is 17.6% larger than that of zCDP."""
    rho = rho_from_epsilon_delta(1.0, 1e-5)
    mu = mu_from_epsilon_delta(1.0, 1e-5)
    assert rho == pytest.approx(0.0305566, rel=1e-5)
    assert mu * mu / 2 == pytest.approx(0.0359257, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(EPSILONS, DELTAS)
@example(1e-3, 1.5e-300)
@example(100.0, 1.5e-300)
@example(1e-3, 1.0 - 2.0**-53)
def test_gaussian_budget_is_safe_and_tight(epsilon: float, delta: float) -> None:
    """The exact delta at the returned mu is at most delta, and just above mu it is not."""
    mu = mu_from_epsilon_delta(epsilon, delta)
    assert exact_gaussian_delta(mu, epsilon) <= delta
    if delta < 0.999:
        assert exact_gaussian_delta(mu * (1 + 1e-9), epsilon) > delta


@settings(deadline=None, max_examples=60)
@given(EPSILONS, DELTAS)
@example(1e-3, 1.5e-300)
@example(100.0, 1.5e-300)
@example(1e-3, 1.0 - 2.0**-53)
def test_zcdp_budget_is_safe_and_tight(epsilon: float, delta: float) -> None:
    """The tight delta at the returned rho is at most delta, and just above rho it is not."""
    rho = rho_from_epsilon_delta(epsilon, delta)
    with mpmath.workdps(60):
        target = mpmath.log(mpmath.mpf(delta))
        assert exact_zcdp_log_delta(rho, epsilon) <= target
        if delta < 0.999:
            assert exact_zcdp_log_delta(rho * (1 + 1e-9), epsilon) > target


@settings(deadline=None, max_examples=60)
@given(st.floats(-12.0, 2.3).map(math.exp), DELTAS)
def test_costs_are_rounded_up(mu: float, delta: float) -> None:
    """Epsilon and delta of a cost are never understated, in both currencies."""
    epsilon = epsilon_from_mu(mu, delta)
    assert exact_gaussian_delta(mu, epsilon) <= delta
    rho = mu * mu / 2
    epsilon = epsilon_from_rho(rho, delta)
    with mpmath.workdps(60):
        assert exact_zcdp_log_delta(rho, epsilon) <= mpmath.log(mpmath.mpf(delta))


@settings(deadline=None, max_examples=60)
@given(st.floats(-7.0, 2.3).map(math.exp), EPSILONS)
def test_deltas_are_rounded_up_and_tight(mu: float, epsilon: float) -> None:
    """delta_from_* is at least the exact delta and within 1e-9 of it."""
    delta = delta_from_mu(mu, epsilon)
    exact = exact_gaussian_delta(mu, epsilon)
    assert exact <= delta <= max(exact * (1 + mpmath.mpf("1e-9")), mpmath.mpf("1e-300"))
    rho = mu * mu / 2
    delta, log_exact = delta_from_rho(rho, epsilon), exact_zcdp_log_delta(rho, epsilon)
    with mpmath.workdps(60):
        exact = min(mpmath.mpf(1), mpmath.exp(log_exact))
        assert exact <= delta <= max(exact * (1 + mpmath.mpf("1e-9")), mpmath.mpf("1e-300"))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-9), (4.0, 0.3)])
def test_no_margin_is_on_the_wrong_side(epsilon: float, delta: float) -> None:
    """Costs and budgets are on the safe side of the exact ones, and near them."""
    rho = rho_from_epsilon_delta(epsilon, delta)
    with mpmath.workdps(60):
        log_exact = exact_zcdp_log_delta(rho, epsilon)
        assert log_exact <= mpmath.log(mpmath.mpf(delta))
        assert mpmath.exp(log_exact) <= delta_from_rho(rho, epsilon) <= delta * (1 + 1e-11)
        cost = epsilon_from_rho(rho, delta)
        assert exact_zcdp_log_delta(rho, cost) <= mpmath.log(mpmath.mpf(delta))
    mu = mu_from_epsilon_delta(epsilon, delta)
    assert exact_gaussian_delta(mu, epsilon) <= delta_from_mu(mu, epsilon) <= delta * (1 + 1e-12)


@settings(deadline=None, max_examples=60)
@given(EPSILONS, DELTAS)
def test_round_trips_stay_on_the_safe_side(epsilon: float, delta: float) -> None:
    """The cost of a budget is that budget, to a part in 1e8."""
    mu = mu_from_epsilon_delta(epsilon, delta)
    rho = rho_from_epsilon_delta(epsilon, delta)
    assert mu * mu / 2 > rho
    assert epsilon_from_mu(mu, delta) == pytest.approx(epsilon, rel=1e-8, abs=1e-9)
    assert epsilon_from_rho(rho, delta) == pytest.approx(epsilon, rel=1e-8, abs=1e-9)
    assert delta_from_mu(mu, epsilon) <= delta * (1 + 1e-12)
    assert delta_from_rho(rho, epsilon) <= delta * (1 + 1e-11)


@settings(deadline=None, max_examples=60)
@given(EPSILONS, DELTAS, st.floats(1e-6, 3.0))
def test_monotone(epsilon: float, delta: float, more: float) -> None:
    """More epsilon or delta never gives a smaller budget, and a larger cost never costs less."""
    larger, riskier = epsilon * (1 + more), delta + (1 - delta) * min(more, 0.5)
    for budget in (mu_from_epsilon_delta, rho_from_epsilon_delta):
        assert budget(larger, delta) >= budget(epsilon, delta)
        assert budget(epsilon, riskier) >= budget(epsilon, delta)
    mu = mu_from_epsilon_delta(epsilon, delta)
    assert epsilon_from_mu(mu * (1 + more), delta) >= epsilon_from_mu(mu, delta)
    assert delta_from_mu(mu * (1 + more), epsilon) >= delta_from_mu(mu, epsilon)
    assert epsilon_from_rho(mu * (1 + more), delta) >= epsilon_from_rho(mu, delta)
    assert delta_from_rho(mu * (1 + more), epsilon) >= delta_from_rho(mu, epsilon)


@pytest.mark.parametrize("delta", [1e-10, 1e-6, 1e-5, 1e-3])
def test_agreement_with_dp_accounting(delta: float) -> None:
    """From epsilon 0.01 to 20: exact Gaussian, and zCDP against the RDP accountant."""
    import dp_accounting
    from dp_accounting import gaussian_mechanism, rdp

    orders = [1 + 10.0 ** (k / 50) for k in range(-100, 250)]
    for epsilon in GRID:
        mu = mu_from_epsilon_delta(epsilon, delta)
        assert 1 / mu == pytest.approx(
            gaussian_mechanism.get_sigma_gaussian(epsilon, delta), rel=1e-7
        )
        accountant = rdp.RdpAccountant(orders)
        accountant.compose(dp_accounting.ZCDpEvent(rho_from_epsilon_delta(epsilon, delta)))
        of_accountant = accountant.get_epsilon(delta)
        # dp-accounting tries orders on a grid, so its epsilon is slightly above the optimum.
        assert epsilon * (1 - 1e-9) <= of_accountant <= epsilon * 1.002


@pytest.mark.parametrize("bits", [8, 13, 40])
def test_delta_is_bounded_from_above_at_any_precision(bits: int) -> None:
    """What is proved is never below delta, and at most some units in the last place above it."""
    for mu in (0.05, 0.3, 1.0, 3.7):
        for epsilon in (0.01, 0.5, 1.0, 4.0, 9.0):
            above = _delta_upper(mu, epsilon, bits) - exact_gaussian_delta(mu, epsilon) * 2**bits
            assert 0 <= above <= 6


def test_zero_tiny_and_huge_costs() -> None:
    """A cost of zero is zero, and a huge cost is still converted to the safe side."""
    assert epsilon_from_rho(0.0, 1e-6) == epsilon_from_mu(0.0, 1e-6) == 0.0
    assert delta_from_rho(0.0, 1.0) == delta_from_mu(0.0, 1.0) == 0.0
    assert epsilon_from_mu(100.0, 1e-6) >= 5000.0
    assert epsilon_from_mu(1e6, 1e-6) >= 5e11
    assert 1000.0 <= epsilon_from_mu(60.0, 1e-6) < 3000.0
    assert delta_from_mu(1e6, 1.0) == delta_from_rho(1e6, 1.0) == 1.0
    assert 0.0 < delta_from_rho(0.01, 0.0) < 1.0 > delta_from_mu(0.1, 0.0) > 0.0
    assert epsilon_from_mu(1e-30, 1e-6) == 0.0
    assert epsilon_from_rho(1e-300, 1e-6) == 0.0 < epsilon_from_rho(1e-300, 1e-200) < 1e-12
    assert 0.0 < delta_from_mu(1e-5, 1000.0) <= 1e-300


@pytest.mark.parametrize("cost", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(
    ("convert", "other"),
    [
        (epsilon_from_rho, 1e-6),
        (epsilon_from_mu, 1e-6),
        (delta_from_rho, 1.0),
        (delta_from_mu, 1.0),
    ],
)
def test_round_costs_are_converted_as_those_beside_them(
    convert: Callable[[float, float], float], other: float, cost: float
) -> None:
    """No number but zero is a case of its own."""
    below, above = math.nextafter(cost, 0.0), math.nextafter(cost, math.inf)
    assert 0.999 * convert(below, other) < convert(cost, other) < 1.001 * convert(above, other)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1e-5, 2000.0])
def test_bad_epsilon_is_named_and_shown(epsilon: float) -> None:
    """The error names the parameter and shows the value."""
    for budget in (mu_from_epsilon_delta, rho_from_epsilon_delta):
        with pytest.raises(SpecError, match=rf"epsilon must be .* got epsilon={epsilon!r}"):
            budget(epsilon, 1e-6)
    if epsilon != 0.0:  # the delta of no epsilon at all is one that can be asked for
        for delta in (delta_from_mu, delta_from_rho):
            with pytest.raises(SpecError, match=rf"epsilon must be .* got epsilon={epsilon!r}"):
                delta(0.1, epsilon)


@pytest.mark.parametrize("epsilon", [1e-4, 1000.0])
def test_the_ends_of_the_range_of_epsilon_are_in_it(epsilon: float) -> None:
    """A budget that the range allows is given, and costs no more than was asked for."""
    assert delta_from_mu(mu_from_epsilon_delta(epsilon, 1e-6), epsilon) <= 1.000001e-6
    assert delta_from_rho(rho_from_epsilon_delta(epsilon, 1e-6), epsilon) <= 1.000001e-6


@pytest.mark.parametrize("delta", [0.0, 1.0, 2.0, -1e-6, math.nan, 1e-301, 1e-300])
def test_bad_delta_is_named_and_shown(delta: float) -> None:
    """The error names the parameter and shows the value."""
    for convert in (
        mu_from_epsilon_delta,
        rho_from_epsilon_delta,
        epsilon_from_mu,
        epsilon_from_rho,
    ):
        with pytest.raises(SpecError, match=rf"delta must be .* got delta={delta!r}"):
            convert(1.0, delta)


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_bad_cost_is_named_and_shown(cost: float) -> None:
    """The error names the parameter and shows the value."""
    with pytest.raises(SpecError, match=f"mu must be finite .* got mu={cost!r}"):
        epsilon_from_mu(cost, 1e-6)
    with pytest.raises(SpecError, match=f"rho must be finite .* got rho={cost!r}"):
        delta_from_rho(cost, 1.0)


def test_composition_agrees_with_dp_accounting() -> None:
    """mu^2 adds up: three Gaussian answers cost as much as one with their combined mu."""
    from dp_accounting import GaussianDpEvent, pld

    mus = (0.2, 0.5, 0.6)
    accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
    for mu in mus:
        accountant.compose(GaussianDpEvent(1 / mu))
    exact = epsilon_from_mu(math.sqrt(sum(mu * mu for mu in mus)), 1e-6)
    # The discretisation of dp-accounting makes its epsilon larger.
    assert exact <= accountant.get_epsilon(1e-6) <= exact * 1.005
