"""The map of regimes runs from end to end on tiny cells; the simple models spend what they say."""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist.errors import ClusterError

BENCHMARKS = Path(__file__).parents[2] / "jobs" / "benchmarks"
LABELLED = {"release", "excess", "sphere", "nearest", "stages", "logistic"}


def imported(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def regimes() -> ModuleType:
    return imported("regimes")


@pytest.fixture(scope="module")
def models() -> ModuleType:
    return imported("simple_models")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of two labels in two columns."""
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for split, n in (("train", 300), ("test", 200)):
        label = rng.integers(2, size=n).astype(np.int16)
        rows = rng.normal(0.6 * label[:, None] - 0.3, 0.2, (n, 2))
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).ravel()), 2)
        pq.write_table(pa.table({"embedding": column, "label": label}), folder / f"{split}.parquet")
    return tmp_path / "data"


def run(regimes: ModuleType, tmp_path: Path, *options: str) -> dict[str, Any]:
    """The JSON of one seed."""
    file = tmp_path / "regimes.json"
    regimes.main(["--seeds", "1", "--excess", "2", "--json", str(file), *options])
    results: dict[str, Any] = json.loads(file.read_text())
    return results


def test_a_labelled_cell_has_every_model(
    regimes: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = regimes.Cell("tiny", 250, 2, 2, 3.0, regimes.folder_split)
    monkeypatch.setattr(regimes, "CELLS", (cell,))
    (found,) = run(regimes, tmp_path, "--data", str(data))["cells"]
    assert found["name"] == "tiny/n250/d2/labels2/e3"
    assert set(found["models"]) == LABELLED
    for name, model in found["models"].items():
        assert "problem" not in model, name
        assert 50 < model["accuracy"]["mean"] <= 100, name
    best = max(
        found["models"][name]["accuracy"]["mean"] for name in ("sphere", "nearest", "stages")
    )
    released = found["models"]["release"]["accuracy"]["mean"]
    assert found["regret"] == pytest.approx(released - best, abs=1e-3)
    assert found["gap"] is None
    assert "tiny/n250/d2/labels2/e3" in capsys.readouterr().out


def test_a_known_mixture_has_a_gap_to_the_truth(
    regimes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cell = regimes.Cell("gaussian.decaying", 500, 2, 0, 3.0, regimes.gaussian_split)
    monkeypatch.setattr(regimes, "CELLS", (cell,))
    monkeypatch.setattr(regimes, "FRESH_ROWS", 2000)
    # As good as a release can be, and quick.
    monkeypatch.setattr(regimes, "released_scores", lambda *_: ({"nats": 0.25}, 0.5))
    (found,) = run(regimes, tmp_path)["cells"]
    assert set(found["models"]) == {"release", "excess", "sphere", "stages", "truth"}
    truth = found["models"]["truth"]["nats"]["mean"]
    assert found["gap"] == pytest.approx(truth - 0.25, abs=1e-3)
    assert found["models"]["release"]["gibibytes"] == 0.5
    for name in ("sphere", "stages"):
        assert found["models"][name]["nats"]["mean"] < truth + 0.05


def test_a_refused_release_is_shown_and_the_run_goes_on(
    regimes: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ClusterError("a pass needs 98.73 GiB\nand more is said here")

    cells = tuple(
        regimes.Cell("tiny", 250, 2, labels, 1.0, regimes.folder_split) for labels in (2, 0)
    )
    monkeypatch.setattr(regimes, "CELLS", cells)
    monkeypatch.setattr(regimes, "release", refuse)
    found = run(regimes, tmp_path, "--data", str(data))["cells"]
    assert len(found) == 2
    for cell in found:
        assert cell["models"]["release"]["problem"] == "refused: a pass needs 98.73 GiB"
        assert cell["regret"] is None
        assert cell["models"]["stages"]["nats"]["mean"] > -10
    shown = capsys.readouterr().out
    assert "refused" in shown and "more is said" not in shown


def test_absent_data_sets_are_skipped_with_a_word(
    regimes: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(regimes, tmp_path, "--data", str(tmp_path), "--only", "^banking77.*/labels77/e3$")
    assert found["skipped"] == ["banking77_minilm384/n10003/d384/labels77/e3"]
    assert found["cells"] == []
    assert "absent: banking77_minilm384/n10003/d384/labels77/e3" in capsys.readouterr().out


def test_the_worst_cell_comes_first(regimes: ModuleType) -> None:
    def result(columns: int, labels: int, released: float) -> Any:
        cell = regimes.Cell("set", 100, columns, labels, 1.0, regimes.folder_split)
        models = {"release": released, "stages": 50.0}
        return regimes.Result(
            cell,
            {
                name: regimes.Outcome([{cell.measure: value}], [0.0])
                for name, value in models.items()
            },
        )

    # Regrets in tolerances: 4 half points, 10 times .005 nats in each of 20 dimensions.
    labelled, density = result(20, 2, 48.0), result(20, 0, 49.0)
    failed = result(30, 0, 60.0)
    failed.outcomes["release"].problem = "over time: still running after 3 s"
    lines = regimes.table([labelled, density, failed]).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [
        "set/n100/d30/density/e1",
        "set/n100/d20/density/e1",
        "set/n100/d20/labels2/e1",
    ]


def test_labels_that_are_nearest_means_are_compared_with_the_stages(regimes: ModuleType) -> None:
    for make, best in ((regimes.folder_split, "nearest"), (regimes.cut_split, "stages")):
        cell = regimes.Cell("set", 100, 2, 20, 1.0, make)
        accuracies = {"release": 70.0, "nearest": 80.0, "stages": 60.0}
        outcomes = {
            name: regimes.Outcome([{"accuracy": value}], [0.0])
            for name, value in accuracies.items()
        }
        result = regimes.Result(cell, outcomes)
        assert result.best == best
        assert result.regret() == 70 - accuracies[best]


def test_cells_are_told_apart_by_their_names(regimes: ModuleType) -> None:
    names = [cell.name for cell in regimes.CELLS]
    assert len(set(names)) == len(names)
    assert "fashion_scatter128/n1000/d128/labels10/e1" in names


def test_a_child_is_held_to_its_time_and_its_end_is_told(regimes: ModuleType) -> None:
    assert regimes.in_child(lambda: 5, 60) == 5
    assert regimes.in_child(lambda: time.sleep(600), 0.2) == "over time: still running after 0.2 s"
    assert regimes.in_child(lambda: os._exit(3), 60) == (
        "failed: the process ended with exit code 3"
    )
    assert regimes.in_child(lambda: 1 / 0, 60) == "failed: ZeroDivisionError: division by zero"


# The simple models --------------------------------------------------------------------------


def labelled_rows(models: ModuleType, n: int, d: int, labels: int) -> Any:
    rng = np.random.default_rng(7)
    y = rng.integers(labels, size=n)
    means = rng.standard_normal((labels, d)) * 0.3 / np.sqrt(d)
    X = means[y] + rng.standard_normal((n, d)) * 0.3 / np.sqrt(np.arange(1, d + 1) * d)
    return models.Rows(2 * X, y, labels, 2.0)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("name", ["sphere", "nearest_mean", "stages", "logistic"])
def test_a_model_spends_the_whole_budget_and_no_more(
    models: ModuleType, name: str, labels: int
) -> None:
    budget = models.Budget(0.5, np.random.default_rng(0))
    getattr(models, name)(labelled_rows(models, 400, 5, labels), budget)
    assert budget.spent == pytest.approx(1.0)
    with pytest.raises(ValueError, match="more than the budget"):
        budget.noise(0.01, 1.0)


def test_a_loose_bound_and_few_rows_clip_no_more_than_they_should(models: ModuleType) -> None:
    # Rows a tenth as long as the bound: the noise in their spread is larger than the spread.
    rng = np.random.default_rng(11)
    rows = models.Rows(rng.normal(0, 1.0, (1000, 8)), np.zeros(1000, np.int64), 1, 28.0)
    for seed in range(20):
        found = models.stages(rows, models.Budget(0.27, np.random.default_rng(seed)))
        assert found.variances.sum() > 4


def test_noise_has_the_scale_that_a_share_buys(models: ModuleType) -> None:
    budget = models.Budget(2.0, np.random.default_rng(0))
    draws = np.std([float(budget.answer(0.0, 1e-5, 3.0)) for _ in range(4000)])
    assert draws == pytest.approx(3.0 / (2.0 * np.sqrt(1e-5)), rel=0.05)
    noise = models.Budget(2.0, budget.rng).second_moment(np.zeros((400, 400)), 0.25, 1.0)
    assert np.array_equal(noise, noise.T)
    assert noise[np.triu_indices(400, 1)].std() == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert np.diagonal(noise).std() == pytest.approx(1.0, rel=0.15)


def test_the_overlap_with_the_noise_is_unbiased(models: ModuleType) -> None:
    truth, scale = np.diag([3.0, 2.0, 1.0, 1.0, 0.5]), 0.4

    def precisions(y: Any) -> Any:
        return np.array([1 / (1 + y**2), np.exp(-y / 2)])

    rng = np.random.default_rng(2)
    found, exact = [], []
    for _ in range(600):
        noise = models.Budget(1.0, rng).second_moment(np.zeros((5, 5)), 1.0, scale)
        y, axes = np.linalg.eigh(truth + noise)
        along = np.einsum("ij,ij->j", axes, noise @ axes)
        exact.append(precisions(y) @ along)
        found.append(models.noise_overlap(y, scale, precisions))
    apart = np.array(found) - np.array(exact)
    error = apart.std(axis=0) / np.sqrt(len(apart))
    assert (np.abs(apart.mean(axis=0)) < 4 * error).all()
    # The overlap itself is far larger than what this test resolves.
    assert (np.abs(np.mean(exact, axis=0)) > 10 * error).all()


def test_a_spectrum_is_kept_without_noise_and_a_sphere_when_drowned(models: ModuleType) -> None:
    values = 1 / np.arange(1.0, 21)
    trace = float(values.sum())
    _, kept = models.cleaned_spectrum(np.diag(values), 1e-6, trace)
    assert kept == pytest.approx(np.sort(values), rel=0.01)
    noisy = models.Budget(1.0, np.random.default_rng(1)).second_moment(np.diag(values), 1.0, 50.0)
    _, drowned = models.cleaned_spectrum(noisy, 50.0, trace)
    assert drowned == pytest.approx(np.full(20, trace / 20))


def test_stages_with_little_noise_are_the_rows_own_moments(models: ModuleType) -> None:
    rows = labelled_rows(models, 20_000, 6, 3)
    found = models.stages(rows, models.Budget(50.0, np.random.default_rng(0)))
    means = np.stack([rows.X[rows.y == label].mean(axis=0) for label in range(3)])
    residuals = rows.X - means[rows.y]
    covariance = residuals.T @ residuals / len(residuals)
    assert found.weights == pytest.approx(np.bincount(rows.y) / 20_000, abs=1e-3)
    # Tight clipping moves both a little.
    assert found.means == pytest.approx(means, abs=0.01)
    released = (found.axes * found.variances) @ found.axes.T
    assert np.trace(released) == pytest.approx(np.trace(covariance), rel=0.05)
    assert np.linalg.norm(released - covariance) < 0.2 * np.linalg.norm(covariance)
