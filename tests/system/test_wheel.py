"""The wheel: it builds, and in an empty environment it runs what the README shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "jobs" / "demo_data" / "fashion_scatter128" / "train"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(arguments: list[str], folder: Path) -> str:
    """The output of a command, without this checkout on the path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools packs what an earlier build left in the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT / "dpgmm_dist", source / "dpgmm_dist", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", str(folder), str(source)], folder)
    [found] = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"dpgmm_dist", next(top for top in tops if top.endswith(".dist-info"))}
    modules = {name for name in names if name.endswith(".py")}
    files = (ROOT / "dpgmm_dist").rglob("*.py")
    assert modules == {file.relative_to(ROOT).as_posix() for file in files}
    assert "dpgmm_dist/py.typed" in names


def test_in_an_empty_environment_it_runs_the_readme(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python, dpgmm = (str(tmp_path / "env" / "bin" / name) for name in ("python", "dpgmm"))
    # The lock is for 3.11; other versions take what pip finds.
    lock = ["--constraint", str(ROOT / "requirements.lock")] if sys.version_info < (3, 12) else []
    run([python, "-m", "pip", "install", "--quiet", *lock, str(wheel)], tmp_path)
    [code] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    run([python, "-c", code], tmp_path)
    assert run([dpgmm, "--version"], tmp_path).startswith("dpgmm ")
    assert "features: embedding" in run([dpgmm, "init", str(DATA), "--no-ask"], tmp_path)
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"dataset: {{path: {DATA}, features: embedding}}\nbounds: {{norm: 1.0}}\n"
        "privacy: {epsilon: 1.0, delta: 1.0e-6}\nmodel: {components: 1}\noutput: {path: out}\n"
    )
    assert "status: released" in run([dpgmm, "release", str(spec)], tmp_path)
    assert "ok: yes" in run([dpgmm, "verify", "out"], tmp_path)
    assert "rows: 100" in run([dpgmm, "sample", "out", "--rows", "100", "--output", "s"], tmp_path)
