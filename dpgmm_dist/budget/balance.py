"""Whether a charge fits a ledger: exact composition, without tolerance.

Charges compose in their currency, never by adding epsilons. If every answer of every release had
exact Gaussian noise, the releases together are mu-Gaussian-DP with mu^2 the sum of the mu^2
(Dong, Roth and Su 2022, corollary 3.3); otherwise they are rho-zCDP with rho the sum of the rho
(Bun and Steinke 2016, lemma 2.3). The limit is what the ledger's (epsilon, delta) is worth in the
same currency. Sums are exact fractions of the recorded floats: a ledger of (E, D) admits exactly
one release of (E, D), to the last bit.

Windows of rows may share an account, which costs what its dearest point costs (`composition`).
Releases may be planned after looking at earlier ones: with the limit fixed beforehand both sums are
valid filters (Feldman and Zrnic 2021; Smith and Thakurta 2022). What must not depend on earlier
releases is the currency, that is whether a release has exact Gaussian noise: decide that once for a
ledger (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from dpgmm_dist.budget.composition import Currency, currency_of, power, total
from dpgmm_dist.budget.exactly import round_down, round_up, sqrt_down, sqrt_up
from dpgmm_dist.budget.records import Charge


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


def admits(
    charges: Sequence[Charge], epsilon: float, delta: float, slack: Fraction = Fraction(0)
) -> bool:
    """Say whether all the charges together keep within (epsilon, delta).

    ``slack`` is only for reading what another version has admitted.
    """
    currency = currency_of(charges)
    limit = power(_limit(currency, epsilon, delta), currency)
    return total(charges, currency) <= limit * (1 + slack)


def balance(
    charges: Sequence[Charge],
    epsilon: float,
    delta: float,
    currency: Currency | None = None,
    beside: Charge | None = None,
) -> Balance:
    """Return the balance of a ledger of (epsilon, delta) after the charges.

    ``currency`` "rho" forces zCDP, as a candidate without a mu will; by default it follows the
    charges. With ``beside`` it is the balance that this charge finds: of an account, what is spent
    in its own window.
    """
    currency = currency or currency_of(charges)
    limit = _limit(currency, epsilon, delta)
    spent = total(charges, currency, beside)
    left = max(power(limit, currency) - spent, Fraction(0))
    remaining = _root_down(left, currency)
    cost = round_up(spent) if currency == "rho" else sqrt_up(spent)
    return Balance(
        currency=currency,
        limit=limit,
        spent=cost,
        remaining=remaining,
        delta=delta,
        epsilon_limit=epsilon,
        epsilon_spent=epsilon_of(cost, currency, delta),
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


@cache
def _limit(currency: Currency, epsilon: float, delta: float) -> float:
    """Return what (epsilon, delta) is worth in the currency (rounded down)."""
    from dpgmm_dist.privacy import accounting

    if currency == "mu":
        return float(accounting.mu_from_epsilon_delta(epsilon, delta))
    return float(accounting.rho_from_epsilon_delta(epsilon, delta))


def _root_down(total: Fraction, currency: Currency) -> float:
    return sqrt_down(total) if currency == "mu" else round_down(total)
