"""URLs and errors of other libraries for messages, without credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from dpgmm_dist.errors import SpecError

# In these URLs the part before "@" is a container, not a user.
_CONTAINER_PROTOCOLS = ("abfs", "abfss", "az", "adl", "wasb", "wasbs")
_LONGEST_TEXT = 200
# Shorter option values are flags. Hiding them would garble messages.
_SHORTEST_SECRET = 4
_SHORTEST_PART = 20


def safe_url(url: str) -> str:
    """Return the URL without user, password, final slash and query (which may be signed)."""
    scheme, separator, rest = str(url).partition("://")
    if not separator:
        return url.rstrip("/") or "/"
    if scheme in ("file", "local"):
        return f"{scheme}://{rest.rstrip('/')}"
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    user, rest = _split_user(scheme, rest)
    if user and scheme in _CONTAINER_PROTOCOLS and ":" not in user:
        rest = f"{user}@{rest}"
    return f"{scheme}://{rest.rstrip('/')}"


def check_no_password(url: str) -> None:
    """Raise SpecError for ``scheme://user:password@...``, since specifications are public."""
    scheme, separator, rest = url.partition("://")
    if separator and ":" in _split_user(scheme, rest)[0]:
        raise SpecError(
            f"The URL {safe_url(url)} holds a password. Specifications are public: give"
            " credentials in the environment or in storage options."
        )


def describe_error(err: Exception, secret_values: tuple[str, ...] = ()) -> str:
    """Return an error of a storage library as one short line without credentials."""
    if isinstance(err, OSError) and err.errno and err.filename is not None:
        return os.strerror(err.errno)
    lines = str(err).strip().splitlines()
    text = lines[0] if lines else ""
    for secret in sorted(secret_values, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"\?\S+", "?***", text)  # signed queries
    text = re.sub(r"://[^\s/@]*:[^\s@]*@", "://***@", text)
    name = type(err).__name__
    return f"{name}: {text[:_LONGEST_TEXT].rstrip(' .')}" if text else name


def secrets_in(options: Any) -> tuple[str, ...]:
    """Return every text in nested storage options, to hide it in messages."""
    if isinstance(options, Mapping):
        options = list(options.values())
    if isinstance(options, list | tuple):
        return tuple(secret for item in options for secret in secrets_in(item))
    if not isinstance(options, str) or len(options) < _SHORTEST_SECRET:
        return ()
    # Errors may quote a part of a connection string, "AccountName=...;AccountKey=...".
    values = [part.partition("=")[2] for part in options.split(";")] if ";" in options else []
    return (options, *(value for value in values if len(value) >= _SHORTEST_PART))


def _split_user(scheme: str, rest: str) -> tuple[str, str]:
    """Split "user:secret@host/path" into user and rest; an "@" in the path is not a user's."""
    if "@" not in rest or scheme in ("file", "local", "memory"):
        return "", rest
    head, tail = rest.rsplit("@", 1)
    # A secret may contain "/". A colon before the first "/" means that there is a user.
    if ":" in head.split("/", 1)[0] or "/" not in head:
        return head, tail
    first, _, after = rest.partition("/")
    if "@" in first:
        user, host = first.rsplit("@", 1)
        return user, f"{host}/{after}"
    return "", rest
