"""The refusal of a charge: what was requested, what remains, what to do."""

from __future__ import annotations

from decimal import ROUND_DOWN, Context

from dpgmm_dist.budget.balance import Balance, affordable_epsilon, epsilon_of
from dpgmm_dist.budget.records import Charge, ChargeRecord
from dpgmm_dist.errors import LedgerRefused


class BudgetExceeded(LedgerRefused):
    """A charge does not fit the balance of its ledger.

    Attributes
    ----------
    charge : Charge
        The requested charge.
    balance : Balance
        The balance that applies to it, in the currency in which it would be composed.
    fits_from : str or None
        When the charge fits if nothing else is charged (UTC, ISO 8601), or None if it never does.
    """

    def __init__(
        self, message: str, charge: Charge, balance: Balance, fits_from: str | None = None
    ) -> None:
        super().__init__(message)
        self.charge = charge
        self.balance = balance
        self.fits_from = fits_from


def refusal(
    url: str,
    releases: int,
    charge: Charge,
    balance: Balance,
    period: str | None = None,
    fits_from: str | None = None,
) -> BudgetExceeded:
    """Return the error for a charge that does not fit a ledger.

    Parameters
    ----------
    url, releases, period
        Of the ledger: where it is, how many charges count now, its rolling period or None.
    charge, balance, fits_from
        As `BudgetExceeded` has them.
    """
    currency, delta = balance.currency, balance.delta
    cost = charge.mu if currency == "mu" and charge.mu is not None else charge.rho
    count = "1 release" if releases == 1 else f"{releases} releases"
    within = f" in the last {period}" if period else ""
    rows = f" over the rows of {charge.window}" if charge.account else ""
    fits = _floor(affordable_epsilon(balance.remaining, currency, charge.delta))
    advice = f"Lower privacy.epsilon to {fits:g} (at delta {charge.delta:g}), or ask"
    return BudgetExceeded(
        f"The ledger at {url} refuses release {charge.release_id!r}. Requested: epsilon"
        f" {charge.epsilon:g} at delta {charge.delta:g} ({currency} {cost:.6g}; epsilon"
        f" {epsilon_of(cost, currency, delta):.4g} at the ledger's delta {delta:g})."
        f" Spent by {count}{within}{rows}: epsilon {balance.epsilon_spent:.4g} of"
        f" {balance.epsilon_limit:g} ({currency} {balance.spent:.6g} of {balance.limit:.6g})."
        f" Remaining: epsilon {_floor(balance.epsilon_remaining):g} ({currency}"
        f" {balance.remaining:.6g})."
        f" {advice if fits > 0 else 'Ask'} the owner of the budget for a new ledger."
        f" {_fitting_time(period, fits_from)}",
        charge,
        balance,
        fits_from,
    )


def closed_refusal(url: str, closed: str, charge: Charge) -> LedgerRefused:
    """Return the error for a charge to a closed ledger."""
    return LedgerRefused(
        f"The ledger at {url} refuses release {charge.release_id!r}: it was closed on {closed}. Ask"
        " the owner of the budget for a new ledger."
    )


def expired_refusal(url: str, record: ChargeRecord, period: str) -> LedgerRefused:
    """Return the error for a release that would draw noise after its charge has expired."""
    return LedgerRefused(
        f"The ledger at {url} refuses to go on with release {record.charge.release_id!r}: it was"
        f" charged on {record.time}, more than {period} ago, so no period would count the answers"
        " that it gives now. Use another release id, which is charged again."
    )


def _fitting_time(period: str | None, fits_from: str | None) -> str:
    """Return the sentence that says when a release of this cost fits."""
    if period is None:
        return "No later time helps: this budget is for all time."
    if fits_from is None:
        return f"It never fits: it exceeds the whole budget of {period}."
    return f"The same release fits from {fits_from} on if nothing else is charged until then."


def _floor(epsilon: float) -> float:
    """Return epsilon with 4 significant digits, rounded down so that it still fits."""
    return float(Context(prec=4, rounding=ROUND_DOWN).create_decimal_from_float(epsilon))
