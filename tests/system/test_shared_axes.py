"""A release whose covariances share their axes is the release with a matrix for each, held else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.artifact.load import Release, load_release
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.cli.main import main
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.estimator import DPGaussianMixture
from dpgmm_dist.model import schedule
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..variants import variant

WIDTH, LABELS = 30, 12


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Labels that differ in means and sizes, with too few rows each for a joint fit."""
    rng = np.random.default_rng(0)
    y = np.arange(2400) % LABELS
    scale = 0.3 / np.sqrt(1 + np.arange(WIDTH)) * np.linspace(0.7, 1.4, LABELS)[y, None]
    means = rng.standard_normal((LABELS, WIDTH)) * 0.1
    return means[y] + rng.standard_normal((len(y), WIDTH)) * scale, y


def released(folder: Path, **model: Any) -> Release:
    X, y = rows()
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {
                "path": "memory", "features": "e", "width": WIDTH,
                "label": "y", "labels": list(range(LABELS)),
            },
            "bounds": {"norm": 2.0},
            "privacy": {"epsilon": 4.0, "delta": 1e-6},
            "model": {"components": 1} | model,
        }
    )  # fmt: skip
    source = ArraySource(X, y, tuple(range(LABELS)))
    release(spec, output=str(folder), source=source, insecure_test_noise=1)
    return load_release(str(folder))


@pytest.mark.parametrize(
    "model",
    [{}, variant({"components": 2}), variant({"dimension": 12}), variant({"covariance": "tied"})],
    ids=str,
)
def test_both_forms_are_the_same_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, Any]
) -> None:
    full = released(tmp_path / "full", **model)
    monkeypatch.setattr(schedule, "_MOST_TRIANGLES", 0)
    shared = released(tmp_path / "shared", **model)
    assert not isinstance(full.mixture.form, SharedCovariances)
    assert isinstance(shared.mixture.form, SharedCovariances)
    assert (shared.mixture.form.own_axes == 0) == (model.get("covariance") == "tied")
    assert shared.receipt["plan"]["structure"] == full.receipt["plan"]["structure"]
    assert np.array_equal(shared.mixture.means, full.mixture.means)
    found, wanted = shared.mixture.covariances, full.mixture.covariances
    assert np.allclose(found, wanted, rtol=1e-8, atol=1e-10 * np.abs(wanted).max())
    X = rows()[0]
    assert np.allclose(shared.score_samples(X), full.score_samples(X), rtol=1e-8)
    assert verify_release(str(tmp_path / "shared")).ok


def exit_code(*words: str) -> Any:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_kinds_without_axes_stay_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_MOST_TRIANGLES", 0)
    covariances = released(tmp_path / "diag", covariance="diag").mixture.covariances
    assert all(np.array_equal(each, np.diag(np.diagonal(each))) for each in covariances)


def test_the_commands_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schedule, "_MOST_TRIANGLES", 0)
    folder = str(tmp_path / "release")
    released(tmp_path / "release", dimension=12)
    assert exit_code("verify", folder) == 6  # intact, and made with test noise
    capsys.readouterr()
    assert exit_code("show", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"]["own_axes"] > 0
    out = tmp_path / "rows"
    assert exit_code("sample", folder, "--rows", "50", "--output", str(out), "--seed", "1") == 0
    assert {path.name for path in out.iterdir()} == {"part-00000.parquet"}


def test_the_estimator_builds_matrices_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_MOST_TRIANGLES", 0)
    X, y = rows()
    fitted = DPGaussianMixture(
        n_components=1, epsilon=4.0, norm_bound=2.0, labels=range(LABELS), dimension=12
    )
    assert not hasattr(fitted, "covariances_")
    fitted.fit(X, y)
    assert isinstance(fitted.release_.mixture.form, SharedCovariances)
    assert fitted.covariances_.shape == (LABELS, WIDTH, WIDTH)
    assert np.linalg.eigvalsh(fitted.covariances_).min() > 0
    assert fitted.covariances_ is fitted.covariances_
