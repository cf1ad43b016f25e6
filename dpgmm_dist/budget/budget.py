"""The budget of one release: ledger and journal opened together, checked against each other.

A release uses it like this; every call may be repeated by a restarted or second driver::

    budget = Budget.open(charge, public_spec, mechanism, output_url, ledger_url)
    for step, planned in ...:
        query = budget.journal.put_query(step, name, planned)  # execute what comes back
        answer = budget.journal.answer(step)
        if answer is None:
            exact = ...
            budget.charge()  # before the first draw; once
            answer = budget.journal.put_answer(step, name, noisy)  # use what comes back
    budget.journal.finish({"output": output_url})

An answer that is stored is never drawn again, and none is stored that was not charged first.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge, ChargeRecord
from dpgmm_dist.errors import DataError


class Budget:
    """Ledger (or none) and journal of one release; made by `open`."""

    def __init__(self, charge: Charge, journal: Journal, ledger: Ledger | None) -> None:
        self._charge = charge
        self._charged: ChargeRecord | None = None
        self.journal = journal
        self.ledger = ledger

    @classmethod
    def open(
        cls,
        charge: Charge,
        public_spec: Mapping[str, Any],
        mechanism: str,
        output_url: str,
        ledger_url: str | None = None,
        *,
        output_options: Mapping[str, Any] | None = None,
        ledger_options: Mapping[str, Any] | None = None,
    ) -> Budget:
        """Open what a release needs, verify that it may go on, and begin its journal.

        With a ledger the journal is beside it; without one, in ``<output>/_journal/``. Nothing is
        charged. A release that is refused leaves no trace.

        Parameters
        ----------
        charge : Charge
            Release id, specification digest and the whole cost.
        public_spec, mechanism
            See `Journal.begin`.
        output_url, ledger_url : str
            Directories or fsspec URLs; with their ``storage_options``.

        Raises
        ------
        LedgerRefused
            The charge does not fit.
        SpecError
            The release id belongs to another specification (the difference is shown).
        DataError
            A store fails or is unsuitable; or ledger and journal contradict each other: the id is
            charged and its journal is gone, or there are answers that the ledger never charged.
        """
        budget = cls.locate(
            charge,
            output_url,
            ledger_url,
            output_options=output_options,
            ledger_options=ledger_options,
        )
        budget.begin(public_spec, mechanism)
        return budget

    @classmethod
    def locate(
        cls,
        charge: Charge,
        output_url: str,
        ledger_url: str | None = None,
        *,
        output_options: Mapping[str, Any] | None = None,
        ledger_options: Mapping[str, Any] | None = None,
    ) -> Budget:
        """Open ledger and journal without writing; `check` or `begin` comes next. See `open`."""
        journal = Journal.locate(
            charge.release_id,
            output_url,
            ledger_url,
            output_options=output_options,
            ledger_options=ledger_options,
        )
        ledger = None if ledger_url is None else Ledger.open(ledger_url, ledger_options)
        return cls(charge, journal, ledger)

    def check(self, public_spec: Mapping[str, Any], mechanism: str) -> None:
        """Refuse what `begin` would refuse for its specification or its cost; writes nothing."""
        # The journal first: it can show how two specifications differ, the ledger cannot.
        self.journal.check_same(self._charge.spec_digest, public_spec, mechanism)
        if self.ledger is not None:
            self.ledger.check(self._charge)

    def begin(self, public_spec: Mapping[str, Any], mechanism: str) -> None:
        """Verify that the release may go on, and begin its journal; see `open`."""
        digest = self._charge.spec_digest
        # In this order: what another driver writes meanwhile must not look like a contradiction.
        # Whoever answers has charged, and whoever charges has begun.
        charged = self.ledger is not None and self.ledger.find(self._charge.release_id) is not None
        answered = self.journal.steps()
        begun = self.journal.check_same(digest, public_spec, mechanism) is not None
        if not begun and (charged or answered):
            self._refuse_lost_journal()
        if self.ledger is not None:
            self.ledger.check(self._charge)
            if answered and self.ledger.find(self._charge.release_id) is None:
                self._refuse_lost_charge(self.ledger)
        self.journal.begin(digest, public_spec, mechanism)

    def charge(self) -> ChargeRecord | None:
        """Charge the whole release, once; call before every draw. None without a ledger.

        Raises
        ------
        LedgerRefused
            Another driver took the budget since `open`.
        DataError
            The store failed; run the same command again.
        """
        if self.ledger is not None and self._charged is None:
            self._charged = self.ledger.charge(self._charge)
        return self._charged

    def facts(self) -> dict[str, Any] | None:
        """Return what the receipt says of the budget (public; no place); None without a ledger."""
        if self.ledger is None:
            return None
        charge = self._charge
        return {
            "charged": True,
            "release_id": charge.release_id,
            **self.ledger.facts(),
            "account": None if charge.account is None else charge.account.name,
            "window": None if charge.window is None else charge.window.as_dict(),
            "composition": _how_it_composes(charge),
        }

    def require_same_input(self, identifiers: bytes) -> None:
        """Refuse to resume on changed input, for accuracy's sake (the guarantee holds anyway).

        ``identifiers`` (names, sizes, etags) are private. They are kept beside a ledger; without
        one the journal is in the output, which gets published, so nothing is kept or compared.
        As long as nothing is answered the input may change: a broken file may be mended.

        Raises
        ------
        DataError
            The input is not the one that the stored answers are about.
        """
        if not self.journal.private_storage:
            return
        held = list(takewhile(lambda one: one is not None, map(self._input, count())))
        if held and held[-1] == identifiers:
            return
        name = f"input-{len(held)}"
        answered = bool(held) and bool(self.journal.steps())
        if answered or self.journal.put_private(name, identifiers) != identifiers:
            raise DataError(
                f"The input changed since release {self._charge.release_id!r} was begun, and its"
                " statistics would mix both. Put the input back, or use another release id (which"
                " is charged anew)."
            )

    def _input(self, number: int) -> bytes | None:
        return self.journal.private(f"input-{number}")

    def _refuse_lost_journal(self) -> None:
        raise DataError(
            f"The release {self._charge.release_id!r} was begun and its journal {self.journal.url}"
            " is missing, or lost its meta.json: its answers could be drawn a second time. Restore"
            " the journal from a backup, or use another release id (which is charged anew)."
        )

    def _refuse_lost_charge(self, ledger: Ledger) -> None:
        raise DataError(
            f"The journal {self.journal.url} holds answers that the ledger at {ledger.url} never"
            " charged: the ledger was rolled back or replaced. Restore it from a backup."
        )


def _how_it_composes(charge: Charge) -> str:
    """Return, for the receipt, how this charge adds up with others of its ledger."""
    currency = "rho-zCDP" if charge.mu is None else "mu-Gaussian-DP"
    if charge.account is None or charge.window is None:
        return f"sequential: its cost in {currency} is added to that of every other release"
    return (
        f"parallel: the unit is one row, a row is in one window of {charge.window.column!r} at most"
        f" if its value never changes, and this release reads those of {charge.window} alone; so"
        f" releases of disjoint windows in the account {charge.account.name!r} together cost a row"
        f" what the dearest of them costs (in {currency}), and the account is added to every other"
        " release"
    )
