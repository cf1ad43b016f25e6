"""What the command says on stderr: lines for people, or JSON objects for a log collector.

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
"""The environment may name the run, so that lines can be found by the scheduler's own name."""


class LogFormat(StrEnum):
    """How stderr is written."""

    text = "text"
    json = "json"


class Log:
    """Writes to stderr; one a run of the command."""

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
        said: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "run": self.run,
        }
        if self.release_id is not None:
            said["release_id"] = self.release_id
        said |= {"event": event, "message": message} | fields
        typer.echo(json.dumps(said, ensure_ascii=False), err=True)


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
    return _current


def close_log() -> None:
    """Back to lines, for the next run in this process."""
    global _current
    if _current.structured:
        logging.captureWarnings(False)
    _current = Log()


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        log().say(record.getMessage(), level=level, event="library", logger=record.name)


def _take_over() -> None:
    """Records that reach stderr as text become objects: from the root, and from Dask."""
    logging.captureWarnings(True)
    logging.lastResort = None
    logging.getLogger().handlers = [_Handler(logging.WARNING)]


def take_over_dask() -> None:
    """Dask gives its loggers handlers of their own when it is first imported."""
    if not log().structured:
        return
    import distributed  # noqa: F401 - adds its handlers when it is first imported

    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "bokeh", "tornado"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
