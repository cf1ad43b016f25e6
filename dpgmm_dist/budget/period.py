"""Rolling periods: which charges count now, and when the next release fits.

A ledger with a period P bounds the charges within every stretch of time of length P. A charge at
time t counts in [t, t + P). The period does not bound the loss over all time: after n periods, up
to n times the budget may be spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from dpgmm_dist.budget.records import Charge, ChargeRecord, period_length


def expiry(record: ChargeRecord, period: str) -> datetime:
    """Return the time from which a charge does not count."""
    return datetime.fromisoformat(record.time) + period_length(period)


def counted(records: Sequence[ChargeRecord], period: str | None, at: str) -> list[ChargeRecord]:
    """Return the charges that count at the time ``at``: all of them if there is no period."""
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
    """Return when a refused charge fits if nothing else is charged, or None if it never does.

    ``admitted`` says whether it fits together with the given charges. Charges expire in order,
    because the times of records never decrease.
    """
    if period is None:
        return None
    counting = counted(records, period, at)
    while counting:
        expired = expiry(counting.pop(0), period)
        if admitted([record.charge for record in counting]):
            return expired.isoformat(timespec="seconds")
    return None
