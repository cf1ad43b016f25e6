"""The ledger: a durable privacy budget that concurrent drivers cannot overspend.

It is an append-only sequence of objects ``ledger/00000000.json``, ``ledger/00000001.json``, ... The
first holds the limit. Each later one holds the whole cost of one release and the SHA-256 of the
object before it. A last one may close the ledger.

A driver reads all of them, decides, and creates the next number. Creation is exclusive
(`dpgmm_dist.storage.store`): of two drivers that decided on the same state, one wins. The other
reads the winner's record and decides again.
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

# Each lost race means that another driver wrote a record, so no schedule needs more than this.
_MOST_RACES = 200
# The relative difference that the conversions of two versions of the library may have.
_VERSION_SLACK = Fraction(1, 10**9)
_NAME = re.compile(r"ledger/(\d{8})\.json")


class Ledger:
    """A budget of (epsilon, delta) in a create-only store; see `init` and `open`."""

    def __init__(self, store: Store) -> None:
        """Read and check the whole ledger in ``store``. Errors are those of `open`."""
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

        Parameters
        ----------
        url : str
            Directory or fsspec URL.
        epsilon, delta : float
            The limit for all charges together.
        period : str, optional
            A length such as "365d", "52w" or "12h". The limit then holds for the charges within
            every stretch of time of that length, not for all time.
        storage_options : mapping, optional
            The fsspec options of the URL.

        Raises
        ------
        SpecError
            The limit or the period is invalid, or there is a ledger already.
        DataError
            The store cannot be written, or lets a second create succeed.
        """
        return cls.init_store(open_store(url, storage_options), epsilon, delta, period)

    @classmethod
    def init_store(
        cls, store: Store, epsilon: float, delta: float, period: str | None = None
    ) -> Ledger:
        """Begin a ledger in an open store. Errors are those of `init`."""
        check_epsilon_delta(epsilon, delta)
        balance((), epsilon, delta)  # raises SpecError outside the accountant's range
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
            There is no ledger, or it cannot be read. Or a record is corrupt, missing, out of order,
            or of a version of the library that this one does not know.
        """
        return cls(open_store(url, storage_options))

    @property
    def store(self) -> Store:
        """The store that holds the ledger and the journals of its releases."""
        return self._store

    @property
    def url(self) -> str:
        """The URL of the ledger, without credentials."""
        return self._store.url

    @property
    def terms(self) -> Terms:
        """The limit, and when it was set."""
        return self._terms

    @property
    def records(self) -> tuple[ChargeRecord, ...]:
        """The charges in order, as last read."""
        return tuple(self._records)

    @property
    def closed(self) -> str | None:
        """When the ledger was closed, or None if it is open, as last read."""
        return self._closed

    def find(self, release_id: str) -> ChargeRecord | None:
        """Return the charge of a release or None, as last read."""
        matches = (r for r in self._records if r.charge.release_id == release_id)
        return next(matches, None)

    def balance(self) -> Balance:
        """Return limit, spent and remaining as last read; of the current period, if any."""
        charges = [record.charge for record in self.counting()]
        return balance(charges, self._terms.epsilon, self._terms.delta)

    def counting(self) -> list[ChargeRecord]:
        """Return the charges that count now, as last read: all, or those of the current period."""
        return counted(self._records, self._terms.period, self._time())

    def check(self, charge: Charge) -> None:
        """Verify that the charge fits or is recorded already, without writing anything.

        Raises
        ------
        BudgetExceeded
            The charge does not fit. The message says what is requested, spent and remaining, and
            what to do.
        LedgerRefused
            The ledger is closed.
        SpecError
            The release id is charged already, to another specification or at a lower cost. Or the
            account is used for another data set or column.
        """
        self._refresh()
        if self._charged(charge) is None:
            self._admit(charge, self._time())

    def charge(self, charge: Charge) -> ChargeRecord:
        """Charge a release once, whatever fails and however often this is called.

        Returns only when the charge is durable. If the release is charged already, to the same
        specification, returns the recorded charge.

        Raises
        ------
        BudgetExceeded, LedgerRefused, SpecError
            As for `check`. LedgerRefused also if the recorded charge has left the period.
        DataError
            The store failed. The release may be charged or not; the same call finds out.
        """
        self._write_next(
            recorded=lambda: self._counting(self._charged(charge)),
            encode=lambda seq, at: self._encode_admitted(charge, seq, at),
            failure=f"Nothing was charged for {charge.release_id!r}",
        )
        record = self.find(charge.release_id)
        if record is None:
            raise DataError(_lost(self._store))
        return record

    def close(self) -> str:
        """Close the ledger for good; return when it was closed.

        A closed ledger accepts no further charge. Releases that are charged already can still be
        finished.
        """
        self._write_next(
            recorded=lambda: None if self._closed is None else self._count() - 1,
            encode=lambda seq, at: encode_close(seq, self._tip, at),
            failure="The ledger was not closed",
        )
        if self._closed is None:
            raise DataError(_lost(self._store))
        return self._closed

    def _write_next(
        self, recorded: Callable[[], int | None], encode: Callable[[int, str], bytes], failure: str
    ) -> None:
        """Append a record, unless ``recorded`` gives the number it has; retry after a lost race.

        ``failure`` begins the advice of the error after too many races.
        """
        for race in range(_MOST_RACES):
            if race:
                time.sleep(min(0.01 * race, 0.2))
            self._refresh()
            existing = recorded()
            last = self._count() - 1 if existing is None else existing
            # Before relying on this record, verify that it is durable and cannot be overwritten.
            confirm_create_only(self._store, _name(last), self._store.read(_name(last)))
            if existing is not None:
                return
            data = encode(last + 1, self._time())
            if create_or_read(self._store, _name(last + 1), data) == data:
                self._append(data, last + 1)
                return
        raise DataError(
            f"Other drivers won all of {_MOST_RACES} races for the next record of the ledger at"
            f" {self.url}. {failure}. Run the same command again when fewer jobs start at once."
        )

    def _encode_admitted(self, charge: Charge, seq: int, at: str) -> bytes:
        self._admit(charge, at)
        return encode_charge(charge, seq, self._tip, at)

    def show(self) -> dict[str, Any]:
        """Return the limit, balance and charges as plain values, for ``dpgmm ledger show``."""
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
        """Read and check every record again, and that each charge fitted; return their number.

        Raises
        ------
        DataError
            As for `open`. Also if the charges exceed the limit: no version of the library writes
            such a charge.
        """
        self._refresh(from_start=True)
        for index, record in enumerate(self._records):
            before = counted(self._records[:index], self._terms.period, record.time)
            together = [*(earlier.charge for earlier in before), record.charge]
            if not admits(together, self._terms.epsilon, self._terms.delta, slack=_VERSION_SLACK):
                raise DataError(
                    f"The charge of {record.charge.release_id!r} ({self.url}/{_name(record.seq)})"
                    " exceeds the limit, so dpgmm-dist did not write it. The budget is overspent."
                    " Close the ledger."
                )
        return len(self._records)

    def facts(self) -> dict[str, Any]:
        """Return what a receipt says about the ledger: neither its location nor its balance."""
        return {"period": self._terms.period, "bound": self._terms.bound}

    def _charges(self, at: str) -> list[Charge]:
        """Return the charges that count at a time."""
        return [record.charge for record in counted(self._records, self._terms.period, at)]

    def _count(self) -> int:
        return 1 + len(self._records) + (self._closed is not None)

    def _time(self) -> str:
        """Return the time of the next record, which is never before that of the last one.

        Otherwise a driver whose clock is slow could date a charge outside the current period.
        """
        latest = [record.time for record in self._records[-1:]]
        return max([now(), *latest], key=datetime.fromisoformat)

    def _admits(self, charges: Sequence[Charge]) -> bool:
        return admits(charges, self._terms.epsilon, self._terms.delta)

    def _charged(self, charge: Charge) -> ChargeRecord | None:
        """Return the record of this release, or None; raise SpecError if it differs."""
        record = self.find(charge.release_id)
        if record is None:
            return None
        name, paid = charge.release_id, record.charge
        if paid.spec_digest != charge.spec_digest:
            raise SpecError(
                f"The release {name!r} is charged already, to another specification (digest"
                f" {paid.spec_digest[:12]}, now {charge.spec_digest[:12]}). Use another release id."
            )
        costs_more = charge.rho > paid.rho
        if paid.mu is not None:
            costs_more = costs_more or charge.mu is None or charge.mu > paid.mu
        if costs_more:
            raise SpecError(
                f"The release {name!r} is charged already, at a lower cost (rho {paid.rho:.6g}, mu"
                f" {paid.mu}) than it has now (rho {charge.rho:.6g}, mu {charge.mu}). Use the"
                " version of dpgmm-dist that began it, or another release id."
            )
        return record

    def require_counting(self, record: ChargeRecord) -> None:
        """Refuse a charge that has left the period: what is drawn now would be counted in none.

        Raises
        ------
        LedgerRefused
            With when it was charged. Nothing is read or written.
        """
        period = self._terms.period
        if period is not None and datetime.fromisoformat(self._time()) >= expiry(record, period):
            raise expired_refusal(self.url, record, period)

    def _counting(self, record: ChargeRecord | None) -> int | None:
        """Return the number of a charge, or None; refuse a charge that has left the period."""
        if record is None:
            return None
        self.require_counting(record)
        return record.seq

    def _admit(self, charge: Charge, at: str) -> None:
        """Raise the refusal of a new charge at a time, unless it fits."""
        if self._closed is not None:
            raise closed_refusal(self.url, self._closed, charge)
        check_account(charge, [record.charge for record in self._records])
        charges = self._charges(at)
        if self._admits([*charges, charge]):
            return
        currency = currency_of([*charges, charge])
        epsilon, delta = self._terms.epsilon, self._terms.delta
        current = balance(charges, epsilon, delta, currency, candidate=charge)
        fits = fits_from(
            self._records, self._terms.period, at, lambda rest: self._admits([*rest, charge])
        )
        raise refusal(self.url, len(charges), charge, current, self._terms.period, fits)

    def _refresh(self, from_start: bool = False) -> None:
        """Read the new records, or all of them, and check the chain. Records never change."""
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
        """Return the record if it is consistent with those before it; else raise DataError."""
        charge = record.charge
        if self.find(charge.release_id) is not None:
            raise DataError(f"{where} charges {charge.release_id!r} a second time.")
        if self._terms.period is not None and self._records:
            earlier = datetime.fromisoformat(self._records[-1].time)
            if datetime.fromisoformat(record.time) < earlier:
                raise DataError(f"{where} has an earlier time than the record before it.")
        try:
            check_account(charge, [earlier.charge for earlier in self._records])
        except SpecError as err:
            raise DataError(f"{where} is not a valid record: {err}") from None
        return record


def _name(seq: int) -> str:
    return f"ledger/{seq:08d}.json"


def _count(store: Store) -> int:
    """Return the number of records; raise DataError if one is missing."""
    matches = (_NAME.fullmatch(name) for name in store.list("ledger/"))
    numbers = {int(match[1]) for match in matches if match}
    count = max(numbers, default=-1) + 1
    if not is_complete(store, numbers, count, _name):
        raise DataError(_lost(store))
    return count


def _lost(store: Store) -> str:
    return (
        f"The ledger at {store.url} has lost records (numbers are missing). Restore it from a"
        " backup: until then the budget is unknown."
    )


def _refuse_existing(store: Store) -> None:
    if _count(store):
        terms = Ledger(store).terms
        raise SpecError(
            f"There is a ledger at {store.url} already (epsilon {terms.epsilon:g}, delta"
            f" {terms.delta:g}, begun {terms.created}). A budget is never reset: use this ledger,"
            " or another URL."
        )
