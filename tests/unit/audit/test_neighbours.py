"""The rows of an audit: what a release takes, in the types that the specification calls for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpgmm_dist.audit.neighbours import NULL_OR_INFINITY, WORST, make_neighbours
from dpgmm_dist.pipeline.resolve import rows_of
from dpgmm_dist.spec.release_spec import ReleaseSpec

EMBEDDINGS: dict[str, Any] = {"features": "x", "width": 2}
TABLE: dict[str, Any] = {"features": ["a"]}
DATASETS = {
    "whole labels": EMBEDDINGS | {"label": "y", "labels": [7, 3]},
    "one label": EMBEDDINGS | {"label": "y", "labels": ["only"]},
    "boolean labels": EMBEDDINGS | {"label": "y", "labels": [False, True]},
    "dates as labels": EMBEDDINGS | {"label": "y", "labels": ["2020-01-01", "2021-01-01"]},
    "words": TABLE | {"categories": {"c": ["f", "m"]}},
    "the largest whole number": TABLE | {"categories": {"c": [0, 2**63 - 1]}},
    "both booleans": TABLE | {"categories": {"c": [False, True]}},
    "one boolean": TABLE | {"categories": {"c": [True]}},
    "units": TABLE | {"privacy_unit": {"column": "user", "max_rows": 2}},
}


def spec_of(dataset: dict[str, Any]) -> ReleaseSpec:
    bounds = {"norm": 1.0} if "width" in dataset else {"columns": {"a": [0, 1]}}
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "nowhere", **dataset},
            "bounds": bounds,
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
        }
    )


@pytest.mark.parametrize("name", DATASETS)
def test_a_release_takes_the_rows(name):
    spec = spec_of(DATASETS[name])
    width = len(spec.feature_names) if spec.is_table else 2
    made = make_neighbours(spec, width, rows=5)
    for table in (made.base, *made.added.values()):
        source = rows_of(spec.dataset, table)
        rows = sum(block.rows for unit in source.plan() for block in source.blocks(unit, 100))
        assert rows == len(table)
    # The worst unit is beside the base, which stays as it is.
    assert made.added[WORST].slice(0, 5).equals(made.base)


@pytest.mark.parametrize("name", DATASETS)
def test_the_worst_unit_counts_and_that_of_nulls_does_not(name):
    spec = spec_of(DATASETS[name])
    made = make_neighbours(spec, len(spec.feature_names) if spec.is_table else 2, rows=5)
    most = 2 if spec.dataset.privacy_unit is not None else 1
    for neighbour, counted in ((WORST, True), (NULL_OR_INFINITY, False)):
        source = rows_of(spec.dataset, made.added[neighbour])
        [block] = source.blocks(source.plan()[0], 100)
        usable = np.isfinite(block.features).all(axis=1) & (block.labels >= 0)
        usable &= True if block.valid is None else block.valid
        assert usable[:5].all()
        assert usable[5:].all() == counted
        assert usable[5:].any() == counted
        assert len(usable[5:]) >= most
