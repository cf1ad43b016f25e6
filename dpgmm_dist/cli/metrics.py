"""Progress of a run as a Prometheus text file, for a node exporter's textfile collector.

The file has planned and finished passes, whole percents, times and the exit code. It has no counts
of rows, bytes or tasks, because those depend on the data (docs/operations.md).
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
    """The counters of one run. The file at ``path`` is always complete."""

    def __init__(self, path: Path, run: str, release_id: str) -> None:
        self._path = path
        self._labels = {"run": run, "release_id": release_id, "version": __version__}
        self._started = self._progressed = time.time()
        self._written = 0.0
        self._passes = self._done = 0
        self._percent = 0
        self._exit_code: int | None = None

    def progress(self, event: PassProgress) -> None:
        """Record the progress of a pass; write the file at most once a second."""
        self._passes = event.passes
        self._done = event.index - (event.fraction < 1.0)
        self._percent = int(100 * event.fraction)
        self._progressed = time.time()
        if self._progressed - self._written >= _LEAST_SECONDS:
            with suppress(OSError):  # a full disk does not stop a release
                self.write()

    def finish(self, exit_code: int) -> None:
        """Record the exit code and write the file."""
        self._exit_code = exit_code
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Replace the file. A reader sees either the old file or the new one."""
        self._written = time.time()
        # The collector reads only *.prom.
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        try:
            part.write_text(self.text(), encoding="utf-8")
            os.replace(part, self._path)
        finally:
            part.unlink(missing_ok=True)

    def text(self) -> str:
        """Return the counters in the Prometheus text format."""
        labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in self._labels.items())
        running = self._exit_code is None
        lines = [
            *_metric("run_info", "The run of the other metrics.", 1, labels),
            *_metric("running", "1 until the run ends, then 0.", int(running)),
            *_metric("passes", "Planned passes; 0 before the first pass begins.", self._passes),
            *_metric("passes_done", "Finished passes.", self._done),
            *_metric("pass_percent", "Percent of the current pass that is done.", self._percent),
            *_metric(
                "start_time_seconds",
                "Start of the run, in seconds since 1970.",
                f"{self._started:.0f}",
            ),
            *_metric(
                "progress_time_seconds",
                "Time of the last progress. Old while running: the run is stuck or was killed.",
                f"{self._progressed:.0f}",
            ),
        ]
        if not running:
            lines += _metric("exit_code", "Exit code of the run; 0 is success.", self._exit_code)
        return "\n".join(lines) + "\n"


def _metric(name: str, description: str, value: object, labels: str = "") -> list[str]:
    full = f"dpgmm_{name}"
    shown = f"{full}{{{labels}}}" if labels else full
    return [f"# HELP {full} {description}", f"# TYPE {full} gauge", f"{shown} {value}"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@contextmanager
def metrics_of_run(path: Path | None, run: str, release_id: str) -> Iterator[Metrics | None]:
    """Yield the counters of a run, or None without a path; record its exit code at the end.

    Raises
    ------
    DataError
        The file cannot be written. This is raised before the run begins.
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
            f"--metrics-file {path}: cannot be written ({reason}); give a file in an existing "
            "directory that you may write to"
        ) from None
    try:
        yield metrics
    except BaseException as error:
        metrics.finish(_exit_code(error))
        raise
    metrics.finish(0)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, DpgmmError):
        return error.exit_code
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
