from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from dpgmm_dist import ReleaseSpec, load_release, release
from dpgmm_dist.artifact.load import Release
from dpgmm_dist.cli import main as cli
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.evaluate import Evaluation, evaluate
from dpgmm_dist.evaluate.density import reference_release
from dpgmm_dist.evaluate.real_rows import rows_of
from dpgmm_dist.evaluate.show import FILES, PICTURES, plot, table, to_json, write_evaluation

pytest.importorskip("sklearn")

LABELS = ["cat", "dog"]


def write_rows(path: Path, rows: int, seed: int) -> Path:
    """Write rows of three numbers with two labels; the first two rows are not valid."""
    rng = np.random.default_rng(seed)
    label_index = rng.integers(0, 2, rows)
    means = np.array([[-0.5, 0, 0], [0.5, 0, 0.2]])
    X = (rng.normal(size=(rows, 3)) * 0.2 + means[label_index]).astype("f4")
    X[0] = np.nan
    labels = [LABELS[i] for i in label_index]
    labels[1] = "cow"
    column = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 3)
    pq.write_table(pa.table({"x": column, "kind": labels}), path, row_group_size=500)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_rows(folder / "train.parquet", 4000, 0)
    write_rows(folder / "test.parquet", 1500, 1)
    document = {
        "dataset": {
            "path": str(folder / "train.parquet"),
            "features": "x",
            "label": "kind",
            "labels": LABELS,
        },
        "bounds": {"norm": 1.5},
        "privacy": {"epsilon": 2.0, "delta": 1e-5},
        "model": {"components": 1},
    }
    release(ReleaseSpec.from_dict(document), output=str(folder / "release"), insecure_test_noise=7)
    return folder


@pytest.fixture(scope="module")
def evaluation(place: Path) -> Evaluation:
    return evaluate(
        str(place / "release"), str(place / "test.parquet"), str(place / "train.parquet"), epochs=4
    )


def test_a_good_release_has_good_figures(evaluation: Evaluation) -> None:
    v = evaluation.values
    assert v["rows"]["held_out"] == 1498 and v["rows"]["training"] == 3998
    for kind in ("network", "logistic", "lda"):
        accuracy = v["accuracy"][kind]
        assert accuracy["trained_on_synthetic"] > 0.95 > 0.6 > v["accuracy"]["majority"]
        assert abs(accuracy["trained_on_synthetic"] - accuracy["trained_on_real"]) < 0.02
    density = v["log_likelihood"]
    assert abs(density["gap"]) < 0.1 and density["reference_components"] == 2
    assert abs(density["training_less_held_out"]) < 0.1
    assert v["frechet_distance"]["synthetic_to_held_out"] < 0.02
    assert v["precision"] > 0.8 and v["recall"] > 0.8
    memory = v["memorisation"]
    assert abs(memory["share_nearer_to_training"] - 0.5) < 5 * memory["standard_error"]
    assert [entry["label"] for entry in v["labels"]] == LABELS
    assert all(entry["network_recall"] > 0.9 for entry in v["labels"])
    assert sum(entry["held_out_rows"] for entry in v["labels"]) == 1498


def test_a_bad_release_has_bad_figures(place: Path) -> None:
    good = load_release(str(place / "release"))
    swapped = replace(good.mixture, labels=1 - good.mixture.label_index)
    wide = replace(swapped, covariances=25 * swapped.covariances)
    bad = replace(good, mixture=wide)
    v = evaluate(bad, str(place / "test.parquet"), str(place / "train.parquet"), epochs=4).values
    assert v["accuracy"]["lda"]["trained_on_synthetic"] < 0.5
    assert v["log_likelihood"]["gap"] > 1
    assert v["precision"] < 0.5
    assert v["frechet_distance"]["synthetic_to_held_out"] > 0.1


def test_copies_of_training_rows_are_noticed(place: Path) -> None:
    train = str(place / "train.parquet")
    evaluation = evaluate(
        str(place / "release"), str(place / "test.parquet"), train, synthetic=train, epochs=1
    )
    memory = evaluation.values["memorisation"]
    assert memory["exact_copies_of_training_rows"] > 1000
    assert memory["share_nearer_to_training"] > 0.6


def test_every_output_is_marked_not_private(evaluation: Evaluation, tmp_path: Path) -> None:
    assert table(evaluation).startswith("NOT PRIVATE")
    assert json.loads(to_json(evaluation))["privacy"] == "NOT PRIVATE"
    assert "NOT PRIVATE" in repr(evaluation)
    assert b"NOT PRIVATE" in plot(evaluation)
    write_evaluation(evaluation, str(tmp_path / "out"))
    write_evaluation(evaluation, str(tmp_path / "out"))  # replaces the files of the first
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert all(b"NOT PRIVATE" in path.read_bytes() for path in (tmp_path / "out").iterdir())


def test_without_training_rows_what_needs_them_is_left_out(place: Path) -> None:
    evaluation = evaluate(str(place / "release"), str(place / "test.parquet"), epochs=1, rows=500)
    v = evaluation.values
    assert v["memorisation"] is None and v["log_likelihood"]["gap"] is None
    assert v["accuracy"]["network"]["trained_on_real"] is None
    assert v["rows"] == {"synthetic": 500, "held_out": 1498, "training": None}
    assert "exact copies" not in table(evaluation)
    assert plot(evaluation).startswith(b"\x89PNG")


def test_arrays_subsets_of_rows_and_releases_without_labels(place: Path) -> None:
    good = load_release(str(place / "release"))
    rows = rows_of(good, str(place / "test.parquet"), 100, 3)
    assert len(rows) == 100
    again = rows_of(good, str(place / "test.parquet"), 100, 3)
    assert (rows.X == again.X).all() and repr(rows) == "<LabelledRows>"
    all_rows = rows_of(good, str(place / "test.parquet"), 10_000, 3)
    assert len(all_rows) == 1498
    y = np.array(LABELS)[all_rows.y]
    unlabelled = replace(good.mixture, labels=None, label_values=(), component=None)
    plain = replace(good, mixture=unlabelled)
    v = evaluate(plain, (all_rows.X, None), rows=200).values
    assert v["accuracy"] is None and v["labels"] == []
    assert "majority" not in table(evaluate(plain, (all_rows.X, None), rows=200))
    with pytest.raises(SpecError, match=r"give rows as \(X, y\)"):
        evaluate(good, (all_rows.X, None))
    with pytest.raises(SpecError, match="must have shape"):
        evaluate(good, (all_rows.X[:, :2], y))
    with pytest.raises(DataError, match="no valid row"):
        evaluate(good, (all_rows.X, np.full(len(y), "cow")))
    with pytest.raises(SpecError, match="at least 1"):
        evaluate(good, (all_rows.X, y), rows=0)


def test_the_reference_is_scikit_learns_fit(place: Path) -> None:
    good = load_release(str(place / "release"))
    rows = rows_of(good, str(place / "train.parquet"), 10_000, 0)
    reference = reference_release(good, rows)
    assert isinstance(reference, Release)
    share = (rows.y == 0).mean()
    assert reference.mixture.label_weights[0] == pytest.approx(share, abs=1e-6)
    mean = good.transform.to_latent(rows.X[rows.y == 1]).mean(axis=0)
    np.testing.assert_allclose(reference.mixture.for_label("dog").means[0], mean, atol=1e-6)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, arguments)


def test_the_command(place: Path, tmp_path: Path) -> None:
    options = ["--data", str(place / "test.parquet"), "--rows", "300", "--epochs", "1"]
    done = run("evaluate", str(place / "release"), *options, "--output", str(tmp_path / "out"))
    assert done.exit_code == 0
    assert done.stdout.startswith("NOT PRIVATE") and "two-layer network" in done.stdout
    assert (tmp_path / "out" / "evaluation.png").exists()
    done = run("evaluate", str(place / "release"), *options, "--json")
    assert json.loads(done.stdout)["privacy"] == "NOT PRIVATE"
    assert "NOT PRIVATE" in done.stderr
    done = run("evaluate", str(place / "release"), "--data", str(tmp_path / "none"))
    assert done.exit_code == 4 and "does not exist" in done.stderr


def test_the_share_of_public_items_that_are_used(place: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    near = rng.normal(size=(40, 3)) * 0.2
    items = np.concatenate([near, near + 50]).astype("f4")  # half of them are far from all rows
    column = pa.FixedSizeListArray.from_arrays(pa.array(items.ravel()), 3)
    pq.write_table(pa.table({"e": column}), tmp_path / "public.parquet")
    evaluation = evaluate(
        str(place / "release"),
        str(place / "test.parquet"),
        rows=1000,
        epochs=1,
        public=str(tmp_path / "public.parquet"),
    )
    use = evaluation.values["public_items"]
    assert use["items"] == 80 and 0.3 < use["share_used"] <= 0.5
    assert abs(use["share_used"] - use["share_used_by_as_many_held_out_rows"]) < 0.1
    assert use["most_rows_of_an_item"] >= 1000 / 40
    assert 0.5 < use["median_distance"] / use["median_distance_of_held_out"] < 2
    assert "share of 80 public items used" in table(evaluation)
    wide = pa.FixedSizeListArray.from_arrays(pa.array(items.ravel()), 6)
    pq.write_table(pa.table({"e": wide}), tmp_path / "wide.parquet")
    with pytest.raises(SpecError, match="have 6 numbers"):
        evaluate(
            str(place / "release"),
            str(place / "test.parquet"),
            public=str(tmp_path / "wide.parquet"),
        )


def test_a_page_of_real_pictures_beside_synthetic_ones(place: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, column, level in (("real", "pixels", 50), ("synthetic", "image", 200)):
        (tmp_path / name).mkdir()
        pixels = np.full((30, 12), level, np.uint8)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 12)
        kinds = [LABELS[i] for i in rng.integers(0, 2, 30)]
        pq.write_table(pa.table({column: lists, "kind": kinds}), tmp_path / name / "a.parquet")
    options = ["--pictures", str(tmp_path / "real"), "--decoded", str(tmp_path / "synthetic")]
    command = ["evaluate", str(place / "release"), "--data", str(place / "test.parquet")]
    command += ["--rows", "100", "--epochs", "1", "--output", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 2 and "needs --shape too" in done.output
    done = CliRunner().invoke(cli.app, [*command, "--shape", "3x4"])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted((*FILES, PICTURES))
    page = (tmp_path / "out" / PICTURES).read_bytes()
    assert b"REAL: NOT PRIVATE" in page
    image = np.asarray(Image.open(io.BytesIO(page)).convert("L"))
    middle = image.shape[1] // 2
    assert (image[30:, :middle] == 50).any() and not (image[30:, :middle] == 200).any()
    assert (image[30:, middle + 40 :] == 200).any()
