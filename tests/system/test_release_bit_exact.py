"""The same rows and the same test noise give the same bytes, however the rows lie or are read."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ..queries import put_whole, shared_file
from ..variants import mostly_variants, variant
from .releases import LABELS, WIDTH, Rows, digests, done, environment, labelled, write_spec
from .troubled import until

NOISE = ("--insecure-test-noise", 7, "--release-id", "bit-exact")
ROWS = Rows.make()

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "labelled": {"dataset": labelled()},
    "staged": {"dataset": labelled(), "privacy": {"epsilon": 0.1}},  # quick: four passes
    "labelled-soft": {"dataset": labelled(), "model": {"components": 2}},
    "projected": {"dataset": labelled(), "model": {"dimension": 2}},
    "soft": {"model": {"components": 2}},
    "hard": {"model": {"components": 2, "assignment": "hard"}},
}

fixed = pa.list_(pa.float32(), WIDTH)
LAYOUTS = {
    "64 files": lambda folder: ROWS.write(folder, files=64),
    "shuffled": lambda folder: ROWS.shuffled().write(folder, files=2),
    "row groups of 37": lambda folder: ROWS.write(folder, row_group=37),
    "fixed-size lists": lambda folder: ROWS.write(folder, kind=fixed),
    "large lists of doubles": lambda folder: ROWS.write(folder, kind=pa.large_list(pa.float64())),
    "invalid rows": lambda folder: ROWS.with_invalid().write(folder, files=3, row_group=100),
    "directories for labels": lambda folder: ROWS.write(folder, files=2, hive=True),
}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory):
    """Digests of each configuration's release of the rows in one file, made once."""
    folder = tmp_path_factory.mktemp("base")
    data = ROWS.write(folder / "data")

    @cache
    def digests_of(name: str) -> list[str]:
        file = shared_file(f"digests-{name}.json")
        if file is not None and file.exists():
            return list(json.loads(file.read_text()))
        made = released(folder, name, data)
        if file is not None:
            put_whole(file, json.dumps(made).encode())
        return made

    return digests_of


def released(
    folder: Path, name: str, data: Path, *options: object, env: dict[str, object] | None = None
) -> list[str]:
    spec = write_spec(folder / f"{name}.yaml", data, **CONFIGURATIONS[name])
    output = folder / f"release-{name}-{len(list(folder.iterdir()))}"
    done("release", spec, "--output", output, *NOISE, *options, env=env)
    return digests(output)


@pytest.mark.parametrize(
    "layout", mostly_variants(LAYOUTS, "64 files", "invalid rows", "shuffled", "row groups of 37")
)
def test_the_layout_of_the_rows_does_not_matter(layout, base, tmp_path):
    data = LAYOUTS[layout](tmp_path / "data")
    assert released(tmp_path, "staged", data) == base("staged")


@pytest.mark.parametrize(
    "name",
    [
        variant("labelled-soft"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("labelled", "hard", "projected", "soft")
        ),
    ],
)
def test_every_kind_of_release_is_the_same_in_another_layout(name, base, tmp_path):
    data = ROWS.with_invalid().shuffled().write(tmp_path / "data", files=5, row_group=61, kind=None)
    if name in ("soft", "hard"):  # a label cannot make a row of these invalid
        data = ROWS.shuffled().write(tmp_path / "unlabelled", files=5, row_group=61, kind=fixed)
    threads = {"OMP_NUM_THREADS": 2, "OPENBLAS_NUM_THREADS": 2, "MKL_NUM_THREADS": 2}
    assert released(tmp_path, name, data, env=threads) == base(name)


@pytest.mark.slow  # test_privacy_unit_release.py has two worker processes
@pytest.mark.parametrize("name", ["staged", "soft"])
def test_worker_processes_give_the_same(name, base, tmp_path):
    data = ROWS.shuffled(3).write(tmp_path / "data", files=7)
    assert released(tmp_path, name, data, "--workers", 2) == base(name)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory):
    """A Dask scheduler and two workers of two threads on TCP; the path of its scheduler file."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    run = partial(
        subprocess.Popen,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    dask = [sys.executable, "-m", "dask"]
    where = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    processes = [run([*dask, "scheduler", "--port", "0", *where])]
    try:
        until(file.exists, "the scheduler's file")
        processes += [
            run([*dask, "worker", *where, "--nthreads", "2", "--no-nanny"]) for _ in range(2)
        ]
        yield file
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(30)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(("staged", option) for option in ("--scheduler", "--scheduler-file")),
        variant("labelled", "--scheduler"),
        *(
            pytest.param(name, "--scheduler", marks=pytest.mark.slow)
            for name in ("labelled-soft", "hard")
        ),
    ],
)
def test_a_cluster_gives_the_same(name, option, base, tmp_path, scheduler):
    address = json.loads(scheduler.read_text())["address"]
    assert address.startswith("tcp://127.0.0.1:")
    data = ROWS.write(tmp_path / "data", files=11)
    where = address if option == "--scheduler" else scheduler
    assert released(tmp_path, name, data, option, where) == base(name)


def test_labels_written_as_strings_in_another_order_name_the_same_components(base, tmp_path):
    """The order of the public labels orders components; spelling does not reach the numbers."""
    texts = Rows(ROWS.x, [f"label {y}" for y in ROWS.y])
    spec = write_spec(
        tmp_path / "spec.yaml",
        texts.write(tmp_path / "data", files=2),
        **CONFIGURATIONS["staged"] | {"dataset": labelled([f"label {y}" for y in LABELS])},
    )
    done("release", spec, "--output", tmp_path / "out", *NOISE)
    assert digests(tmp_path / "out", "transform.parquet") == base("staged")[1:]
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "out" / "mixture.parquet")["label"].to_pylist() == [
        "label 3",
        "label 5",
    ]


def test_other_rows_and_other_seeds_give_other_bytes(base, tmp_path):
    """The comparison can fail: one row more, or one seed further, shows."""
    more = Rows([*ROWS.x, [0.1, 0.1, 0.1]], [*ROWS.y, LABELS[0]])
    assert released(tmp_path, "staged", more.write(tmp_path / "more"))[0] != base("staged")[0]
    data = ROWS.write(tmp_path / "data")
    spec = write_spec(tmp_path / "s.yaml", data, **CONFIGURATIONS["staged"])
    done("release", spec, "--output", tmp_path / "out", "--insecure-test-noise", 8)
    assert digests(tmp_path / "out")[0] != base("staged")[0]
