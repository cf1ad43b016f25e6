"""A rolling period bounds the charges within any stretch of that length, even with wrong clocks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.budget import ledger as module
from dpgmm_dist.budget.balance import admits
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import period_length, random_release_id
from dpgmm_dist.budget.refusal import BudgetExceeded
from dpgmm_dist.budget.sealed import seal
from dpgmm_dist.errors import DataError, LedgerRefused, SpecError
from dpgmm_dist.storage.store import FsspecStore, open_store

from .budgets import SPEC, charge

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """The clock of the ledger: days since `BEGIN`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.day = 0.0
        monkeypatch.setattr(module, "now", self.text)

    def text(self) -> str:
        return (BEGIN + timedelta(days=self.day)).isoformat(timespec="seconds")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("period", "days"), [("365d", 365), ("52w", 364), ("12h", 0.5), ("36525d", 36525)]
)
def test_periods_are_hours_days_or_weeks(period: str, days: float) -> None:
    assert period_length(period) == timedelta(days=days)


@pytest.mark.parametrize(
    "period", ["", "365", "0d", "1y", "-1d", "1.5d", "36526d", "d", "365d ", 7]
)
def test_other_periods_are_refused(memory: FsspecStore, period: Any) -> None:
    with pytest.raises(SpecError, match="365d or 52w"):
        Ledger.init_store(memory, 1.0, 1e-6, period)
    assert memory.list("ledger/") == []


def test_a_charge_counts_for_its_period_and_no_longer(memory: FsspecStore, clock: Clock) -> None:
    ledger = Ledger.init_store(memory, 1.0, 1e-6, "365d")
    ledger.charge(charge("first"))
    for day in (0.0, 1.0, 364.999):
        clock.day = day
        with pytest.raises(BudgetExceeded) as caught:
            ledger.check(charge("second"))
        assert caught.value.fits_from == "2027-01-01T00:00:00+00:00"
        assert "Spent by 1 release in the last 365d: epsilon 1 of 1" in str(caught.value)
        assert "fits from 2027-01-01T00:00:00+00:00 on if nothing else" in str(caught.value)
    clock.day = 365.0
    ledger.check(charge("second"))
    assert ledger.charge(charge("second")).seq == 2
    assert ledger.verify() == Ledger(memory).verify() == 2


def test_the_time_of_the_next_release_is_when_enough_has_expired(
    memory: FsspecStore, clock: Clock
) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5, "100d")
    for day, name in ((0, "a"), (10, "b")):
        clock.day = day
        ledger.charge(charge(name))
    clock.day = 20
    with pytest.raises(BudgetExceeded) as small:
        ledger.check(charge("c", 1.0))
    with pytest.raises(BudgetExceeded) as large:
        ledger.check(charge("c", 1.4))
    with pytest.raises(BudgetExceeded) as never:
        ledger.check(charge("c", 1.6, 1e-5))
    assert small.value.fits_from == "2026-04-11T00:00:00+00:00"  # a has expired: day 100
    assert large.value.fits_from == "2026-04-21T00:00:00+00:00"  # b too: day 110
    assert never.value.fits_from is None
    assert "It never fits: it exceeds the whole budget of 100d" in str(never.value)
    for day, epsilon in ((100, 1.0), (200, 1.4)):
        clock.day = day - 0.001
        with pytest.raises(BudgetExceeded):
            ledger.charge(charge(f"at-{day}", epsilon))
        clock.day = day
        ledger.charge(charge(f"at-{day}", epsilon))


def test_a_budget_for_all_time_says_that_no_later_time_helps(memory: FsspecStore) -> None:
    ledger = Ledger.init_store(memory, 1.0, 1e-6)
    ledger.charge(charge("a"))
    with pytest.raises(BudgetExceeded, match="No later time helps") as caught:
        ledger.check(charge("b"))
    assert caught.value.fits_from is None


@given(
    gaps=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=25),
    epsilons=st.lists(st.sampled_from([0.2, 0.5, 0.8]), min_size=25, max_size=25),
    gaussian=st.lists(st.booleans(), min_size=25, max_size=25),
)
def test_no_stretch_of_time_of_that_length_holds_more_than_the_budget(
    gaps: list[float], epsilons: list[float], gaussian: list[bool]
) -> None:
    """By brute force: the admitted charges in every stretch of time that starts at a charge."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        ledger = Ledger.init_store(open_store(f"memory://{random_release_id()}"), 1.0, 1e-6, "30d")
        refused = 0
        for index, gap in enumerate(gaps):
            clock.day += gap
            try:
                ledger.charge(charge(f"r-{index}", epsilons[index], 1e-7, gaussian=gaussian[index]))
            except LedgerRefused:
                refused += 1
    times = [datetime.fromisoformat(record.time) for record in ledger.records]
    for begin in times:
        inside = [
            record.charge
            for record, time in zip(ledger.records, times, strict=True)
            if begin <= time < begin + timedelta(days=30)
        ]
        assert admits(inside, 1.0, 1e-6)
    assert len(ledger.records) + refused == len(gaps)


def test_a_clock_that_goes_back_does_not_hide_a_charge(memory: FsspecStore, clock: Clock) -> None:
    ledger = Ledger.init_store(memory, 1.0, 1e-6, "30d")
    clock.day = 100
    ledger.charge(charge("a", 0.5))
    clock.day = 1
    with pytest.raises(BudgetExceeded):
        ledger.charge(charge("b"))
    small = Ledger(memory).charge(charge("c", 0.01, 1e-12))
    assert small.time == ledger.records[0].time
    assert ledger.verify() == 2


def test_records_dated_back_are_found(memory: FsspecStore, clock: Clock) -> None:
    ledger = Ledger.init_store(memory, 1.0, 1e-6, "30d")
    clock.day = 100
    ledger.charge(charge("a", 0.1))
    clock.day = 101
    ledger.charge(charge("b", 0.1))
    fields = json.loads(memory.read("ledger/00000002.json"))
    fields.pop("digest")
    forged = seal(fields | {"time": "2026-01-02T00:00:00+00:00"})
    memory._fs.pipe_file(memory._path("ledger/00000002.json"), forged)
    with pytest.raises(DataError, match=r"00000002\.json has an earlier time"):
        Ledger(memory)


def test_noise_is_not_drawn_for_a_charge_that_no_period_counts(
    memory: FsspecStore, clock: Clock
) -> None:
    """The noise would be drawn in a period that does not count its cost."""
    ledger = Ledger.init_store(memory, 1.0, 1e-6, "30d")
    ledger.charge(charge("a"))
    clock.day = 29.9
    assert ledger.charge(charge("a")).seq == 1
    clock.day = 30
    with pytest.raises(LedgerRefused, match=r"charged on 2026-01-01.*more than 30d ago"):
        Ledger(memory).charge(charge("a"))
    ledger.check(charge("a"))  # a complete journal can still be replayed


def test_a_release_that_takes_longer_than_the_period_draws_nothing_after_it(
    memory: FsspecStore, clock: Clock
) -> None:
    """One driver, which charged once and is still at work when its charge counts no more."""
    ledger = Ledger.init_store(memory, 1.0, 1e-6, "12h")
    cost = charge("a")
    budget = Budget(cost, Journal(memory, cost.release_id), ledger)
    budget.begin(SPEC, "discrete_gaussian")
    record = budget.charge()
    clock.day = 0.499
    assert budget.charge() == record
    clock.day = 0.5
    with pytest.raises(LedgerRefused, match="more than 12h ago"):
        budget.charge()
    assert len(Ledger(memory).records) == 1


def test_show_says_what_a_period_bounds(memory: FsspecStore, clock: Clock) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5, "30d")
    ledger.charge(charge("a"))
    clock.day = 31
    ledger.charge(charge("b"))
    shown = ledger.show()
    assert shown["period"] == "30d"
    assert "charged within any 30d together are (epsilon 1.5, delta 1e-05)-DP" in shown["bound"]
    assert "not the loss of all time" in shown["bound"]
    assert [charge["counts"] for charge in shown["charges"]] == [False, True]
    assert shown["charges"][1]["counts_until"] == "2026-03-03T00:00:00+00:00"
    assert shown["spent"] == ledger.records[1].charge.rho
    assert ledger.facts() == {"period": "30d", "bound": shown["bound"]}
    unlimited = Ledger.init_store(open_store(f"memory://{random_release_id()}"), 1.0, 1e-6)
    assert "period" not in unlimited.show()["bound"]
