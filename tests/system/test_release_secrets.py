"""Nothing exact leaks: values that mark the rows appear in no output, log, journal or release.

The worst places are failures: Arrow quotes the values it fails on, Dask logs the arguments and
exceptions of failed tasks, tracebacks show locals. Each row here holds markers, a worker is made
to fail after it has read some, and everything that anybody can see is searched.
"""

from __future__ import annotations

import base64
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..variants import variant
from .releases import WIDTH, done, dpgmm, environment, labelled, write_spec
from .troubled import until

VALUE = 123.456789
NUMBER = 4711_0815
LABEL = f"Zanzibar-person-{NUMBER}"
ROWS = 1234
# As text, in binary as it is stored and as the count, in the forms that encodings make of it. Each
# is too long to turn up by chance in a random release id or a file of noise.
TEXTS = ("123.456", "Zanzibar", str(NUMBER), "1.23456")


def marked(folder: Path, files: int = 3, label: object = LABEL) -> Path:
    """Rows that all hold the markers, in files that a test may damage."""
    folder.mkdir()
    x = pa.array([[VALUE, VALUE / 2, -VALUE]] * (ROWS // files), pa.list_(pa.float64()))
    y = pa.array([label] * len(x))
    for part in range(files):
        pq.write_table(
            pa.table({"x": x, "y": y, "name": [LABEL] * len(x)}),
            folder / f"part-{part}.parquet",
            compression="none",
            use_dictionary=False,
        )
    return folder


def damage(data: Path, part: int = 1) -> None:
    """Break a page in the middle of a file: its first rows can still be read."""
    file = data / f"part-{part}.parquet"
    content = bytearray(file.read_bytes())
    content[4:40] = b"\xff" * 36
    file.write_bytes(bytes(content))


def forms(value: float) -> list[bytes]:
    double, single = struct.pack("<d", value), struct.pack("<f", value)
    return [double, single, double[::-1], base64.b64encode(double)[:10]]


def find_markers(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    found = [word for word in TEXTS if word.encode() in data]
    return found + [str(form) for form in forms(VALUE) if form in data]


def files_below(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


def test_the_search_finds_the_markers_in_the_data_itself(tmp_path):
    data = marked(tmp_path / "data")
    content = next(files_below(data)).read_bytes()
    assert set(find_markers(content)) >= {"Zanzibar", str(NUMBER), str(forms(VALUE)[0])}
    assert find_markers(f"value {VALUE}") == ["123.456"]


@pytest.mark.parametrize(
    ("where", "debug"),
    [variant((), False), ((), True), variant(("--workers", 1), False), (("--workers", 1), True)],
)
def test_a_failed_worker_shows_no_value(where, debug, tmp_path):
    """Also with every logger of Dask at its most talkative."""
    data = marked(tmp_path / "data")
    damage(data)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled(["somebody", "else"]))
    env: dict[str, object] = {"DASK_LOGGING__DISTRIBUTED": "debug"} if debug else {}
    result = dpgmm("release", spec, "--output", tmp_path / "out", *where, env=env)
    assert result.returncode == 4
    assert "part-1.parquet" in result.stderr
    assert find_markers(result.stdout + result.stderr) == []
    for path in files_below(tmp_path / "out"):
        assert find_markers(path.read_bytes()) == [], path


def test_a_cluster_whose_worker_fails_logs_no_value(tmp_path):
    """An operator's cluster keeps its own logs: failed tasks are in them, rows are not."""
    data = marked(tmp_path / "data")
    damage(data)
    file, log = tmp_path / "scheduler.json", tmp_path / "log"
    dask = [sys.executable, "-m", "dask"]
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    with log.open("w") as stream:
        processes = [
            subprocess.Popen(
                [*dask, *what, *common],
                stdout=stream,
                stderr=stream,
                cwd=tmp_path,
                env=environment({"DASK_LOGGING__DISTRIBUTED": "debug"}),
            )
            for what in (["scheduler", "--port", "0"], ["worker", "--nthreads", "1", "--no-nanny"])
        ]
        try:
            until(file.exists, "the scheduler's file")
            spec = write_spec(tmp_path / "spec.yaml", data)
            result = dpgmm(
                *("release", spec, "--output", tmp_path / "out", "--scheduler-file", file)
            )
        finally:
            for process in processes:
                process.kill()
                process.wait(30)
    assert result.returncode == 4, result.stderr
    assert find_markers(result.stdout + result.stderr) == []
    logged = log.read_text()
    assert "Compute Failed" in logged  # or this test searched the wrong log
    assert find_markers(logged) == []


@pytest.mark.parametrize("label", [LABEL, NUMBER])
def test_labels_outside_the_set_are_never_shown(label, tmp_path):
    data = marked(tmp_path / "data", label=label)
    labels = ["somebody", "else"] if isinstance(label, str) else [1, 2]
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled(labels))
    result = done("release", spec, "--output", tmp_path / "out")
    assert find_markers(result.stdout + result.stderr) == []
    for path in files_below(tmp_path / "out"):
        assert find_markers(path.read_bytes()) == [], path


@pytest.mark.statistical  # the noise on the number of rows rounds to 0 in about one of 50 releases
def test_a_release_holds_noisy_numbers_only(tmp_path_factory):
    """Counts and means of rows that are all alike come out, but not their digits."""
    tmp_path = tmp_path_factory.mktemp("noisy")
    folder = tmp_path / "data"
    folder.mkdir()
    value = 0.123456789
    x = pa.array([[value] * WIDTH] * ROWS, pa.list_(pa.float64()))
    pq.write_table(pa.table({"x": x}), folder / "part-0.parquet")
    spec = write_spec(tmp_path / "spec.yaml", folder)
    result = done("release", spec, "--output", tmp_path / "out", "--json")
    texts = [result.stdout, result.stderr]
    texts += [
        p.read_text() for p in files_below(tmp_path / "out") if p.suffix in (".json", ".html")
    ]
    for text in texts:
        assert "0.1234567" not in text
        assert not re.search(r"\b1,?234(\.0)?\b", text)
    mixture = pq.read_table(tmp_path / "out" / "mixture.parquet")
    means = np.array(mixture["mean"].to_pylist())
    assert np.abs(means - value).max() < 0.5
    assert (means != value).all()
    # Nor does an exact sum of lattice integers hide in the journal.
    u = round(value * (1 << 16) / 1.5) * ROWS
    for path in files_below(tmp_path / "out"):
        content = path.read_bytes()
        for number in (float(u), u / 1.0 * 1.5 / (1 << 16)):
            assert struct.pack("<d", number) not in content, path
        assert struct.pack("<q", u) not in content, path


def test_storage_options_are_nowhere(tmp_path):
    """Credentials are no private rows, but no part of a release either."""
    data = marked(tmp_path / "data", files=1)
    spec = write_spec(
        tmp_path / "spec.yaml",
        data,
        dataset={"storage_options": {"auto_mkdir": False, "secret_key": "Zanzibar"}},
    )
    result = done("release", spec, "--output", tmp_path / "out", "--workers", 1)
    assert "Zanzibar" not in result.stdout + result.stderr
    for path in files_below(tmp_path / "out"):
        assert b"Zanzibar" not in path.read_bytes(), path


def test_an_unexpected_failure_is_named_by_its_type_alone(tmp_path):
    """Whatever breaks inside a task: its message, cause and locals stay there."""
    data = marked(tmp_path / "data")
    spec = write_spec(tmp_path / "spec.yaml", data)
    broken = (
        "import sys\n"
        "from dpgmm_dist.data import lattice\n"
        "def fail(self, features, *_, **__):\n"
        "    raise ValueError(f'cannot handle {features!r}')\n"
        "lattice.FeatureMap.to_lattice = fail\n"
        "from dpgmm_dist.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", broken, "release", str(spec), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )
    assert result.returncode == 5
    assert "(ValueError)" in result.stderr
    assert "Traceback" not in result.stderr
    assert find_markers(result.stdout + result.stderr) == []
    assert os.listdir(tmp_path / "out") != ["release.json"]
