from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import releases
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.artifact import schema
from dpgmm_dist.artifact import write as writing
from dpgmm_dist.artifact.manifest import Manifest
from dpgmm_dist.artifact.write import claim_output, release_exists
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.storage.store import FsspecStore


def test_a_release_is_four_files_a_claim_and_the_manifest(tmp_path: Path) -> None:
    assert release_exists(str(tmp_path / "out")) is None
    manifest = releases.write(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "mixture.parquet",
        "transform.parquet",
        "receipt.json",
        "report.html",
        "release.json",
        "_claim.json",
    }
    assert release_exists(str(tmp_path / "out")) == manifest
    data_files = {"mixture.parquet", "transform.parquet", "receipt.json"}
    assert set(manifest.files) == {*data_files, "report.html"}
    assert set(releases.write(tmp_path / "bare", report=False).files) == data_files


def test_the_same_values_give_the_same_bytes_without_metadata(tmp_path: Path) -> None:
    for name in ("a", "b"):
        releases.write(tmp_path / name, transform=releases.projection(), mixture=small())
    for name in (
        "mixture.parquet",
        "transform.parquet",
        "receipt.json",
        "report.html",
        "release.json",
    ):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in ("mixture.parquet", "transform.parquet"):
        file = pq.ParquetFile(tmp_path / "a" / name)
        assert file.metadata.metadata is None  # no pandas, schema, time or path in it
        assert file.metadata.created_by.startswith("parquet-cpp-arrow version ")
        assert str(tmp_path).encode() not in (tmp_path / "a" / name).read_bytes()


def small() -> Mixture:
    return releases.mixture_of(p=2)


def test_mixture_parquet_is_the_documented_table(tmp_path: Path) -> None:
    mixture = releases.mixture_of()
    releases.write(tmp_path, mixture=mixture)
    table = pq.read_table(tmp_path / "mixture.parquet")
    assert table.column_names == [
        "label", "component", "weight", "mean", "covariance",
        "weight_se", "mean_se", "covariance_se",
        "weight_se_kind", "mean_se_kind", "covariance_se_kind",
        "covariance_kept", "covariance_shrinkage",
    ]  # fmt: skip
    # Labels in the specification's order, not sorted by value.
    assert table["label"].to_pylist() == [7, 7, 3, 3]
    assert table["component"].to_pylist() == [0, 1, 0, 1]
    first = mixture.covariances[0]
    lower = [first[0, 0], first[1, 0], first[1, 1], first[2, 0], first[2, 1], first[2, 2]]
    assert table["covariance"][0].as_py() == lower
    assert [str(table.schema.field(n).type) for n in ("label", "component")] == ["int64", "int32"]


@pytest.mark.parametrize("label_values", [(), (7, 3), ("b", "", "a", "ü")])
def test_parameters_survive_to_the_bit(label_values: tuple[Any, ...]) -> None:
    mixture = releases.mixture_of(label_values)
    data = schema.encode_mixture(mixture, releases.errors_of(mixture))
    back, errors = schema.decode_mixture(data)
    assert back.label_values == label_values
    order = np.lexsort((mixture.component_number, mixture.label_index))
    for name in ("weights", "means", "covariances", "label_index", "component_number"):
        assert np.array_equal(getattr(back, name), getattr(mixture, name)[order]), name
    assert np.isinf(errors.covariances).all() and (errors.means == 0.02).all()
    assert schema.encode_mixture(back, errors) == data


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_transforms_survive_to_the_bit(d: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = min(d, p)
    transform = Transform(
        center=rng.normal(size=d),
        half_width=rng.uniform(1e-3, 1e3, size=d),
        basis=None if p == d else np.linalg.qr(rng.normal(size=(d, p)))[0],
        offset=rng.normal(size=d),
        residual_variance=0.0 if p == d else float(rng.uniform(0.1, 1)),
    )
    back = schema.decode_transform(schema.encode_transform(transform))
    for name in ("center", "half_width", "offset", "residual_variance"):
        assert np.array_equal(getattr(back, name), getattr(transform, name))
    assert (back.basis is None) == (transform.basis is None)
    assert back.basis is None or np.array_equal(back.basis, transform.basis)


def test_writing_again_returns_the_finished_release_and_touches_nothing(tmp_path: Path) -> None:
    first = releases.write(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert releases.write(tmp_path, mixture=releases.mixture_of((1, 2))) == first
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_an_output_of_another_release_is_refused(tmp_path: Path) -> None:
    releases.write(tmp_path)
    with pytest.raises(SpecError, match="holds a release with the id 'r-1', not 'r-2'"):
        releases.write(tmp_path, receipt=releases.receipt_of("r-2"))
    other = releases.receipt_of() | {"specification_digest": "0" * 64}
    with pytest.raises(SpecError, match="made with another specification"):
        releases.write(tmp_path, receipt=other)


def test_a_claimed_output_is_refused_to_others_and_says_how_to_finish(tmp_path: Path) -> None:
    claim = {"release_id": "first", "specification_digest": "a" * 64}
    assert claim_output(str(tmp_path), **claim) is None
    assert claim_output(str(tmp_path), **claim) is None
    with pytest.raises(SpecError, match="--release-id first"):
        claim_output(str(tmp_path), release_id="second", specification_digest="a" * 64)
    assert release_exists(str(tmp_path)) is None


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.mark.parametrize("files_before_crash", range(6))
def test_a_crash_leaves_no_release_and_the_next_run_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_before_crash: int
) -> None:
    releases.write(tmp_path / "whole")
    real, created = FsspecStore.create, []

    def create(self: FsspecStore, name: str, data: bytes) -> None:
        if len(created) == files_before_crash:
            raise Killed
        created.append(name)
        real(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(FsspecStore, "create", create)
        with pytest.raises(Killed):
            releases.write(tmp_path / "out")
    assert release_exists(str(tmp_path / "out")) is None
    releases.write(tmp_path / "out")
    for name in (
        "mixture.parquet",
        "transform.parquet",
        "receipt.json",
        "report.html",
        "release.json",
    ):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "out" / name).read_bytes() == whole


def abandon(tmp_path: Path, **changes: Any) -> None:
    """Leave the files of a run that was killed just before it wrote the manifest."""
    releases.write(tmp_path, **changes)
    (tmp_path / "release.json").unlink()


def test_files_of_an_abandoned_run_that_differ_in_last_bits_are_kept(tmp_path: Path) -> None:
    mixture = releases.mixture_of()
    nudged = Mixture(
        weights=mixture.weights,
        means=np.nextafter(mixture.means, np.inf),
        covariances=mixture.covariances,
        labels=mixture.labels,
        label_values=mixture.label_values,
    )
    abandon(tmp_path)
    abandoned = (tmp_path / "mixture.parquet").read_bytes()
    receipt = releases.receipt_of()
    receipt["libraries"] = {"numpy": "99"}
    receipt["plan"] = {"note": [1, 0.1 + 0.2]}
    abandoned_receipt = json.loads((tmp_path / "receipt.json").read_text())
    abandoned_receipt["plan"] = {"note": [1, 0.3]}
    (tmp_path / "receipt.json").write_bytes(schema.canonical_json(abandoned_receipt))
    manifest = releases.write(tmp_path, mixture=nudged, receipt=receipt)
    assert (tmp_path / "mixture.parquet").read_bytes() == abandoned
    for name, entry in manifest.files.items():  # the manifest describes the stored files
        assert entry == entry.of((tmp_path / name).read_bytes())


def test_files_of_another_release_are_refused_without_a_manifest(tmp_path: Path) -> None:
    abandon(tmp_path)
    with pytest.raises(DataError, match=r"mixture\.parquet exists and is not a file of this"):
        releases.write(tmp_path, mixture=releases.mixture_of((3, 7)))
    with pytest.raises(DataError, match=r"receipt\.json exists and is not a file of this"):
        releases.write(tmp_path, receipt=releases.receipt_of(epsilon=2.0))
    (tmp_path / "mixture.parquet").write_bytes(b"garbage")
    with pytest.raises(DataError, match="not a file of this release"):
        releases.write(tmp_path)
    assert release_exists(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"receipt": {"release_id": "x"}}, "receipt is not valid"),
        ({"input_schema": {"kind": "list"}}, "input"),
        ({"receipt": {**releases.receipt_of(), "note": float("nan")}}, "written as JSON"),
    ],
)
def test_an_invalid_receipt_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        releases.write(tmp_path, **change)
    assert not any(tmp_path.iterdir())


def test_the_claim_fails_if_the_output_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file, not a directory")
    with pytest.raises(DataError, match=r"out/(_claim|release)\.json"):
        claim_output(str(tmp_path / "out"), release_id="r", specification_digest="0" * 64)


def test_a_release_on_an_object_store_is_the_same_bytes(tmp_path: Path) -> None:
    import fsspec

    url = "memory://artifact-write-test"
    releases.write(url)
    releases.write(tmp_path)
    for name in ("mixture.parquet", "receipt.json", "report.html", "release.json"):
        stored = fsspec.filesystem("memory").cat_file(f"/artifact-write-test/{name}")
        assert stored == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "schema version 3.*upgrade"),
        ({"release_id": 5}, "wrong"),
        ({"files": {}}, "missing"),
        ({"files": {"../../etc/passwd": {"sha256": "", "bytes": 1}}}, "unknown"),
    ],
)
def test_an_invalid_manifest_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    document = json.loads(releases.write(tmp_path).to_bytes()) | change
    with pytest.raises(DataError, match=message):
        Manifest.from_bytes(json.dumps(document).encode())
    with pytest.raises(DataError, match="not valid JSON"):
        Manifest.from_bytes(b"{")


def test_two_drivers_of_one_release_end_with_one_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other driver finishes between our data files and our manifest."""
    releases.write(tmp_path / "theirs")
    real = writing._create

    def overtaken(store: Any, name: str, data: bytes) -> bytes:
        if name == "receipt.json":
            shutil.copytree(tmp_path / "theirs", tmp_path / "out", dirs_exist_ok=True)
        return real(store, name, data)

    monkeypatch.setattr(writing, "_create", overtaken)
    manifest = releases.write(tmp_path / "out")
    assert manifest.to_bytes() == (tmp_path / "theirs" / "release.json").read_bytes()
