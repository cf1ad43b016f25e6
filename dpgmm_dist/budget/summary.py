"""A ledger as plain values: the balance, every charge, and what each month spent."""

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
    records: Sequence[ChargeRecord], counting: set[int], terms: Terms, current: Balance
) -> dict[str, Any]:
    """Return what is charged and what remains, as ``dpgmm ledger show --json`` prints it.

    Shares are fractions of the limit, in the form in which costs add up (rho, or mu squared).
    Months are those of the charges, in UTC. Within an account disjoint windows compose in parallel,
    so with accounts the months need not add up to what is spent.

    Parameters
    ----------
    records
        All charges, in order.
    counting
        The numbers of the records that count now: all, or those of the current period.
    terms
        The limit of the ledger.
    current
        Its balance now.
    """
    return {
        "currency": current.currency,
        "limit": current.limit,
        "spent": current.spent,
        "remaining": current.remaining,
        "share_spent": _share_spent(current),
        "epsilon_spent": current.epsilon_spent,
        "epsilon_remaining": current.epsilon_remaining,
        "charges": [_charge(record, current, terms, counting) for record in records],
        "months": _months(records, current.currency, terms),
    }


def journals(store: Store, records: Sequence[ChargeRecord]) -> dict[str, list[str]]:
    """Return the ids of the charged releases by the state of their journals.

    The states are "finished", "unfinished" and "missing".

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
    record: ChargeRecord, current: Balance, terms: Terms, counting: set[int]
) -> dict[str, Any]:
    cost = cost_of(record.charge, current.currency) or cost_of(record.charge, "rho")
    until = None if terms.period is None else expiry(record, terms.period)
    return {
        **record.as_dict(),
        "share": float(cost / power(current.limit, current.currency)),
        "counts": record.seq in counting,
        "counts_until": None if until is None else until.isoformat(timespec="seconds"),
    }


def _months(
    records: Sequence[ChargeRecord], currency: Currency, terms: Terms
) -> list[dict[str, Any]]:
    months: dict[str, list[ChargeRecord]] = {}
    for record in records:
        months.setdefault(record.time[:7], []).append(record)
    return [_month(month, charged, currency, terms) for month, charged in months.items()]


def _month(
    month: str, records: Sequence[ChargeRecord], currency: Currency, terms: Terms
) -> dict[str, Any]:
    charges = [record.charge for record in records]
    if any(charge.mu is None for charge in charges):
        currency = "rho"  # a month outside the current period may have charges without a mu
    total = balance(charges, terms.epsilon, terms.delta, currency)
    return {
        "month": month,
        "releases": len(records),
        currency: total.spent,
        "epsilon": epsilon_of(total.spent, currency, terms.delta),
        "share": _share_spent(total),
    }


def _share_spent(state: Balance) -> float:
    return float(power(state.spent, state.currency) / power(state.limit, state.currency))
