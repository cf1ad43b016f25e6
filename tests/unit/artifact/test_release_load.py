from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import releases
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dpgmm_dist import load_release
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import Mixture


def test_a_release_comes_back_as_it_was_written(tmp_path: Path) -> None:
    mixture, transform = releases.mixture_of(p=2), releases.projection()
    releases.write(tmp_path, mixture=mixture, transform=transform)
    release = load_release(str(tmp_path))
    assert release.private and release.release_id == "r-1"
    assert release.label_values == (7, 3)
    assert release.receipt["input"] == releases.LIST_INPUT
    assert np.array_equal(release.transform.basis, transform.basis)
    assert np.allclose(release.mixture.label_weights, mixture.label_weights, rtol=1e-15)
    assert "r-1" in repr(release) and "private" in repr(release)


@pytest.mark.parametrize("make", [releases.mixture_of, releases.shared_of])
def test_labels_are_told_apart_with_the_share_that_the_receipt_names(
    tmp_path: Path, make: Callable[[], Mixture]
) -> None:
    releases.write(tmp_path, mixture=make())
    release = load_release(str(tmp_path))
    rows, _ = release.sample(50, seed=1)
    posterior = release.mixture.label_probabilities(rows)
    assert np.array_equal(release.label_probabilities(rows), posterior)
    named = replace(release, receipt={**release.receipt, "plan": {"discriminant_share": 0.3}})
    expected = release.mixture.regularised(0.3).label_probabilities(rows)
    assert np.array_equal(named.label_probabilities(rows), expected)
    assert not np.array_equal(expected, posterior)
    # The density, and the probability of each component, are those of the mixture.
    assert np.array_equal(named.score_samples(rows), release.score_samples(rows))
    assert np.array_equal(named.responsibilities(rows), release.responsibilities(rows))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), "half", None])
def test_a_share_that_is_none_is_a_clear_error(tmp_path: Path, share: object) -> None:
    releases.write(tmp_path)
    release = load_release(str(tmp_path))
    named = replace(release, receipt={**release.receipt, "plan": {"discriminant_share": share}})
    with pytest.raises(DataError, match=r"plan\.discriminant_share .* from 0 to 1, got"):
        named.label_probabilities(np.zeros((1, 3)))


@pytest.mark.parametrize("transform", ["projection", "table", "identity"])
def test_score_samples_is_the_log_density_in_input_units(tmp_path: Path, transform: str) -> None:
    chosen = {
        "projection": releases.projection(),
        "table": Transform(center=np.array([1.0, 50, -3]), half_width=np.array([2.0, 100, 0.5])),
        "identity": Transform.identity(3),
    }[transform]
    mixture = releases.mixture_of(p=chosen.latent_dimension)
    releases.write(tmp_path, mixture=mixture, transform=chosen)
    release = load_release(str(tmp_path))
    rows, _ = release.sample(200, seed=1)

    q = np.eye(3) if chosen.basis is None else chosen.basis
    h = np.diag(chosen.half_width)
    outside = chosen.residual_variance * (np.eye(3) - q @ q.T)
    joint = [
        np.log(w)
        + multivariate_normal(
            chosen.center + h @ (chosen.offset + q @ m), h @ (q @ c @ q.T + outside) @ h
        ).logpdf(rows)
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    ]
    assert np.allclose(release.score_samples(rows), logsumexp(joint, axis=0), rtol=1e-7)


def test_the_density_integrates_to_one_over_input_units(tmp_path: Path) -> None:
    transform = Transform(center=np.array([10.0]), half_width=np.array([25.0]))
    schema = releases.TABLE_INPUT | {"columns": releases.TABLE_INPUT["columns"][:1], "width": 1}
    releases.write(
        tmp_path, mixture=releases.mixture_of((), p=1), transform=transform, input_schema=schema
    )
    release = load_release(str(tmp_path))
    grid = np.linspace(-300, 300, 200_001)
    total = np.exp(release.score_samples(grid[:, None])).sum() * (grid[1] - grid[0])
    assert total == pytest.approx(1, abs=1e-4)


def test_samples_have_the_released_moments_in_input_units(tmp_path: Path) -> None:
    mixture, transform = releases.mixture_of(p=2), releases.projection()
    releases.write(tmp_path, mixture=mixture, transform=transform)
    release = load_release(str(tmp_path))
    rows, labels = release.sample(80_000, seed=2)
    assert set(labels.tolist()) == {7, 3} and labels.dtype == np.int64
    for value, weight in zip((7, 3), release.mixture.label_weights, strict=True):
        assert abs(np.mean(labels == value) - weight) < 0.01
        conditional = release.mixture.for_label(value)
        mean = conditional.weights @ conditional.means
        expected = transform.to_input(mean[None])[0]
        assert np.abs(rows[labels == value].mean(axis=0) - expected).max() < 0.05
    energy = transform.residual_energy(rows)
    assert energy.mean() == pytest.approx(0.04, rel=0.03)  # one direction outside the basis


def test_rows_of_one_label_can_be_sampled(tmp_path: Path) -> None:
    releases.write(tmp_path)
    release = load_release(str(tmp_path))
    _, labels = release.sample(50, seed=0, label=3)
    assert set(labels.tolist()) == {3}
    with pytest.raises(ValueError, match="label 4 is not one of"):
        release.sample(5, label=4)


def test_without_labels_the_component_is_returned(tmp_path: Path) -> None:
    releases.write(tmp_path, mixture=releases.mixture_of(()))
    _, component = load_release(str(tmp_path)).sample(500, seed=0)
    assert set(component.tolist()) == {0, 1, 2, 3}


def test_text_labels_come_back_as_text(tmp_path: Path) -> None:
    releases.write(tmp_path, mixture=releases.mixture_of(("ham", "spam")))
    _, labels = load_release(str(tmp_path)).sample(100, seed=0)
    assert set(labels.tolist()) == {"ham", "spam"}


@pytest.mark.parametrize(
    "name", ["mixture.parquet", "transform.parquet", "receipt.json", "report.html"]
)
def test_a_changed_or_missing_file_is_found(tmp_path: Path, name: str) -> None:
    releases.write(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(DataError, match=f"{name} is not the file"):
        load_release(str(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        load_release(str(tmp_path))


def test_no_release_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no release"):
        load_release(str(tmp_path / "nothing"))
    releases.write(tmp_path)
    (tmp_path / "release.json").write_bytes(b"[]")
    with pytest.raises(DataError, match=r"release\.json does not hold"):
        load_release(str(tmp_path))


LIGHT = """
import sys
from dpgmm_dist import load_release
release = load_release(sys.argv[1])
release.score_samples(release.sample(10, seed=1)[0])
# pandas is not among them: pyarrow imports it wherever it is installed.
heavy = {"dask", "distributed", "opendp", "sklearn", "matplotlib", "dp_accounting"}
print(sorted(heavy & set(sys.modules)))
"""


def test_reading_needs_neither_dask_nor_opendp(tmp_path: Path) -> None:
    releases.write(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
