from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist import load_release
from dpgmm_dist.artifact import sample
from dpgmm_dist.artifact.columns import rows_schema
from dpgmm_dist.artifact.public_bounds import PublicBounds
from dpgmm_dist.artifact.receipt import Column, InputSchema
from dpgmm_dist.artifact.sample import write_samples
from dpgmm_dist.artifact.sample_options import LabelRows, SampleOptions, parse_label_rows
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.model.affine import Transform


@pytest.fixture
def release(tmp_path: Path) -> str:
    mixture = releases.mixture_of(p=2)
    releases.write(tmp_path / "release", mixture=mixture, transform=releases.projection())
    return str(tmp_path / "release")


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(folder.glob("part-*.parquet"))])


def rows_of(folder: Path) -> np.ndarray:
    return np.array(read(folder)["embedding"].to_pylist())


def draw(release: str, folder: Path, rows: int | None, **options: Any) -> Path:
    more = {key: options.pop(key) for key in ("partitions",) if key in options}
    write_samples(release, rows, str(folder), seed=1, options=SampleOptions(**options), **more)
    return folder


def test_the_rows_of_each_label_are_exact_and_mixed(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_BLOCK_VALUES", 90)  # 30 rows a block
    draw(release, tmp_path / "rows", None, label_rows={"3": 101, 7: 50}, partitions=2)
    labels = read(tmp_path / "rows")["kind"].to_pylist()
    assert Counter(labels) == {3: 101, 7: 50}
    assert (np.diff(labels) != 0).sum() > 30  # not one after the other
    sizes = [pq.read_metadata(p).num_rows for p in sorted((tmp_path / "rows").iterdir())]
    assert sizes == [76, 75]
    # The rows of a label are drawn from its components.
    expected = load_release(release).sample(20_000, seed=3, label=3)[0].mean(axis=0)
    rows = rows_of(draw(release, tmp_path / "many", None, label_rows={3: 4000, 7: 4000}))
    labels = np.array(read(tmp_path / "many")["kind"].to_pylist())
    assert np.abs(rows[labels == 3].mean(axis=0) - expected).max() < 0.1


def test_balanced_rows_are_the_same_number_for_each_label(release: str, tmp_path: Path) -> None:
    draw(release, tmp_path / "rows", 101, balanced=True)
    assert Counter(read(tmp_path / "rows")["kind"].to_pylist()) == {7: 51, 3: 50}


@given(rows=st.lists(st.integers(0, 1000), min_size=1, max_size=5), partitions=st.integers(1, 20))
def test_parts_of_label_rows_add_up_and_are_even(rows: list[int], partitions: int) -> None:
    parts = [LabelRows(tuple(rows)).part(i, partitions) for i in range(partitions)]
    assert np.sum(parts, axis=0).tolist() == rows
    totals = [int(part.sum()) for part in parts]
    assert max(totals) - min(totals) <= 1


def test_temperature_scales_the_spread(release: str, tmp_path: Path) -> None:
    spread = {
        t: rows_of(draw(release, tmp_path / str(t), 4000, label=3, temperature=t))
        for t in (1.0, 0.01)
    }
    loaded = load_release(release)
    means = loaded.transform.to_input(loaded.mixture.for_label(3).means)
    near = np.linalg.norm(spread[0.01][:, None] - means[None], axis=2).min(axis=1)
    far = np.linalg.norm(spread[1.0][:, None] - means[None], axis=2).min(axis=1)
    assert near.max() < 0.1 < np.median(far)


def bounded(folder: Path, norm: float) -> str:
    """Write the release of the fixture with another public norm bound."""
    receipt = releases.receipt_of()
    receipt["specification"]["bounds"] = {"norm": norm}
    mixture = releases.mixture_of(p=2)
    releases.write(folder, mixture=mixture, transform=releases.projection(), receipt=receipt)
    return str(folder)


@pytest.mark.parametrize("how", ["reject", "clip"])
def test_no_row_is_outside_the_norm_bound_as_stored(release: str, tmp_path: Path, how: str) -> None:
    unbounded = np.linalg.norm(rows_of(draw(release, tmp_path / "all", 2000)), axis=1)
    norm = float(np.median(unbounded))
    rows = rows_of(draw(bounded(tmp_path / "b", norm), tmp_path / how, 2000, bounds=how))
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert len(rows) == 2000 and norms.max() <= norm
    # Clipped rows lie on the sphere; rejected rows are drawn again.
    assert ((norms > 0.999 * norm).mean() > 0.3) == (how == "clip")


def test_rejected_rows_keep_their_label_with_rows_per_label(tmp_path: Path) -> None:
    draw(bounded(tmp_path / "b", 3.0), tmp_path / "rows", 300, balanced=True, bounds="reject")
    assert Counter(read(tmp_path / "rows")["kind"].to_pylist()) == {7: 150, 3: 150}


def test_without_the_residual_rows_lie_in_the_modelled_subspace(
    release: str, tmp_path: Path
) -> None:
    transform = load_release(release).transform
    smooth = transform.residual_energy(rows_of(draw(release, tmp_path / "a", 200, residual=False)))
    rough = transform.residual_energy(rows_of(draw(release, tmp_path / "b", 200)))
    assert smooth.max() < 1e-10
    assert rough.mean() == pytest.approx(transform.residual_variance, rel=0.4)


def test_rows_of_a_table_stay_within_the_bounds_of_its_columns(tmp_path: Path) -> None:
    transform = Transform(center=np.array([60.0, 5e4, 128]), half_width=np.array([60.0, 5e4, 127]))
    receipt = releases.receipt_of()
    receipt["specification"]["bounds"] = {
        "norm": None,
        "columns": {"age": [0, 119.5], "income": [0, 1e5], "byte": [1, 255]},
    }
    releases.write(
        tmp_path / "release",
        mixture=releases.mixture_of(()),
        transform=transform,
        input_schema=releases.TABLE_INPUT,
        receipt=receipt,
    )
    for how in ("reject", "clip"):
        table = read(draw(str(tmp_path / "release"), tmp_path / how, 3000, bounds=how))
        age, income, byte = (np.array(table[name].to_pylist()) for name in table.column_names)
        assert age.min() >= 0 and age.max() <= 119  # 120 is outside the bound of 119.5
        assert income.min() >= 0 and income.max() <= 1e5
        assert byte.min() >= 1 and byte.max() <= 255
        assert ((income == 0) | (income == 1e5)).any() == (how == "clip")


def test_sampling_ends_even_if_no_row_meets_the_bound(release: str, tmp_path: Path) -> None:
    receipt = releases.receipt_of()
    receipt["specification"]["bounds"] = {"norm": 1e-6}
    far = Transform(center=np.full(3, 50.0), half_width=np.ones(3))
    releases.write(tmp_path / "far", transform=far, receipt=receipt)
    rows = rows_of(draw(str(tmp_path / "far"), tmp_path / "rows", 20, bounds="reject"))
    assert np.linalg.norm(rows.astype(np.float64), axis=1).max() <= 1e-6


def test_a_receipt_without_bounds_is_an_error(release: str, tmp_path: Path) -> None:
    receipt = releases.receipt_of()
    del receipt["specification"]["bounds"]
    releases.write(tmp_path / "other", receipt=receipt)
    with pytest.raises(DataError, match="does not state the bounds"):
        draw(str(tmp_path / "other"), tmp_path / "rows", 5, bounds="clip")


def test_bounds_around_a_public_centre() -> None:
    bounds = bounds_of({"norm": 2.0, "center": [5, 0]}, width=2, x="float")
    assert bounds.contains(np.array([[5.0, 2.0], [0.0, 0.0]])).tolist() == [True, False]
    moved = bounds.moved_inside(np.array([[15.0, 0.0]]), np.rint)
    assert moved.tolist() == [[7.0, 0.0]]
    boxed = bounds_of({"columns": {"a": [-1, 1]}, "norm": 0.5}, width=1, a="double")
    assert boxed.contains(np.array([[0.6], [0.4]])).tolist() == [False, True]


def test_columns_are_bounded_one_by_one_after_rounding() -> None:
    columns = {"a": [0.5, 9.5], "day": ["2020-01-01", "2020-12-31"], "c": [0, 3]}
    bounds = bounds_of({"columns": columns}, width=3, a="int8", day="date32[day]", c="double")
    first = (date(2020, 1, 1) - date(1970, 1, 1)).days
    moved = bounds.moved_inside(np.array([[-7.0, first - 9, 1.25], [99, first, -0.1]]), np.rint)
    assert moved.tolist() == [[1, first, 1], [9, first, 0]]  # not 0 or 10, which rounding gives
    assert bounds.contains(moved).all()


def bounds_of(bounds: dict[str, Any], width: int, **types: str) -> PublicBounds:
    columns = tuple(Column(name=name, type=kind) for name, kind in types.items())
    kind = "columns" if "columns" in bounds else "list"
    schema = InputSchema(kind=kind, columns=columns, width=width)
    return PublicBounds.of({"specification": {"bounds": bounds}}, schema, rows_schema(schema, ()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature must be above 0"),
        ({"bounds": "loose"}, "bounds must be none, reject or clip"),
        ({"label": 3, "balanced": True}, "at most one of"),
        ({"label_rows": {3: -1}}, "must be at least 0"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SampleOptions(**options)


def test_rows_and_label_rows_must_agree(release: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="say how many rows"):
        draw(release, tmp_path / "a", None)
    with pytest.raises(SpecError, match="add up to 5"):
        draw(release, tmp_path / "a", 6, label_rows={3: 5})
    with pytest.raises(SpecError, match="not one of the release's labels"):
        draw(release, tmp_path / "a", None, label_rows={"cat": 5})
    with pytest.raises(SpecError, match="named twice"):
        draw(release, tmp_path / "a", None, label_rows={"3": 5, 3: 5})
    assert parse_label_rows([]) is None
