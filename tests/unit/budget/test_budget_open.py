"""Ledger and journal of a release, opened together: when it may go on, and what survives faults."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import pytest

from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge
from dpgmm_dist.errors import DataError, LedgerRefused, SpecError
from dpgmm_dist.storage.store import FsspecStore, Store, open_store

from ...variants import variant
from .budgets import FAULTS, SPEC, FaultyStore, InterruptedStore, Killed, charge

STEPS = ("moments", "cells", "components")


def opened(store: Store, cost: Charge | None = None, *, ledger: bool = True) -> Budget:
    """Do what `Budget.open` does, in a given store."""
    cost = cost or charge()
    journal = Journal(store, cost.release_id, private=ledger)
    budget = Budget(cost, journal, Ledger(store) if ledger else None)
    budget.begin(SPEC, "discrete_gaussian")
    return budget


class Draws:
    """Draws noise that never repeats, and records the answers that each step used."""

    def __init__(self) -> None:
        self.used: dict[int, set[bytes]] = {}
        self.drawn_uncharged = 0

    def release(self, store: Store, *, ledger: bool = True) -> None:
        """Use the budget as the pipeline does."""
        budget = opened(store, ledger=ledger)
        for step, name in enumerate(STEPS):
            budget.journal.put_query(step, name, f"query {os.urandom(4).hex()}".encode())
            answer = budget.journal.answer(step)
            if answer is None:
                record = budget.charge()
                self.drawn_uncharged += ledger and record is None
                answer = budget.journal.put_answer(step, name, os.urandom(8))
            self.used.setdefault(step, set()).add(answer)
        budget.journal.finish({"output": "out"})


def fresh() -> FsspecStore:
    return open_store(f"memory://{os.urandom(8).hex()}")


def ledger_store() -> FsspecStore:
    store = fresh()
    Ledger.init_store(store, 1.0, 1e-6)
    return store


def check_released(draws: Draws, store: Store, *, ledger: bool = True) -> None:
    journal = Journal(store, "week-1")
    assert journal.steps() == [0, 1, 2]
    assert draws.used == {step: {journal.answer(step)} for step in range(3)}
    assert draws.drawn_uncharged == 0
    assert journal.finished() == {"output": "out"}
    if ledger:
        assert Ledger(store).verify() == 1


@pytest.mark.parametrize("ledger", [True, variant(False)])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_survives_a_fault_at_every_operation(fault: str, ledger: bool) -> None:
    """It is charged once, no step has two answers, and the same command always finishes it."""
    for at in itertools.count():
        store = ledger_store() if ledger else fresh()
        draws = Draws()
        faulty = FaultyStore(store, at, fault)
        with contextlib.suppress(Killed, DataError):
            draws.release(faulty, ledger=ledger)
        draws.release(store, ledger=ledger)
        check_released(draws, store, ledger=ledger)
        if not faulty.fired:
            break
    assert at > 15  # operations


def test_a_release_survives_being_killed_again_and_again() -> None:
    for stride in (1, 2, 3, 5):
        store, draws = ledger_store(), Draws()
        for at in range(0, 400, stride):
            try:
                draws.release(FaultyStore(store, at, "killed after"))
            except Killed:
                continue
            break
        check_released(draws, store)


def test_two_drivers_of_one_release_share_every_answer() -> None:
    """A whole second run takes place before each write of the first run in turn."""
    for name in (
        "meta",
        "query-0000",
        "ledger/",
        "answer-0000",
        "query-0001",
        "answer-0002",
        "fin",
    ):
        store, draws = ledger_store(), Draws()
        draws.release(InterruptedStore(store, name, lambda s=store, d=draws: d.release(s)))  # type: ignore[misc]
        check_released(draws, store)


def test_a_second_driver_that_opens_while_the_first_works_sees_no_contradiction() -> None:
    """The first runs to its end between any two operations while the second opens."""

    class Busy(FaultyStore):
        def _run(self, operation, writes=False):  # type: ignore[no-untyped-def]
            if self.count == self.at:
                self.count += 1
                draws.release(self.inner)
                return operation()
            self.count += 1
            return operation()

    for at in itertools.count():
        store, draws = ledger_store(), Draws()
        busy = Busy(store, at, "")
        draws.release(busy)
        check_released(draws, store)
        if not busy.fired:
            break
    assert at > 15


def test_by_url_with_a_ledger(tmp_path: Path) -> None:
    ledger_url, output_url = str(tmp_path / "ledger"), str(tmp_path / "out")
    Ledger.init(ledger_url, 1.0, 1e-6)
    budget = Budget.open(charge(), SPEC, "gaussian", output_url, ledger_url)
    assert Ledger.open(ledger_url).verify() == 0
    assert budget.charge() == budget.charge() == Ledger.open(ledger_url).records[0]
    assert (tmp_path / "ledger" / "journal" / "week-1" / "meta.json").exists()
    assert not (tmp_path / "out").exists()


def test_by_url_without_a_ledger(tmp_path: Path) -> None:
    budget = Budget.open(charge(), SPEC, "gaussian", f"{tmp_path}/out/")
    assert budget.charge() is None
    assert (tmp_path / "out" / "_journal" / "week-1" / "meta.json").exists()
    assert budget.journal.url == f"{tmp_path}/out/_journal/week-1"


def test_a_refused_release_leaves_no_trace() -> None:
    store = ledger_store()
    before = store._fs.find(store._root)
    with pytest.raises(LedgerRefused):
        opened(store, charge(epsilon=2.0))
    assert store._fs.find(store._root) == before
    opened(store, charge(epsilon=1.0))


def test_a_release_without_a_ledger_at_its_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ledger"):
        Budget.open(charge(), SPEC, "gaussian", str(tmp_path / "o"), str(tmp_path / "l"))
    assert list(tmp_path.iterdir()) == []


def test_budget_taken_between_opening_and_drawing_is_refused() -> None:
    store = ledger_store()
    budget = opened(store)
    Ledger(store).charge(charge("other"))
    with pytest.raises(LedgerRefused):
        budget.charge()
    assert Ledger(store).find("week-1") is None


def test_another_specification_is_refused_before_anything_is_written() -> None:
    store = ledger_store()
    opened(store)
    with pytest.raises(SpecError, match=r"model\.components was 3 and is now 4"):
        other = Budget(charge(digest="e" * 64), Journal(store, "week-1"), Ledger(store))
        other.begin({**SPEC, "model": {"components": 4}}, "discrete_gaussian")
    assert Ledger(store).verify() == 0


@pytest.mark.parametrize("lost", ["meta.json", ""])
def test_a_charged_release_whose_journal_is_missing_is_refused(lost: str) -> None:
    store = ledger_store()
    Draws().release(store)
    store._fs.rm(store._path(f"journal/week-1/{lost}").rstrip("/"), recursive=True)
    with pytest.raises(DataError, match=r"'week-1' was begun, but its journal .* is missing"):
        opened(store)
    assert store.list("journal/week-1/") == [] or lost


def test_answers_without_meta_are_refused_without_a_ledger_too() -> None:
    store = fresh()
    Draws().release(store, ledger=False)
    store._fs.rm(store._path("journal/week-1/meta.json"))
    with pytest.raises(DataError, match=r"lost its meta\.json"):
        opened(store, ledger=False)


def test_a_ledger_that_was_rolled_back_is_refused() -> None:
    store = ledger_store()
    Draws().release(store)
    store._fs.rm(store._path("ledger/00000001.json"))
    with pytest.raises(DataError, match="rolled back"):
        opened(store)


def test_changed_input_is_refused_once_there_are_answers() -> None:
    store = ledger_store()
    opened(store).require_same_input(b"part-0 etag 1")
    opened(store).require_same_input(b"part-0 etag 2")  # repaired before the first answer
    Draws().release(store)
    opened(store).require_same_input(b"part-0 etag 2")
    for changed in (b"part-0 etag 1", b"part-0 etag 3"):
        with pytest.raises(DataError, match="input changed") as caught:
            opened(store).require_same_input(changed)
        assert "etag" not in str(caught.value)


def test_of_two_drivers_with_different_inputs_one_goes_on() -> None:
    store = ledger_store()
    racing = InterruptedStore(store, "private", lambda: opened(store).require_same_input(b"other"))
    with pytest.raises(DataError, match="input changed"):
        opened(racing).require_same_input(b"mine")


def test_nothing_about_the_input_is_kept_in_an_output() -> None:
    store = fresh()
    budget = opened(store, ledger=False)
    budget.require_same_input(b"part-0 etag 1")
    budget.require_same_input(b"part-0 etag 2")
    assert all(b"etag" not in store._fs.cat(path) for path in store._fs.find(store._root))
