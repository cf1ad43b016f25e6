"""Disjoint windows of rows compose in parallel within an account, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.budget.balance import balance
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.composition import check_account, total
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge
from dpgmm_dist.budget.refusal import BudgetExceeded
from dpgmm_dist.budget.sealed import seal
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.store import FsspecStore
from dpgmm_dist.windows import Account, Window

from .budgets import charge, in_mu, in_rho

EVENTS = Account("events", "s3://bucket/events/")
MONTHS = [Window("month", equals=f"2026-{month:02d}") for month in range(1, 13)]


def days(first: int, last: int, column: str = "time") -> Window:
    """Return the window of January from day ``first`` to the day before ``last``."""
    return Window(column, start=f"2026-01-{first:02d}", end=f"2026-01-{last:02d}")


def of(window: Window | None, cost: Charge, account: Account | None = EVENTS) -> Charge:
    return replace(cost, account=account if window else None, window=window)


@pytest.fixture
def ledger(memory: FsspecStore) -> Ledger:
    return Ledger.init_store(memory, 1.5, 1e-5)


@pytest.mark.parametrize("gaussian", [False, True])
def test_disjoint_windows_cost_as_much_as_the_most_expensive(
    ledger: Ledger, gaussian: bool
) -> None:
    for number, window in enumerate(MONTHS):
        ledger.charge(of(window, charge(f"m-{number}", 1.5, 1e-5, gaussian=gaussian)))
    assert ledger.verify() == 12
    assert ledger.balance().remaining == 0
    for further in (of(MONTHS[3], charge("again", 0.1)), charge("everything", 0.1)):
        with pytest.raises(BudgetExceeded):
            ledger.charge(further)
    assert Ledger(ledger.store).verify() == 12


def test_costs_in_mu_add_up_in_squares() -> None:
    charges = [in_mu(3.0), in_mu(4.0)]
    assert total(charges, "mu") == 25
    assert total([in_rho(3.0), in_rho(4.0)], "rho") == 7
    found = balance(charges, 8.0, 1e-5, "mu")
    assert found.spent == 5
    assert total([of(MONTHS[0], charges[0]), of(MONTHS[1], charges[1])], "mu") == 16


def test_an_account_counts_whole_for_a_candidate_of_another_or_of_none() -> None:
    charges = [of(MONTHS[0], in_rho(3.0)), of(MONTHS[1], in_rho(4.0))]
    other = Account("others", "s3://bucket/others/")
    assert total(charges, "rho", of(MONTHS[0], in_rho(1.0))) == 3
    assert total(charges, "rho", of(MONTHS[0], in_rho(1.0), other)) == 4
    assert total(charges, "rho", in_rho(1.0)) == 4


def test_charges_of_no_account_are_at_odds_with_none() -> None:
    plain, charged = in_rho(1.0), of(MONTHS[0], in_rho(1.0))
    check_account(plain, [charged, plain])
    check_account(charged, [plain, charged])


def test_without_an_account_windows_add_up(ledger: Ledger) -> None:
    for number in range(2):
        ledger.charge(of(MONTHS[number], charge(f"m-{number}"), account=None))
    with pytest.raises(BudgetExceeded):
        ledger.charge(of(MONTHS[2], charge("m-2"), account=None))


def test_a_charge_of_all_rows_is_added_to_the_account(ledger: Ledger) -> None:
    ledger.charge(charge("everything"))
    for number in range(5):
        ledger.charge(of(MONTHS[number], charge(f"m-{number}")))
    with pytest.raises(BudgetExceeded) as caught:
        ledger.check(of(MONTHS[0], charge("m-0-again")))
    assert "over the rows of month=2026-01" in str(caught.value)


def test_two_accounts_add_up(ledger: Ledger) -> None:
    other = Account("clicks", "s3://bucket/clicks/")
    ledger.charge(of(MONTHS[0], charge("a")))
    ledger.charge(of(MONTHS[1], charge("b"), other))
    with pytest.raises(BudgetExceeded):
        ledger.charge(of(MONTHS[2], charge("c"), Account("third", "x")))
    ledger.charge(of(MONTHS[2], charge("d"), other))


def test_a_refusal_counts_only_the_rows_it_is_about(ledger: Ledger) -> None:
    """The balance of a spent month is 0; another month has the whole budget."""
    ledger.charge(of(MONTHS[0], charge("a", 1.5, 1e-5)))
    fresh = of(MONTHS[1], charge("b", 1.6, 1e-5))
    with pytest.raises(BudgetExceeded) as caught:
        ledger.check(fresh)
    assert caught.value.balance.spent == 0
    with pytest.raises(BudgetExceeded) as caught:
        ledger.check(of(MONTHS[0], charge("c", 0.1)))
    assert caught.value.balance.remaining == 0


costs = st.floats(1e-6, 1.0)
spans = st.tuples(st.integers(1, 14), st.integers(1, 14)).map(lambda d: days(d[0], d[0] + d[1]))


@given(
    parts=st.lists(st.tuples(spans, costs), min_size=1, max_size=8),
    whole=st.lists(costs, max_size=2),
    gaussian=st.booleans(),
    window=spans,
)
def test_an_account_costs_every_row_what_its_windows_cost(
    parts: list[tuple[Window, float]], whole: list[float], gaussian: bool, window: Window
) -> None:
    """Compare with the cost of a row of each day, computed day by day."""
    make = in_mu if gaussian else in_rho
    charges = [of(window, make(cost)) for window, cost in parts] + [make(cost) for cost in whole]
    form = (lambda cost: Fraction(cost) ** 2) if gaussian else Fraction
    points = {day: days(day, day + 1).first for day in range(1, 30)}

    def of_row(point: Any) -> Fraction:
        inside = [cost for window, cost in parts if window.holds(point)]
        return sum(map(form, [*inside, *whole]), Fraction(0))

    currency = "mu" if gaussian else "rho"
    assert total(charges, currency) == max(map(of_row, points.values()))
    inside_costs = [of_row(point) for point in points.values() if window.holds(point)]
    assert total(charges, currency, candidate=of(window, make(0.1))) == max(inside_costs)


@pytest.mark.parametrize(
    ("account", "window"),
    [
        (Account("events", "s3://bucket/elsewhere/"), MONTHS[1]),
        (EVENTS, Window("week", equals="2026-02")),
        (EVENTS, Window("month", start="2026-02-01", end="2026-03-01")),
    ],
)
def test_an_account_is_about_one_column_of_one_data_set(
    ledger: Ledger, account: Account, window: Window
) -> None:
    ledger.charge(of(MONTHS[0], charge("a")))
    other = replace(charge("b"), account=account, window=window)
    for attempt in (ledger.check, ledger.charge):
        with pytest.raises(SpecError, match="a row could be in both"):
            attempt(other)
    assert ledger.verify() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"account": {"name": "events", "dataset": "elsewhere"}},
        {"window": {"column": "week", "equals": "2026-02"}},
        {"window": {"column": "month"}},
        {"window": {"column": "month", "equals": "x", "start": "2026-01-01", "end": "2026-02-01"}},
        {"window": {"column": "month", "start": "2026-02-01", "end": "2026-01-01"}},
        {"window": {"column": "month", "start": "soon", "end": "later"}},
        {"window": {"column": "month", "equals": 3}},
        {"window": {"column": "", "equals": "3"}},
        {"window": {"rows": 3}},
        {"window": ["month", "2026-02"]},
        {"window": None},
        {"account": {"name": "events"}},
        {"account": {"name": "", "dataset": "d"}},
        {"account": "events"},
    ],
)
def test_records_with_invalid_accounts_or_windows_are_refused(
    memory: FsspecStore, changes: dict[str, Any]
) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(of(MONTHS[0], charge("a")))
    ledger.charge(of(MONTHS[1], charge("b")))
    fields = json.loads(memory.read("ledger/00000002.json"))
    fields.pop("digest")
    memory._fs.pipe_file(memory._path("ledger/00000002.json"), seal({**fields, **changes}))
    with pytest.raises(DataError, match="not a valid record"):
        Ledger(memory)


def test_an_account_without_a_window_is_refused() -> None:
    with pytest.raises(SpecError, match=r"give dataset\.window"):
        replace(charge("a"), account=EVENTS)


@pytest.mark.parametrize(
    ("first", "second", "disjoint"),
    [
        (days(1, 8), days(8, 15), True),
        (days(1, 9), days(8, 15), False),
        (days(1, 8), Window("time", start="2026-01-07T23:00:00", end="2026-01-09"), False),
        (days(1, 8), Window("time", start="2026-01-08T01:00:00+02:00", end="2026-01-09"), False),
        (days(1, 8), Window("time", start="2026-01-08T02:00:00+02:00", end="2026-01-09"), True),
    ],
)
def test_windows_of_time_are_half_open_and_in_utc(
    first: Window, second: Window, disjoint: bool
) -> None:
    half = balance([], 1.0, 1e-6).limit / 2
    spent = total([of(first, in_rho(half)), of(second, in_rho(half))], "rho")
    assert spent == Fraction(half) * (1 if disjoint else 2)


def test_account_and_window_are_recorded_shown_and_in_the_receipt(memory: FsspecStore) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    parallel = of(MONTHS[0], charge("week-1"))
    ledger.charge(parallel)
    assert Ledger(memory).records[0].charge == parallel
    shown = ledger.show()["charges"][0]
    assert (shown["account"], shown["window"]) == (
        "events",
        {"column": "month", "equals": "2026-01"},
    )
    facts = Budget(parallel, Journal(memory, "week-1"), ledger).facts()
    assert facts is not None
    assert facts["window"] == {"column": "month", "equals": "2026-01"}
    assert facts["composition"].startswith("parallel: the unit is one row")
    assert EVENTS.dataset not in json.dumps(facts)
    sequential = Budget(charge("x"), Journal(memory, "x"), ledger).facts()
    assert sequential is not None
    assert sequential["composition"].startswith("sequential")
    assert Budget(charge("x"), Journal(memory, "x"), None).facts() is None
