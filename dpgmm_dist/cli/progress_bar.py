"""Progress on stderr: a bar on a terminal, lines in a log. Only fractions of planned work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from dpgmm_dist.cli.log import log
from dpgmm_dist.progress import PassProgress, Progress

if TYPE_CHECKING:
    from dpgmm_dist.artifact.part_files import ForEach

_LINES_PER_PASS = 4


@contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield a callable that shows progress on ``stream``, by default stderr."""
    stream = sys.stderr if stream is None else stream
    if log().structured:
        yield _quarters(_structured)
    elif stream.isatty():
        with _bar(stream) as progress:
            yield progress
    else:
        yield _quarters(lambda event, percent: _line(stream, event, percent))


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


def rate_of(speed: float | None) -> str:
    """The share of the work that is done in a minute, from that of a second; "" if unknown."""
    return "" if speed is None else f"{6000 * speed:.3g}%/min"


def _quarters(show: Callable[[PassProgress, int], None]) -> Progress:
    """Return a callable that shows an event and its percents once per quarter of a pass."""
    shown: tuple[int, str, int] | None = None

    def progress(event: PassProgress) -> None:
        nonlocal shown
        current = (event.index, event.step, int(event.fraction * _LINES_PER_PASS))
        if current != shown:
            shown = current
            show(event, 100 * current[2] // _LINES_PER_PASS)

    return progress


def _line(stream: TextIO, event: PassProgress, percent: int) -> None:
    # In one piece: print writes the end of a line by itself, and other threads write lines too.
    stream.write(f"dpgmm: {describe(event)}: {percent}%\n")
    stream.flush()


def _structured(event: PassProgress, percent: int) -> None:
    log().say(
        f"{describe(event)}: {percent}%",
        event="progress",
        step=event.step,
        index=event.index,
        passes=event.passes,
        percent=percent,
    )


@contextmanager
def _bar(stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        """How much of all passes is done in a minute."""

        def render(self, task: Task) -> Text:
            return Text(rate_of(task.speed))

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(file=stream)
    with Bars(*columns, console=console, transient=True, speed_estimate_period=120) as bars:
        task = bars.add_task("reading the plan", total=1.0)

        def progress(event: PassProgress) -> None:
            # One bar for all passes, whose costs are similar.
            done = (event.index - 1 + event.fraction) / max(event.passes, 1)
            bars.update(task, description=describe(event), completed=min(done, 1.0))

        yield progress
