"""stderr as JSON: every line an object with the run's id, also what libraries log."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from dpgmm_dist.cli.log import LogFormat, close_log, log, open_log
from dpgmm_dist.cli.output import fail, guarded, warn
from dpgmm_dist.cli.progress_bar import show_progress
from dpgmm_dist.errors import DataError
from dpgmm_dist.progress import PassProgress


@pytest.fixture
def structured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DPGMM_RUN_ID", "run-1")
    handlers, last = logging.getLogger().handlers, logging.lastResort
    open_log(LogFormat.json)
    yield
    close_log()
    logging.getLogger().handlers, logging.lastResort = handlers, last


def said(capsys: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_is_an_object_that_names_the_run(structured, capsys):
    log().say("first", event="release_id")
    log().release_id = "weekly-1"
    warn("second\nin two lines")
    with show_progress() as progress:
        for fraction in (0.0, 0.1, 0.26, 1.0):
            progress(PassProgress("cells.1", 3, 7, fraction))
    logging.getLogger("some.library").warning("from %s", "elsewhere")
    warnings.warn("of Python", stacklevel=1)
    lines = said(capsys)
    assert {line["run"] for line in lines} == {"run-1"}
    assert [line.get("release_id") for line in lines] == [None] + ["weekly-1"] * 6
    assert [line["event"] for line in lines] == [
        *("release_id", "warning"),
        *["progress"] * 3,
        *["library"] * 2,
    ]
    assert lines[1]["message"] == "second\nin two lines"
    assert [line["percent"] for line in lines[2:5]] == [0, 25, 100]
    assert (lines[2]["step"], lines[2]["index"], lines[2]["passes"]) == ("cells.1", 3, 7)
    assert lines[5]["logger"] == "some.library"
    assert lines[5]["message"] == "from elsewhere"
    assert lines[6]["logger"] == "py.warnings"


@pytest.mark.parametrize(
    ("error", "event", "code"),
    [
        (DataError("not there"), "failed", 4),
        (ValueError("row 17 is 3.25"), "failed", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_failures_are_objects_with_the_exit_code(structured, capsys, error, event, code):
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(BaseException) as end:
        command()
    assert end.value.exit_code == code
    [line] = said(capsys)
    assert line["event"] == event
    assert line.get("exit_code", 130) == code
    assert "3.25" not in json.dumps(line)
    assert not log().structured  # the next run begins anew


def test_lines_for_people_stay_lines(capsys):
    log().say("one\ntwo")
    warn("careful")
    with pytest.raises(BaseException):  # noqa: B017 - whatever ends the command
        fail(DataError("a\nb"))
    assert capsys.readouterr().err.splitlines() == [
        *("dpgmm: one", "dpgmm: two", "dpgmm: warning: careful"),
        *("dpgmm: error: a", "dpgmm: error: b"),
    ]


def test_runs_have_ids_of_their_own():
    assert open_log(LogFormat.text).run != open_log(LogFormat.text).run
