"""The differences between two specifications, as text for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], at: str = "") -> list[str]:
    """Return one line of text for each leaf in which two trees of JSON values differ."""
    lines: list[str] = []
    for key in sorted({*stored, *wanted}):
        old, new = stored.get(key), wanted.get(key)
        name = f"{at}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name.removeprefix('spec.')} was {old!r} and is now {new!r}")
    return lines


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping as it reads back from JSON (a tuple becomes a list)."""
    return dict(json.loads(json.dumps(value, allow_nan=False)))
