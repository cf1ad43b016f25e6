"""Whether a charge fits a ledger: exact composition, without tolerance.

Charges compose in their currency, never by adding epsilons. If every answer of every release had
exact Gaussian noise, the releases together are mu-Gaussian-DP with mu^2 the sum of the mu^2
(Dong, Roth and Su 2022, corollary 3.3); otherwise they are rho-zCDP with rho the sum of the rho
(Bun and Steinke 2016, lemma 2.3). The limit is what the ledger's (epsilon, delta) is worth in the
same currency. Sums are exact fractions of the recorded floats: a ledger of (E, D) admits exactly
one release of (E, D), to the last bit.

Releases may be planned after looking at earlier ones: with the limit fixed beforehand both sums are
valid filters (Feldman and Zrnic 2021; Smith and Thakurta 2022). What must not depend on earlier
releases is the currency, that is whether a release has exact Gaussian noise: decide that once for a
ledger (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from dpgmm_dist.budget.exactly import round_down, round_up, sqrt_down, sqrt_up
from dpgmm_dist.budget.records import Charge

Currency = Literal["rho", "mu"]


@dataclass(frozen=True)
class Balance:
    """What a ledger allows, and what is left of it.

    Attributes
    ----------
    currency : {"rho", "mu"}
        zCDP, or Gaussian DP where every charge has a mu.
    limit, spent, remaining : float
        In that currency; ``spent`` is rounded up and ``remaining`` down. For mu the remainder is
        sqrt(limit^2 - spent^2): what one more release may cost.
    delta : float
        The ledger's delta, at which the epsilons below hold.
    epsilon_limit, epsilon_spent : float
        The ledger's epsilon, and what all charges together guarantee.
    epsilon_remaining : float
        The epsilon of one more release at the ledger's delta that would still fit. Epsilons do
        not add up: this is not the difference of the other two.
    """

    currency: Currency
    limit: float
    spent: float
    remaining: float
    delta: float
    epsilon_limit: float
    epsilon_spent: float
    epsilon_remaining: float


def currency_of(charges: Sequence[Charge]) -> Currency:
    """Return the currency in which these charges compose together."""
    gaussian = bool(charges) and all(charge.mu is not None for charge in charges)
    return "mu" if gaussian else "rho"


def admits(charges: Sequence[Charge], epsilon: float, delta: float) -> bool:
    """Say whether all the charges together keep within (epsilon, delta)."""
    currency = currency_of(charges)
    return _total(charges, currency) <= _power(_limit(currency, epsilon, delta), currency)


def balance(
    charges: Sequence[Charge], epsilon: float, delta: float, currency: Currency | None = None
) -> Balance:
    """Return the balance of a ledger of (epsilon, delta) after the charges.

    ``currency`` "rho" forces zCDP, as a candidate without a mu will; by default it follows the
    charges.
    """
    currency = currency or currency_of(charges)
    limit = _limit(currency, epsilon, delta)
    spent = _total(charges, currency)
    left = max(_power(limit, currency) - spent, Fraction(0))
    remaining = _root_down(left, currency)
    total = round_up(spent) if currency == "rho" else sqrt_up(spent)
    return Balance(
        currency=currency,
        limit=limit,
        spent=total,
        remaining=remaining,
        delta=delta,
        epsilon_limit=epsilon,
        epsilon_spent=epsilon_of(total, currency, delta),
        epsilon_remaining=affordable_epsilon(remaining, currency, delta),
    )


def epsilon_of(cost: float, currency: Currency, delta: float) -> float:
    """Return the epsilon at ``delta`` that a cost in rho or mu amounts to (rounded up)."""
    from dpgmm_dist.privacy import accounting

    if cost == 0:
        return 0.0
    if currency == "mu":
        return float(accounting.epsilon_from_mu(cost, delta))
    return float(accounting.epsilon_from_rho(cost, delta))


def affordable_epsilon(remaining: float, currency: Currency, delta: float) -> float:
    """Return an epsilon whose release at ``delta`` costs at most ``remaining``, near the largest.

    The conversion to epsilon rounds up, so its result is lowered until it really fits.
    """
    from dpgmm_dist.privacy.accounting import EPSILON_RANGE

    epsilon = epsilon_of(remaining, currency, delta)
    for margin in (0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1e-2):
        lowered = epsilon * (1.0 - margin)
        if lowered >= EPSILON_RANGE[0] and _limit(currency, lowered, delta) <= remaining:
            return lowered
    return 0.0


def _limit(currency: Currency, epsilon: float, delta: float) -> float:
    """Return what (epsilon, delta) is worth in the currency (rounded down)."""
    from dpgmm_dist.privacy import accounting

    if currency == "mu":
        return float(accounting.mu_from_epsilon_delta(epsilon, delta))
    return float(accounting.rho_from_epsilon_delta(epsilon, delta))


def _total(charges: Sequence[Charge], currency: Currency) -> Fraction:
    """Return the exact sum of the rho, or of the mu^2."""
    if currency == "mu":
        costs = [charge.mu for charge in charges if charge.mu is not None]
    else:
        costs = [charge.rho for charge in charges]
    return sum((_power(cost, currency) for cost in costs), Fraction(0))


def _power(cost: float, currency: Currency) -> Fraction:
    """Return the cost in the form that adds up: rho itself, mu squared."""
    return Fraction(cost) ** 2 if currency == "mu" else Fraction(cost)


def _root_down(total: Fraction, currency: Currency) -> float:
    return sqrt_down(total) if currency == "mu" else round_down(total)
