"""Rolling periods: which charges count now, and when the next release fits.

A ledger with a period P bounds what is charged within every stretch of time of length P. A charge
made at t counts from t until, and not at, t + P. It does not bound the loss of all time: after n
periods up to n times the budget may have been charged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from dpgmm_dist.budget.records import Charge, ChargeRecord, period_length


def expiry(record: ChargeRecord, period: str) -> datetime:
    """Return when a charge no longer counts."""
    return datetime.fromisoformat(record.time) + period_length(period)


def counted(records: Sequence[ChargeRecord], period: str | None, at: str) -> list[ChargeRecord]:
    """Return the charges that count at the time ``at``; all of them without a period."""
    if period is None:
        return list(records)
    moment = datetime.fromisoformat(at)
    return [record for record in records if moment < expiry(record, period)]


def fits_from(
    records: Sequence[ChargeRecord],
    period: str | None,
    at: str,
    admitted: Callable[[Sequence[Charge]], bool],
) -> str | None:
    """Return when a refused charge fits if nothing else is charged; None if it never does.

    ``admitted`` says whether it fits beside the given charges. Charges expire in their order,
    since their times never go back.
    """
    if period is None:
        return None
    counting = counted(records, period, at)
    while counting:
        expired = expiry(counting.pop(0), period)
        if admitted([record.charge for record in counting]):
            return expired.isoformat(timespec="seconds")
    return None
