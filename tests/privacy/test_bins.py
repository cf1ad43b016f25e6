"""Counts of bins: a row is in one bin of each column, whatever it holds, and is priced so."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.artifact.receipt import QueryBlock
from dpgmm_dist.artifact.verify import block_cost as recomputed
from dpgmm_dist.data.codes import ColumnCodes
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.pass_plan import BinsBlock, BinsPlan
from dpgmm_dist.model.tables.bounds import log_edges
from dpgmm_dist.pipeline.compile import compile_bins, observe_bins
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.query import MOST_CODES, Block, IntMap, PassQuery, UnitShare
from dpgmm_dist.privacy.sensitivity import (
    _are_edges,
    _name_codes,
    _wrong_codes,
    block_cost,
    check_fits,
    query_cost,
)

from ..queries import accumulated, bins_queries, integers, reference
from .test_gate import Counting
from .test_sensitivity import WILD, price


def codes_for(query: PassQuery) -> st.SearchStrategy[list[list[int]]]:
    row = st.tuples(*(st.integers(0, count - 1) for count in query.code_counts)).map(list)
    return st.lists(row, min_size=1, max_size=8)


@settings(max_examples=80)
@given(data=st.data())
def test_the_kernel_counts_as_the_reference_does(data):
    query = data.draw(bins_queries())
    rows = data.draw(codes_for(query))
    labels = data.draw(
        st.lists(st.integers(-1, len(query.cell_label) - 1), min_size=len(rows), max_size=len(rows))
    )
    kept = None
    if query.weighted:
        kept = data.draw(st.lists(st.integers(1, 9), min_size=len(rows), max_size=len(rows)))
    cut = data.draw(st.integers(0, len(rows)))
    found = accumulated(
        query,
        np.array(rows, dtype=np.float32),
        np.array(labels),
        cut,
        kept=None if kept is None else np.array(kept),
    )
    assert integers(found) == reference(query, rows, labels, kept)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_a_small_query_of_bins_is_the_reference(weighted, missing):
    edges = (np.array([0.0, 1.0, 2.0]), np.array([5.0]))
    whole = tuple(np.arange(len(ends) + 1 + missing) for ends in edges)
    coarse = (whole[0] // 2, whole[1] * 0)
    groups = np.arange(3), np.array([0, 1, 1]), np.zeros(3, dtype=np.int64)
    blocks = [Block("bins", g, 1.0, bins=b) for g in groups for b in (whole, coarse)]
    query = PassQuery(
        "bounds.columns",
        2,
        np.arange(3),
        np.zeros((3, 2), dtype=np.int64),
        1,
        tuple(blocks),
        unit_bits=6 if weighted else 0,
        weighted=weighted,
        edges=edges,
        missing=missing,
    )
    check_fits(query)
    assert query.counts_bins and query.code_counts == (4 + missing, 2 + missing)
    assert blocks[1].bin_counts == (2 + missing, 1)
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.integers(0, count, 50) for count in query.code_counts])
    labels, kept = rng.integers(-1, 3, 50), rng.integers(1, 4, 50) if weighted else None
    of = None if kept is None else kept.tolist()
    found = accumulated(query, rows.astype(np.float32), labels, 20, kept=kept)
    assert integers(found) == reference(query, rows.tolist(), labels.tolist(), of)


def hostile(width: int) -> st.SearchStrategy[list[float]]:
    """Rows at and beside edges of bins, of extreme exponents, and of any floats."""
    edges = log_edges().tolist()
    beside = st.sampled_from(edges).flatmap(
        lambda edge: st.sampled_from(
            [edge, math.nextafter(edge, math.inf), math.nextafter(edge, -math.inf)]
        )
    )
    number = st.sampled_from(WILD) | st.sampled_from([-v for v in WILD]) | st.floats() | beside
    return st.lists(number, min_size=width, max_size=width)


def query_of(columns: int, unit: UnitShare | None = None) -> PassQuery:
    edges = log_edges()
    coarse = np.arange(len(edges) + 1) // 7
    blocks = (BinsBlock(0.01), BinsBlock(0.02, (coarse,) * columns))
    return compile_bins(
        BinsPlan("bounds.columns", (edges,) * columns, blocks), 2, unit or UnitShare()
    )


@pytest.mark.parametrize("columns", [1, 3, 30])
@settings(max_examples=60)
@given(data=st.data())
def test_a_row_of_any_floats_costs_what_is_declared_or_nothing(columns, data):
    """Every column at once: a valid row attains the declared cost, an invalid row costs nothing."""
    query = query_of(columns)
    row = data.draw(hostile(columns))
    codes, valid = ColumnCodes(query.edges).to_lattice(np.array([row]))
    label = np.array([data.draw(st.integers(0, 1))])
    before = integers(accumulated(query, np.zeros((0, columns)), label[:0]))
    after = integers(accumulated(query, codes, np.where(valid, label, -1)))
    cost = price(query, before, after)
    assert cost == (query_cost(query) if np.isfinite(row).all() else 0)


@settings(max_examples=100)
@given(data=st.data())
def test_a_row_that_may_lack_values_always_costs_what_is_declared(data):
    """A missing value is in one bin as any other is, in counts of all rows and of each label."""
    edges, coarse = log_edges(), np.arange(len(log_edges()) + 2) // 7
    blocks = (BinsBlock(0.01, by_label=True), BinsBlock(0.02, (coarse,) * 4))
    plan = BinsPlan("marginals", (edges,) * 4, blocks, missing=True)
    query = compile_bins(plan, 2)
    assert [block.group_count for block in query.blocks] == [2, 1]
    row = data.draw(hostile(4))
    codes, valid = ColumnCodes(query.edges, missing=True).to_lattice(np.array([row]))
    label = np.array([data.draw(st.integers(0, 1))])
    before = integers(accumulated(query, np.zeros((0, 4)), label[:0]))
    after = integers(accumulated(query, codes, np.where(valid, label, -1)))
    assert price(query, before, after) == query_cost(query)


def test_the_square_root_of_the_columns_is_in_the_price():
    single, many = query_of(1), query_of(9)
    scale = many.blocks[0].sigma / single.blocks[0].sigma
    assert scale == pytest.approx(3)
    for query in (single, many):
        costs = [block_cost(query, block) for block in query.blocks]
        assert costs[0] <= Fraction(0.01) and costs[1] <= Fraction(0.02)
    # Priced as if it were one column, it would cost a ninth.
    cheap = Fraction(1) / (2 * Fraction(many.blocks[0].sigma) ** 2)
    assert block_cost(many, many.blocks[0]) == 9 * cheap


@pytest.mark.parametrize("unit", [UnitShare(), UnitShare(rows=3), UnitShare(weighted=True)])
def test_a_reader_recomputes_the_same_price(unit):
    query = query_of(5, unit)
    for block in query.blocks:
        listed = QueryBlock(
            statistic="bins",
            groups=1,
            dimension=5,
            radius=1,
            weight_unit=query.weight_unit,
            unit_rows=unit.rows,
            sigma=block.sigma,
            rho=0.0,
        )
        assert recomputed(listed, unit.rows) == block_cost(query, block)


def test_a_unit_of_several_rows_costs_no_more_than_declared():
    query = query_of(4, UnitShare(rows=3))
    codes = np.zeros((3, 4))
    found = integers(accumulated(query, codes, np.zeros(3, dtype=np.int64)))
    before = integers(accumulated(query, codes[:0], np.zeros(0, dtype=np.int64)))
    assert price(query, before, found) == query_cost(query)
    weighted = query_of(4, UnitShare(weighted=True))
    for kept in (1, 3, 256):
        labels, of = np.zeros(kept, dtype=np.int64), np.full(kept, kept)
        found = integers(accumulated(weighted, np.zeros((kept, 4)), labels, kept=of))
        assert price(weighted, before, found) <= query_cost(weighted)


def test_a_row_that_is_counted_twice_in_a_column_is_noticed(monkeypatch):
    """The check above has power: it sees a kernel that adds a row to two bins."""
    query = query_of(3)
    bincount = np.bincount

    def twice(values, weights=None, minlength=0):
        return bincount(values, weights, minlength) * 2

    monkeypatch.setattr("dpgmm_dist.passes.kernel.np.bincount", twice)
    before = integers(accumulated(query, np.zeros((0, 3)), np.zeros(0, dtype=np.int64)))
    after = integers(accumulated(query, np.zeros((1, 3)), np.zeros(1, dtype=np.int64)))
    assert price(query, before, after) > query_cost(query)


def test_each_count_gets_noise_of_its_own():
    query = query_of(2)
    codes = np.array([[0, 5], [386, 5]])
    exact = accumulated(query, codes, np.array([0, 1]))
    noise = Counting()
    loud = observe_bins(query, measure(exact, query, noise))
    still = observe_bins(query, measure(exact, query, Counting(silent=True)))
    assert [size for _, size in noise.asked] == [2 * 387, 2 * 56]
    assert still[0].counts[0][[0, 386]].tolist() == [1, 1]
    assert still[0].counts[1][5] == 2 and still[1].counts[1][0] == 2
    added = np.concatenate([a - b for a, b in zip(loud[0].counts, still[0].counts, strict=True)])
    assert added.tolist() == list(range(1, 2 * 387 + 1))


def test_queries_of_bins_that_make_no_sense_are_refused():
    query = query_of(2)
    (first, *_), zero = query.blocks, np.zeros(2, dtype=np.int64)
    edges = query.edges[0]
    wrong = [
        {"edges": (edges,)},
        {"edges": (edges, edges[::-1].copy())},
        {"edges": (edges, np.append(edges, math.inf))},
        {"edges": (edges, np.append(edges, edges[-1]))},
        {"edges": ()},
        {"blocks": (first, Block("count", zero, 1.0))},
        {"blocks": (replace(first, bins=first.bins[:1]),)},
        {"blocks": (replace(first, bins=(first.bins[0], first.bins[1] - 1)),)},
        {"blocks": (replace(first, bins=(first.bins[0], first.bins[1][:-1])),)},
        {"blocks": (replace(first, bins=None),)},
        {"rule": "nearest", "slopes": query.centres},
        {"scores": (np.zeros(387, dtype=np.int64),) * 2},
        {
            "blocks": (first, Block("count", zero, 1.0)),
            "scores": (np.zeros(387, dtype=np.int64),) * 2,
        },
        {"columns": np.array([1, 1])},
        {"columns": np.array([-1, 0])},
        {"about": np.zeros(2)},
    ]
    check_fits(query)
    for change in wrong:
        with pytest.raises(SpecError):
            check_fits(replace(query, **change))


@pytest.mark.parametrize(
    ("edges", "are_some"),
    [
        (np.array([0.0, 1.0, 2.0]), True),
        (np.array([]), True),
        (np.arange(MOST_CODES - 1.0), True),
        (np.arange(MOST_CODES + 0.0), False),
        (np.array([0.0, math.inf]), False),
        (np.array([-math.inf, 0.0]), False),
        (np.array([0.0, math.nan]), False),
        (np.array([0.0, 1.0, 1.0]), False),
        (np.array([1.0, 0.0]), False),
        (np.array([0, 1]), False),
        (np.array([0.0, 1.0], dtype=np.float32), False),
        (np.array([[0.0, 1.0]]), False),
    ],
)
def test_edges_are_finite_increasing_and_few(edges, are_some):
    assert _are_edges(edges) == are_some


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"bins": (np.array([0, 1, MOST_CODES - 1]), np.array([1, 0]))}, True),
        ({"bins": (np.array([0, 1, MOST_CODES]), np.array([1, 0]))}, False),
        ({"bins": (np.array([0, 1, 1]), np.array([-1, 0]))}, False),
        ({"bins": (np.array([0, 1]), np.array([1, 0]))}, False),
        ({"bins": (np.array([0, 1, 1]), np.array([1.0, 0.0]))}, False),
        ({"bins": (np.array([0, 1, 1]),)}, False),
        ({"radius": 1}, False),
        ({"axes": (0, 1)}, False),
        ({"radius": 1, "axes": (0, 1)}, False),
        ({"bins": None, "radius": 1, "axes": (0, 1)}, True),
    ],
)
def test_bins_are_numbers_of_each_code_and_nothing_else(change, fits):
    zero = np.zeros(1, dtype=np.int64)
    block = Block("bins", zero, 1.0, bins=(np.array([0, 1, 1]), np.array([1, 0])))
    assert _name_codes(replace(block, **change), [3, 2]) == fits


def counting(width: int = 2, **change: object) -> PassQuery:
    """Counts of three codes of each column, or of what is said to be of them."""
    zero, codes = np.zeros(1, dtype=np.int64), np.arange(3)
    return replace(
        PassQuery(
            "bounds.columns",
            width,
            zero,
            np.zeros((1, width), dtype=np.int64),
            1,
            (Block("bins", zero, 1.0, bins=(codes,) * width),),
            edges=(np.array([0.0, 1.0]),) * width,
        ),
        **change,
    )


def scoring(width: int = 2, **change: object) -> PassQuery:
    """Sums of the scores of three codes of each column."""
    sums = (Block("sum", np.zeros(1, dtype=np.int64), 1.0),)
    query = counting(width, blocks=sums, radius=9, scores=(np.arange(3),) * width)
    return replace(query, **change)


POINT = np.array([0.5])
TWO = (Block("count", np.zeros(1, dtype=np.int64), 1.0),)


@pytest.mark.parametrize(
    "query",
    [
        counting(),
        counting(columns=np.array([1, 0])),
        counting(1, about=POINT),
        counting(1, about=np.array([0.5, 0.5])),
        counting(
            edges=(np.array([0.0]),) * 2,
            missing=True,
        ),
        scoring(),
        scoring(columns=np.array([1, 1])),
    ],
)
def test_what_makes_sense_of_codes_is_not_refused(query):
    assert not any(_wrong_codes(query).values())
    check_fits(query)


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (counting(edges=(np.array([0.0, 1.0]),) * 3), "edges must be finite"),
        (counting(edges=(np.array([0.0, 1.0]), np.array([0.0, math.inf]))), "edges must be finite"),
        (counting(scores=(np.arange(3),) * 2), "codes must be counted"),
        (counting(blocks=TWO), "codes must be counted"),
        (counting(edges=()), "bins and scores need edges"),
        (scoring(edges=()), "bins and scores need edges"),
        (counting(blocks=counting().blocks + TWO), "bins stand alone"),
        (counting(rule="nearest"), "bins stand alone"),
        (counting(radius=2), "bins stand alone"),
        (counting(maps=(IntMap(np.eye(2, dtype=np.int64), 0),)), "bins stand alone"),
        (
            counting(blocks=(replace(counting().blocks[0], bins=None), *counting().blocks)),
            "bins must number",
        ),
        (scoring(scores=(np.arange(3), np.arange(2))), "scores must be integers"),
        (scoring(scores=(np.arange(3),)), "scores must be integers"),
        (scoring(scores=(np.arange(3), np.arange(3) << 18)), "scores must be integers"),
        (scoring(scores=(np.arange(3), -(np.arange(3) << 18))), "scores must be integers"),
        (counting(about=np.array([0.5, 0.5])), "distances need one column"),
        (scoring(1, about=POINT), "distances need one column"),
        (counting(1, about=np.array([math.nan])), "distances need one column"),
        (counting(1, about=np.array([0.5, math.inf])), "distances need one column"),
        (counting(1, about=POINT, columns=np.array([0])), "columns must number"),
        (counting(columns=np.array([0, 0])), "columns must number"),
        (counting(columns=np.array([0, -1])), "columns must number"),
        (counting(columns=np.array([0])), "columns must number"),
        (counting(columns=np.array([0.0, 1.0])), "columns must number"),
        (counting(edges=(), missing=True), "missing values need codes"),
        (counting(1, missing=True, about=POINT), "missing values need codes"),
    ],
)
def test_what_makes_no_sense_of_codes_is_said(query, fault):
    assert any(wrong for text, wrong in _wrong_codes(query).items() if text.startswith(fault))
    with pytest.raises(SpecError, match=f"makes no sense: .*{fault}"):
        check_fits(query)
