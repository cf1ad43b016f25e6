"""What charges cost together: exact sums in one currency, and the dearest point of an account.

The cost for one row is the sum of the charges without an account and, for each account, of those
whose window holds the row. No row is at more than one point of an account's column, so an account
costs what its dearest point costs.
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


def total(charges: Sequence[Charge], currency: Currency, beside: Charge | None = None) -> Fraction:
    """Return what the charges cost together.

    With ``beside`` only rows of that charge's window are looked at: what is spent where it would
    be added.
    """
    accounts: dict[str, list[Charge]] = {}
    spent = Fraction(0)
    for charge in charges:
        if charge.account is None:
            spent += cost_of(charge, currency)
        else:
            accounts.setdefault(charge.account.name, []).append(charge)
    for name, held in accounts.items():
        inside = (
            beside.window if beside and beside.account and beside.account.name == name else None
        )
        spent += _dearest(held, currency, inside)
    return spent


def _dearest(held: Sequence[Charge], currency: Currency, inside: Window | None) -> Fraction:
    """Return the cost of the dearest point of an account, or of its part in a window."""
    windows = [charge.window for charge in held if charge.window is not None]
    points = {window.first for window in windows}
    if inside is not None:
        points = {point for point in points if inside.holds(point)} | {inside.first}
    # Costs change from one start to the next only downwards, at the ends: starts are enough.
    return max(
        sum(
            (cost_of(c, currency) for c in held if c.window is None or c.window.holds(point)),
            Fraction(0),
        )
        for point in points
    )


def check_account(charge: Charge, charges: Sequence[Charge]) -> None:
    """Refuse a charge whose account is about other rows than it was before.

    Raises
    ------
    SpecError
        Another data set, column or kind of window: nothing says that its rows are others.
    """
    if charge.account is None or charge.window is None:
        return
    for held in charges:
        if held.account is None or held.window is None or held.account.name != charge.account.name:
            continue
        old = (held.account.dataset, held.window.column, held.window.kind)
        new = (charge.account.dataset, charge.window.column, charge.window.kind)
        if old != new:
            raise SpecError(
                f"The account {charge.account.name!r} is about windows of {old[0]} by {old[1]!r}"
                f" ({old[2]}), and release {charge.release_id!r} is about {new[0]} by {new[1]!r}"
                f" ({new[2]}): a row could be in both. Use another name for privacy.account."
            )
