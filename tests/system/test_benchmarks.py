"""The accuracy benchmarks run from end to end on few rows. Their figures are not checked."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "jobs" / "benchmarks"
SCORED = {"dpgmm, kl split", "perturbed parameters, kl split", "perturbed parameters, even split"}
SCORED |= {"k-means centres", "scikit-learn, best start"}
LABELLED = {"posterior of a labelled release", "linear discriminant", "least squares"}
LABELLED |= {"logistic regression, noisy gradients", "linear discriminant, no privacy"}


@pytest.fixture(scope="module")
def density() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("density")


def run(
    density: ModuleType, monkeypatch: pytest.MonkeyPatch, output: Path, *options: str
) -> list[dict[str, Any]]:
    argv = ["density.py", "--epsilons", "1", "--seeds", "1", "--output", str(output), *options]
    monkeypatch.setattr(sys, "argv", argv)
    density.main()
    results: list[dict[str, Any]] = json.loads(output.read_text())["results"]
    return results


@pytest.mark.variant
def test_a_known_mixture_has_every_method(
    density: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ("--sets", "plane", "--rows-scale", "0.02")
    results = run(density, monkeypatch, tmp_path / "density.json", *options)
    by_method = {result["method"]: result for result in results}
    assert set(by_method) == SCORED | LABELLED | {"EM from the truth"}
    fit = by_method["scikit-learn, best start"]["gap"]
    for name in SCORED:
        # The one is the gap to the truth, the other the gap to the fit.
        gap = by_method[name]["gap"]
        assert by_method[name]["gap_to_fit"] == pytest.approx(gap - fit, abs=1e-5)
    assert -0.01 < by_method["EM from the truth"]["gap"] < 0.05
    most = 100 * (1 - by_method["dpgmm, kl split"]["misassigned"])
    for name in LABELLED:
        # No rule is better than the true posterior, except by chance on the fresh rows.
        assert 25 < by_method[name]["accuracy"] <= most + 0.5, name


@pytest.mark.slow
def test_flights_are_compared_with_the_fit_of_scikit_learn(
    density: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    label = rng.integers(3, size=6000).astype(np.int16)
    rows = np.clip(rng.normal(0.3 * label[:, None] - 0.3, 0.2, (6000, 5)), -1, 1)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), 5)
    (tmp_path / "nycflights13").mkdir()
    pq.write_table(
        pa.table({"embedding": column, "label": label}), tmp_path / "nycflights13" / "part.parquet"
    )
    monkeypatch.setattr(density, "FLIGHTS_COMPONENTS", 2)  # eight take ten times longer
    options = ("--sets", "nycflights13", "--data", str(tmp_path), "--baseline-seeds", "0")
    results = run(density, monkeypatch, tmp_path / "density.json", *options)
    methods = {result["method"] for result in results}
    assert methods == {"dpgmm, kl split", "scikit-learn, best start"}
    for result in results:
        assert result["gap"] == result["gap_to_fit"]
        assert result["rows"] == 5400


@pytest.mark.parametrize(
    ("work", "limits", "reason"),
    [
        ("while True: pass", (0.2, 10_000), "not done after"),
        (
            "import time; held = b'x' * (200 << 20); time.sleep(60)",
            (100, 150),
            "too much memory after",
        ),
        ("raise SystemExit('no such library')", (100, 10_000), "failed: no such library"),
    ],
)
def test_a_peer_without_a_result_is_told_why(
    work: str, limits: tuple[float, float], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    watched_process = importlib.import_module("watched_process")
    with pytest.raises(watched_process.Failed, match=reason):
        watched_process.watched([sys.executable, "-c", work], *limits)
    assert watched_process.watched([sys.executable, "-c", "print(7)"], 100, 10_000).said == "7"
