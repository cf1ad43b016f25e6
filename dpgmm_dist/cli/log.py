"""What the command writes to stderr: lines for people, or JSON objects for a log collector.

Both say the same, and nothing that depends on a row. In JSON each line is one object with `time`,
`level`, `run`, `event` and `message`, and `release_id` once it is known.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from enum import StrEnum
from secrets import token_hex
from typing import Any

import typer

RUN_ID = "DPGMM_RUN_ID"
"""The environment may name the run, so that a scheduler's name for it is in each line."""

_ENGINE = logging.getLogger("dpgmm_dist.engine")


class LogFormat(StrEnum):
    """How stderr is written."""

    text = "text"
    json = "json"


class Log:
    """Writes to stderr. Each run of the command has one."""

    def __init__(self, kind: LogFormat = LogFormat.text) -> None:
        self.kind = kind
        self.run = os.environ.get(RUN_ID) or token_hex(8)
        self.release_id: str | None = None

    @property
    def structured(self) -> bool:
        """Whether lines are JSON."""
        return self.kind is LogFormat.json

    def say(
        self, message: str, *, level: str = "info", event: str = "message", **fields: Any
    ) -> None:
        """One message: a JSON object with ``fields``, or a line for each of its lines."""
        if not self.structured:
            before = "" if level == "info" else f"{level}: "
            for line in message.splitlines():
                typer.echo(f"dpgmm: {before}{line}", err=True)
            return
        entry: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "run": self.run,
        }
        if self.release_id is not None:
            entry["release_id"] = self.release_id
        entry |= {"event": event, "message": message} | fields
        typer.echo(json.dumps(entry, ensure_ascii=False), err=True)


_current = Log()


def log() -> Log:
    """The log of this run."""
    return _current


def open_log(kind: LogFormat) -> Log:
    """Begin the log of a run. In JSON, what libraries log becomes objects as well."""
    global _current
    _current = Log(kind)
    if _current.structured:
        _take_over()
    hear_engine()
    return _current


def hear_engine() -> None:
    """Write what the engine logs; in JSON at level debug also the originals of libraries."""
    _ENGINE.handlers, _ENGINE.propagate = [_Handler()], False
    _ENGINE.setLevel(logging.DEBUG if _current.structured else logging.INFO)


def close_log() -> None:
    """Go back to text lines, for the next run in this process."""
    global _current
    if _current.structured:
        logging.captureWarnings(False)
    _current = Log()
    _ENGINE.handlers, _ENGINE.propagate = [], True
    _ENGINE.setLevel(logging.NOTSET)


class _Handler(logging.Handler):
    """Writes log records as lines of this run. Records of dpgmm itself name their event."""

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", "library")
        fields = {"logger": getattr(record, "logger", record.name)} if event == "library" else {}
        log().say(record.getMessage(), level=record.levelname.lower(), event=event, **fields)


def _take_over() -> None:
    """Turns records that would reach stderr as text into objects."""
    logging.captureWarnings(True)
    logging.lastResort = None
    logging.getLogger().handlers = [_Handler(logging.WARNING)]
