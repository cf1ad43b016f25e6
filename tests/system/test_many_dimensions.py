"""More than 16 dimensions: whatever the rows and the noise, a release that was paid for is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..variants import variant


def released(folder: Path, X: np.ndarray, epsilon: float, labels: int = 0, **model: Any) -> Any:
    dataset: dict[str, Any] = {"path": "memory", "features": "e", "width": X.shape[1]}
    if labels:
        dataset |= {"label": "y", "labels": list(range(labels))}
    spec = ReleaseSpec.from_dict(
        {
            "dataset": dataset,
            "bounds": {"norm": 2.0},
            "privacy": {"epsilon": epsilon, "delta": 1e-6},
            "model": {"components": 3} | model,
        }
    )
    y = np.arange(len(X)) % labels if labels else None
    source = ArraySource(X, y, tuple(range(labels)))
    release(spec, output=str(folder / "release"), source=source, insecure_test_noise=1)
    return load_release(str(folder / "release"))


@pytest.mark.parametrize(
    ("width", "rows", "epsilon", "labels", "model"),
    [
        (32, 1000, 0.001, 0, {}),
        variant(40, 0, 1.0, 0, {}),
        (20, 3, 1.0, 2, {"assignment": "hard"}),
        (18, 2000, 0.01, 2, {"assignment": "hard", "covariance": "spherical"}),
        variant(17, 2000, 1.0, 0, {"covariance": "tied"}),
        (20, 5000, 0.1, 3, {"components": "auto"}),
    ],
)
def test_a_release_is_made_of_hardly_any_rows_and_of_mere_noise(
    tmp_path: Path, width: int, rows: int, epsilon: float, labels: int, model: dict[str, Any]
) -> None:
    X = np.random.default_rng(0).standard_normal((rows, width)) / np.sqrt(width)
    mixture = released(tmp_path, X, epsilon, labels, **model).mixture
    assert np.isfinite(mixture.means).all()
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0


def test_components_that_stand_apart_are_found_among_many_dimensions(tmp_path: Path) -> None:
    """Three groups along two of 40 directions; each has a component of its own at its middle."""
    rng = np.random.default_rng(3)
    ways = np.linalg.qr(rng.standard_normal((40, 2)))[0]
    middles = np.array([[0.8, 0.0], [-0.8, 0.5], [0.0, -0.8]]) @ ways.T
    X = middles[rng.integers(3, size=200_000)] + 0.15 * rng.standard_normal((200_000, 40))
    mixture = released(tmp_path, X, 1.0).mixture
    apart = np.linalg.norm(mixture.means[:, None] - middles, axis=2)
    assert sorted(apart.argmin(axis=1)) == [0, 1, 2]
    assert apart.min(axis=1).max() < 0.05
    np.testing.assert_allclose(mixture.weights, 1 / 3, atol=0.02)


def test_more_components_are_asked_about_at_first_than_are_released(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    middles = rng.standard_normal((8, 18)) / np.sqrt(18)
    X = middles[rng.integers(8, size=4000)] + 0.1 * rng.standard_normal((4000, 18))
    found = released(tmp_path, X, 100.0, components=8)
    asked = {query["step"]: query["blocks"][0]["groups"] for query in found.receipt["queries"]}
    passes = [asked[f"components.{index}"] for index in range(1, 6)]
    assert passes == [24, 16, 12, 8, 8]
    assert found.mixture.n_components == 8
    apart = np.linalg.norm(found.mixture.means[:, None] - middles, axis=2)
    assert sorted(apart.argmin(axis=1)) == list(range(8))
