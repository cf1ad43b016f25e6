"""Dask's log records, reported in dpgmm's own words or not at all.

Dask logs about workers that end and restart, about lost connections and about callbacks that fail.
Its messages can quote arguments of tasks and its tracebacks can quote values, so none of them
reaches stderr as it is. While a cluster is open, one handler takes the records of Dask's loggers.

Whatever a user should know becomes an event of the logger ``dpgmm_dist.engine``, in plain words.
The original follows at level DEBUG, and only where it cannot hold a value: the messages of
:data:`_SAFE` as they are, any other as the place in Dask's source that logged it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

_log = logging.getLogger("dpgmm_dist.engine")

_LIBRARIES = ("distributed", "dask", "tornado", "asyncio", "bokeh", "concurrent")
"""Top names of the loggers of Dask and of the libraries it runs on."""

_TOPIC = "dpgmm-dask-logs"
"""Where local workers send their originals to the driver."""

_LOST = (
    "worker_lost",
    "a worker was lost; it is started again, and what it held is computed again",
)
_SILENT = (
    "worker_lost",
    "a worker did not answer and is replaced; what it held is computed again",
)
_OUT_OF_MEMORY = (
    "out_of_memory",
    "a worker ran out of memory and is ended; if this happens often, give workers more memory or "
    "fewer threads",
)
_NOT_STARTED = (
    "worker_not_started",
    "a worker was lost and could not be started again; the others go on without it",
)

_ADDRESS = r"[a-z]+://[\w.:\[\]%-]+"
_SAFE: Mapping[str, tuple[str, str] | None] = {
    r"Restarting worker \(status=[\w.]+\)": _LOST,
    r"Worker failed to heartbeat for \d+s; (?:attempting restart|removing)": _SILENT,
    rf"Worker {_ADDRESS} \(pid=\d+\) exceeded \d+% memory budget\. Restarting\.\.\.": (
        _OUT_OF_MEMORY
    ),
    r"Failed to restart worker after its process exited": _NOT_STARTED,
    rf"Worker {_ADDRESS} \(pid=\d+\) is slow to accept SIGTERM; sending SIGKILL": None,
    r"Worker process still alive after [\d.]+ seconds, killing": None,
    r"Worker failed to connect": None,
    r"Failed to start process": None,
    r"Failed to communicate with scheduler during heartbeat\.": None,
    r"Scheduler was unaware of this worker; shutting down\.": None,
    rf"Removing worker '{_ADDRESS}' caused the cluster to lose": None,
}
"""The beginning of messages that hold no value, and the event that is reported for each.

Only what matches is quoted: what follows it in the message is left out.
"""
_PATTERNS = [(re.compile(pattern), event) for pattern, event in _SAFE.items()]


def original(record: logging.LogRecord) -> dict[str, str]:
    """What may be shown of a record: its logger, and a text without values."""
    message, _ = _known(record)
    if message is None:
        place = f"{record.filename}, line {record.lineno}"
        message = f"left out, as it could quote values: a message of {place}"
    if record.exc_info and record.exc_info[0] is not None:
        message += f" ({record.exc_info[0].__name__})"
    return {"message": message, "logger": record.name}


def _known(record: logging.LogRecord) -> tuple[str | None, tuple[str, str] | None]:
    """The part of the message that may be quoted, and the event that it is about."""
    with suppress(Exception):  # a message with the wrong arguments is no reason to fail
        text = record.getMessage()
        for pattern, event in _PATTERNS:
            if found := pattern.match(text):
                return found.group(), event
    return None, None


class _DriverHandler(logging.Handler):
    """Passes events and originals to dpgmm's own logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._ending = False

    def end(self) -> None:
        """From now on workers end because the cluster does, which is not an event."""
        self._ending = True

    def emit(self, record: logging.LogRecord) -> None:
        _, event = _known(record)
        if event is not None and not self._ending:
            name, words = event
            _log.warning(words, extra={"event": name})
        _log_original(original(record))


class _WorkerHandler(logging.Handler):
    """Sends originals to the driver, which alone writes to stderr."""

    def __init__(self, worker: Any) -> None:
        super().__init__(logging.WARNING)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("distributed.batched", "distributed.comm")):
            return  # sending would fail, and log that it did
        with suppress(Exception):  # the connection may be what the record is about
            self._worker.log_event(_TOPIC, original(record))


@contextmanager
def dask_logs() -> Iterator[_DriverHandler]:
    """Take over what Dask logs in this process.

    Everything is put back afterwards, except in the command, which listens to this engine's logger:
    its users should not see what Dask's threads log after the cluster has closed.
    """
    import distributed  # noqa: F401 - gives its loggers handlers when it is first imported

    handler = _DriverHandler()
    before = _take_over(handler)
    try:
        yield handler
    finally:
        if _log.propagate:
            for logger, handlers, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate


def take_over_in_worker(dask_worker: Any, with_originals: bool) -> None:
    """Take over what Dask logs in a local worker's process, for as long as it lives."""
    _take_over(_WorkerHandler(dask_worker) if with_originals else logging.NullHandler())


def close_stderr() -> None:
    """Let nothing of this process reach stderr, which a local worker shares with the driver.

    The traceback of a worker that is ending, and warnings of Python itself, can quote values.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def originals_wanted() -> bool:
    """Whether the originals are logged."""
    return _log.isEnabledFor(logging.DEBUG)


def hear_workers(client: Any) -> None:
    """Log in this process what :func:`take_over_in_worker` sends from the workers."""
    client.subscribe_topic(_TOPIC, lambda event: _log_original(event[1]))


def _log_original(event: Mapping[str, str]) -> None:
    _log.debug("%s", event["message"], extra={"event": "library", "logger": event["logger"]})


def _take_over(handler: logging.Handler) -> list[tuple[logging.Logger, Any, bool]]:
    """Let ``handler`` alone have the libraries' records; return what was there before."""
    names = {*_LIBRARIES, *logging.root.manager.loggerDict}
    loggers = [logging.getLogger(n) for n in sorted(names) if n.partition(".")[0] in _LIBRARIES]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        is_top = logger.name in _LIBRARIES
        logger.handlers = [handler] if is_top else []
        logger.propagate = not is_top
    return before
