"""Releases whose covariances share their axes: readers see no difference but in the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases

from dpgmm_dist import load_release
from dpgmm_dist.artifact import schema
from dpgmm_dist.artifact.manifest import FileDigest, Manifest
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.sample_options import SampleOptions
from dpgmm_dist.artifact.show import describe_release
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.covariances import SharedCovariances

TRANSFORMS = pytest.mark.parametrize("transform", [Transform.identity(3), releases.projection()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    releases.write(tmp_path / "release", mixture=releases.shared_of())
    return tmp_path / "release"


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and its digest, so that only its contents are wrong."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "release.json").read_bytes())
    digest = FileDigest.of(data)
    manifest["files"][name] = {"sha256": digest.sha256, "bytes": digest.size}
    (folder / "release.json").write_text(json.dumps(manifest))


def test_the_axes_are_one_more_file_and_older_readers_refuse(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert "axes.parquet" in names
    manifest = json.loads((folder / "release.json").read_bytes())
    assert manifest["schema_version"] == 2
    assert set(manifest["files"]) == names - {"release.json", "_claim.json"}
    columns = pq.read_table(folder / "mixture.parquet").column_names
    assert "block" in columns
    assert not {"covariance", "covariance_se"} & set(columns)
    assert pq.read_table(folder / "axes.parquet").column_names == ["coordinate", "axes"]
    # One that shares nothing is of the first version, as it always was.
    whole = releases.write(folder.parent / "whole")
    assert whole.schema_version == 1
    assert b'"schema_version": 1' in (folder.parent / "whole" / "release.json").read_bytes()


@pytest.mark.parametrize("label_values", [(), (7, 3), ("b", "a")])
@pytest.mark.parametrize("q", [0, 1, 3])
def test_parameters_survive_to_the_bit(label_values: tuple[Any, ...], q: int) -> None:
    mixture = releases.shared_of(label_values, q=q)
    data = schema.encode_mixture(mixture, releases.errors_of(mixture))
    axes = schema.encode_axes(mixture.form)
    back, errors = schema.decode_mixture(data, axes)
    order = np.lexsort((mixture.component_number, mixture.label_index))
    assert isinstance(back.form, SharedCovariances)
    assert np.array_equal(back.form.axes, mixture.form.axes)
    assert np.array_equal(back.form.blocks, mixture.form.blocks[order])
    assert np.array_equal(back.means, mixture.means[order])
    assert np.isinf(errors.covariances).all()
    assert schema.encode_mixture(back, errors) == data
    assert schema.encode_axes(back.form) == axes


@TRANSFORMS
def test_scores_are_those_of_full_matrices(tmp_path: Path, transform: Transform) -> None:
    mixture = releases.shared_of(p=transform.latent_dimension)
    releases.write(tmp_path / "shared", mixture=mixture, transform=transform)
    releases.write(tmp_path / "full", mixture=releases.full_of(mixture), transform=transform)
    shared, full = load_release(str(tmp_path / "shared")), load_release(str(tmp_path / "full"))
    rows, _ = full.sample(500, seed=1)
    assert np.allclose(shared.score_samples(rows), full.score_samples(rows), rtol=1e-9, atol=1e-9)
    assert np.allclose(shared.mixture.covariances, full.mixture.covariances, rtol=1e-12)
    found, wanted = shared.to_sklearn(), full.to_sklearn()
    assert np.allclose(found.score_samples(rows), wanted.score_samples(rows), rtol=1e-9, atol=1e-9)


@TRANSFORMS
def test_samples_have_the_moments_of_full_matrices(tmp_path: Path, transform: Transform) -> None:
    mixture = releases.shared_of(p=transform.latent_dimension)
    releases.write(tmp_path / "release", mixture=mixture, transform=transform)
    url, n = str(tmp_path / "release"), 40_000
    for temperature in (1.0, 0.5):
        options = SampleOptions(temperature=temperature)
        out = tmp_path / f"rows-{temperature}"
        write_samples(url, n, str(out), partitions=2, seed=3, options=options)
        table = pa.concat_tables([pq.read_table(path) for path in sorted(out.iterdir())])
        rows, labels = np.array(table["embedding"].to_pylist()), np.array(table["kind"].to_pylist())
        q = np.eye(3) if transform.basis is None else transform.basis
        scaled = transform.half_width[:, None] * q
        outside = transform.residual_variance * np.outer(*[transform.half_width] * 2)
        for value in (7, 3):
            given = releases.full_of(mixture).for_label(value)
            means = transform.to_input(given.means)
            middle = given.weights @ means
            apart = (means - middle).T * given.weights @ (means - middle)
            within = np.einsum("k,kij->ij", given.weights, given.covariances)
            within = scaled @ within @ scaled.T + outside * (np.eye(3) - q @ q.T)
            drawn = rows[labels == value]
            wanted = temperature**2 * within + apart
            scale = np.abs(wanted).max()
            assert np.abs(drawn.mean(axis=0) - middle).max() < 0.05 * np.sqrt(scale)
            assert np.abs(np.cov(drawn.T) - wanted).max() < 0.06 * scale


def test_what_is_written_depends_on_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_samples(str(folder), 300, str(tmp_path / name), partitions=2, seed=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_it_verifies_and_shows_how_many_axes_differ(folder: Path) -> None:
    result = verify_release(str(folder))
    assert result.ok and result.private and result.summary["components"] == 4
    shown = describe_release(str(folder))
    assert shown["model"]["own_axes"] == 2
    spread = [entry["spread"] for entry in shown["components"]]
    mixture = load_release(str(folder)).mixture
    wanted = np.sqrt(np.trace(mixture.covariances, axis1=1, axis2=2) / 3)
    assert np.allclose(spread, wanted)
    text = (folder / "report.html").read_text()
    assert "All covariances share their axes. They differ along the first 2 axes." in text


def test_every_bit_of_the_axes_counts_and_they_are_needed(folder: Path) -> None:
    path = folder / "axes.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert verify_release(str(folder)).exit_code == 4
    path.unlink()
    assert verify_release(str(folder)).exit_code == 4
    with pytest.raises(DataError, match=r"axes\.parquet is missing"):
        load_release(str(folder))


def edited_axes(**columns: Any) -> bytes:
    """axes.parquet with other columns."""
    table = {"coordinate": np.arange(3, dtype=np.int32), "axes": np.eye(3).tolist()} | columns
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(table), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (edited_axes(axes=np.ones((3, 3)).tolist()), "invertible"),
        (edited_axes(axes=np.ones((3, 2)).tolist()), r"axes must be finite and of shape"),
        (edited_axes(axes=np.full((3, 3), np.nan).tolist()), "axes must be finite"),
        (edited_axes(coordinate=[0, 2, 1]), "coordinates"),
        (b"no table", "not a readable Parquet file"),
    ],
)
def test_axes_that_are_not_valid_are_found(folder: Path, data: bytes, message: str) -> None:
    rewrite(folder, "axes.parquet", data)
    result = verify_release(str(folder))
    assert result.exit_code == 4
    assert any(message in problem for problem in result.problems), result.problems


def test_a_manifest_that_leaves_the_axes_out_or_hides_them_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "release.json").read_bytes())
    without = manifest | {"files": {k: v for k, v in manifest["files"].items() if k[:4] != "axes"}}
    with pytest.raises(DataError, match=r"missing \['axes\.parquet'\]"):
        Manifest.from_bytes(json.dumps(without).encode())
    with pytest.raises(DataError, match=r"unknown \['axes\.parquet'\]"):
        Manifest.from_bytes(json.dumps(manifest | {"schema_version": 1}).encode())
    # Blocks without axes are no covariances.
    rewrite(folder, "mixture.parquet", (folder / "mixture.parquet").read_bytes())
    hidden = without | {"schema_version": 1}
    (folder / "release.json").write_text(json.dumps(hidden))
    with pytest.raises(DataError, match=r"mixture\.parquet does not hold a valid mixture"):
        load_release(str(folder))


def test_a_crash_is_finished_although_the_axes_differ_in_their_last_bits(tmp_path: Path) -> None:
    mixture = releases.shared_of()
    releases.write(tmp_path, mixture=mixture)
    (tmp_path / "release.json").unlink()
    near = SharedCovariances(mixture.form.axes * (1 + 1e-12), mixture.form.blocks)
    changed = type(mixture)(mixture.weights, mixture.means, near, mixture.labels, (7, 3))
    manifest = releases.write(tmp_path, mixture=changed)
    assert manifest.files["axes.parquet"] == FileDigest.of((tmp_path / "axes.parquet").read_bytes())
    (tmp_path / "release.json").unlink()
    far = SharedCovariances(mixture.form.axes * 1.01, mixture.form.blocks)
    changed = type(mixture)(mixture.weights, mixture.means, far, mixture.labels, (7, 3))
    with pytest.raises(DataError, match=r"axes\.parquet exists and is not a file of this release"):
        releases.write(tmp_path, mixture=changed)
