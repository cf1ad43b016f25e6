"""What the command prints: results on stdout, one-line errors on stderr, exit codes."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer

from dpgmm_dist.cli.log import close_log, hear_engine, log
from dpgmm_dist.errors import DpgmmError

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
DEBUG = "DPGMM_DEBUG"


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn every exception of ``command`` into an exit code and lines for people.

    An unexpected exception is named by its type alone: its message could quote a private value.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        hear_engine()
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # typer's own, and a reader that went away
        except KeyboardInterrupt:
            log().say("interrupted; a release resumes under its release id", event="interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except DpgmmError as error:
            _trace_if_asked()
            fail(error)
        except Exception as error:
            _trace_if_asked()
            log().say(
                f"unexpected {type(error).__name__}; set {DEBUG}=1 to see the "
                "traceback (it may show private values)",
                level="error",
                event="failed",
                exit_code=1,
            )
            raise typer.Exit(1) from None
        finally:
            close_log()

    return run


def fail(error: DpgmmError) -> NoReturn:
    """Print ``error``, a line for each of its lines, and exit with its code."""
    message = str(error) or type(error).__name__
    log().say(message, level="error", event="failed", exit_code=error.exit_code)
    raise typer.Exit(error.exit_code) from None


def warn(message: str) -> None:
    """Print a warning."""
    log().say(message, level="warning", event="warning")


def _trace_if_asked() -> None:
    if os.environ.get(DEBUG) == "1":
        import traceback

        traceback.print_exc(file=sys.stderr)


def emit(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result: one JSON object, or lines ``key: value``."""
    values = plain(result)
    if as_json:
        typer.echo(json.dumps(values, allow_nan=False, ensure_ascii=False))
        return
    for line in lines(values):
        typer.echo(line)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON knows it; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def lines(values: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return ``values`` for reading: one line for each, nested ones below their name."""
    result = []
    for key, value in values.items():
        name = indent + key.replace("_", " ")
        if isinstance(value, dict) and value:
            result += [f"{name}:", *lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            result += [f"{name}:", *(f"{indent}  - {_row(item)}" for item in value)]
        else:
            result.append(f"{name}: {_cell(value)}")
    return result


def _row(value: Any) -> str:
    if not isinstance(value, dict):
        return _cell(value)
    return ", ".join(f"{key.replace('_', ' ')} {_cell(item)}" for key, item in value.items())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "none"
    if isinstance(value, dict):
        return "{" + _row(value) + "}"
    return str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with its head."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
