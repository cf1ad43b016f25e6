"""What a ledger holds, as plain values: the balance, every charge, and what each month spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpgmm_dist.budget.balance import Balance, balance, epsilon_of
from dpgmm_dist.budget.composition import Currency, cost_of, power
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.period import expiry
from dpgmm_dist.budget.records import ChargeRecord, Terms
from dpgmm_dist.storage.store import Store


def summary(
    records: Sequence[ChargeRecord], counting: set[int], terms: Terms, left: Balance
) -> dict[str, Any]:
    """Return what has been charged and what is left, as ``dpgmm ledger show --json`` prints it.

    Shares are of the limit, in the form in which costs add up (rho, or mu squared). Months are
    by the time of the charge, in UTC; the windows of an account overlap in none of its releases,
    so with accounts months need not add up to what is spent.

    Parameters
    ----------
    counting
        The numbers of the records that count now: of the rolling period, or all.
    """
    return {
        "currency": left.currency,
        "limit": left.limit,
        "spent": left.spent,
        "remaining": left.remaining,
        "share_spent": _share(left.spent, left),
        "epsilon_spent": left.epsilon_spent,
        "epsilon_remaining": left.epsilon_remaining,
        "charges": [_charge(record, left, terms, counting) for record in records],
        "months": _months(records, left, terms),
    }


def journals(store: Store, records: Sequence[ChargeRecord]) -> dict[str, list[str]]:
    """Return the charged releases by the state of their journals.

    Raises
    ------
    DataError
        A journal is damaged or has lost records.
    """
    states: dict[str, list[str]] = {"finished": [], "unfinished": [], "missing": []}
    for record in records:
        journal = Journal(store, record.charge.release_id)
        if journal.meta() is None:
            state = "missing"
        else:
            journal.steps()
            state = "unfinished" if journal.finished() is None else "finished"
        states[state].append(record.charge.release_id)
    return states


def _charge(
    record: ChargeRecord, left: Balance, terms: Terms, counting: set[int]
) -> dict[str, Any]:
    cost = cost_of(record.charge, left.currency) or cost_of(record.charge, "rho")
    until = None if terms.period is None else expiry(record, terms.period)
    return {
        **record.as_dict(),
        "share": float(cost / power(left.limit, left.currency)),
        "counts": record.seq in counting,
        "counts_until": None if until is None else until.isoformat(timespec="seconds"),
    }


def _months(records: Sequence[ChargeRecord], left: Balance, terms: Terms) -> list[dict[str, Any]]:
    months: dict[str, list[ChargeRecord]] = {}
    for record in records:
        months.setdefault(record.time[:7], []).append(record)
    return [_month(month, held, left.currency, terms) for month, held in months.items()]


def _month(
    month: str, records: Sequence[ChargeRecord], currency: Currency, terms: Terms
) -> dict[str, Any]:
    charges = [record.charge for record in records]
    if any(charge.mu is None for charge in charges):
        currency = "rho"  # a month that has left the period may hold other charges
    own = balance(charges, terms.epsilon, terms.delta, currency)
    return {
        "month": month,
        "releases": len(records),
        currency: own.spent,
        "epsilon": epsilon_of(own.spent, currency, terms.delta),
        "share": _share(own.spent, own),
    }


def _share(cost: float, left: Balance) -> float:
    return float(power(cost, left.currency) / power(left.limit, left.currency))
