"""Windows of rows, and accounts in which releases of disjoint windows cost as much as one.

Where the unit of privacy is one row, a row is in the windows that hold the value of its own window
column and in no other. Releases of disjoint windows therefore compose in parallel: they cost every
row what the dearest of them costs. With a unit of many rows that is false, and whether it happens
to hold cannot be looked up without reading the data: the specification refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dpgmm_dist.errors import SpecError


@dataclass(frozen=True)
class Window:
    """Rows whose ``column`` equals a text (a partition), or lies in [start, end).

    Attributes
    ----------
    column : str
        Partition key, or column of times.
    equals : str or None
        The partition's text.
    start, end : str or None
        ISO 8601 dates or times, UTC where they name no offset; ``end`` is excluded.
    """

    column: str
    equals: str | None = None
    start: str | None = None
    end: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise SpecError(f"A window needs the name of a column, got {self.column!r}.")
        given = [value is not None for value in (self.equals, self.start, self.end)]
        if given not in ([True, False, False], [False, True, True]):
            raise SpecError(f"The window of {self.column!r} needs equals, or start and end.")
        if self.equals is not None and not isinstance(self.equals, str):
            raise SpecError(f"equals must be a text, got {self.equals!r}.")
        if self.start is not None and instant(self.start) >= instant(self.end):
            raise SpecError(
                f"The window of {self.column!r} is empty: start {self.start} is not before end"
                f" {self.end}."
            )

    @property
    def kind(self) -> str:
        """What is compared: "partition" or "time". Windows of two kinds are never disjoint."""
        return "partition" if self.equals is not None else "time"

    @property
    def first(self) -> str | datetime:
        """The point at which the window begins; a partition is one point."""
        return self.equals if self.equals is not None else instant(self.start)

    def holds(self, point: str | datetime) -> bool:
        """Say whether a point of the same kind is in the window."""
        if self.equals is not None:
            return point == self.equals
        return isinstance(point, datetime) and instant(self.start) <= point < instant(self.end)

    def as_dict(self) -> dict[str, str]:
        """Return the JSON values of a record or a receipt."""
        if self.equals is not None:
            return {"column": self.column, "equals": self.equals}
        return {"column": self.column, "start": str(self.start), "end": str(self.end)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Window:
        """Read what `as_dict` gave; SpecError or TypeError for anything else."""
        return cls(**fields)

    def __str__(self) -> str:
        if self.equals is not None:
            return f"{self.column}={self.equals}"
        return f"{self.column} from {self.start} to {self.end}"


@dataclass(frozen=True)
class Account:
    """A name under which the releases of one data set's windows are charged in parallel.

    ``dataset`` is the path as the specification has it: the same rows under another spelling are
    another account, and accounts add up, which is on the safe side.
    """

    name: str
    dataset: str

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("dataset", self.dataset)):
            if not isinstance(value, str) or not value:
                raise SpecError(f"An account needs a {field}, got {value!r}.")

    def as_dict(self) -> dict[str, str]:
        """Return the JSON values of a record or a receipt."""
        return {"name": self.name, "dataset": self.dataset}


def instant(text: str | None) -> datetime:
    """Return the time that an ISO 8601 date or time names; UTC where it names no offset."""
    try:
        found = datetime.fromisoformat(text or "")
    except (ValueError, TypeError):
        raise SpecError(
            f"{text!r} is not a date or time: write 2026-11-25 or 2026-11-25T06:00:00+00:00."
        ) from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
