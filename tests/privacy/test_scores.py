"""Rows given by scores of their codes: within the radius, priced as rows on the lattice are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.errors import SpecError
from dpgmm_dist.passes import kernel
from dpgmm_dist.privacy.query import FEATURE_RADIUS, LARGEST_SCORE, PassQuery
from dpgmm_dist.privacy.sensitivity import check_fits, query_cost

from ..queries import accumulated, integers, reference, scored_queries
from .test_bins import codes_for
from .test_sensitivity import breaches, price, tight_query
from .test_stored_queries import assert_alike


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_kernel_is_the_reference_on_scores(data):
    query = data.draw(scored_queries())
    rows = data.draw(codes_for(query))
    last = int(query.cell_label[-1])
    labels = [data.draw(st.integers(-1, last)) for _ in rows]
    found = accumulated(query, np.array(rows, dtype=np.float32), np.array(labels))
    assert integers(found) == reference(query, rows, labels)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_one_row_of_scores_costs_at_most_what_is_declared(data):
    query = data.draw(scored_queries())
    rows = np.array(data.draw(codes_for(query)), dtype=np.float32)
    labels = np.zeros(len(rows), dtype=np.int64)
    before = integers(accumulated(query, rows[1:], labels[1:]))
    assert price(query, before, integers(accumulated(query, rows, labels))) <= query_cost(query)


def far_query() -> PassQuery:
    """Sums of rows whose only score in each column is as large as scores may be."""
    query = replace(tight_query("sum"), radius=FEATURE_RADIUS)
    scores = (np.full(1, LARGEST_SCORE),) * 3
    return replace(query, edges=(np.zeros(0),) * 3, scores=scores)


def test_a_row_of_scores_that_is_not_shrunk_is_noticed(monkeypatch):
    """The row is longer than the radius in every query that does not clip it again."""
    query = far_query()
    seen: list[np.ndarray] = []
    shrink = kernel.shrink_to_radius
    monkeypatch.setattr(
        kernel, "shrink_to_radius", lambda v, r: seen.append(shrink(v, r)) or seen[-1]
    )
    accumulated(query, np.zeros((1, 3), dtype=np.float32), np.zeros(1, dtype=np.int64))
    assert (np.square(seen[0]).sum(axis=1) <= FEATURE_RADIUS**2).all()
    assert breaches(tight_query("sum"), tight_query("sum")) == 0


def test_scores_that_make_no_sense_are_refused():
    query = far_query()
    check_fits(query)
    for scores in (
        query.scores[:2],
        (query.scores[0] + 1, *query.scores[1:]),
        (query.scores[0].astype(float), *query.scores[1:]),
        (np.zeros(2, dtype=np.int64), *query.scores[1:]),
        (),
    ):
        with pytest.raises(SpecError):
            check_fits(replace(query, scores=scores))


@settings(max_examples=30, deadline=None)
@given(scored_queries())
def test_a_query_of_scores_is_stored_and_read_back_whole(query):
    again = PassQuery.from_bytes(query.to_bytes())
    assert_alike(query, again)
    assert again.to_bytes() == query.to_bytes()
