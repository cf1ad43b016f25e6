"""A closed ledger accepts no charge; ledgers of version 0.1.0 can be read and charged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dpgmm_dist.budget import ledger as module
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import encode_charge, encode_close
from dpgmm_dist.budget.sealed import sha256_hex
from dpgmm_dist.errors import DataError, LedgerRefused
from dpgmm_dist.storage.store import FsspecStore

from .budgets import FaultyStore, InterruptedStore, charge, in_rho

OLD = Path(__file__).parent / "ledger_0_1_0"


@pytest.fixture
def ledger(memory: FsspecStore) -> Ledger:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    return ledger


def test_a_closed_ledger_accepts_no_charge(ledger: Ledger) -> None:
    closed = ledger.close()
    for reader in (ledger, Ledger(ledger.store)):
        assert reader.closed == reader.show()["closed"] == closed
        for attempt in (reader.check, reader.charge):
            with pytest.raises(LedgerRefused, match=f"closed on {closed[:10]}"):
                attempt(charge("b", 0.1))
        assert reader.verify() == 1


def test_a_charged_release_can_be_finished_after_closing(ledger: Ledger) -> None:
    ledger.close()
    ledger.check(charge("a"))
    assert Ledger(ledger.store).charge(charge("a")).seq == 1


def test_closing_twice_changes_nothing(ledger: Ledger) -> None:
    closed = ledger.close()
    assert ledger.close() == Ledger(ledger.store).close() == closed
    assert len(ledger.store.list("ledger/")) == 3


def test_closing_survives_races_and_lost_acknowledgements(ledger: Ledger) -> None:
    store = ledger.store
    other = Ledger(store)
    racing = InterruptedStore(store, "ledger/00000002", lambda: other.charge(charge("b", 0.1)))
    slow = InterruptedStore(racing, "ledger/00000003", lambda: Ledger(store).close())
    assert Ledger(slow).close() == Ledger(store).closed
    assert Ledger(store).verify() == 2
    assert len(store.list("ledger/")) == 4


@pytest.mark.parametrize("at", range(9))
def test_closing_with_a_lost_acknowledgement(memory: FsspecStore, at: int) -> None:
    Ledger.init_store(memory, 1.5, 1e-5)
    assert Ledger(FaultyStore(memory, at, "acknowledgement lost")).close()
    assert len(memory.list("ledger/")) == 2


def test_the_loser_of_a_race_against_closing_is_refused(ledger: Ledger) -> None:
    other = Ledger(ledger.store)
    racing = Ledger(InterruptedStore(ledger.store, "ledger/00000002", other.close))
    with pytest.raises(LedgerRefused, match="closed"):
        racing.charge(charge("b", 0.1))


def test_a_charge_after_closing_is_found(ledger: Ledger) -> None:
    store = ledger.store
    ledger.close()
    last = sha256_hex(store.read("ledger/00000002.json"))
    store.create("ledger/00000003.json", encode_charge(charge("b", 0.1), 3, last, module.now()))
    with pytest.raises(DataError, match="after the ledger was closed"):
        Ledger(store)


def test_a_closing_record_that_does_not_follow_is_found(ledger: Ledger) -> None:
    ledger.store.create("ledger/00000002.json", encode_close(2, "0" * 64, module.now()))
    with pytest.raises(DataError, match="does not follow"):
        Ledger(ledger.store)


def test_an_overspent_ledger_is_found_by_verify(ledger: Ledger) -> None:
    """The library never writes such a record, but anyone who may write to the store can."""
    store = ledger.store
    last = sha256_hex(store.read("ledger/00000001.json"))
    store.create("ledger/00000002.json", encode_charge(in_rho(5.0, "b"), 2, last, module.now()))
    with pytest.raises(DataError, match=r"charge of 'b'.*exceeds the limit"):
        Ledger(store).verify()
    with pytest.raises(LedgerRefused):
        Ledger(store).check(charge("c", 0.1))


def test_a_ledger_of_version_0_1_0_is_read_and_charged(tmp_path: Path) -> None:
    url = shutil.copytree(OLD, tmp_path / "ledger")
    ledger = Ledger.open(str(url))
    assert ledger.verify() == 2
    assert ledger.terms.period is None
    assert [record.charge.release_id for record in ledger.records] == ["week-1", "week-2"]
    assert [record.charge.mu is None for record in ledger.records] == [False, True]
    assert ledger.balance().currency == "rho"
    # At the delta of the ledger, 1e-5, one more release of epsilon 0.5 fits.
    ledger.charge(charge("week-3", 0.5))
    ledger.close()
    assert Ledger.open(str(url)).verify() == 3
