"""Progress of a run as a Prometheus text file, for a node exporter's textfile collector.

Only what the guarantee does not have to hide: passes planned and done, whole percents, times, the
exit code. No rows, bytes or tasks: those follow from the data (docs/operations.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpgmm_dist.errors import DataError, DpgmmError
from dpgmm_dist.progress import PassProgress
from dpgmm_dist.version import __version__

_LEAST_SECONDS = 1.0
INTERRUPTED = 130


class Metrics:
    """Counters of one run, written to ``path`` whole or not at all."""

    def __init__(self, path: Path, run: str, release_id: str) -> None:
        self._path = path
        self._labels = {"run": run, "release_id": release_id, "version": __version__}
        self._started = self._progressed = time.time()
        self._written = 0.0
        self._passes = self._done = 0
        self._percent = 0
        self._exit_code: int | None = None

    def progress(self, event: PassProgress) -> None:
        """Note how far a pass has come; written at most once a second."""
        self._passes = event.passes
        self._done = event.index - (event.fraction < 1.0)
        self._percent = int(100 * event.fraction)
        self._progressed = time.time()
        if self._progressed - self._written >= _LEAST_SECONDS:
            with suppress(OSError):  # a full disk is no reason to stop a release
                self.write()

    def finish(self, exit_code: int) -> None:
        """Note how the run ended."""
        self._exit_code = exit_code
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Replace the file: a reader sees the old one or the new one."""
        self._written = time.time()
        # The collector reads *.prom alone.
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            part.write_text(self.text(), encoding="utf-8")
            os.replace(part, self._path)
        finally:
            part.unlink(missing_ok=True)

    def text(self) -> str:
        """The counters in Prometheus' text format."""
        labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in self._labels.items())
        running = self._exit_code is None
        lines = [
            *_metric("run_info", "The run that the other figures are of.", 1, labels),
            *_metric("running", "1 until the run has ended.", int(running)),
            *_metric("passes", "Passes planned; 0 before the first.", self._passes),
            *_metric("passes_done", "Passes done.", self._done),
            *_metric("pass_percent", "Planned work of this pass that is done.", self._percent),
            *_metric("start_time_seconds", "When the run began.", f"{self._started:.0f}"),
            *_metric(
                "progress_time_seconds",
                "When it last got further: old while running means stuck or killed.",
                f"{self._progressed:.0f}",
            ),
        ]
        if not running:
            lines += _metric("exit_code", "Exit code of the run; 0 is done.", self._exit_code)
        return "\n".join(lines) + "\n"


def _metric(name: str, meaning: str, value: object, labels: str = "") -> list[str]:
    full = f"dpgmm_{name}"
    shown = f"{full}{{{labels}}}" if labels else full
    return [f"# HELP {full} {meaning}", f"# TYPE {full} gauge", f"{shown} {value}"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@contextmanager
def metrics_of_run(path: Path | None, run: str, release_id: str) -> Iterator[Metrics | None]:
    """Counters of the run inside, up to its exit code.

    Raises
    ------
    DataError
        When the file cannot be written, before the run begins.
    """
    if path is None:
        yield None
        return
    metrics = Metrics(path, run, release_id)
    try:
        metrics.write()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"--metrics-file {path}: cannot be written ({reason}); give a file in a directory "
            "that exists and may be written to"
        ) from None
    try:
        yield metrics
    except BaseException as error:
        metrics.finish(_code_of(error))
        raise
    metrics.finish(0)


def _code_of(error: BaseException) -> int:
    if isinstance(error, DpgmmError):
        return error.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
