"""The budget of one release: its ledger and its journal, checked against each other.

A release uses it as follows. A restarted driver, or a second one, may repeat every call::

    budget = Budget.open(charge, public_spec, mechanism, output_url, ledger_url)
    for step, planned in ...:
        query = budget.journal.put_query(step, name, planned)  # execute the returned query
        answer = budget.journal.answer(step)
        if answer is None:
            exact = ...
            budget.charge()  # charges once, before the first draw
            answer = budget.journal.put_answer(step, name, noisy)  # use the returned answer
    budget.journal.finish({"output": output_url})

Noise is never drawn again for a stored answer, and no answer is stored before the charge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import Charge, ChargeRecord
from dpgmm_dist.errors import DataError


class Budget:
    """The journal of one release and its ledger, if it has one. Create it with `open`."""

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
        """Open the ledger and the journal, verify that the release may go on, begin the journal.

        The journal is stored beside the ledger, or in ``<output>/_journal/`` if there is no ledger.
        Nothing is charged. A refused release writes nothing.

        Parameters
        ----------
        charge : Charge
            The release id, the digest of the specification and the whole cost.
        public_spec, mechanism
            See `Journal.begin`.
        output_url, ledger_url : str
            Directories or fsspec URLs.
        output_options, ledger_options : mapping, optional
            The fsspec options of these URLs.

        Raises
        ------
        LedgerRefused
            The charge does not fit.
        SpecError
            The release id belongs to another specification; the message shows the differences.
        DataError
            A store fails or is unsuitable. Or the ledger and the journal contradict each other: the
            id is charged but its journal is gone, or the journal has answers that the ledger never
            charged.
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
        """Open the ledger and the journal without writing; call `check` or `begin` next.

        Parameters and errors are those of `open`.
        """
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
        """Raise what `begin` would raise for the specification or the cost, without writing."""
        # The journal first: it can show how two specifications differ; the ledger cannot.
        self.journal.check_same(self._charge.spec_digest, public_spec, mechanism)
        if self.ledger is not None:
            self.ledger.check(self._charge)

    def begin(self, public_spec: Mapping[str, Any], mechanism: str) -> None:
        """Verify that the release may go on, and begin its journal. Errors are those of `open`."""
        digest = self._charge.spec_digest
        # A driver begins the journal, then charges, then answers. Reading in the opposite order
        # keeps what another driver writes meanwhile from looking like a contradiction.
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
        """Charge the whole release once; call this before every draw.

        Returns None if there is no ledger.

        Raises
        ------
        LedgerRefused
            Another release was charged since `open`, and this one no longer fits. Or the charge has
            left the period since it was made.
        DataError
            The store failed. Run the same command again.
        """
        if self.ledger is None:
            return None
        if self._charged is None:
            self._charged = self.ledger.charge(self._charge)
        else:  # a release may take longer than the period
            self.ledger.require_counting(self._charged)
        return self._charged

    def facts(self) -> dict[str, Any] | None:
        """Return what the receipt says about the ledger, or None if there is none.

        It is public and names no location.
        """
        if self.ledger is None:
            return None
        charge = self._charge
        return {
            "charged": True,
            "release_id": charge.release_id,
            **self.ledger.facts(),
            "account": None if charge.account is None else charge.account.name,
            "window": None if charge.window is None else charge.window.as_dict(),
            "composition": _composition_text(charge),
        }

    def require_same_input(self, identifiers: bytes) -> None:
        """Refuse to resume on a changed input.

        This protects accuracy; the privacy guarantee holds either way. Until the first answer the
        input may change, so that a broken file can be repaired.

        Parameters
        ----------
        identifiers : bytes
            Names, sizes and etags of the input files. They are private, so they are stored only
            beside a ledger. Without a ledger the journal is in the output, which gets published,
            and nothing is stored or compared.

        Raises
        ------
        DataError
            The stored answers are about another input.
        """
        if not self.journal.private_storage:
            return
        stored = _inputs(self.journal)
        if stored and stored[-1] == identifiers:
            return
        name = f"input-{len(stored)}"
        answered = bool(stored) and bool(self.journal.steps())
        if answered or self.journal.put_private(name, identifiers) != identifiers:
            raise DataError(
                f"The input changed since release {self._charge.release_id!r} was begun, so its"
                " statistics would mix the old and the new input. Restore the old input, or use"
                " another release id, which is charged again."
            )

    def _refuse_lost_journal(self) -> None:
        raise DataError(
            f"The release {self._charge.release_id!r} was begun, but its journal {self.journal.url}"
            " is missing or lost its meta.json, so its noise could be drawn a second time. Restore"
            " the journal from a backup, or use another release id, which is charged again."
        )

    def _refuse_lost_charge(self, ledger: Ledger) -> None:
        raise DataError(
            f"The journal {self.journal.url} holds answers that the ledger at {ledger.url} never"
            " charged: the ledger was rolled back or replaced. Restore the ledger from a backup."
        )


def stored_input(journal: Journal) -> bytes | None:
    """Return the identifiers of the input that the stored answers are about; None without any."""
    if not journal.private_storage or not journal.steps():
        return None
    return next(reversed(_inputs(journal)), None)


def _inputs(journal: Journal) -> list[bytes]:
    """The identifiers of the input at each run that found it changed, oldest first."""
    found: list[bytes] = []
    while (data := journal.private(f"input-{len(found)}")) is not None:
        found.append(data)
    return found


def _composition_text(charge: Charge) -> str:
    """Return, for the receipt, how this charge composes with the others of its ledger."""
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
