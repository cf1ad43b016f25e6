"""The ledger charges once, refuses what exceeds the limit, and detects edits and losses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpgmm_dist.budget import ledger as module
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge, ChargeRecord, random_release_id
from dpgmm_dist.budget.refusal import BudgetExceeded
from dpgmm_dist.budget.sealed import seal, sha256_hex
from dpgmm_dist.errors import DataError, LedgerRefused, SpecError
from dpgmm_dist.storage.store import FsspecStore, open_store

from .budgets import DIGEST, FaultyStore, InterruptedStore, charge


@pytest.fixture
def ledger(store: FsspecStore) -> Ledger:
    return Ledger.init_store(store, 1.5, 1e-5)


def objects(store: FsspecStore) -> list[bytes]:
    return [store.read(name) for name in store.list("ledger/")]


def replace(store: FsspecStore, seq: int, data: bytes) -> None:
    """Overwrite a record, which the library never does."""
    store._fs.pipe_file(store._path(f"ledger/{seq:08d}.json"), data)


def test_init_begins_an_empty_ledger(store: FsspecStore) -> None:
    ledger = Ledger.init_store(store, 1.5, 1e-5)
    assert (ledger.terms.epsilon, ledger.terms.delta, ledger.terms.period) == (1.5, 1e-5, None)
    assert store.list("ledger/") == ["ledger/00000000.json"]
    fields = json.loads(objects(store)[0])
    assert fields["schema"] == 1
    assert fields["prev"] is None
    assert len(fields["nonce"]) == 32
    assert ledger.show()["charges"] == []


def test_init_and_open_by_url(tmp_path: Path) -> None:
    url = str(tmp_path / "ledger")
    Ledger.init(url, 1.0, 1e-6).charge(charge())
    assert Ledger.open(url).find("week-1") is not None
    assert Ledger.open(f"file://{url}").url == f"file://{url}"


def test_init_never_resets_a_budget(ledger: Ledger) -> None:
    ledger.charge(charge())
    with pytest.raises(SpecError, match=r"already \(epsilon 1\.5, delta 1e-05"):
        Ledger.init_store(ledger.store, 100.0, 1e-5)
    assert Ledger(ledger.store).find("week-1") is not None


def test_of_two_inits_one_wins(memory: FsspecStore) -> None:
    racing = InterruptedStore(memory, "00000000", lambda: Ledger.init_store(memory, 1.0, 1e-6))
    with pytest.raises(SpecError, match="already"):
        Ledger.init_store(racing, 2.0, 1e-6)
    assert Ledger(memory).terms.epsilon == 1.0


def test_init_whose_acknowledgement_was_lost_succeeds(memory: FsspecStore) -> None:
    for at in range(8):
        store = FaultyStore(
            open_store(f"memory://{random_release_id()}"), at, "acknowledgement lost"
        )
        assert Ledger.init_store(store, 1.0, 1e-6).terms.epsilon == 1.0


@pytest.mark.parametrize(
    ("epsilon", "delta", "what"),
    [
        (0, 1e-6, "epsilon=0"),
        (math.nan, 1e-6, "epsilon=nan"),
        (math.inf, 1e-6, "epsilon=inf"),
        (1e9, 1e-6, "epsilon=1000000000"),
        (1.0, 0, "delta=0"),
        (1.0, 1.0, "delta=1"),
        (1.0, -1e-6, "delta=-1e-06"),
    ],
)
def test_impossible_limits_are_refused(
    memory: FsspecStore, epsilon: float, delta: float, what: str
) -> None:
    with pytest.raises(SpecError, match=what):
        Ledger.init_store(memory, epsilon, delta)
    assert memory.list("ledger/") == []


def test_init_refuses_a_store_that_overwrites_and_leaves_nothing() -> None:
    from ..storage.test_store import OverwritingFileSystem

    assert OverwritingFileSystem.protocol == "overwriting"
    store = open_store("overwriting://budget")
    with pytest.raises(DataError, match="second time"):
        Ledger.init_store(store, 1.0, 1e-6)
    assert store.list("ledger/") == []


def test_a_ledger_copied_to_a_store_that_overwrites_is_not_charged(memory: FsspecStore) -> None:
    Ledger.init_store(memory, 1.0, 1e-6)
    copy = open_store("overwriting://copy")
    copy.create("ledger/00000000.json", memory.read("ledger/00000000.json"))
    with pytest.raises(DataError, match="second time"):
        Ledger(copy).charge(charge())
    assert copy.list("ledger/") == ["ledger/00000000.json"]
    assert copy.read("ledger/00000000.json") == memory.read("ledger/00000000.json")


def test_a_missing_ledger_is_an_error_that_names_init(store: FsspecStore) -> None:
    with pytest.raises(DataError, match=f"no ledger at {store.url}.*dpgmm ledger init"):
        Ledger(store)


def test_a_record_has_every_field_of_the_format(ledger: Ledger) -> None:
    record = ledger.charge(charge(gaussian=True))
    fields = json.loads(objects(ledger.store)[1])  # type: ignore[arg-type]
    assert record.seq == fields["seq"] == 1
    assert float.fromhex(fields["rho_hex"]) == fields["rho"] == record.charge.rho
    assert float.fromhex(fields["mu_hex"]) == fields["mu"] == record.charge.mu
    assert fields["prev"] == sha256_hex(objects(ledger.store)[0])  # type: ignore[arg-type]
    assert (fields["account"], fields["window"]) == (None, None)
    assert fields["time"].endswith("+00:00")
    assert record == Ledger(ledger.store).records[0]


@pytest.mark.parametrize("gaussian", [False, True])
def test_two_releases_fit_and_the_third_is_refused(ledger: Ledger, gaussian: bool) -> None:
    for week in range(2):
        ledger.check(charge(f"week-{week}", gaussian=gaussian))
        ledger.charge(charge(f"week-{week}", gaussian=gaussian))
    third = charge("week-3", gaussian=gaussian)
    for attempt in (ledger.check, ledger.charge):
        with pytest.raises(LedgerRefused) as caught:
            attempt(third)
        text = str(caught.value)
        unit = "mu" if gaussian else "rho"
        assert f"refuses release 'week-3'. Requested: epsilon 1 at delta 1e-06 ({unit} 0." in text
        assert "Spent by 2 releases: epsilon 1.2" in text
        assert "of 1.5" in text
        assert "Remaining: epsilon 0." in text
        assert "Lower privacy.epsilon to 0." in text
    assert ledger.verify() == 2
    assert isinstance(caught.value, BudgetExceeded)
    assert caught.value.charge == third
    # The epsilon that the message advises fits.
    advised = float(text.split("Lower privacy.epsilon to ")[1].split(" ")[0])
    ledger.charge(charge("week-3", advised, 1e-6, gaussian=gaussian))


def test_when_nothing_is_left_no_epsilon_is_advised(ledger: Ledger) -> None:
    ledger.charge(charge("all", 1.5, 1e-5))
    with pytest.raises(LedgerRefused, match=r"Remaining: epsilon 0 \(rho 0\)\. Ask the owner"):
        ledger.check(charge("more"))


def test_a_release_is_charged_once(ledger: Ledger) -> None:
    first = ledger.charge(charge())
    assert ledger.charge(charge()) == first
    assert Ledger(ledger.store).charge(charge()) == first
    ledger.check(charge())
    assert ledger.verify() == 1


def test_a_charged_release_is_admitted_again_when_the_ledger_is_full(ledger: Ledger) -> None:
    ledger.charge(charge("all", 1.5, 1e-5))
    ledger.check(charge("all", 1.5, 1e-5))
    assert ledger.charge(charge("all", 1.5, 1e-5)).seq == 1


def test_the_same_id_with_another_specification_is_refused(ledger: Ledger) -> None:
    ledger.charge(charge(digest="a" * 64))
    for attempt in (ledger.check, ledger.charge):
        with pytest.raises(SpecError, match=r"another specification .*aaaaaaaaaaaa, now dddd"):
            attempt(charge())


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (charge(), charge(epsilon=1.1)),
        (charge(gaussian=True), charge(epsilon=1.1, gaussian=True)),
        (charge(gaussian=True), charge()),
    ],
)
def test_a_charged_release_cannot_cost_more_later(
    ledger: Ledger, first: Charge, then: Charge
) -> None:
    ledger.charge(first)
    with pytest.raises(SpecError, match="charged already, at a lower cost"):
        ledger.charge(then)


def test_the_loser_of_a_race_decides_again(memory: FsspecStore) -> None:
    Ledger.init_store(memory, 1.5, 1e-5)
    other = Ledger(memory)
    racing = InterruptedStore(memory, "ledger/", lambda: other.charge(charge("other")))
    assert Ledger(racing).charge(charge("mine")).seq == 2
    assert Ledger(memory).verify() == 2


def test_the_loser_of_a_race_for_the_last_budget_is_refused(memory: FsspecStore) -> None:
    Ledger.init_store(memory, 1.0, 1e-6)
    other = Ledger(memory)
    racing = Ledger(InterruptedStore(memory, "ledger/", lambda: other.charge(charge("other"))))
    racing.check(charge("mine"))
    with pytest.raises(LedgerRefused):
        racing.charge(charge("mine"))
    assert [r.charge.release_id for r in Ledger(memory).records] == ["other"]


def test_two_drivers_of_one_release_are_charged_once(memory: FsspecStore) -> None:
    Ledger.init_store(memory, 1.0, 1e-6)
    other = Ledger(memory)
    racing = InterruptedStore(memory, "ledger/", lambda: other.charge(charge()))
    assert Ledger(racing).charge(charge()) == other.records[0]
    assert Ledger(memory).verify() == 1


def test_races_end(memory: FsspecStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module, "_MOST_RACES", 5)
    Ledger.init_store(memory, 1000.0, 1e-6)
    other = Ledger(memory)
    win: Callable[[], ChargeRecord] = lambda: other.charge(charge(random_release_id()))  # noqa: E731
    racing = Ledger(InterruptedStore(memory, "ledger/", win, times=1000))
    with pytest.raises(DataError, match="all of 5 races"):
        racing.charge(charge("mine"))
    assert Ledger(memory).verify() == 5
    assert Ledger(memory).find("mine") is None


def test_show_holds_plain_values(ledger: Ledger) -> None:
    ledger.charge(charge("a"))
    shown = json.loads(json.dumps(ledger.show()))
    assert shown["ledger"] == ledger.url
    assert (shown["epsilon"], shown["delta"], shown["period"]) == (1.5, 1e-5, None)
    assert shown["currency"] == "rho"
    assert shown["spent"] + shown["remaining"] == pytest.approx(shown["limit"])
    assert 0.8 < shown["epsilon_spent"] < 1.0  # at the ledger's larger delta
    assert [c["release_id"] for c in shown["charges"]] == ["a"]
    assert set(shown["charges"][0]) == {
        *("seq", "release_id", "spec_digest", "rho", "mu", "epsilon", "delta", "time"),
        *("account", "window", "share", "counts", "counts_until"),
    }


def _changed(value: Any) -> Any:
    """Return a plausible value that differs from ``value``."""
    if value is None:
        return "x"
    if isinstance(value, str):
        return ("0" if value[0] != "0" else "1") + value[1:]
    return value / 2 if isinstance(value, float) else value + 1


CHARGE_FIELDS = sorted(
    json.loads(module.encode_charge(charge(gaussian=True), 1, "p", "2026-01-01T00:00:00+00:00"))
)


@pytest.mark.parametrize("key", CHARGE_FIELDS)
def test_an_edited_record_is_found(memory: FsspecStore, key: str) -> None:
    """Its own digest detects it; if that was recomputed, the next record does."""
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a", gaussian=True))
    ledger.charge(charge("b", gaussian=True))
    fields = json.loads(objects(memory)[1])
    fields[key] = _changed(fields[key])
    forged = seal({k: v for k, v in fields.items() if k != "digest"})
    careless = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    for data in [careless] if key == "digest" else [careless, forged]:
        replace(memory, 1, data)
        for read in (ledger.verify, lambda: Ledger(memory)):
            with pytest.raises(DataError, match=r"0000000[12]\.json"):
                read()


@pytest.mark.parametrize("key", ["epsilon", "delta", "period", "created", "schema", "kind", "prev"])
def test_an_edited_first_record_is_found(memory: FsspecStore, key: str) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    fields = json.loads(objects(memory)[0])
    fields[key] = _changed(fields[key])
    replace(memory, 0, seal({k: v for k, v in fields.items() if k != "digest"}))
    with pytest.raises(DataError, match=r"0000000[01]\.json"):
        Ledger(memory)


def edited(data: bytes, **changes: Any) -> bytes:
    fields = json.loads(data)
    fields.pop("digest")
    return seal({**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "has schema 2 and kind 'charge'"),
        ({"kind": "refund"}, "has schema 1 and kind 'refund'"),
        ({"kind": "close"}, "has schema 1 and kind 'close'"),
        ({"discount": 0.5}, "Use the version that wrote it"),
        ({"account": {"name": "weeks"}}, "not a valid record"),
        ({"window": {"from": "2026-01"}}, "not a valid record"),
        ({"seq": 2}, "does not follow"),
        ({"prev": "0" * 64}, "does not follow"),
        ({"rho": 0.01}, "hexadecimal"),
        ({"rho": -1.0, "rho_hex": (-1.0).hex()}, "rho=-1.0"),
        ({"rho": 0.0, "rho_hex": (0.0).hex()}, "rho=0.0"),
        ({"rho": "1", "rho_hex": "1"}, "not a valid record"),
        ({"mu": 100.0, "mu_hex": (100.0).hex()}, "at least mu"),
        ({"release_id": "../x"}, "release id"),
        ({"spec_digest": ""}, "spec_digest"),
        ({"time": "yesterday"}, "not a valid record"),
        ({"time": "2026-01-01T00:00:00"}, "no offset"),
        ({"delta": 1}, "delta=1"),
    ],
)
def test_an_invalid_last_record_is_refused(
    memory: FsspecStore, changes: dict[str, Any], message: str
) -> None:
    Ledger.init_store(memory, 1.5, 1e-5).charge(charge())
    replace(memory, 1, edited(objects(memory)[1], **changes))
    with pytest.raises(DataError, match=message):
        Ledger(memory)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: data + b" ",
        lambda data: data.replace(b'"rho":', b'"rho": '),
        lambda data: data.replace(b'"seq":1', b'"seq":NaN'),
        lambda data: b"[1]\n",
        lambda data: b"\xff\xfe",
        lambda data: b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_refused(memory: FsspecStore, damage: Callable[[bytes], bytes]) -> None:
    Ledger.init_store(memory, 1.5, 1e-5).charge(charge())
    replace(memory, 1, damage(objects(memory)[1]))
    with pytest.raises(DataError, match=r"00000001\.json is corrupt"):
        Ledger(memory)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_missing_record_is_found(memory: FsspecStore, lost: int) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    ledger.charge(charge("b"))
    memory._fs.rm(memory._path(f"ledger/{lost:08d}.json"))
    for read in (ledger.verify, lambda: Ledger(memory), lambda: Ledger.init_store(memory, 9, 0.1)):
        with pytest.raises(DataError, match="lost records"):
            read()


def test_a_lost_last_record_is_found_by_a_driver_that_read_it(memory: FsspecStore) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    memory._fs.rm(memory._path("ledger/00000001.json"))
    with pytest.raises(DataError, match="lost records"):
        ledger.check(charge("b"))


def test_swapped_and_foreign_records_are_found(memory: FsspecStore) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    ledger.charge(charge("b"))
    first, second = objects(memory)[1:]
    replace(memory, 1, second)
    replace(memory, 2, first)
    with pytest.raises(DataError, match="does not follow"):
        Ledger(memory)


def test_a_release_charged_twice_is_found(memory: FsspecStore) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    again = module.encode_charge(charge("a"), 2, sha256_hex(objects(memory)[1]), module.now())
    memory.create("ledger/00000002.json", again)
    with pytest.raises(DataError, match="a second time"):
        Ledger(memory)


def test_other_objects_beside_the_records_do_not_matter(ledger: Ledger) -> None:
    for name in ("ledger/README.txt", "ledger/1.json", "ledger/00000001.json.bak"):
        ledger.store.create(name, b"?")
    ledger.charge(charge())
    assert ledger.verify() == 1


def test_a_listing_that_misses_a_record_is_not_a_loss(memory: FsspecStore) -> None:
    ledger = Ledger.init_store(memory, 1.5, 1e-5)
    ledger.charge(charge("a"))
    ledger.charge(charge("b"))

    class Hasty(FaultyStore):
        def list(self, prefix: str) -> list[str]:
            return [name for name in self.inner.list(prefix) if "00000001" not in name]

    assert Ledger(Hasty(memory, -1, "")).verify() == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"release_id": ""}, "release id ''"),
        ({"release_id": ".hidden"}, "release id"),
        ({"release_id": "a/b"}, "release id"),
        ({"release_id": "a" * 129}, "release id"),
        ({"release_id": "week\n"}, "release id"),
        ({"spec_digest": ""}, "spec_digest"),
        ({"rho": math.nan}, "rho=nan"),
        ({"rho": -0.0}, "rho=-0.0"),
        ({"mu": math.inf}, "mu=inf"),
        ({"mu": 1.0}, r"rho must be at least mu\^2/2"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"delta": 2.0}, "delta=2.0"),
    ],
)
def test_impossible_charges_are_usage_errors(changes: dict[str, Any], message: str) -> None:
    good = {"release_id": "a", "spec_digest": DIGEST, "rho": 0.1, "mu": None}
    with pytest.raises(SpecError, match=message):
        Charge(**{**good, "epsilon": 1.0, "delta": 1e-6, **changes})  # type: ignore[arg-type]


def test_random_release_ids_are_usable_and_fresh() -> None:
    ids = {random_release_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(Charge(i, DIGEST, 0.1, None, 1.0, 1e-6) for i in ids)
