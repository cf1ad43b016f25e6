"""Progress events. They say which part of the planned work is done, and nothing about rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PassProgress:
    """How far one pass has come."""

    step: str
    """The name of the pass, such as "components.2"."""
    index: int
    """The number of the pass, from 1."""
    passes: int
    """The number of planned passes."""
    fraction: float
    """The fraction of the work of this pass that is done, from 0 to 1."""


Progress = Callable[[PassProgress], None]
