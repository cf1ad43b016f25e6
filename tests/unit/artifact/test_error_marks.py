"""The release marks the standard errors of estimates that were adjusted after measurement."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import releases

from dpgmm_dist.artifact import error_marks, schema
from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.artifact.schema import read_table
from dpgmm_dist.artifact.show import describe_release
from dpgmm_dist.errors import DataError

JOINT = {
    "expected_kl": 0.002,
    "components_per_label": [2, 2],
    "error_bars": {
        "covariances": "approximate",
        "weight_of_own_covariance": [1.0, 0.6, 0.951, 0.95],
        "relative_shrinkage_bias": [0.0, 0.3, 0.01, 0.02],
    },
}
KINDS = ("weight_se_kind", "mean_se_kind", "covariance_se_kind")


def written(tmp_path: Path, plan: dict[str, Any] | None) -> pa.Table:
    receipt = releases.receipt_of() | ({} if plan is None else {"plan": plan})
    releases.write(tmp_path, receipt=receipt)
    return pq.read_table(tmp_path / "mixture.parquet")


def test_each_shrunk_covariance_is_marked_in_the_order_of_the_file(tmp_path: Path) -> None:
    table = written(tmp_path, JOINT)
    # The mixture has labels 7, 3, 7, 3; the file is sorted by label: its components 0, 2, 1, 3.
    assert table["covariance_kept"].to_pylist() == [1.0, 0.951, 0.6, 0.95]
    assert table["covariance_shrinkage"].to_pylist() == [0.0, 0.01, 0.3, 0.02]
    assert table["covariance_se_kind"].to_pylist() == ["nominal"] * 2 + ["approximate"] * 2
    assert table["weight_se_kind"].to_pylist() == table["mean_se_kind"].to_pylist()
    assert set(table["mean_se_kind"].to_pylist()) == {"nominal"}
    loaded = load_release(str(tmp_path)).error_marks
    assert loaded is not None and loaded.kept == (1.0, 0.951, 0.6, 0.95)
    rows = describe_release(str(tmp_path))["components"]
    assert [row["covariance_error_is"] for row in rows] == list(loaded.covariances)
    assert "0.951" in (tmp_path / "report.html").read_text()


def test_without_the_moment_fit_all_errors_are_approximate(tmp_path: Path) -> None:
    table = written(tmp_path, JOINT | {"expected_kl": None})
    assert {kind for name in KINDS for kind in table[name].to_pylist()} == {"approximate"}


def test_one_component_per_label_needs_no_correction() -> None:
    plan = JOINT | {"expected_kl": None, "components_per_label": [1, 1, 1, 1]}
    marks = error_marks.marks_of(plan, 4)
    assert set(marks.means) == {"nominal"}
    assert marks.covariances == ("nominal", "approximate", "nominal", "approximate")


def test_shared_covariances_have_no_stated_error(tmp_path: Path) -> None:
    notes = {"weights": "approximate", "means": "approximate", "covariances": "not known: shrunk"}
    table = written(tmp_path, {"components_per_label": [2, 2], "error_bars": notes})
    assert set(table["covariance_se_kind"].to_pylist()) == {"unknown"}
    assert set(table["mean_se_kind"].to_pylist()) == {"approximate"}
    assert table["covariance_kept"].null_count == 4


def test_a_release_without_marks_is_read_and_shown(tmp_path: Path) -> None:
    table = written(tmp_path, None)
    assert all(table[name].null_count == 4 for name in KINDS)
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns([*KINDS, "covariance_kept", "covariance_shrinkage"]), sink)
    data = sink.getvalue().to_pybytes()
    assert schema.decode_marks(data) is None
    assert schema.decode_mixture(data)[0].n_components == 4


def test_a_plan_with_another_number_of_components_is_refused() -> None:
    with pytest.raises(ValueError, match="lists 4 components under error_bars, not 3"):
        error_marks.marks_of(JOINT, 3)


def test_texts_that_are_no_texts_are_damage() -> None:
    raw = pa.array([b"no\x9a"])
    table = pa.table({"kind": pa.Array.from_buffers(pa.string(), 1, raw.buffers())})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with pytest.raises(DataError, match="damaged or incomplete"):
        read_table("mixture.parquet", sink.getvalue())
