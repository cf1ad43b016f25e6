"""Reading JSON of unknown origin: every error in it is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MOST_LEVELS = 100
"""Most levels of nested lists and objects, so that later readers need not check the depth."""


def parse(data: bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return the value of one JSON text in UTF-8.

    Parameters
    ----------
    data
        The text.
    parse_constant
        What to make of NaN and the infinities, as in `json.loads`.

    Raises
    ------
    ValueError
        It is not JSON, or is nested more than `MOST_LEVELS` deep.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=parse_constant)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("too deeply nested")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
