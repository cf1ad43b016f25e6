"""Progress on stderr: a bar for people, plain lines for logs. Fractions of planned work only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from dpgmm_dist.cli.log import log
from dpgmm_dist.progress import PassProgress, Progress

if TYPE_CHECKING:
    from dpgmm_dist.artifact.part_files import ForEach

_STEPS = 4  # a log gets a line for each quarter of a pass


@contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield the callable that shows progress on ``stream`` (stderr)."""
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
    """Yield how the engine asked for runs tasks, and the callable that shows their progress."""
    from dpgmm_dist.engine import open_engine
    from dpgmm_dist.engine.tasks import for_each_on

    with open_engine(workers, scheduler, scheduler_file) as engine, show_progress() as progress:
        yield for_each_on(engine), lambda done: progress(PassProgress(step, 1, 1, done))


def describe(event: PassProgress) -> str:
    """Return which pass of how many an event is about."""
    if event.passes == 1:
        return event.step
    return f"pass {event.index} of {event.passes}, {event.step}"


def _quarters(tell: Callable[[PassProgress, int], None]) -> Progress:
    """Tell the event and its percents once for each quarter of a pass."""
    shown: tuple[int, str, int] | None = None

    def progress(event: PassProgress) -> None:
        nonlocal shown
        now = (event.index, event.step, int(event.fraction * _STEPS))
        if now != shown:
            shown = now
            tell(event, 100 * now[2] // _STEPS)

    return progress


def _line(stream: TextIO, event: PassProgress, percent: int) -> None:
    print(f"dpgmm: {describe(event)}: {percent}%", file=stream, flush=True)


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
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bars(*columns, TimeElapsedColumn(), console=Console(file=stream), transient=True) as bars:
        task = bars.add_task("reading the plan", total=1.0)

        def progress(event: PassProgress) -> None:
            # One bar for the job: passes are alike enough in cost.
            done = (event.index - 1 + event.fraction) / max(event.passes, 1)
            bars.update(task, description=describe(event), completed=min(done, 1.0))

        yield progress
