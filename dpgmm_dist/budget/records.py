"""Charges, and the records in which a ledger stores them.

The format is final. Records are never rewritten, so later versions of the library only add kinds of
records, and every version refuses a kind it does not know. Every record is sealed (`sealed`). Costs
are also written in hexadecimal, for readers whose JSON parsers round.
"""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from dpgmm_dist.budget.rounding import round_up
from dpgmm_dist.budget.sealed import SCHEMA, seal, stamp, unseal
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.windows import Account, Window

_RELEASE_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
_PERIOD = re.compile(r"([1-9][0-9]{0,5})(h|d|w)")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(days=36525)
_TERMS_KEYS = {"schema", "kind", "seq", "prev", "nonce", "created", "library", "digest"} | {
    "epsilon",
    "delta",
    "period",
}
_CHARGE_KEYS = {"schema", "kind", "seq", "prev", "nonce", "time", "library", "digest"} | {
    "release_id",
    "spec_digest",
    "rho",
    "rho_hex",
    "mu",
    "mu_hex",
    "epsilon",
    "delta",
    "account",
    "window",
}
_CLOSE_KEYS = {"schema", "kind", "seq", "prev", "nonce", "time", "library", "digest"}


@dataclass(frozen=True)
class Charge:
    """The whole cost of one release.

    Attributes
    ----------
    release_id : str
        The release; it is charged once. See `check_release_id`.
    spec_digest : str
        Digest of the public specification. The same id with another digest is refused.
    rho : float
        Cost in zero-concentrated DP. It is valid for every release; at least mu^2/2.
    mu : float or None
        Cost in Gaussian DP if every answer has exact Gaussian noise, else None.
    epsilon, delta : float
        The guarantee of this release alone.
    account : Account or None
        The account in which disjoint windows compose in parallel. None charges every row.
    window : Window or None
        The rows that the release reads. None for all rows.
    """

    release_id: str
    spec_digest: str
    rho: float
    mu: float | None
    epsilon: float
    delta: float
    account: Account | None = None
    window: Window | None = None

    @classmethod
    def of_release(
        cls,
        release_id: str,
        spec_digest: str,
        epsilon: float,
        delta: float,
        *,
        gaussian: bool,
        account: Account | None = None,
        window: Window | None = None,
    ) -> Charge:
        """Return the charge of a release that spends all of its (epsilon, delta).

        ``gaussian`` says whether every answer has exact Gaussian noise.
        """
        from dpgmm_dist.privacy import accounting

        mu = accounting.mu_from_epsilon_delta(epsilon, delta) if gaussian else None
        rho = accounting.rho_from_epsilon_delta(epsilon, delta) if mu is None else rho_of_mu(mu)
        return cls(release_id, spec_digest, rho, mu, epsilon, delta, account, window)

    def __post_init__(self) -> None:
        check_release_id(self.release_id)
        if not isinstance(self.spec_digest, str) or not self.spec_digest:
            raise SpecError(f"spec_digest must be a non-empty text, got {self.spec_digest!r}.")
        check_epsilon_delta(self.epsilon, self.delta)
        for name, cost in (("rho", self.rho), ("mu", self.mu)):
            if cost is not None and not _is_positive(cost):
                raise SpecError(f"{name} must be a positive finite number, got {name}={cost!r}.")
        if self.mu is not None and Fraction(self.rho) < rho_of_mu_exact(self.mu):
            raise SpecError(
                f"rho must be at least mu^2/2, got rho={self.rho!r}, mu={self.mu!r}:"
                " use rho_of_mu(mu)."
            )
        if self.account is not None and self.window is None:
            raise SpecError(
                f"The account {self.account.name!r} needs a window of rows: give dataset.window, or"
                " leave privacy.account out."
            )


@dataclass(frozen=True)
class Terms:
    """The limit of a ledger, its period, and when it was created.

    The limit holds for all charges, or with a ``period`` such as "365d" for the charges within
    every stretch of time of that length (`period`).
    """

    epsilon: float
    delta: float
    period: str | None
    created: str

    @property
    def bound(self) -> str:
        """What the ledger bounds, as a sentence for ``ledger show`` and for receipts."""
        guarantee = f"(epsilon {self.epsilon:g}, delta {self.delta:g})"
        if self.period is None:
            return f"all releases charged to it together are {guarantee}-DP"
        return (
            f"the releases charged within any {self.period} together are {guarantee}-DP; this"
            " bounds the loss per period, not the loss of all time, which grows with every period"
        )


@dataclass(frozen=True)
class ChargeRecord:
    """A `Charge` in a ledger, with its number and its time (UTC, ISO 8601)."""

    seq: int
    charge: Charge
    time: str

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values that ``dpgmm ledger show`` prints."""
        charge = self.charge
        return {
            "seq": self.seq,
            "release_id": charge.release_id,
            "spec_digest": charge.spec_digest,
            "rho": charge.rho,
            "mu": charge.mu,
            "epsilon": charge.epsilon,
            "delta": charge.delta,
            "time": self.time,
            "account": None if charge.account is None else charge.account.name,
            "window": None if charge.window is None else charge.window.as_dict(),
        }


def check_release_id(release_id: str) -> str:
    """Return the id if it is valid, else raise SpecError."""
    if not isinstance(release_id, str) or not _RELEASE_ID.fullmatch(release_id):
        raise SpecError(
            f"The release id {release_id!r} is not valid: use 1 to 128 letters, digits, '.', '_' or"
            " '-', and do not start with '.'."
        )
    return release_id


def random_release_id() -> str:
    """Return a release id with 64 random bits."""
    return f"r-{secrets.token_hex(8)}"


def check_epsilon_delta(epsilon: float, delta: float) -> None:
    """Raise SpecError unless epsilon is positive and finite and delta is between 0 and 1."""
    if not _is_positive(epsilon):
        raise SpecError(f"epsilon must be a positive finite number, got epsilon={epsilon!r}.")
    if not _is_positive(delta) or delta >= 1:
        raise SpecError(f"delta must be above 0 and below 1, got delta={delta!r}.")


def rho_of_mu_exact(mu: float) -> Fraction:
    """Return mu^2/2, the zCDP cost of exact Gaussian noise at mu (Bun and Steinke 2016)."""
    return Fraction(mu) ** 2 / 2


def rho_of_mu(mu: float) -> float:
    """Return mu^2/2 rounded up to a float: the ``rho`` to record beside ``mu``."""
    return round_up(rho_of_mu_exact(mu))


def period_length(period: str) -> timedelta:
    """Return the length of a period such as "365d", "52w" or "12h".

    Raises
    ------
    SpecError
        The text is not a period, or the period is longer than a century.
    """
    match = _PERIOD.fullmatch(period) if isinstance(period, str) else None
    length = int(match[1]) * _UNITS[match[2]] if match else timedelta(0)
    if not timedelta(0) < length <= _LONGEST:
        raise SpecError(
            f"The period {period!r} is not valid: write hours, days or weeks, such as 12h, 365d or"
            " 52w, up to a century. Leave it out for a budget for all time."
        )
    return length


def encode_terms(epsilon: float, delta: float, created: str, period: str | None = None) -> bytes:
    """Return the first record of a ledger."""
    check_epsilon_delta(epsilon, delta)
    fields = {"epsilon": float(epsilon), "delta": float(delta), "period": period}
    head = {"schema": SCHEMA, "kind": "init", "seq": 0, "prev": None, "created": created}
    return seal({**head, **fields, **stamp()})


def decode_terms(data: bytes, where: str) -> Terms:
    """Read the first record of a ledger; raise DataError for anything else."""
    fields = _known(data, where, "init", _TERMS_KEYS)
    if fields["seq"] != 0 or fields["prev"] is not None:
        raise DataError(f"{where} is not the first record of a ledger.")
    try:
        check_epsilon_delta(fields["epsilon"], fields["delta"])
        if fields["period"] is not None:
            period_length(fields["period"])
        created = _utc(fields["created"])
    except (SpecError, ValueError, TypeError) as err:
        raise DataError(f"{where} is not a valid record: {err}") from None
    return Terms(fields["epsilon"], fields["delta"], fields["period"], created)


def encode_charge(charge: Charge, seq: int, prev: str, time: str) -> bytes:
    """Return the record of a charge; ``prev`` is the SHA-256 of the record before it."""
    head = {"schema": SCHEMA, "kind": "charge", "seq": seq, "prev": prev, "time": time}
    mu = None if charge.mu is None else float(charge.mu)
    rho = float(charge.rho)
    cost = {
        "rho": rho,
        "rho_hex": rho.hex(),
        "mu": mu,
        "mu_hex": None if mu is None else mu.hex(),
        "epsilon": float(charge.epsilon),
        "delta": float(charge.delta),
    }
    release = {"release_id": charge.release_id, "spec_digest": charge.spec_digest}
    rows = {
        "account": None if charge.account is None else charge.account.as_dict(),
        "window": None if charge.window is None else charge.window.as_dict(),
    }
    return seal({**head, **release, **cost, **rows, **stamp()})


def encode_close(seq: int, prev: str, time: str) -> bytes:
    """Return the record that closes a ledger."""
    head = {"schema": SCHEMA, "kind": "close", "seq": seq, "prev": prev, "time": time}
    return seal({**head, **stamp()})


def is_close(data: bytes, where: str) -> bool:
    """Say whether the ``kind`` of a record is that of a closing record."""
    return unseal(data, where).get("kind") == "close"


def decode_close(data: bytes, where: str, seq: int, prev: str) -> str:
    """Read a closing record as `decode_charge` reads a charge; return its time."""
    fields = _known(data, where, "close", _CLOSE_KEYS)
    _check_place(fields, where, seq, prev)
    try:
        return _utc(fields["time"])
    except (ValueError, TypeError) as err:
        raise DataError(f"{where} is not a valid record: {err}") from None


def decode_charge(data: bytes, where: str, seq: int, prev: str) -> ChargeRecord:
    """Read charge number ``seq``.

    Raises
    ------
    DataError
        It is not a valid charge, or does not follow the record whose SHA-256 is ``prev``.
    """
    fields = _known(data, where, "charge", _CHARGE_KEYS)
    _check_place(fields, where, seq, prev)
    try:
        rho, mu = fields["rho"], fields["mu"]
        if fields["rho_hex"] != rho.hex() or fields["mu_hex"] != (None if mu is None else mu.hex()):
            raise SpecError("rho or mu differs from its hexadecimal form.")
        named = {key: fields[key] for key in ("release_id", "spec_digest", "epsilon", "delta")}
        account, window = fields["account"], fields["window"]
        charge = Charge(
            rho=rho,
            mu=mu,
            account=None if account is None else Account(**account),
            window=None if window is None else Window.from_dict(window),
            **named,
        )
        time = _utc(fields["time"])
    except (SpecError, ValueError, TypeError, AttributeError) as err:
        raise DataError(f"{where} is not a valid record: {err}") from None
    return ChargeRecord(seq, charge, time)


def _check_place(fields: dict[str, Any], where: str, seq: int, prev: str) -> None:
    if fields["seq"] != seq or fields["prev"] != prev:
        raise DataError(
            f"{where} does not follow the record before it: the ledger was edited, or holds a"
            " record of another ledger. Restore it from a backup."
        )


def _known(data: bytes, where: str, kind: str, keys: set[str]) -> dict[str, Any]:
    """Return the fields of a record; raise DataError unless schema, kind and keys are known."""
    fields = unseal(data, where)
    schema, stored_kind = fields.get("schema"), fields.get("kind")
    if (schema, stored_kind) != (SCHEMA, kind) or set(fields) != keys:
        raise DataError(
            f"{where} has schema {schema!r} and kind {stored_kind!r}, but this version of"
            f" dpgmm-dist expects schema {SCHEMA} and kind {kind!r} there. Use the version that"
            " wrote it."
        )
    return fields


def _is_positive(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def _utc(text: str) -> str:
    if datetime.fromisoformat(text).utcoffset() is None:
        raise ValueError(f"time {text!r} has no offset from UTC")
    return text
