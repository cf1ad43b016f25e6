"""``dpgmm --help`` is fast, and names every public command and option."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from dpgmm_dist.cli.main import main

HEAVY = {
    *("numpy", "scipy", "pyarrow", "dask", "distributed", "opendp", "fsspec", "pydantic", "yaml"),
    *("rich", "matplotlib", "sklearn", "cryptography", "mpmath", "tornado"),
}

FLAGS = {
    "plan": ["--rows", "--want", "--plot", "--set", "--json"],
    "release": [
        "--output",
        "--release-id",
        "--set",
        "--json",
        "--insecure-test-noise",
        "--workers",
        "--scheduler",
        "--scheduler-file",
    ],
    "sample": ["--rows", "--output", "--label", "--partitions", "--seed", "--json"],
    "show": ["--json"],
    "verify": ["--ledger", "--public-key", "--json"],
    "sign": ["--key", "--json"],
    "record": ["--json"],
    "audit": ["--draws", "--reruns", "--confidence", "--workers", "--json"],
    "report": ["--decoder", "--shape", "--output", "--json"],
    "init": ["--spec", "--features", "--label", "--labels", "--unit", "--ask"],
    "doctor": ["--store", "--workers", "--scheduler", "--scheduler-file", "--json"],
    "ledger init": ["--epsilon", "--delta", "--period", "--json"],
    "ledger show": ["--json"],
    "ledger verify": ["--json"],
    "ledger close": ["--json"],
    "runs": ["--last", "--json"],
}


class Result(NamedTuple):
    """How the command ended, and what it printed."""

    returncode: int | str
    stdout: str
    stderr: str


def dpgmm(*arguments: str) -> Result:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return Result(ended.value.code or 0, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["--help"], set()), (["release", "--help"], {"pydantic"})],  # typer reads options with it
)
def test_help_imports_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    script = (
        "import sys, dpgmm_dist, dpgmm_dist.cli.main\n"
        f"try:\n    dpgmm_dist.cli.main.main({arguments})\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"print('loaded:', *sorted({HEAVY - allowed!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert result.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize(("command", "flags"), FLAGS.items())
def test_every_command_has_its_options(command: str, flags: list[str]) -> None:
    result = dpgmm(*command.split(), "--help")
    assert result.returncode == 0
    listed = {word for line in result.stdout.splitlines() for word in line.split()[:1]}
    assert set(flags) <= listed


def test_help_names_every_command() -> None:
    result = dpgmm("--help")
    for command in FLAGS:
        assert command.split()[0] in result.stdout


def test_it_is_a_program() -> None:
    command = [sys.executable, "-m", "dpgmm_dist.cli", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert shown.stdout.startswith("dpgmm ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["release"],
        ["releas", "spec.yaml"],
        ["plan", "spec.yaml", "--rows", "0"],
        ["plan", "spec.yaml", "--rows", "many"],
        ["sample", "release/", "--output", "x"],
        ["sample", "release/", "--output", "x", "--rows", "-1"],
        ["release", "spec.yaml", "--no-such-flag"],
        ["ledger", "init", "x", "--epsilon", "1"],
        ["release", "no-such-spec.yaml"],
    ],
)
def test_usage_errors_exit_2_without_a_traceback(arguments: list[str]) -> None:
    result = dpgmm(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()
