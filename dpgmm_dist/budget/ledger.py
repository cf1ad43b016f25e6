"""The ledger: a durable privacy budget that no two drivers overspend together.

An append-only sequence of objects ``ledger/00000000.json``, ``ledger/00000001.json``, ... The
first holds the limit, each later one the whole cost of one release and the SHA-256 of the object
before it. A driver reads all of them, decides, and creates the next number: creation is exclusive
(`store`), so of two drivers that decided on the same state one wins, and the other reads the
winner's charge and decides again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from dpgmm_dist.budget.balance import Balance, admits, balance, currency_of
from dpgmm_dist.budget.createonly import confirm_create_only, is_complete, probe
from dpgmm_dist.budget.records import (
    Charge,
    ChargeRecord,
    Terms,
    check_epsilon_delta,
    decode_charge,
    decode_terms,
    encode_charge,
    encode_terms,
)
from dpgmm_dist.budget.refusal import refusal
from dpgmm_dist.budget.sealed import now, sha256_hex
from dpgmm_dist.budget.store import Store, create_or_read, open_store
from dpgmm_dist.errors import DataError, SpecError

# Every lost race means that another driver was charged, so this is more than any schedule needs.
_MOST_RACES = 200
_NAME = re.compile(r"ledger/(\d{8})\.json")


class Ledger:
    """A budget of (epsilon, delta) in a create-only store; made by `init`, opened by `open`."""

    def __init__(self, store: Store) -> None:
        """Read and check the whole ledger in ``store``; see `open` for the errors."""
        self._store = store
        self._records: list[ChargeRecord] = []
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
            raise SpecError(
                f"A rolling period is not supported yet, got period={period!r}: leave it out for a"
                " budget that lasts for all time."
            )
        _refuse_existing(store)
        probe(store)
        data = encode_terms(epsilon, delta, now())
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

    def find(self, release_id: str) -> ChargeRecord | None:
        """Return the charge of a release, as last read, or None."""
        matches = (r for r in self._records if r.charge.release_id == release_id)
        return next(matches, None)

    def balance(self) -> Balance:
        """Return limit, spent and remaining, as last read."""
        return balance(self._charges(), self._terms.epsilon, self._terms.delta)

    def check(self, charge: Charge) -> None:
        """Verify that the charge fits, or is charged already, without writing anything.

        Raises
        ------
        BudgetExceeded
            A `LedgerRefused` that says requested, spent and remaining, and what to do.
        SpecError
            The release id is charged with another specification or at a lower cost.
        """
        self._refresh()
        if self._charged(charge) is None:
            self._admit(charge)

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
        for race in range(_MOST_RACES):
            if race:
                time.sleep(min(0.01 * race, 0.2))
            self._refresh()
            charged = self._charged(charge)
            last = charged.seq if charged else len(self._records)
            # Before relying on the last record: this store keeps what is written, durably.
            confirm_create_only(self._store, _name(last), self._store.read(_name(last)))
            if charged is not None:
                return charged
            self._admit(charge)
            seq = last + 1
            data = encode_charge(charge, seq, self._tip, now())
            if create_or_read(self._store, _name(seq), data) == data:
                self._append(data, seq)
                return self._records[-1]
        raise DataError(
            f"Other drivers won every one of {_MOST_RACES} races for the next record of the ledger"
            f" at {self.url}. Nothing was charged for {charge.release_id!r}: run the same command"
            " again when fewer jobs start at once."
        )

    def show(self) -> dict[str, Any]:
        """Return limit, balance and charges as plain values, for ``dpgmm ledger show``."""
        now_left = self.balance()
        return {
            "ledger": self.url,
            "epsilon": self._terms.epsilon,
            "delta": self._terms.delta,
            "period": self._terms.period,
            "created": self._terms.created,
            "currency": now_left.currency,
            "limit": now_left.limit,
            "spent": now_left.spent,
            "remaining": now_left.remaining,
            "epsilon_spent": now_left.epsilon_spent,
            "epsilon_remaining": now_left.epsilon_remaining,
            "charges": [record.as_dict() for record in self._records],
        }

    def verify(self) -> int:
        """Read and check every record afresh; return how many charges there are."""
        self._refresh(from_start=True)
        return len(self._records)

    def _charges(self) -> list[Charge]:
        return [record.charge for record in self._records]

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

    def _admit(self, charge: Charge) -> None:
        together = [*self._charges(), charge]
        if not admits(together, self._terms.epsilon, self._terms.delta):
            left = balance(
                self._charges(), self._terms.epsilon, self._terms.delta, currency_of(together)
            )
            raise refusal(self.url, len(self._records), charge, left)

    def _refresh(self, from_start: bool = False) -> None:
        """Read the records that are new (they never change), or all; check the chain."""
        count = _count(self._store)
        if from_start:
            self._records = []
            if not count:
                raise DataError(
                    f"There is no ledger at {self.url}. Check the URL, or begin one: dpgmm ledger"
                    f" init {self.url} --epsilon E --delta D"
                )
        if count <= len(self._records):
            raise DataError(_lost(self._store))
        if from_start:
            first = self._store.read(_name(0))
            self._terms = decode_terms(first, f"{self.url}/{_name(0)}")
            self._tip = sha256_hex(first)
        for seq in range(len(self._records) + 1, count):
            self._append(self._store.read(_name(seq)), seq)

    def _append(self, data: bytes, seq: int) -> None:
        where = f"{self.url}/{_name(seq)}"
        record = decode_charge(data, where, seq, self._tip)
        if self.find(record.charge.release_id) is not None:
            raise DataError(f"{where} charges {record.charge.release_id!r} a second time.")
        self._records.append(record)
        self._tip = sha256_hex(data)


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
