"""Release the same rows with two checkouts of this repository and compare the results to the bit.

    python jobs/compare_checkouts.py BEFORE AFTER
    python jobs/compare_checkouts.py BEFORE AFTER --only table --only dask-array
    python jobs/compare_checkouts.py BEFORE AFTER --time 7

A change that reorganises code and moves no number is shown to be one. Each checkout runs in
processes of its own with this interpreter, on the same made rows and with reproducible test noise:
nothing here is private. Compared are mixture.parquet and transform.parquet, and the queries of the
receipt, byte for byte. The exit code is 1 if anything differs.

With ``--time`` nothing is compared. Whole releases of both checkouts run in turn, PAIRS times, as
jobs/benchmarks/whole_release.py of each checkout makes them.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = {2: 6000, 10: 6000, 32: 6000, 128: 4000, 384: 3000}
"""Rows by dimension: one folder of Parquet for each."""
FILES = 3
LABELS = [0, 1, 2]
TEXTS = ["clerk", "nurse", "pilot"]
SEED = 2026

TIMED_ROWS, TIMED_DIMENSION, TIMED_COMPONENTS = 200_000, 32, 8
ASSIGNMENTS = ("hard", "soft")

# Runs where the command cannot: it takes no arrays.
RELEASE_OF_A_DASK_ARRAY = """
import sys
import dask.array as da
import numpy as np
from dpgmm_dist import ReleaseSpec, release
from dpgmm_dist.data.dask_arrays import DaskArraySource

spec_file, output, release_id, seed, features, labels = sys.argv[1:]
spec = ReleaseSpec.from_yaml(spec_file)
x, y = da.from_array(np.load(features), chunks=(700, 3)), None
if spec.label_values:
    y = da.from_array(np.load(labels), chunks=1900)
source = DaskArraySource(x, y, spec.label_values)
release(
    spec, output=output, source=source, release_id=release_id, insecure_test_noise=int(seed)
)
"""


@dataclass(frozen=True)
class Case:
    """A specification: the dimension of its rows, what differs from `document`, and how it runs."""

    dimension: int
    model: dict[str, Any]
    dataset: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, Any] = field(default_factory=lambda: {"norm": 4.0})
    options: tuple[str, ...] = ()
    dask_array: bool = False


NUMBERS = {"label": "y", "labels": LABELS}
WORDS = {"label": "kind", "labels": TEXTS}
TABLE = {"features": ["c0", "c1", "c2"]}
CUBE = {"columns": {"c0": [-30, 30], "c1": [-3, 3], "c2": [-3, 3]}}


def unit(aggregate: str, max_rows: int) -> dict[str, Any]:
    """A privacy unit of rows that share ``who``."""
    return {"privacy_unit": {"column": "who", "max_rows": max_rows, "aggregate": aggregate}}


CASES = {
    "plane-soft": Case(2, {"components": 3}),
    "plane-hard": Case(2, {"components": 3, "assignment": "hard"}),
    "plane-labelled": Case(2, {"components": 1}, NUMBERS),
    "ten-soft": Case(10, {"components": 4}),
    "ten-hard": Case(10, {"components": 4, "assignment": "hard"}),
    "ten-labelled-soft": Case(10, {"components": 2}, WORDS),
    "ten-candidates": Case(10, {"components": [1, 2, 4]}),
    "ten-diagonal": Case(10, {"components": 3, "covariance": "diag", "allocation": "even"}),
    "ten-gaussian-noise": Case(10, {"components": 2}, NUMBERS, privacy={"noise": "gaussian"}),
    "ten-discrete-noise": Case(
        10, {"components": 2}, NUMBERS, privacy={"noise": "discrete_gaussian"}
    ),
    "ten-workers": Case(10, {"components": 3}, NUMBERS, options=("--workers", "2")),
    "thirty-two-soft": Case(32, {"components": 3}),
    "thirty-two-hard": Case(32, {"components": 2, "assignment": "hard"}, NUMBERS),
    "projected-to-16": Case(128, {"components": "auto", "dimension": 16}, NUMBERS),
    "128-labelled": Case(128, {"components": 1}, NUMBERS),
    "128-hard": Case(128, {"components": 2, "assignment": "hard"}),
    "384-labelled": Case(384, {"components": "auto", "assignment": "hard"}, NUMBERS),
    "384-soft": Case(384, {"components": 2}),
    "table": Case(10, {"components": 2}, {**TABLE, **WORDS}, bounds=CUBE),
    "table-unlabelled": Case(10, {"components": 3}, TABLE, bounds=CUBE),
    "table-found-bounds": Case(10, {"components": 2}, TABLE, bounds={"columns": "auto"}),
    "table-nulls": Case(
        10,
        {"components": 1, "marginals": "auto"},
        {**TABLE, "categories": {"kind": TEXTS}, "nulls": "model"},
        bounds=CUBE,
    ),
    "unit-rows": Case(10, {"components": 1}, {**NUMBERS, **unit("rows", 3)}),
    "unit-weight": Case(10, {"components": 2}, unit("weight", 8)),
    "unit-mean": Case(10, {"components": 1}, {**NUMBERS, **unit("mean", 8)}),
    "window": Case(
        10,
        {"components": 2},
        {"window": {"column": "day", "start": "2026-01-03", "end": "2026-01-08"}},
    ),
    "dask-array": Case(10, {"components": 2}, NUMBERS, dask_array=True),
    "dask-array-unlabelled": Case(10, {"components": 3, "assignment": "hard"}, dask_array=True),
}


# Rows --------------------------------------------------------------------------------------


def made_rows(dimension: int) -> dict[str, Any]:
    """Overlapping groups of rows (n, d) float32 with labels, owners and days; some are invalid."""
    rng = np.random.default_rng([SEED, dimension])
    rows = ROWS[dimension]
    y = rng.integers(0, len(LABELS) + 1, rows)  # the last one is no label
    side = rng.choice([-1.0, 1.0], rows)
    scale = 1 / np.sqrt(dimension)
    centres = rng.normal(size=(len(LABELS) + 1, dimension)) * scale * 1.5
    x = centres[y] + scale * rng.normal(size=(rows, dimension)) * rng.uniform(0.2, 1, dimension)
    x[:, 0] += side
    x[:5] *= 1e4  # out of bounds
    x[7::101, dimension // 2] = np.nan
    day = np.datetime64("2026-01-01") + rng.integers(0, 10, rows)
    who = rng.integers(0, rows // 5, rows)
    who[: rows // 8] = 3  # has many more rows than count
    return {"x": x.astype(np.float32), "y": y, "who": who, "day": day}


def write_rows(folder: Path, dimension: int) -> None:
    """Parquet files of one list column, three numeric columns of three types, and the rest."""
    rows = made_rows(dimension)
    x, words = rows["x"], np.array([*TEXTS, "other"])
    folder.mkdir(parents=True)
    np.save(folder.with_suffix(".x.npy"), x)
    np.save(folder.with_suffix(".y.npy"), rows["y"])
    for part, chosen in enumerate(np.array_split(np.arange(len(x)), FILES)):
        columns = {
            "x": pa.array(list(x[chosen]), pa.list_(pa.float32())),
            "y": pa.array(rows["y"][chosen]),
            "kind": pa.array(words[rows["y"][chosen]].tolist()),
            "who": pa.array(rows["who"][chosen]),
            "day": pa.array(rows["day"][chosen]),
        }
        if dimension >= 3:
            whole = np.nan_to_num(x[chosen, 0] * 10).round().astype(np.int32)
            columns["c0"] = pa.array(whole)
            columns["c1"] = pa.array(x[chosen, 1])
            columns["c2"] = pa.array(x[chosen, dimension // 2].astype(np.float64))
        path = folder / f"part-{part}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=700)


# Releases ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkout:
    """The copied package of a checkout, and the folder in which its processes run."""

    root: Path
    name: str
    scratch: Path

    @classmethod
    def copied(cls, checkout: Path, name: str, scratch: Path) -> Checkout:
        """Copy the package and the benchmarks, as bytecode too; ends if there is no package.

        The checkout stays as it is, and may change meanwhile.
        """
        if not (checkout / "dpgmm_dist" / "__init__.py").exists():
            raise SystemExit(f"{checkout} is no checkout: it has no dpgmm_dist")
        root = scratch / name
        for folder in ("dpgmm_dist", "jobs/benchmarks"):
            if (checkout / folder).exists():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(checkout / folder, root / folder, ignore=skip)
        compileall.compile_dir(root, quiet=2)
        return cls(root, name, scratch)

    def python(self, *arguments: object) -> str:
        """Run this interpreter with the package; returns stdout, ends if the process fails."""
        # Without the settings of the user, which would override specifications.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DPGMM_", "DASK_"))}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.scratch,
            env=kept | {"PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: a process failed:\n{done.stderr}")
        return done.stdout

    def require_used(self) -> None:
        """End unless Python imports this package, and not one that is installed."""
        found = self.python("-c", "import dpgmm_dist; print(dpgmm_dist.__file__)").strip()
        if not Path(found).resolve().is_relative_to(self.root.resolve()):
            raise SystemExit(f"{self.name}: Python imports {found} instead")

    def release(self, name: str, case: Case) -> Path:
        """Release a case; returns the folder of the release."""
        # Relative, so that nothing in the release tells the two apart.
        output = Path("releases") / self.name / name
        spec = f"{name}.yaml"
        if case.dask_array:
            rows = [f"rows/{case.dimension}.{column}.npy" for column in "xy"]
            self.python("-c", RELEASE_OF_A_DASK_ARRAY, spec, output, name, SEED, *rows)
        else:
            noise = ("--release-id", name, "--insecure-test-noise", SEED)
            command = ("-m", "dpgmm_dist.cli", "release", spec, "--output", output)
            self.python(*command, *noise, *case.options)
        return self.scratch / output


def document(case: Case) -> dict[str, Any]:
    """The specification of a case; JSON, which is YAML too."""
    dataset = {"path": f"rows/{case.dimension}", "features": "x"} | case.dataset
    if isinstance(dataset["features"], str):
        dataset["width"] = case.dimension
    return {
        "dataset": dataset,
        "bounds": case.bounds,
        "privacy": {"epsilon": 1.0, "delta": 1e-6} | case.privacy,
        "model": case.model,
    }


def differences(before: Path, after: Path) -> list[str]:
    """What differs between two releases: names of files, "queries", or nothing."""
    names = ("mixture.parquet", "transform.parquet")
    found = [name for name in names if (before / name).read_bytes() != (after / name).read_bytes()]
    if queries(before) != queries(after):
        found.append("queries")
    return found


def queries(release: Path) -> str:
    """The queries of a receipt, as they are written there."""
    text = (release / "receipt.json").read_text()
    start = re.search(r'^  "queries": ', text, re.MULTILINE).end()
    return text[start : json.JSONDecoder().raw_decode(text, start)[1]]


# The two modes -----------------------------------------------------------------------------


def compare(before: Checkout, after: Checkout, names: list[str]) -> bool:
    """Release every named case with both, print a table; whether all are equal."""
    for dimension in sorted({CASES[name].dimension for name in names}):
        write_rows(before.scratch / "rows" / str(dimension), dimension)
    print(f"{'name':22} {'rows':>5} {'dims':>4} {'labels':>6} {'queries':>7}  result")
    different = 0
    for name in names:
        case = CASES[name]
        (before.scratch / f"{name}.yaml").write_text(json.dumps(document(case)))
        folders = [checkout.release(name, case) for checkout in (before, after)]
        found = differences(*folders)
        asked = len(json.loads(queries(folders[0])))
        labels = len(case.dataset.get("labels", ()))
        dimension = len(case.dataset.get("features", range(case.dimension)))
        result = f"DIFFERENT: {', '.join(found)}" if found else "equal"
        print(f"{name:22} {ROWS[case.dimension]:5} {dimension:4} {labels:6} {asked:7}  {result}")
        different += bool(found)
    print(f"specifications: {len(names)}, different: {different}")
    return not different


def time_releases(before: Checkout, after: Checkout, pairs: int) -> None:
    """Print the median ratio, after to before, of the wall and processor time of whole releases."""
    folder = before.scratch / "timed"
    norm = write_timed_rows(folder)
    shape = f"{TIMED_ROWS} rows, {TIMED_DIMENSION} dimensions, {TIMED_COMPONENTS} components"
    print(f"{shape}, {pairs} pairs: median (least to most) of after / before")
    for assignment in ASSIGNMENTS:
        for checkout in (before, after):  # fills the page cache
            seconds(checkout, folder, norm, assignment)
        ratios = []
        for pair in range(pairs):
            # Each is first in every second pair.
            turn = (before, after) if pair % 2 == 0 else (after, before)
            taken = {c.name: seconds(c, folder, norm, assignment) for c in turn}
            ratios.append([a / b for a, b in zip(taken["after"], taken["before"], strict=True)])
        for kind, values in zip(("wall", "processor"), zip(*ratios, strict=True), strict=True):
            spread = f"({min(values):.3f} to {max(values):.3f})"
            print(f"{assignment}  {kind:9}  {statistics.median(values):.3f}  {spread}")


def seconds(checkout: Checkout, folder: Path, norm: float, assignment: str) -> tuple[float, float]:
    """Wall and processor seconds of a process that releases all rows."""
    script = checkout.root / "jobs" / "benchmarks" / "whole_release.py"
    begun, used = time.perf_counter(), processor_seconds()
    checkout.python(script, folder, norm, TIMED_DIMENSION, TIMED_COMPONENTS, assignment)
    return time.perf_counter() - begun, processor_seconds() - used


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_timed_rows(folder: Path) -> float:
    """Rows of a mixture as Parquet; returns a norm that few of them exceed."""
    rng = np.random.default_rng(SEED)
    folder.mkdir()
    means = rng.normal(size=(TIMED_COMPONENTS, TIMED_DIMENSION)) * 0.7
    scales = np.exp(rng.uniform(-1, 0.3, (TIMED_COMPONENTS, TIMED_DIMENSION)))
    norm = 0.0
    for part in range(FILES):
        rows = TIMED_ROWS // FILES + (part < TIMED_ROWS % FILES)
        component = rng.integers(0, TIMED_COMPONENTS, rows)
        x = means[component] + scales[component] * rng.normal(size=(rows, TIMED_DIMENSION))
        norm = max(norm, float(np.quantile(np.linalg.norm(x, axis=1), 0.999)))
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(x.astype(np.float32).ravel()), TIMED_DIMENSION
        )
        pq.write_table(pa.table({"x": column}), folder / f"part-{part}.parquet")
    return norm


def main(arguments: list[str] | None = None) -> int:
    """Compare or time; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, metavar="BEFORE", help="checkout")
    parser.add_argument("after", type=Path, metavar="AFTER", help="checkout")
    parser.add_argument(
        "--only", action="append", choices=list(CASES), metavar="NAME", help="; ".join(CASES)
    )
    parser.add_argument("--time", type=int, metavar="PAIRS", help="time whole releases instead")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        before, after = (
            Checkout.copied(checkout, name, Path(scratch))
            for checkout, name in ((options.before, "before"), (options.after, "after"))
        )
        for checkout in (before, after):
            checkout.require_used()
        if options.time is not None:
            time_releases(before, after, options.time)
            return 0
        return 0 if compare(before, after, options.only or list(CASES)) else 1


if __name__ == "__main__":
    sys.exit(main())
