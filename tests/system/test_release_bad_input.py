"""Public faults: the documented exit code and one line, before any charge, without a trace.

Nothing is written where the release would go: no manifest, no data file. The ledger is as it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.budget.ledger import Ledger

from ..variants import variant
from .releases import Rows, digests, done, dpgmm, labelled, write_spec

ROWS = Rows.make(60)


def sound(folder: Path) -> Path:
    return ROWS.write(folder / "data")


def one_line(result: Any, code: int, *words: str) -> None:
    """An exit code and one line that a person can use; no traceback, nothing on stdout."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = [
        line for line in result.stderr.splitlines() if not line.startswith("dpgmm: release id")
    ]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("dpgmm: error: ")
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def place(tmp_path):
    """Folder with a ledger; after the test nothing may be charged or released."""
    ledger = tmp_path / "ledger"
    Ledger.init(str(ledger), 1.0, 1e-6)
    before = {p.name: p.read_bytes() for p in (ledger / "ledger").iterdir()}
    yield tmp_path
    assert {p.name: p.read_bytes() for p in (ledger / "ledger").iterdir()} == before
    assert not (tmp_path / "out" / "release.json").exists()
    assert not list(tmp_path.glob("out/*.parquet"))


def release(place: Path, data: Path, *options: object, **sections: Any) -> Any:
    privacy = {"ledger": str(place / "ledger")} | sections.pop("privacy", {})
    spec = write_spec(place / "spec.yaml", data, privacy=privacy, **sections)
    return dpgmm("release", spec, "--output", place / "out", *options)


# ---------------------------------------------------------------- the specification: exit code 2

NAN = float("nan")
SPECIFICATION = {
    "epsilon 0": ({"privacy": {"epsilon": 0}}, "privacy.epsilon", "0"),
    "epsilon below 0": ({"privacy": {"epsilon": -1.5}}, "privacy.epsilon", "-1.5"),
    "epsilon a word": ({"privacy": {"epsilon": "one"}}, "privacy.epsilon", "one"),
    "delta 0": ({"privacy": {"delta": 0}}, "privacy.delta", "0"),
    "delta 2": ({"privacy": {"delta": 2}}, "privacy.delta", "2"),
    "norm nan": ({"bounds": {"norm": NAN}}, "bounds.norm", "nan"),
    "norm 0": ({"bounds": {"norm": 0}}, "bounds.norm", "0"),
    "norm missing": ({"bounds": {"norm": None}}, "bounds.norm", "missing"),
    "centre nan": ({"bounds": {"center": [0, NAN, 0]}}, "bounds.center", "nan"),
    "centre of another width": ({"bounds": {"center": [0, 0]}}, "bounds.center", "2"),
    "bounds of columns nan": (
        {
            "dataset": {"features": ["a"], "width": None},
            "bounds": {"norm": None, "columns": {"a": [0, NAN]}},
        },
        "bounds.columns",
        "nan",
    ),
    "bounds of columns turned round": (
        {
            "dataset": {"features": ["a"], "width": None},
            "bounds": {"norm": None, "columns": {"a": [1, 0]}},
        },
        "bounds.columns",
        "1",
    ),
    "unknown key": ({"privacy": {"epsilom": 1}}, "privacy.epsilom", "epsilon"),
    "unknown section": ({"pirvacy": {"epsilon": 1}}, "pirvacy", "privacy"),
    "components 0": ({"model": {"components": 0}}, "model.components", "0"),
    "covariance unknown": ({"model": {"covariance": "round"}}, "model.covariance", "round"),
    "dimension too large": ({"model": {"dimension": 4}}, "model.dimension", "4"),
    "labels without a label": ({"dataset": {"labels": [1, 2]}}, "dataset.label", "missing"),
    "a label without labels": ({"dataset": {"label": "y"}}, "dataset.labels", "missing"),
    "privacy unit": (
        {"dataset": {"privacy_unit": {"column": "x", "max_rows": 4}}},
        "dataset.privacy_unit.column",
        "'x'",
    ),
    "more rows a unit than the budget takes": (
        {
            "dataset": {"privacy_unit": {"column": "user", "max_rows": 5000}},
            "privacy": {"epsilon": 0.5},
        },
        "dataset.privacy_unit.max_rows",
        "5000",
    ),
    "labels of another kind": ({"dataset": labelled(["a", "b"])}, "dataset.labels", "'a'"),
    "width of another size": ({"dataset": {"width": 0}}, "dataset.width", "0"),
}


@pytest.mark.parametrize("fault", SPECIFICATION)
def test_a_wrong_specification_is_exit_code_2(fault, place):
    sections, *words = SPECIFICATION[fault]
    one_line(release(place, sound(place), **sections), 2, *words)
    assert not (place / "out").exists()


def test_a_variable_list_needs_a_width(place):
    one_line(release(place, sound(place), dataset={"width": None}), 2, "dataset.width", "missing")
    assert not (place / "out").exists()


def test_a_fixed_list_has_its_own_width(place):
    data = ROWS.write(place / "data", kind=pa.list_(pa.float32(), 3))
    one_line(release(place, data, dataset={"width": 5}), 2, "dataset.width is 5", "list of 3")


def test_several_mistakes_have_a_line_each(place):
    result = release(place, sound(place), privacy={"epsilon": 0, "delta": 2}, model={"k": 3})
    assert result.returncode == 2
    lines = result.stderr.splitlines()[-3:]
    assert all(line.startswith("dpgmm: error: ") for line in lines)
    for key, line in zip(("privacy.epsilon", "privacy.delta", "model.k"), lines, strict=True):
        assert key in line


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "line 1"), ("[]", "must be a mapping"), ("# nothing", "missing")],
)
def test_a_file_that_is_no_specification(place, text, words):
    spec = place / "spec.yaml"
    spec.write_text(text)
    result = dpgmm("release", spec, "--output", place / "out")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert words in result.stderr
    assert all(line.startswith("dpgmm: error: ") for line in result.stderr.splitlines())


def test_no_specification_file(place):
    one_line(dpgmm("release", place / "none.yaml", "--output", place / "out"), 2, "none.yaml")


def test_no_output(place):
    spec = write_spec(place / "spec.yaml", sound(place))
    one_line(dpgmm("release", spec), 2, "output.path", "--output")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", 1, "--scheduler", "tcp://127.0.0.1:1"), ("at most one",)),
        (("--release-id", "a/../b"), ("a/../b",)),
        (("--set", "privacy.epsilon=0"), ("privacy.epsilon", "--set")),
    ],
)
def test_options_that_cannot_be(place, options, words):
    one_line(release(place, sound(place), *options), 2, *words)


def test_test_noise_is_never_charged(place):
    result = release(place, sound(place), "--insecure-test-noise", 7)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "privacy.ledger" in result.stderr.splitlines()[-1]
    assert not (place / "out").exists()


# ---------------------------------------------------------------- the data: exit code 4


def text_features(folder: Path) -> Path:
    (folder / "data").mkdir()
    pq.write_table(pa.table({"x": [["a", "b", "c"]]}), folder / "data" / "part.parquet")
    return folder / "data"


def scalar_features(folder: Path) -> Path:
    (folder / "data").mkdir()
    pq.write_table(pa.table({"x": [1.0, 2.0]}), folder / "data" / "part.parquet")
    return folder / "data"


def empty_directory(folder: Path) -> Path:
    (folder / "data").mkdir()
    return folder / "data"


def not_parquet(folder: Path) -> Path:
    data = sound(folder)
    (data / "part-000.parquet").write_bytes(b"PAR1 this is something else entirely")
    return data


def cut_short(folder: Path) -> Path:
    data = sound(folder)
    file = data / "part-000.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    return data


def footer_of_zeros(folder: Path) -> Path:
    data = sound(folder)
    file = data / "part-000.parquet"
    content = bytearray(file.read_bytes())
    content[-200:-8] = bytes(192)
    file.write_bytes(bytes(content))
    return data


def empty_file(folder: Path) -> Path:
    data = sound(folder)
    (data / "part-001.parquet").write_bytes(b"")
    return data


def other_column(folder: Path) -> Path:
    data = sound(folder)
    pq.write_table(pa.table({"z": [1.0]}), data / "part-001.parquet")
    return data


def widths_that_differ(folder: Path) -> Path:
    for d in (3, 4):
        (folder / "data").mkdir(exist_ok=True)
        x = pa.array([[0.0] * d], pa.list_(pa.float32(), d))
        pq.write_table(pa.table({"x": x}), folder / "data" / f"part-{d}.parquet")
    return folder / "data"


FILES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "missing path": (lambda folder: folder / "nowhere", ("nowhere", "does not exist")),
    "glob of nothing": (lambda folder: folder / "none-*.parquet", ("none-*.parquet",)),
    "empty directory": (empty_directory, ("holds no Parquet file",)),
    "strings in features": (text_features, ("part.parquet", "'x'", "string")),
    "numbers and no list": (scalar_features, ("part.parquet", "'x'", "not a list")),
    "something else": (not_parquet, ("part-000.parquet", "not a Parquet file")),
    "cut short": (cut_short, ("part-000.parquet", "damaged")),
    "a damaged footer": (footer_of_zeros, ("part-000.parquet", "damaged")),
    "a file of no bytes": (empty_file, ("part-001.parquet", "damaged")),
    "a file without the column": (other_column, ("part-001.parquet", "no column 'x'", "z")),
    "widths that differ": (widths_that_differ, ("a list of 3", "of 4")),
}


@pytest.mark.parametrize("fault", FILES)
def test_files_that_cannot_be_read_are_exit_code_4(fault, place):
    make, words = FILES[fault]
    one_line(release(place, make(place)), 4, *words)
    assert not (place / "out").exists()


def test_no_such_column(place):
    result = release(place, sound(place), dataset={"features": "embedding"})
    one_line(result, 4, "part-000.parquet", "no column 'embedding'", "x, y")


def test_no_such_label_column(place):
    result = release(place, sound(place), dataset={"label": "class", "labels": [1]})
    one_line(result, 4, "no column 'class'")


def corrupt_page(folder: Path) -> Path:
    """A data set whose footers are sound and whose second file has a page that is not."""
    data = ROWS.write(folder / "data", files=2)
    file = data / "part-001.parquet"
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page's header
    file.write_bytes(bytes(content))
    return data


@pytest.mark.parametrize("where", [(), variant(("--workers", 1))])
def test_a_corrupt_page_is_found_by_whoever_reads_it(place, where):
    result = release(place, corrupt_page(place), *where)
    assert result.returncode == 4
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("dpgmm: error: cannot read ")
    assert "part-001.parquet" in lines[-1]
    assert "Traceback" not in result.stderr
    assert [line for line in lines if not line.startswith("dpgmm: ")] == []


# ---------------------------------------------------------------- the output and the ledger


def test_an_output_that_cannot_be_written(place):
    """Root may write anywhere, so the way there leads through a file."""
    (place / "file").write_text("")
    spec = write_spec(place / "spec.yaml", sound(place), privacy={"ledger": str(place / "ledger")})
    result = dpgmm("release", spec, "--output", place / "file" / "out")
    one_line(result, 4, "file/out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only directories")
def test_a_read_only_output(place):
    (place / "out").mkdir(mode=0o500)
    one_line(release(place, sound(place)), 4, "out", "ermission denied")


def test_an_output_that_holds_another_release(place):
    data = sound(place)
    spec = write_spec(place / "other.yaml", data)
    done("release", spec, "--output", place / "taken", "--insecure-test-noise", 7)
    before = digests(place / "taken", "release.json", "mixture.parquet", "receipt.json")
    spec = write_spec(place / "spec.yaml", data, privacy={"ledger": str(place / "ledger")})
    one_line(dpgmm("release", spec, "--output", place / "taken"), 2, "taken", "another output")
    assert digests(place / "taken", "release.json", "mixture.parquet", "receipt.json") == before


def test_the_same_release_again_is_done_already(tmp_path):
    spec = write_spec(tmp_path / "spec.yaml", sound(tmp_path))
    options = ("--output", tmp_path / "out", "--insecure-test-noise", 7, "--release-id", "week-1")
    done("release", spec, *options)
    before = digests(tmp_path / "out", "release.json", "mixture.parquet", "receipt.json")
    again = done("release", spec, *options)
    assert "already released, nothing was spent" in again.stdout
    assert str(tmp_path / "out") in again.stdout
    assert "pass 1" not in again.stderr
    assert digests(tmp_path / "out", "release.json", "mixture.parquet", "receipt.json") == before
    other = dpgmm("release", spec, *options, "--set", "privacy.epsilon=2")
    assert other.returncode == 2
    assert "another specification" in other.stderr


def test_a_ledger_that_is_not_there(place):
    result = release(place, sound(place), privacy={"ledger": str(place / "no-ledger")})
    one_line(result, 4, "no-ledger", "ledger init")
    assert not (place / "out").exists()


def test_a_ledger_that_is_damaged(tmp_path):
    ledger = tmp_path / "ledger"
    Ledger.init(str(ledger), 1.0, 1e-6)
    for path in (ledger / "ledger").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    spec = write_spec(tmp_path / "spec.yaml", sound(tmp_path), privacy={"ledger": str(ledger)})
    result = dpgmm("release", spec, "--output", tmp_path / "out")
    assert result.returncode == 4
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "release.json").exists()


@pytest.mark.slow  # it waits half a minute for the scheduler
def test_a_cluster_that_is_not_there(place):
    """Port 1 is never a scheduler; the command gives up rather than wait for ever."""
    result = release(place, sound(place), "--scheduler", "tcp://127.0.0.1:1")
    one_line(result, 5, "tcp://127.0.0.1:1", "scheduler")
    assert not (place / "out").exists()


# ---------------------------------------------------------------- other commands


@pytest.mark.parametrize("what", ["show", "verify", "report"])
def test_reading_a_release_that_is_not_there(tmp_path, what):
    result = dpgmm(what, tmp_path / "none")
    assert result.returncode == 4
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("dpgmm: error: ")


def test_test_noise_is_intact_and_not_private(tmp_path):
    spec = write_spec(tmp_path / "spec.yaml", sound(tmp_path))
    result = done("release", spec, "--output", tmp_path / "out", "--insecure-test-noise", 7)
    assert "NOT PRIVATE" in result.stdout
    assert "NOT PRIVATE" in result.stderr
    checked = dpgmm("verify", tmp_path / "out")
    assert checked.returncode == 6
    assert "NOT PRIVATE" in checked.stderr
    shown = done("show", tmp_path / "out")
    assert "NOT PRIVATE" in shown.stdout
    shutil.copytree(tmp_path / "out", tmp_path / "broken")
    mixture = tmp_path / "broken" / "mixture.parquet"
    mixture.write_bytes(mixture.read_bytes()[:-1] + b"?")
    assert dpgmm("verify", tmp_path / "broken").returncode == 4


def test_a_release_with_no_flag_for_tests_is_private(tmp_path):
    spec = write_spec(tmp_path / "spec.yaml", sound(tmp_path))
    result = done("release", spec, "--output", tmp_path / "out")
    assert "NOT PRIVATE" not in result.stdout + result.stderr
    assert dpgmm("verify", tmp_path / "out").returncode == 0
