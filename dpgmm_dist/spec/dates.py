"""The date of a scheduled run, in ids, paths and windows: ``weekly-{date:%G-W%V}``.

The date comes from ``--date``, never from the clock: a run that is repeated after midnight is then
the same release.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from dpgmm_dist.errors import SpecError

_TEMPLATE = re.compile(r"\{date(?::([^{}]*))?\}")
_DIRECTIVES = "YmdHMjGVuy"
"""Directives that give the same text on every platform and in every locale."""
_PLACES = (
    ("dataset", "path"),
    ("dataset", "window", "equals"),
    ("output", "path"),
    ("output", "release_id"),
)
PERIODS = ("day", "week", "month", "quarter", "year")


def has_template(text: str | None) -> bool:
    """Say whether a text asks for a date."""
    return text is not None and "{date" in text


class RunDate:
    """The date of a run, or none. It remembers whether anything used it."""

    def __init__(self, text: str | None) -> None:
        self.used = False
        self._text = text
        self._date: datetime | None = None
        if text is not None:
            try:
                self._date = datetime.fromisoformat(text)
            except ValueError:
                raise SpecError(
                    f"--date {text}: not a date; write 2026-11-25 or 2026-11-25T06:00:00"
                ) from None

    def fill(self, text: str, where: str) -> str:
        """Return the text with every ``{date:FORMAT}`` filled in.

        Raises
        ------
        SpecError
            No date was given, or the format is not made of %Y %m %d %H %M %j %G %V %u %y.
        """
        if not has_template(text):
            return text
        filled = _TEMPLATE.sub(lambda match: self._format(match[1], where), text)
        if has_template(filled):
            raise SpecError(f"{where}: got {text!r}; write {{date:%Y-%m}} with both braces")
        return filled

    def fill_document(self, document: dict[str, Any]) -> None:
        """Fill in the places of a specification that may hold a date, in place.

        ``dataset.window.every`` becomes the start and end of the day, week (from Monday), month,
        quarter or year that holds the date.
        """
        for *sections, key in _PLACES:
            section = _section(document, sections)
            if section is not None and isinstance(section.get(key), str):
                section[key] = self.fill(section[key], ".".join([*sections, key]))
        window = _section(document, ["dataset", "window"])
        if window is not None and self._date is not None and window.get("every") in PERIODS:
            self.used = True
            start, end = period_around(self._date.date(), str(window.pop("every")))
            window |= {"start": start.isoformat(), "end": end.isoformat()}

    def require_used(self) -> None:
        """Raise SpecError if a date was given and nothing used it."""
        if self._text is not None and not self.used:
            raise SpecError(
                f"--date {self._text}: neither the release id, nor a path, nor dataset.window uses"
                " a date; write for example --release-id 'monthly-{date:%Y-%m}', or leave it out"
            )

    def _format(self, pattern: str | None, where: str) -> str:
        self.used = True
        pattern = pattern or "%Y-%m-%d"
        for directive in re.findall(r"%(.?)", pattern):
            if not directive or directive not in _DIRECTIVES:
                known = " ".join(f"%{letter}" for letter in _DIRECTIVES)
                raise SpecError(f"{where}: got %{directive} in a date; use {known}")
        if self._date is None:
            raise SpecError(f"{where}: uses a date; give it with --date, such as --date 2026-11-25")
        return self._date.strftime(pattern)


def period_around(day: date, every: str) -> tuple[date, date]:
    """Return the first day of the period that holds ``day``, and of the one after it."""
    start: Callable[[date], date] = {
        "day": lambda day: day,
        "week": lambda day: day - timedelta(days=day.weekday()),
        "month": lambda day: day.replace(day=1),
        "quarter": lambda day: day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1),
        "year": lambda day: day.replace(month=1, day=1),
    }[every]
    first = start(day)
    longest = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}[every]
    # The longest such period from its first day ends within the next period.
    return first, start(first + timedelta(days=longest))


def _section(document: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    section: Any = document
    for key in path:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None
