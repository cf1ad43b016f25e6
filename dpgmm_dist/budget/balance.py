"""Whether a charge fits a ledger: exact composition, without tolerance.

Charges compose in their currency, never by adding epsilons. If every answer of every release has
exact Gaussian noise, the releases together are mu-Gaussian-DP, and mu^2 is the sum of their mu^2
(Dong, Roth and Su 2022, corollary 3.3). Otherwise they are rho-zCDP, and rho is the sum of their
rho (Bun and Steinke 2016, lemma 2.3). The limit is the ledger's (epsilon, delta), converted to the
same currency. Sums are exact fractions of the recorded floats: a ledger of (E, D) admits exactly
one release of (E, D), to the last bit.

Releases of disjoint windows may share an account, in which they compose in parallel
(`composition`).

A release may be planned after looking at earlier ones: the limit is fixed beforehand, so both sums
are valid filters (Feldman and Zrnic 2021; Smith and Thakurta 2022). The currency must not depend on
earlier releases: decide once for a ledger whether its releases have exact Gaussian noise
(docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from dpgmm_dist.budget.composition import Currency, currency_of, power, total
from dpgmm_dist.budget.records import Charge
from dpgmm_dist.budget.rounding import round_down, round_up, sqrt_down, sqrt_up


@dataclass(frozen=True)
class Balance:
    """What a ledger allows, what is spent and what remains.

    Attributes
    ----------
    currency : {"rho", "mu"}
        "rho" for zCDP; "mu" for Gaussian DP, if every charge has a mu.
    limit, spent, remaining : float
        In that currency; ``spent`` is rounded up and ``remaining`` down. In mu, ``remaining`` is
        sqrt(limit^2 - spent^2): the most that one more release may cost.
    delta : float
        The ledger's delta, at which the epsilons below hold.
    epsilon_limit, epsilon_spent : float
        The ledger's epsilon, and the epsilon of all charges together.
    epsilon_remaining : float
        The epsilon of one more release at the ledger's delta that still fits. Epsilons do not add
        up, so this is not the difference of the other two.
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
    """Say whether all the charges together stay within (epsilon, delta).

    ``slack`` is a relative tolerance, for checking what another version of the library admitted.
    """
    currency = currency_of(charges)
    limit = power(_limit(currency, epsilon, delta), currency)
    return total(charges, currency) <= limit * (1 + slack)


def balance(
    charges: Sequence[Charge],
    epsilon: float,
    delta: float,
    currency: Currency | None = None,
    candidate: Charge | None = None,
) -> Balance:
    """Return the balance of a ledger of (epsilon, delta) after the charges.

    Parameters
    ----------
    currency
        By default the currency of the charges. Pass "rho" for a candidate without a mu.
    candidate
        The next charge. If given, the balance is the one that applies to it: of its account, only
        what is spent in its window counts.
    """
    currency = currency or currency_of(charges)
    limit = _limit(currency, epsilon, delta)
    spent = total(charges, currency, candidate)
    unspent = max(power(limit, currency) - spent, Fraction(0))
    remaining = _root_down(unspent, currency)
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
    """Return the epsilon at ``delta`` of a cost in rho or mu, rounded up."""
    from dpgmm_dist.privacy import accounting

    if cost == 0:
        return 0.0
    if currency == "mu":
        return float(accounting.epsilon_from_mu(cost, delta))
    return float(accounting.epsilon_from_rho(cost, delta))


def affordable_epsilon(remaining: float, currency: Currency, delta: float) -> float:
    """Return almost the largest epsilon whose release at ``delta`` costs at most ``remaining``.

    The conversion to epsilon rounds up, so its result is lowered until the release fits. The result
    is 0 if no supported epsilon fits.
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
    """Convert (epsilon, delta) to the currency, rounded down."""
    from dpgmm_dist.privacy import accounting

    if currency == "mu":
        return float(accounting.mu_from_epsilon_delta(epsilon, delta))
    return float(accounting.rho_from_epsilon_delta(epsilon, delta))


def _root_down(amount: Fraction, currency: Currency) -> float:
    return sqrt_down(amount) if currency == "mu" else round_down(amount)
