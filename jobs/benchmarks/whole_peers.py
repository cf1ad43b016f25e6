"""Whole fits of other libraries to the same Parquet, each in an environment and process of its own.

This is `peers.py --whole`. An environment is made where there is none; a library that cannot be
installed, fails, or needs too much time or memory is a line of the table that says so. Spark needs
Java 17.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from watched_process import Failed, Took, watched
from workload import Workload

HERE = Path(__file__).parent
PACKAGES = {
    "scikit-learn": ["scikit-learn==1.9.1", "pyarrow"],
    "dask-ml": ["dask-ml==2025.1.0", "pyarrow"],
    "spark": ["pyspark==4.3.0", "numpy"],
    "google": ["pyarrow==18.1.0"],  # newer ones need numpy 2, which that library refuses
}
NAMES = {
    "dpgmm-hard": "dpgmm release, hard assignment",
    "dpgmm-soft": "dpgmm release, soft assignment",
    "scikit-learn": "scikit-learn GaussianMixture",
    "dask-ml": "dask-ml KMeans",
    "spark": "Spark MLlib GaussianMixture",
    "google": "Google's DP clustering",
}


def compare(load: Workload, options: Namespace) -> list[dict[str, Any]]:
    """Run the fits one after the other, print a line for each, and return what they took."""
    print(f"{'fit':32}{'wall s':>9}{'processor s':>13}{'MB':>8}  what it gave")
    found: list[dict[str, Any]] = []
    for name in options.peers.split(","):
        try:
            took = watched(command_of(name, load, options), options.limit, options.memory)
        except Failed as reason:
            print(f"{NAMES[name]:32}  {reason}", flush=True)
            found.append({"fit": name, "failed": str(reason)})
            continue
        print(line(name, took), flush=True)
        found.append({"fit": name, **asdict(took)})
    return found


def line(name: str, took: Took) -> str:
    """A line of the table."""
    said = "a private mixture" if name.startswith("dpgmm") else took.said
    return f"{NAMES[name]:32}{took.wall:9.1f}{took.processor:13.1f}{took.megabytes:8.0f}  {said}"


def command_of(name: str, load: Workload, options: Namespace) -> list[str]:
    """The command that fits; its environment is made first."""
    components = str(load.truth.n_components)
    if name.startswith("dpgmm-"):
        arguments = [str(load.folder), repr(load.norm), str(load.truth.dimension), components]
        assignment = name.removeprefix("dpgmm-")
        return [sys.executable, str(HERE / "whole_release.py"), *arguments, assignment]
    python = python_of(name, options)
    arguments = [name, str(load.folder), components, repr(load.norm)]
    return [str(python), str(HERE / "peer_fits.py"), *arguments]


def python_of(name: str, options: Namespace) -> Path:
    """The interpreter of an environment, which is made first where there is none."""
    python: Path = options.environments / name / "bin" / "python"
    if python.exists():
        return python
    packages = list(PACKAGES[name])
    if name == "google":
        if options.google is None:
            raise Failed("not on PyPI: give --google, the folder learning of its repository")
        packages.append(str(options.google))
    venv.create(options.environments / name, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", *packages]
    made = subprocess.run(install, capture_output=True, text=True)
    if made.returncode:
        python.unlink()  # the next run tries again
        raise Failed(f"cannot be installed: {made.stderr.strip().splitlines()[-1][:120]}")
    return python
