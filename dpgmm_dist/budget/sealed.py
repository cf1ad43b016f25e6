"""Sealed records: canonical JSON that checks itself.

A record is one line of JSON with sorted keys and no spaces; ``digest`` is the SHA-256 of the same
line without that key. Floats are written so that they read back exactly. The digest finds damage
and careless edits, not forgery: whoever may write to the store is trusted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dpgmm_dist.errors import DataError

SCHEMA = 1


def seal(fields: Mapping[str, Any]) -> bytes:
    """Return the canonical line of JSON of ``fields`` with their digest added."""
    return _canonical({**fields, "digest": sha256_hex(_canonical(fields))})


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Return the fields of a sealed record, without checking what they say.

    Raises
    ------
    DataError
        The bytes are not a canonical record, or do not match their digest.
    """
    try:
        fields = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        rest = {key: value for key, value in fields.items() if key != "digest"}
        intact = seal(rest) == data
    except (ValueError, AttributeError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise DataError(
            f"{where} is corrupt or was edited (its content does not match its digest). Restore it"
            " from a backup; the budget cannot be relied on until then."
        )
    return dict(fields)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def stamp() -> dict[str, str]:
    """Return what tells one writer's record from another's: a nonce and the library version."""
    from dpgmm_dist.version import __version__

    return {"nonce": secrets.token_hex(16), "library": __version__}


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _canonical(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(
        fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return text.encode("utf-8") + b"\n"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
