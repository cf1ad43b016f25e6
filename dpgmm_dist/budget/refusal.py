"""The refusal of a charge: what was asked, what is left, what to do."""

from __future__ import annotations

from decimal import ROUND_DOWN, Context

from dpgmm_dist.budget.balance import Balance, affordable_epsilon, epsilon_of
from dpgmm_dist.budget.records import Charge, ChargeRecord
from dpgmm_dist.errors import LedgerRefused


class BudgetExceeded(LedgerRefused):
    """A charge does not fit; carries the numbers.

    Attributes
    ----------
    charge : Charge
        What was asked for.
    balance : Balance
        What there is, in the currency in which the charge would be composed.
    fits_from : str or None
        When it fits if nothing else is charged (UTC, ISO 8601); None where it never does.
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
    left: Balance,
    period: str | None = None,
    fits_from: str | None = None,
) -> BudgetExceeded:
    """Return the error for a charge that does not fit the ``left`` balance of a ledger."""
    cost = charge.mu if left.currency == "mu" and charge.mu is not None else charge.rho
    name, delta = left.currency, left.delta
    by = "1 release" if releases == 1 else f"{releases} releases"
    by += f" in the last {period}" if period else ""
    rows = f" over the rows of {charge.window}" if charge.account else ""
    fits = _floor(affordable_epsilon(left.remaining, left.currency, charge.delta))
    advice = f"Lower privacy.epsilon to {fits:g} (at delta {charge.delta:g}), or ask"
    return BudgetExceeded(
        f"The ledger at {url} refuses release {charge.release_id!r}. Requested: epsilon"
        f" {charge.epsilon:g} at delta {charge.delta:g} ({name} {cost:.6g}; epsilon"
        f" {epsilon_of(cost, name, delta):.4g} at the ledger's delta {delta:g})."
        f" Spent by {by}{rows}: epsilon {left.epsilon_spent:.4g} of"
        f" {left.epsilon_limit:g} ({name} {left.spent:.6g} of {left.limit:.6g}). Remaining:"
        f" epsilon {_floor(left.epsilon_remaining):g} ({name} {left.remaining:.6g})."
        f" {advice if fits > 0 else 'Ask'} whoever sets the budget for a new ledger."
        f" {_when(period, fits_from)}",
        charge,
        left,
        fits_from,
    )


def closed_refusal(url: str, closed: str, charge: Charge) -> LedgerRefused:
    """Return the error for a charge to a ledger that was closed."""
    return LedgerRefused(
        f"The ledger at {url} refuses release {charge.release_id!r}: it was closed on {closed} and"
        " is charged nothing any more. Ask whoever sets the budget for a new ledger."
    )


def expired_refusal(url: str, record: ChargeRecord, period: str) -> LedgerRefused:
    """Return the error for noise to be drawn on a charge that no period counts any more."""
    return LedgerRefused(
        f"The ledger at {url} refuses to go on with release {record.charge.release_id!r}: it was"
        f" charged on {record.time}, more than {period} ago, and what it would draw now would be"
        " counted in no period. Use another release id (which is charged anew)."
    )


def _when(period: str | None, fits_from: str | None) -> str:
    """Say when a release of this cost fits."""
    if period is None:
        return "No later time helps: this budget is for all time."
    if fits_from is None:
        return f"It exceeds the whole budget of {period}: it never fits."
    return f"The same release fits from {fits_from} on, if nothing else is charged until then."


def _floor(epsilon: float) -> float:
    """Return epsilon with 4 significant digits, rounded down so that it still fits."""
    return float(Context(prec=4, rounding=ROUND_DOWN).create_decimal_from_float(epsilon))
