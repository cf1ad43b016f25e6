"""Logs and counters of whole jobs: well formed, complete, and the same whatever the rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .releases import Rows, done, dpgmm, labelled, write_spec

NAN = float("nan")
ROWS, INVALID = 4937, 1013
"""Numbers that would be recognised."""


def rows(count: int, invalid: int) -> Rows:
    made = Rows.make(count)
    for index in range(invalid):
        made.x[index * 4] = [NAN] * 3
    return made


def watched(folder: Path, data: Rows, *options: object) -> tuple[list[dict[str, object]], str, str]:
    """The log's objects, the counters, and all that was printed.

    Without lines at level debug: what Dask says of processes depends on the machine.
    """
    folder.mkdir()
    spec = write_spec(folder / "spec.yaml", data.write(folder / "data"), dataset=labelled())
    result = done(
        *("release", spec, "--output", folder / "out", "--release-id", "weekly-1"),
        *("--log-format", "json", "--metrics-file", folder / "m.prom", "--json", *options),
        env={"DPGMM_RUN_ID": "run-1"},
    )
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    lines = [line for line in lines if line["level"] != "debug"]
    return lines, (folder / "m.prom").read_text(), result.stderr + result.stdout


@pytest.mark.parametrize(
    "where",
    [
        pytest.param((), id="threads"),
        pytest.param(("--workers", 2), id="workers", marks=pytest.mark.slow),
    ],
)
def test_logs_and_counters_of_other_rows_are_the_same(tmp_path: Path, where: tuple) -> None:
    logged, counted, printed = watched(tmp_path / "many", rows(ROWS, INVALID), *where)
    assert {line["run"] for line in logged} == {"run-1"}
    assert {line["release_id"] for line in logged} == {"weekly-1"}
    assert [line["event"] for line in logged[-2:]] == ["progress", "done"]
    assert (logged[-1]["exit_code"], logged[-2]["percent"]) == (0, 100)
    passes = logged[-2]["passes"]
    assert f"dpgmm_passes {passes}\n" in counted
    assert f"dpgmm_passes_done {passes}\n" in counted
    assert "dpgmm_exit_code 0\n" in counted
    for count in (ROWS, INVALID, ROWS - INVALID):
        assert str(count) not in printed + re.sub(r"\d{10}\n", "", counted)

    others = watched(tmp_path / "few", rows(3, 1), *where)
    assert without_times(others[0]) == without_times(logged)
    assert without_passes(others[1]) == without_passes(counted)


def without_times(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    """Lines but for their times, and for passes: the noisy number of rows says which are asked."""
    return [
        {key: value for key, value in line.items() if key != "time"}
        for line in lines
        if line["event"] != "progress"
    ]


def without_passes(counted: str) -> str:
    return re.sub(r"(\d{10}|dpgmm_pass\w* \d+)\n", "", counted)


def test_failures_are_in_the_log_and_in_the_counters(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tmp_path / "none")
    options = ("--output", tmp_path / "out", "--metrics-file", tmp_path / "m.prom")
    result = dpgmm("release", spec, *options, env={"DPGMM_LOG_FORMAT": "json"})
    assert result.returncode == 4
    first, last = (json.loads(line) for line in result.stderr.splitlines())
    assert first["event"] == "release_id"
    assert first["run"] == last["run"]
    assert last["release_id"] in first["message"]
    assert (last["event"], last["exit_code"]) == ("failed", 4)
    assert "dpgmm_exit_code 4\n" in (tmp_path / "m.prom").read_text()
