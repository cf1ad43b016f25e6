"""``mpirun``: a scheduler, a driver and workers; the exit code is that of the driver."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..system.releases import Rows, digests, done, environment, labelled, write_spec
from .emulators import ROOT

SUBMIT = ROOT / "deploy" / "mpi" / "release.sh"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    if shutil.which("mpirun") is None or importlib.util.find_spec("dask_mpi") is None:
        pytest.skip("mpirun or dask-mpi is not installed: run tests/external/install_slurm.sh")
    command = tmp_path / "dpgmm"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dpgmm_dist.cli "$@"\n')
    command.chmod(0o755)
    variables = {"DPGMM": command, "PYTHONPATH": os.fspath(ROOT), "MPIRUN_FLAGS": "--oversubscribe"}
    if os.geteuid() == 0:
        variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return environment(variables)


def submit(env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SUBMIT), *map(str, arguments)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_release_under_mpirun(env: dict[str, str], tmp_path: Path) -> None:
    data = Rows.make().write(tmp_path / "data", files=4, row_group=100)
    noise = ("--insecure-test-noise", 3)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled())
    done("release", spec, "--release-id", "same", *noise, "--output", tmp_path / "threads")
    result = submit(env, 4, spec, "same", *noise, "--output", tmp_path / "mpi")
    assert result.returncode == 0, result.stderr
    assert digests(tmp_path / "threads") == digests(tmp_path / "mpi")

    wrong = ("--set", f"dataset.path={tmp_path / 'nothing'}")
    missing = submit(env, 3, spec, "other", *wrong, "--output", tmp_path / "never")
    assert missing.returncode == 4, missing.stderr
    assert "does not exist" in missing.stderr
