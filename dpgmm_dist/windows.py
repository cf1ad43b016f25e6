"""Windows of rows, and accounts in which releases of disjoint windows compose in parallel.

If the unit of privacy is one row, each row is in at most one of several disjoint windows. So their
releases compose in parallel: together they cost a row as much as the most expensive of them. A unit
of many rows may have rows in several windows, and only the data could tell. The specification
therefore refuses an account for such a unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dpgmm_dist.errors import SpecError


@dataclass(frozen=True)
class Window:
    """The rows whose ``column`` equals a text (a partition), or lies in [start, end).

    Attributes
    ----------
    column : str
        A partition column, or a column of times.
    equals : str or None
        The value of the partition column, as text.
    start, end : str or None
        ISO 8601 dates or times, in UTC unless they have an offset. ``end`` is excluded.
    """

    column: str
    equals: str | None = None
    start: str | None = None
    end: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise SpecError(f"A window needs the name of a column, got column={self.column!r}.")
        is_set = [value is not None for value in (self.equals, self.start, self.end)]
        if is_set not in ([True, False, False], [False, True, True]):
            raise SpecError(f"The window of {self.column!r} needs either equals, or start and end.")
        if self.equals is not None and not isinstance(self.equals, str):
            raise SpecError(f"equals must be a text, got {self.equals!r}.")
        if self.start is not None and instant(self.start) >= instant(self.end):
            raise SpecError(
                f"The window of {self.column!r} is empty: start {self.start} is not before end"
                f" {self.end}."
            )

    @property
    def kind(self) -> str:
        """Either "partition" or "time". Windows of different kinds do not count as disjoint."""
        return "partition" if self.equals is not None else "time"

    @property
    def first(self) -> str | datetime:
        """The point at which the window begins. A partition is a single point."""
        return self.equals if self.equals is not None else instant(self.start)

    def holds(self, point: str | datetime) -> bool:
        """Say whether a point of the same kind is in the window."""
        if self.equals is not None:
            return point == self.equals
        return isinstance(point, datetime) and instant(self.start) <= point < instant(self.end)

    def as_dict(self) -> dict[str, str]:
        """Return the window as JSON values, for a record or a receipt."""
        if self.equals is not None:
            return {"column": self.column, "equals": self.equals}
        return {"column": self.column, "start": str(self.start), "end": str(self.end)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Window:
        """Return the window of `as_dict`; raise SpecError or TypeError for anything else."""
        return cls(**fields)

    def __str__(self) -> str:
        if self.equals is not None:
            return f"{self.column}={self.equals}"
        return f"{self.column} from {self.start} to {self.end}"


@dataclass(frozen=True)
class Account:
    """A name under which releases of disjoint windows of one data set compose in parallel.

    ``dataset`` is the path as the specification writes it. The same path in another spelling counts
    as another data set, which is on the safe side.
    """

    name: str
    dataset: str

    def __post_init__(self) -> None:
        for field, value in (("name", self.name), ("dataset", self.dataset)):
            if not isinstance(value, str) or not value:
                raise SpecError(f"An account needs a {field}, got {value!r}.")

    def as_dict(self) -> dict[str, str]:
        """Return the account as JSON values, for a record."""
        return {"name": self.name, "dataset": self.dataset}


def instant(text: str | None) -> datetime:
    """Return an ISO 8601 date or time in UTC; without an offset it is read as UTC."""
    try:
        time = datetime.fromisoformat(text or "")
    except (ValueError, TypeError):
        raise SpecError(
            f"{text!r} is not a date or time: write 2026-11-25 or 2026-11-25T06:00:00+00:00."
        ) from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
