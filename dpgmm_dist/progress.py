"""Progress events: fractions of planned work, never anything about the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PassProgress:
    """How far one pass has come."""

    step: str
    """Name of the pass, such as "components.2"."""
    index: int
    """Number of the pass, from 1."""
    passes: int
    """Number of passes planned."""
    fraction: float
    """Planned units done, 0 to 1."""


Progress = Callable[[PassProgress], None]
