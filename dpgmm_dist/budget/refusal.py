"""The refusal of a charge: what was asked, what is left, what to do."""

from __future__ import annotations

from decimal import ROUND_DOWN, Context

from dpgmm_dist.budget.balance import Balance, affordable_epsilon, epsilon_of
from dpgmm_dist.budget.records import Charge
from dpgmm_dist.errors import LedgerRefused


class BudgetExceeded(LedgerRefused):
    """A charge does not fit; carries the numbers.

    Attributes
    ----------
    charge : Charge
        What was asked for.
    balance : Balance
        What there is, in the currency in which the charge would be composed.
    """

    def __init__(self, message: str, charge: Charge, balance: Balance) -> None:
        super().__init__(message)
        self.charge = charge
        self.balance = balance


def refusal(url: str, releases: int, charge: Charge, left: Balance) -> BudgetExceeded:
    """Return the error for a charge that does not fit the ``left`` balance of a ledger."""
    cost = charge.mu if left.currency == "mu" and charge.mu is not None else charge.rho
    name, delta = left.currency, left.delta
    by = "1 release" if releases == 1 else f"{releases} releases"
    fits = _floor(affordable_epsilon(left.remaining, left.currency, charge.delta))
    advice = f"Lower privacy.epsilon to {fits:g} (at delta {charge.delta:g}), or ask"
    return BudgetExceeded(
        f"The ledger at {url} refuses release {charge.release_id!r}. Requested: epsilon"
        f" {charge.epsilon:g} at delta {charge.delta:g} ({name} {cost:.6g}; epsilon"
        f" {epsilon_of(cost, name, delta):.4g} at the ledger's delta {delta:g})."
        f" Spent by {by}: epsilon {left.epsilon_spent:.4g} of"
        f" {left.epsilon_limit:g} ({name} {left.spent:.6g} of {left.limit:.6g}). Remaining:"
        f" epsilon {_floor(left.epsilon_remaining):g} ({name} {left.remaining:.6g})."
        f" {advice if fits > 0 else 'Ask'} whoever sets the budget for a new ledger.",
        charge,
        left,
    )


def _floor(epsilon: float) -> float:
    """Return epsilon with 4 significant digits, rounded down so that it still fits."""
    return float(Context(prec=4, rounding=ROUND_DOWN).create_decimal_from_float(epsilon))
