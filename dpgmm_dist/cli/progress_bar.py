"""Progress on stderr: a bar on a terminal, lines in a log. Only fractions of planned work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from dpgmm_dist.cli.log import log
from dpgmm_dist.progress import PassProgress, Progress

if TYPE_CHECKING:
    from dpgmm_dist.artifact.part_files import ForEach

_LINES_PER_PASS = 4
_SECONDS_BETWEEN_LINES = 60
"""Seconds between the lines of a slow pass."""


@contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield a callable that shows progress on ``stream``, by default stderr."""
    stream = sys.stderr if stream is None else stream
    if log().structured:
        yield _now_and_then(_structured)
    elif stream.isatty():
        with _bar(stream) as progress:
            yield progress
    else:
        yield _now_and_then(lambda *shown: _line(stream, *shown))


@contextmanager
def engine_for_tasks(
    step: str, workers: int | None, scheduler: str | None, scheduler_file: str | None
) -> Iterator[tuple[ForEach, Callable[[float], None]]]:
    """Yield the function that runs tasks on the chosen engine, and one that shows progress.

    The second takes the fraction of the tasks that is done.
    """
    from dpgmm_dist.engine import open_engine
    from dpgmm_dist.engine.tasks import for_each_on

    with open_engine(workers, scheduler, scheduler_file) as engine, show_progress() as progress:
        yield for_each_on(engine), lambda done: progress(PassProgress(step, 1, 1, done))


def describe(event: PassProgress) -> str:
    """Return the name of the pass of an event, with its number if there are several passes."""
    if event.passes == 1:
        return event.step
    return f"pass {event.index} of {event.passes}, {event.step}"


class _Pace:
    """The speed of the current pass, from its start and the fraction of it that is done."""

    def __init__(self) -> None:
        self.index: int | None = None
        self.start = (0.0, 0.0)

    def of(self, event: PassProgress) -> tuple[float, float] | None:
        """(percent a minute, seconds left) of the pass; None at its beginning and at its end.

        The passes of a release have different costs, so nothing follows for those to come.
        """
        now = time.monotonic()
        if self.index != event.index:
            self.index, self.start = event.index, (now, event.fraction)
        began, first = self.start
        elapsed, done = now - began, event.fraction - first
        if elapsed <= 0 or done <= 0 or event.fraction >= 1:
            return None
        return 6000 * done / elapsed, (1 - event.fraction) * elapsed / done


def _speed(event: PassProgress, pace: _Pace) -> str:
    """The pace in words; empty where there is none yet."""
    found = pace.of(event)
    if found is None:
        return ""
    whole = " of this pass" if event.passes > 1 else ""
    rate = f"{found[0]:,.0f}" if found[0] >= 10 else f"{found[0]:.2g}"
    return f"{rate}% a minute, {duration(found[1])}{whole} left"


def duration(seconds: float) -> str:
    """A rough duration for people, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _now_and_then(show: Callable[[PassProgress, int, _Pace], None]) -> Progress:
    """Return a callable that shows an event once per quarter of a pass, and once a minute."""
    shown: tuple[int, str, int] | None = None
    last = time.monotonic()
    pace = _Pace()

    def progress(event: PassProgress) -> None:
        nonlocal shown, last
        pace.of(event)
        current = (event.index, event.step, int(event.fraction * _LINES_PER_PASS))
        if current != shown or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            quarter = current != shown
            shown, last = current, time.monotonic()
            percent = 100 * current[2] // _LINES_PER_PASS if quarter else int(100 * event.fraction)
            show(event, percent, pace)

    return progress


def _line(stream: TextIO, event: PassProgress, percent: int, pace: _Pace) -> None:
    speed = _speed(event, pace) if event.passes == 1 else ""  # a release's log holds no times
    # One call: print would write the line and its end separately, and other threads write too.
    stream.write(f"dpgmm: {describe(event)}: {percent}%{speed and ', '}{speed}\n")
    stream.flush()


def _structured(event: PassProgress, percent: int, pace: _Pace) -> None:
    found = pace.of(event) if event.passes == 1 else None
    speed: dict[str, Any] = (
        {} if found is None else {"percent_per_minute": found[0], "seconds_left": found[1]}
    )
    log().say(
        f"{describe(event)}: {percent}%",
        event="progress",
        step=event.step,
        index=event.index,
        passes=event.passes,
        percent=percent,
        **speed,
    )


@contextmanager
def _bar(stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    pace = _Pace()
    with Bars(
        *columns,
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}"),
        console=Console(file=stream),
        transient=True,
    ) as bars:
        task = bars.add_task("reading the plan", total=1.0, speed="")

        def progress(event: PassProgress) -> None:
            # One bar for all passes, whose costs are similar.
            done = (event.index - 1 + event.fraction) / max(event.passes, 1)
            bars.update(
                task,
                description=describe(event),
                completed=min(done, 1.0),
                speed=_speed(event, pace),
            )

        yield progress
