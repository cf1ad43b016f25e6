from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import releases

from dpgmm_dist.artifact.show import describe_release
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.mixture import StandardErrors


def test_a_description_is_plain_json_with_the_numbers_of_the_release(tmp_path: Path) -> None:
    mixture = releases.mixture_of(p=2)
    errors = StandardErrors(
        np.array([0.1, 0.2, 0.3, np.inf]),
        np.full(mixture.means.shape, 0.5),
        np.full(mixture.covariances.shape, 0.1),
    )
    releases.write(
        tmp_path, mixture=mixture, standard_errors=errors, transform=releases.projection()
    )
    shown = describe_release(str(tmp_path))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["release"]["release_id"] == "r-1" and shown["release"]["privacy"] == "private"
    assert shown["guarantee"]["epsilon"] == 1.0 and shown["guarantee"]["unit"] == "one row"
    assert shown["model"]["labels"] == [7, 3] and shown["model"]["latent_dimension"] == 2
    # In the order of the file, which is sorted by label: components 0, 2, 1, 3 of the mixture.
    rows = shown["components"]
    assert [(row["label"], row["component"]) for row in rows] == [(7, 0), (7, 1), (3, 0), (3, 1)]
    assert [row["weight_error"] for row in rows] == [0.1, 0.3, 0.2, None]
    assert rows[1]["spread"] == pytest.approx(np.sqrt(np.trace(mixture.covariances[2]) / 2))
    assert {row["mean_error"] for row in rows} == {0.5}
    assert sum(query["share"] for query in shown["queries"]) == pytest.approx(1)


def test_a_changed_release_is_not_described(tmp_path: Path) -> None:
    releases.write(tmp_path)
    (tmp_path / "mixture.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="is not the file"):
        describe_release(str(tmp_path))
