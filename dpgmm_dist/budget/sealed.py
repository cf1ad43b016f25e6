"""Sealed records: canonical JSON with its own digest.

A record is one line of JSON with sorted keys and no spaces. Its ``digest`` is the SHA-256 of the
same line without that key. Floats read back exactly. The digest detects damage and careless edits,
not forgery: everyone who may write to the store is trusted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dpgmm_dist import json_bytes
from dpgmm_dist.errors import DataError

SCHEMA = 1


def seal(fields: Mapping[str, Any]) -> bytes:
    """Return ``fields`` and their digest as one canonical line of JSON."""
    return _canonical({**fields, "digest": sha256_hex(_canonical(fields))})


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Return the fields of a sealed record; their values are not checked.

    Raises
    ------
    DataError
        The bytes are not a canonical record, or do not match their digest.
    """
    try:
        fields = json_bytes.parse(data, _refuse_constant)
        rest = {key: value for key, value in fields.items() if key != "digest"}
        intact = seal(rest) == data
    except (ValueError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise DataError(
            f"{where} is corrupt or was edited (its content does not match its digest). Restore it"
            " from a backup: until then the budget is unknown."
        )
    return dict(fields)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def stamp() -> dict[str, str]:
    """Return the fields that identify the writer of a record: a nonce and the library version."""
    from dpgmm_dist.version import __version__

    return {"nonce": secrets.token_hex(16), "library": __version__}


def now() -> str:
    """Return the current time in UTC, in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _canonical(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(
        fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return text.encode("utf-8") + b"\n"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
