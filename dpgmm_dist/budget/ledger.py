"""The ledger: a durable privacy budget that no two drivers overspend together.

An append-only sequence of objects ``ledger/00000000.json``, ``ledger/00000001.json``, ... The
first holds the limit, each later one the whole cost of one release and the SHA-256 of the object
before it; a last one may close the ledger. A driver reads all of them, decides, and creates the
next number: creation is exclusive (`store`), so of two drivers that decided on the same state one
wins, and the other reads the winner's charge and decides again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

from dpgmm_dist.budget.balance import Balance, admits, balance
from dpgmm_dist.budget.composition import check_account, currency_of
from dpgmm_dist.budget.period import counted, expiry, fits_from
from dpgmm_dist.budget.records import (
    Charge,
    ChargeRecord,
    Terms,
    check_epsilon_delta,
    decode_charge,
    decode_close,
    decode_terms,
    encode_charge,
    encode_close,
    encode_terms,
    is_close,
    period_length,
)
from dpgmm_dist.budget.refusal import closed_refusal, expired_refusal, refusal
from dpgmm_dist.budget.sealed import now, sha256_hex
from dpgmm_dist.budget.summary import summary
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.create_only import confirm_create_only, is_complete, probe
from dpgmm_dist.storage.store import Store, create_or_read, open_store

# Every lost race means that another driver was charged, so this is more than any schedule needs.
_MOST_RACES = 200
# By how much the conversions of two versions of the library may differ.
_VERSIONS = Fraction(1, 10**9)
_NAME = re.compile(r"ledger/(\d{8})\.json")


class Ledger:
    """A budget of (epsilon, delta) in a create-only store; made by `init`, opened by `open`."""

    def __init__(self, store: Store) -> None:
        """Read and check the whole ledger in ``store``; see `open` for the errors."""
        self._store = store
        self._records: list[ChargeRecord] = []
        self._closed: str | None = None
        self._refresh(from_start=True)

    @classmethod
    def init(
        cls,
        url: str,
        epsilon: float,
        delta: float,
        period: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Ledger:
        """Begin a ledger at a directory or fsspec URL.

        With a ``period`` such as "365d", "52w" or "12h" the limit holds for what is charged within
        every stretch of time of that length, not for all time.

        Raises
        ------
        SpecError
            A limit is impossible, or there is a ledger already.
        DataError
            The store cannot be written, or lets a second create succeed.
        """
        return cls.init_store(open_store(url, storage_options), epsilon, delta, period)

    @classmethod
    def init_store(
        cls, store: Store, epsilon: float, delta: float, period: str | None = None
    ) -> Ledger:
        """Begin a ledger in an open store; see `init`."""
        check_epsilon_delta(epsilon, delta)
        balance((), epsilon, delta)  # raises SpecError where the accountant cannot follow
        if period is not None:
            period_length(period)
        _refuse_existing(store)
        probe(store)
        data = encode_terms(epsilon, delta, now(), period)
        if create_or_read(store, _name(0), data) != data:  # another init won the race
            _refuse_existing(store)
        return cls(store)

    @classmethod
    def open(cls, url: str, storage_options: Mapping[str, Any] | None = None) -> Ledger:
        """Open a ledger and check all of it.

        Raises
        ------
        DataError
            There is no ledger, it cannot be read, a record is corrupt, missing or out of order,
            or was written by a version of the library that this one does not know.
        """
        return cls(open_store(url, storage_options))

    @property
    def store(self) -> Store:
        """The store the ledger is in; the journals of its releases are beside it."""
        return self._store

    @property
    def url(self) -> str:
        """Where the ledger is, without credentials."""
        return self._store.url

    @property
    def terms(self) -> Terms:
        """The limit and when it was set."""
        return self._terms

    @property
    def records(self) -> tuple[ChargeRecord, ...]:
        """The charges as last read, in order."""
        return tuple(self._records)

    @property
    def closed(self) -> str | None:
        """When the ledger was closed, as last read; None while it is open."""
        return self._closed

    def find(self, release_id: str) -> ChargeRecord | None:
        """Return the charge of a release, as last read, or None."""
        matches = (r for r in self._records if r.charge.release_id == release_id)
        return next(matches, None)

    def balance(self) -> Balance:
        """Return limit, spent and remaining, as last read; of the rolling period where one is."""
        charges = [record.charge for record in self.counting()]
        return balance(charges, self._terms.epsilon, self._terms.delta)

    def counting(self) -> list[ChargeRecord]:
        """Return the charges that count now: of the rolling period, or all; as last read."""
        return counted(self._records, self._terms.period, self._time())

    def check(self, charge: Charge) -> None:
        """Verify that the charge fits, or is charged already, without writing anything.

        Raises
        ------
        BudgetExceeded
            A `LedgerRefused` that says requested, spent and remaining, and what to do.
        LedgerRefused
            The ledger is closed.
        SpecError
            The release id is charged with another specification or at a lower cost, or the charge's
            account is about other rows.
        """
        self._refresh()
        if self._charged(charge) is None:
            self._admit(charge, self._time())

    def charge(self, charge: Charge) -> ChargeRecord:
        """Charge a release, once, whatever fails and however often this is called.

        Returns only when the charge is durable and certain. A release that is charged already,
        with the same specification, is returned as recorded.

        Raises
        ------
        BudgetExceeded, SpecError
            As for `check`.
        DataError
            The store failed; the release may or may not be charged, and the same call finds out.
        """
        self._write_next(
            held=lambda: self._counting(self._charged(charge)),
            encode=lambda seq, at: self._encode_admitted(charge, seq, at),
            what=f"Nothing was charged for {charge.release_id!r}",
        )
        record = self.find(charge.release_id)
        if record is None:
            raise DataError(_lost(self._store))
        return record

    def close(self) -> str:
        """Close the ledger for good, once; return when it was closed.

        Nothing is charged any more. A release that is charged already may still be finished.
        """
        self._write_next(
            held=lambda: None if self._closed is None else self._count() - 1,
            encode=lambda seq, at: encode_close(seq, self._tip, at),
            what="The ledger was not closed",
        )
        if self._closed is None:
            raise DataError(_lost(self._store))
        return self._closed

    def _write_next(
        self, held: Callable[[], int | None], encode: Callable[[int, str], bytes], what: str
    ) -> None:
        """Append a record, unless ``held`` says which one it already is; after a race, again."""
        for race in range(_MOST_RACES):
            if race:
                time.sleep(min(0.01 * race, 0.2))
            self._refresh()
            there = held()
            last = self._count() - 1 if there is None else there
            # Before relying on this record: the store keeps what is written, durably.
            confirm_create_only(self._store, _name(last), self._store.read(_name(last)))
            if there is not None:
                return
            data = encode(last + 1, self._time())
            if create_or_read(self._store, _name(last + 1), data) == data:
                self._append(data, last + 1)
                return
        raise DataError(
            f"Other drivers won every one of {_MOST_RACES} races for the next record of the ledger"
            f" at {self.url}. {what}: run the same command again when fewer jobs start at once."
        )

    def _encode_admitted(self, charge: Charge, seq: int, at: str) -> bytes:
        self._admit(charge, at)
        return encode_charge(charge, seq, self._tip, at)

    def show(self) -> dict[str, Any]:
        """Return limit, balance and charges as plain values, for ``dpgmm ledger show``."""
        counting = {record.seq for record in self.counting()}
        return {
            "ledger": self.url,
            "epsilon": self._terms.epsilon,
            "delta": self._terms.delta,
            "period": self._terms.period,
            "bound": self._terms.bound,
            "created": self._terms.created,
            "closed": self._closed,
            **summary(self._records, counting, self._terms, self.balance()),
        }

    def verify(self) -> int:
        """Read and check every record afresh, and that each charge did fit; return how many.

        Raises
        ------
        DataError
            As for `open`; or charges exceed the limit, which no version of the library lets happen.
        """
        self._refresh(from_start=True)
        for index, record in enumerate(self._records):
            before = counted(self._records[:index], self._terms.period, record.time)
            together = [*(one.charge for one in before), record.charge]
            if not admits(together, self._terms.epsilon, self._terms.delta, slack=_VERSIONS):
                raise DataError(
                    f"The charge of {record.charge.release_id!r} ({self.url}/{_name(record.seq)})"
                    " exceeds the limit: something else than dpgmm-dist wrote it. The budget is"
                    " overspent; close the ledger."
                )
        return len(self._records)

    def facts(self) -> dict[str, Any]:
        """Return what a receipt says of the budget it was charged to; no place, no balance."""
        return {"period": self._terms.period, "bound": self._terms.bound}

    def _charges(self, at: str) -> list[Charge]:
        """Return the charges that count at a time."""
        return [record.charge for record in counted(self._records, self._terms.period, at)]

    def _count(self) -> int:
        return 1 + len(self._records) + (self._closed is not None)

    def _time(self) -> str:
        """Return the time of the next record: never before the last one, whosever clock is wrong.

        A clock that goes behind would otherwise place a charge outside the periods it belongs to.
        """
        latest = [record.time for record in self._records[-1:]]
        return max([now(), *latest], key=datetime.fromisoformat)

    def _admits(self, charges: Sequence[Charge]) -> bool:
        return admits(charges, self._terms.epsilon, self._terms.delta)

    def _charged(self, charge: Charge) -> ChargeRecord | None:
        """Return the record of this very release, if it is charged; refuse what differs."""
        record = self.find(charge.release_id)
        if record is None:
            return None
        name, held = charge.release_id, record.charge
        if held.spec_digest != charge.spec_digest:
            raise SpecError(
                f"The release {name!r} is charged already, to another specification (digest"
                f" {held.spec_digest[:12]}, now {charge.spec_digest[:12]}): use another release id."
            )
        dearer = charge.rho > held.rho
        if held.mu is not None:
            dearer = dearer or charge.mu is None or charge.mu > held.mu
        if dearer:
            raise SpecError(
                f"The release {name!r} is charged already, at less (rho {held.rho:.6g}, mu"
                f" {held.mu}) than is asked for now (rho {charge.rho:.6g}, mu {charge.mu}): use the"
                " version of dpgmm-dist that began it, or another release id."
            )
        return record

    def _counting(self, record: ChargeRecord | None) -> int | None:
        """Return a charge's number; refuse to draw for one that no period counts any more."""
        period = self._terms.period
        if record is None or period is None:
            return None if record is None else record.seq
        if datetime.fromisoformat(self._time()) >= expiry(record, period):
            raise expired_refusal(self.url, record, period)
        return record.seq

    def _admit(self, charge: Charge, at: str) -> None:
        if self._closed is not None:
            raise closed_refusal(self.url, self._closed, charge)
        check_account(charge, [record.charge for record in self._records])
        charges = self._charges(at)
        if self._admits([*charges, charge]):
            return
        currency = currency_of([*charges, charge])
        left = balance(charges, self._terms.epsilon, self._terms.delta, currency, beside=charge)
        fits = fits_from(
            self._records, self._terms.period, at, lambda rest: self._admits([*rest, charge])
        )
        raise refusal(self.url, len(charges), charge, left, self._terms.period, fits)

    def _refresh(self, from_start: bool = False) -> None:
        """Read the records that are new (they never change), or all; check the chain."""
        count = _count(self._store)
        if from_start:
            self._records, self._closed = [], None
            if not count:
                raise DataError(
                    f"There is no ledger at {self.url}. Check the URL, or begin one: dpgmm ledger"
                    f" init {self.url} --epsilon E --delta D"
                )
        if count < (1 if from_start else self._count()):
            raise DataError(_lost(self._store))
        if from_start:
            first = self._store.read(_name(0))
            self._terms = decode_terms(first, f"{self.url}/{_name(0)}")
            self._tip = sha256_hex(first)
        for seq in range(self._count(), count):
            self._append(self._store.read(_name(seq)), seq)

    def _append(self, data: bytes, seq: int) -> None:
        where = f"{self.url}/{_name(seq)}"
        if self._closed is not None:
            raise DataError(f"{where} comes after the ledger was closed. Restore it from a backup.")
        if is_close(data, where):
            self._closed = decode_close(data, where, seq, self._tip)
        else:
            self._records.append(self._checked(decode_charge(data, where, seq, self._tip), where))
        self._tip = sha256_hex(data)

    def _checked(self, record: ChargeRecord, where: str) -> ChargeRecord:
        """Return a charge that agrees with those before it."""
        charge = record.charge
        if self.find(charge.release_id) is not None:
            raise DataError(f"{where} charges {charge.release_id!r} a second time.")
        if self._terms.period is not None and self._records:
            earlier = datetime.fromisoformat(self._records[-1].time)
            if datetime.fromisoformat(record.time) < earlier:
                raise DataError(f"{where} is dated before the record it follows.")
        try:
            check_account(charge, [held.charge for held in self._records])
        except SpecError as err:
            raise DataError(f"{where} is not a valid record: {err}") from None
        return record


def _name(seq: int) -> str:
    return f"ledger/{seq:08d}.json"


def _count(store: Store) -> int:
    """Return how many records there are; DataError if a number is missing among them."""
    found = (_NAME.fullmatch(name) for name in store.list("ledger/"))
    numbers = {int(match[1]) for match in found if match}
    count = max(numbers, default=-1) + 1
    if not is_complete(store, numbers, count, _name):
        raise DataError(_lost(store))
    return count


def _lost(store: Store) -> str:
    return (
        f"The ledger at {store.url} has lost records (numbers are missing). Restore it from a"
        " backup; the budget cannot be relied on until then."
    )


def _refuse_existing(store: Store) -> None:
    if _count(store):
        terms = Ledger(store).terms
        raise SpecError(
            f"There is a ledger at {store.url} already (epsilon {terms.epsilon:g}, delta"
            f" {terms.delta:g}, begun {terms.created}), and a budget is never reset: use it, or"
            " another URL."
        )
