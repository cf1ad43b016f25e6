"""The cost of charges together: exact sums in one currency, parallel within an account.

A row pays for every charge without an account. Within an account it pays only for the charges whose
window holds it. Every row has one value in the account's window column, so an account costs the
maximum, over the values of that column, of what the windows that hold the value cost together.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from dpgmm_dist.budget.records import Charge
from dpgmm_dist.errors import SpecError
from dpgmm_dist.windows import Window

Currency = Literal["rho", "mu"]


def currency_of(charges: Sequence[Charge]) -> Currency:
    """Return the currency in which these charges compose together."""
    gaussian = bool(charges) and all(charge.mu is not None for charge in charges)
    return "mu" if gaussian else "rho"


def power(cost: float, currency: Currency) -> Fraction:
    """Return the cost in the form that adds up: rho itself, mu squared."""
    return Fraction(cost) ** 2 if currency == "mu" else Fraction(cost)


def cost_of(charge: Charge, currency: Currency) -> Fraction:
    """Return what one charge adds."""
    cost = charge.mu if currency == "mu" else charge.rho
    return Fraction(0) if cost is None else power(cost, currency)


def total(
    charges: Sequence[Charge], currency: Currency, candidate: Charge | None = None
) -> Fraction:
    """Return what the charges cost together, in the form that adds up (`power`).

    With a ``candidate``, only the rows of its window count: what is already spent on the rows that
    it would be charged for.
    """
    accounts: dict[str, list[Charge]] = {}
    spent = Fraction(0)
    for charge in charges:
        if charge.account is None:
            spent += cost_of(charge, currency)
        else:
            accounts.setdefault(charge.account.name, []).append(charge)
    account = candidate.account.name if candidate and candidate.account else None
    for name, charged in accounts.items():
        window = candidate.window if candidate and name == account else None
        spent += _largest_cost(charged, currency, window)
    return spent


def _largest_cost(charged: Sequence[Charge], currency: Currency, inside: Window | None) -> Fraction:
    """Return the largest cost of a point of an account, or of a point ``inside`` a window."""
    points = {charge.window.first for charge in charged if charge.window is not None}
    if inside is not None:
        points = {point for point in points if inside.holds(point)} | {inside.first}
    # The cost rises only where a window starts, so these points include the maximum.
    return max(
        sum(
            (cost_of(c, currency) for c in charged if c.window is None or c.window.holds(point)),
            Fraction(0),
        )
        for point in points
    )


def check_account(charge: Charge, charges: Sequence[Charge]) -> None:
    """Refuse a charge whose account is already used for another data set or window column.

    Raises
    ------
    SpecError
        The data set, the column or the kind of window differs, so a row could be in both windows.
    """
    if charge.account is None or charge.window is None:
        return
    for other in charges:
        if other.account is None or other.window is None:
            continue
        if other.account.name != charge.account.name:
            continue
        old = (other.account.dataset, other.window.column, other.window.kind)
        new = (charge.account.dataset, charge.window.column, charge.window.kind)
        if old != new:
            raise SpecError(
                f"The account {charge.account.name!r} is for windows of {old[0]} by {old[1]!r}"
                f" ({old[2]}), but release {charge.release_id!r} reads windows of {new[0]} by"
                f" {new[1]!r} ({new[2]}): a row could be in both. Use another name for"
                " privacy.account."
            )
