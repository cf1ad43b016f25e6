"""What is private never shows: such data releases like any other, with error bars that say so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import load_release
from dpgmm_dist.artifact.verify import verify_release

from ..variants import mostly_variants, variant
from .releases import LABELS, WIDTH, Rows, done, labelled, write_spec

NAN, INF = float("nan"), float("inf")
MANY = 600
"""Rows of a release by stages; tests/privacy/test_always_releases.py has joint fits."""
PLENTY = Rows.make(MANY)
SPECIFICATIONS = {
    "soft": {"model": {"components": 2}},
    "labelled": {"dataset": labelled(), "model": {"components": 1}},
    "hard, projected": {
        "dataset": labelled(),
        "model": {"components": 2, "assignment": "hard", "dimension": 2},
    },
    "tied": {"model": {"components": 2, "covariance": "tied"}},
}


def write(folder: Path, rows: Rows) -> Path:
    """Always one file with these columns and types, whatever the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"x": pa.array(rows.x, pa.list_(pa.float32())), "y": pa.array(rows.y, pa.int64())}
    pq.write_table(pa.table(columns), folder / "part-000.parquet")
    return folder


FACTS: dict[str, Rows] = {
    "no rows": Rows([], []),
    "one row": Rows([[0.1, 0.2, 0.3]], [LABELS[0]]),
    "fewer rows than components": Rows([[0.1, 0.2, 0.3]] * 2, [LABELS[0], LABELS[1]]),
    "no valid row": Rows(
        [[NAN, 0.0, 0.0], [0.0, INF, 0.0], None, [0.0, None, 0.0]] * 50, [3] * 200
    ),
    "no row of the right length": Rows([[0.1] * 2, [0.1] * 4, []] * 60, [3, 5, 3] * 60),
    "a label that never occurs": Rows(PLENTY.x, [LABELS[0]] * MANY),
    "no label of the set": Rows(PLENTY.x, [99] * MANY),
    "no label at all": Rows(PLENTY.x, [None] * MANY),
    "all rows alike": Rows([[0.5, 0.5, 0.5]] * MANY, PLENTY.y),
    "all rows zero": Rows([[0.0] * WIDTH] * MANY, PLENTY.y),
    "all rows out of bounds": Rows([[1e30, -1e30, 1e30]] * MANY, PLENTY.y),
}


def messages(stderr: str) -> str:
    """What was printed, without the passes: the noisy number of rows says which are asked."""
    printed = re.sub(r"release id [0-9a-f]{16}", "release id ID", stderr)
    return re.sub(r"(?m)^dpgmm: pass [1-9] of [1-9], [a-z]+\.[a-z0-9]+: [0-9]+%\n", "", printed)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, list[str]]]:
    """What a release of a few ordinary rows prints, on stderr and as the keys of stdout."""
    found: dict[str, tuple[str, list[str]]] = {}

    def printed(name: str) -> tuple[str, list[str]]:
        if name not in found:
            folder = tmp_path_factory.mktemp("usual")
            found[name] = release(folder, name, Rows.make(300))
        return found[name]

    return printed


def release(folder: Path, name: str, rows: Rows) -> tuple[str, list[str]]:
    data = write(folder / "data", rows)
    spec = write_spec(folder / "spec.yaml", data, **SPECIFICATIONS[name])
    result = done("release", spec, "--output", folder / "out")
    return messages(result.stderr), [line.partition(":")[0] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    "fact",
    mostly_variants(
        FACTS,
        "no rows",
        "fewer rows than components",
        "no valid row",
        "no label of the set",
        "all rows alike",
        "all rows out of bounds",
    ),
)
def test_private_facts_release_like_any_data(fact, tmp_path, usual):
    name = list(SPECIFICATIONS)[list(FACTS).index(fact) % len(SPECIFICATIONS)]
    check_messages(release(tmp_path, name, FACTS[fact]), usual(name))
    check_release(tmp_path / "out")


@pytest.mark.parametrize("name", list(SPECIFICATIONS)[1:])
def test_no_rows_release_under_every_kind_of_specification(name, tmp_path, usual):
    check_messages(release(tmp_path, name, FACTS["no rows"]), usual(name))
    check_release(tmp_path / "out")


def test_noise_in_large_units_overflows_silently(tmp_path):
    """Squares of noise on rows of norm 1e9 divided by nothing at all: no warning tells of it."""
    printed = []
    for folder, rows in ((tmp_path / "none", FACTS["no rows"]), (tmp_path / "plenty", PLENTY)):
        spec = write_spec(
            folder.with_suffix(".yaml"), write(folder / "data", rows), bounds={"norm": 1e9}
        )
        result = done("release", spec, "--output", folder / "out")
        printed.append(messages(result.stderr))
        check_release(folder / "out")
    assert printed[0] == printed[1]
    assert "Warning" not in printed[0]


def check_messages(printed: tuple[str, list[str]], usual: tuple[str, list[str]]) -> None:
    assert printed[0].splitlines() == usual[0].splitlines()
    assert printed[1] == usual[1]


def check_release(path: Path) -> None:
    """Intact, positive definite, usable, inside the public bounds."""
    assert verify_release(str(path)).exit_code == 0
    loaded = load_release(str(path))
    mixture = loaded.mixture
    assert np.isfinite(mixture.means).all()
    assert mixture.weights.min() > 0
    assert mixture.weights.sum() == pytest.approx(1)
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0
    x, _ = loaded.sample(50, seed=1)
    assert np.isfinite(x).all()
    assert np.isfinite(loaded.score_samples(x)).all()


def test_error_bars_are_large_where_there_is_nothing_to_measure(tmp_path):
    """Of no rows the error bars say that anything is possible; of many, that little is."""
    shown = {}
    for fact, rows in (("none", FACTS["no rows"]), ("plenty", Rows.make(20_000))):
        folder = tmp_path / fact
        data = write(folder / "data", rows)
        spec = write_spec(folder / "spec.yaml", data, model={"components": 1})
        done("release", spec, "--output", folder / "out", "--insecure-test-noise", 7)
        shown[fact] = pq.read_table(folder / "out" / "mixture.parquet").to_pylist()[0]
    few, many = shown["none"], shown["plenty"]
    assert np.max(few["mean_se"]) > 10 * np.max(many["mean_se"])
    # A covariance of pure noise may come out small, but never smaller than its error.
    # It is infinite where it is not known.
    for row, least, most in ((few, 0.3, np.inf), (many, 0.0, 0.1)):
        relative = np.max(row["covariance_se"]) / np.max(row["covariance"])
        assert least < relative <= most


def test_an_empty_partition_among_others_goes_unnoticed(tmp_path):
    data = PLENTY.write(tmp_path / "data", files=3)
    privacy = {"epsilon": 0.1}
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled(), privacy=privacy)
    options = ("--insecure-test-noise", 7, "--release-id", "same")
    done("release", spec, "--output", tmp_path / "one", *options)
    write(tmp_path / "data", Rows([], []))  # part-000 again
    first = Rows(PLENTY.x[: MANY // 3], PLENTY.y[: MANY // 3])
    columns = {"x": pa.array(first.x, pa.list_(pa.float32())), "y": pa.array(first.y)}
    pq.write_table(pa.table(columns), data / "part-zzz.parquet")
    pq.write_table(pa.table(columns).slice(0, 0), data / "part-yyy.parquet")
    done("release", spec, "--output", tmp_path / "two", *options)
    first_bytes, second_bytes = (
        (tmp_path / p / "mixture.parquet").read_bytes() for p in ("one", "two")
    )
    assert first_bytes == second_bytes


@pytest.mark.parametrize("where", [(), variant(("--workers", 1))])
def test_rows_of_nans_of_any_kind_are_never_mentioned(tmp_path, where):
    """Signalling NaN and overflow raise floating-point flags; no warning may follow from them."""
    n = MANY
    bits = np.full((n, WIDTH), 0x7FA00001, dtype=np.uint32)  # signalling NaN
    bits[::2] = np.float32(3e38).view(np.uint32)
    flat = pa.array(bits.view(np.float32).reshape(-1))
    plain = pa.array(np.full(n * WIDTH, 0.25, dtype=np.float32))
    printed = []
    for folder, values in ((tmp_path / "nan", flat), (tmp_path / "plain", plain)):
        (folder / "data").mkdir(parents=True)
        table = pa.table({"x": pa.FixedSizeListArray.from_arrays(values, WIDTH)})
        pq.write_table(table, folder / "data" / "part-0.parquet")
        spec = write_spec(folder / "spec.yaml", folder / "data", bounds={"center": [0.1, 0.2, 0.3]})
        result = done("release", spec, "--output", folder / "out", *where)
        printed.append(messages(result.stderr))
    assert printed[0] == printed[1]
    assert "Warning" not in printed[0]
