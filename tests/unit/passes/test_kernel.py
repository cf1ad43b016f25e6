"""The kernel against Python integers: the same sums, in any blocks, order and number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from dpgmm_dist.passes import kernel
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.privacy.query import Block, IntMap, PassQuery
from dpgmm_dist.privacy.sensitivity import check_fits, saturation

from ...queries import (
    PROBLEMS,
    accumulated,
    integers,
    queries,
    real_queries,
    real_rows,
    reference,
    rows_for,
)

KINDS = [("label", False), ("nearest", False), ("full", False), ("full", True)]


def python_rows(u: np.ndarray) -> list[list[int]]:
    return [[int(v) for v in row] for row in u]


@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=100)
@given(data=st.data())
def test_the_kernel_is_the_reference(rule, soft, data):
    query = data.draw(queries(rule, soft))
    u, labels = data.draw(rows_for(query))
    want = reference(query, python_rows(u), labels.tolist())
    before = u.tobytes()
    assert integers(accumulated(query, u, labels)) == want
    assert u.tobytes() == before


def small_query(rule: str, soft: bool, weighted: bool, maps: tuple[int, ...] | None) -> PassQuery:
    """Labels of three, one and two cells; blocks that see the same rows, or each its own."""
    rng, cells = np.random.default_rng(3), np.array([0, 0, 0, 1, 2, 2])
    by_cell, everything = np.arange(6), np.zeros(6, dtype=np.int64)
    centres = rng.integers(-30_000, 30_000, (6, 2))
    alike = maps is None or len(set(maps)) > 1
    narrower = {} if alike else {"radius": 9_000, "axes": (1, 2)}
    query = PassQuery(
        "cells.1",
        2,
        cells,
        centres,
        20_000,
        (
            Block("count", by_cell, 1.0),
            Block("sum", cells, 1.0, **narrower),
            Block("second", by_cell, 1.0, 1.0),
            Block("sum" if alike else "square", everything, 1.0, **narrower),
        ),
        maps=() if maps is None else tuple(IntMap(rng.integers(-99, 99, (2, 2)), 6) for _ in "ab"),
        cell_map=None if maps is None else np.array(maps),
        rule=rule,
        slopes=2 * centres if rule == "nearest" else None,
        offsets=None if rule == "label" else (centres**2).sum(axis=1) // 5,
        soft=soft,
        table=(1 << 16) >> np.arange(12) if soft else None,
        table_shift=27 if soft else 0,
        unit_bits=9 if soft or weighted else 0,
        weighted=weighted,
    )
    check_fits(query)
    return query


@pytest.mark.parametrize("maps", [None, (0,) * 6, (1, 0, 0, -1, 1, 0)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rule", "soft"), KINDS)
def test_a_small_query_of_each_kind_is_the_reference(rule, soft, weighted, maps):
    query = small_query(rule, soft, weighted, maps)
    rng = np.random.default_rng(1)
    u = np.concatenate([rng.integers(-46_000, 46_000, (50, 2)), query.centres]).astype(np.float64)
    labels, kept = rng.integers(-1, 3, len(u)), rng.integers(1, 5, len(u))
    want = reference(query, python_rows(u), labels.tolist(), kept.tolist() if weighted else None)
    assert all(map(any, want))
    of = kept if weighted else None
    for cuts in ((), (0, 3, 20)):
        assert integers(accumulated(query, u, labels, *cuts, kept=of)) == want


@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=50)
@given(data=st.data())
def test_blocks_and_order_do_not_matter(rule, soft, data):
    query = data.draw(queries(rule, soft))
    u, labels = data.draw(rows_for(query))
    want = integers(accumulated(query, u, labels))
    order = data.draw(st.permutations(range(len(u))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(u)), max_size=3)))
    assert integers(accumulated(query, u[order], labels[order], *cuts)) == want
    stored = PassQuery.from_bytes(query.to_bytes())
    assert integers(accumulated(stored, np.asfortranarray(u), labels)) == want


@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_partial_sums_merge_in_any_tree(rule, soft, data):
    query = data.draw(queries(rule, soft))
    u, labels = data.draw(rows_for(query))
    want = integers(accumulated(query, u, labels))
    parts = [accumulated(query, u[i : i + 1], labels[i : i + 1]) for i in range(len(u))]
    parts.append(Kernel(query).start().finish())  # a partition without rows
    while len(parts) > 1:
        first = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        second = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts.append(first.merge(second))
    assert integers(parts[0]) == want


@pytest.mark.parametrize("name", PROBLEMS)
def test_queries_of_real_fits_match_the_reference(name):
    u, labels = real_rows(name, 60)
    labels[::17] = -1
    for query in real_queries(name):
        want = reference(query, python_rows(u), labels.tolist())
        assert integers(accumulated(query, u, labels)) == want, query


@pytest.mark.parametrize("name", PROBLEMS)
def test_many_rows_sum_alike_in_any_way(name):
    """Enough rows for several slices, and for BLAS to divide its work among threads."""
    n = 20_000
    u, labels = real_rows(name, n)
    labels[::31] = -1
    order = np.random.default_rng(1).permutation(n)
    for query in real_queries(name):
        want = integers(accumulated(query, u, labels))
        assert integers(accumulated(query, u[order], labels[order], 1, 777, 1024, 9999)) == want
        with threadpool_limits(2, "blas"):
            assert integers(accumulated(query, u, labels)) == want
        halves = accumulated(query, u[::2], labels[::2]).merge(
            accumulated(query, u[1::2], labels[1::2])
        )
        assert integers(halves) == want


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_real_query_keeps_whole_rows_whole(name):
    """Every valid row is counted once: none is lost between labels, cells and slices."""
    u, labels = real_rows(name, 5000)
    labels[:100] = -1
    for query in real_queries(name):
        for block, sums in zip(query.blocks, integers(accumulated(query, u, labels)), strict=True):
            if block.statistic == "count":
                whole = 4900 * query.weight_unit
                # Floor division loses less than one unit per cell.
                least = whole - 4900 * len(query.cell_label) if query.soft else whole
                assert least <= sum(sums) <= whole


def test_labels_far_apart_and_blocks_of_one_label_agree():
    query = real_queries("labelled")[0]
    u, labels = real_rows("labelled", 500)
    want = integers(accumulated(query, u, labels))
    parts = [accumulated(query, u[labels == y], labels[labels == y]) for y in (2, 0, 1)]
    assert integers(parts[0].merge(parts[1].merge(parts[2]))) == want


def test_no_rows_and_no_valid_rows_add_nothing():
    for query in real_queries("labelled"):
        u, labels = real_rows("labelled", 40)
        nothing = integers(Kernel(query).start().finish())
        assert not any(any(block) for block in nothing)
        assert integers(accumulated(query, u[:0], labels[:0])) == nothing
        assert integers(accumulated(query, u, np.full(40, -1))) == nothing


@pytest.mark.parametrize("cut", [1, 7, 1 << 14])
def test_many_slices_of_the_longest_rows_stay_exact(cut):
    """More slices than one pending sum holds, rows at the bound: totals pass 2**53 and 2**63."""
    zero = np.zeros(1, dtype=np.int64)
    query = PassQuery(
        "components.1",
        2,
        zero,
        np.zeros((1, 2), dtype=np.int64),
        1 << 16,
        tuple(Block(s, zero, 1.0, 1.0) for s in ("count", "sum", "second", "square")),
    )
    kernel = Kernel(query)
    total = kernel.start()
    rows = np.tile(np.array([[float(1 << 16), 0.0]]), (cut, 1))
    blocks = 1100
    for _ in range(blocks):
        kernel.accumulate(total, rows, np.zeros(cut, dtype=np.int64))
    exact = total.finish()
    n = cut * blocks
    assert integers(exact) == [[n], [n << 16, 0], [n << 32, 0, 0], [n << 32]]
    for doubling in range(1, 14):
        exact = exact.merge(exact)
        assert integers(exact) == [
            [n << doubling],
            [n << (16 + doubling), 0],
            [n << (32 + doubling), 0, 0],
            [n << (32 + doubling)],
        ]


# ---------------------------------------------------------------- blocks that see rows unlike


def one_cell(blocks: tuple[Block, ...], radius: int = 1000, d: int = 3, **more) -> PassQuery:
    zero = np.zeros(1, dtype=np.int64)
    centres = np.zeros((1, d), dtype=np.int64)
    query = PassQuery("components.1", d, zero, centres, radius, blocks, **more)
    check_fits(query)
    return query


ONE = np.zeros(1, dtype=np.int64)


@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=50)
@given(data=st.data())
def test_a_block_is_answered_as_if_it_were_asked_alone(rule, soft, data):
    """Whatever other blocks of the query see: nothing is clipped in place that another needs."""
    query = data.draw(queries(rule, soft))
    u, labels = data.draw(rows_for(query))
    for block, want in zip(query.blocks, integers(accumulated(query, u, labels)), strict=True):
        # A radius that is given is the block's: that of the query is then no one's.
        explicit = replace(block, radius=query.radius_of(block))
        alone = replace(query, radius=1 if query.radius > 1 else 5, blocks=(explicit,))
        assert integers(accumulated(alone, u, labels)) == [want]


def test_distances_are_those_of_saturated_rows():
    """Also where all centres are below zero. Without the limit the row would be in the other cell,
    and its squared distance would not be exact."""
    limit = saturation(2)
    query = PassQuery(
        "cells.1",
        2,
        np.zeros(2, dtype=np.int64),
        np.array([[-60_000, -10_000], [20_000, 20_000]]),
        4096,
        (Block("count", np.arange(2), 1.0),),
        maps=(IntMap(np.eye(2, dtype=np.int64) << 20, 0),),
        cell_map=np.zeros(2, dtype=np.int64),
        rule="full",
        offsets=np.array([0, 2 * limit**2 + 1]),
    )
    check_fits(query)
    row = np.array([[20_000.0, 20_000.0]])
    assert integers(accumulated(query, row, np.zeros(1, dtype=np.int64))) == [[1, 0]]


@pytest.mark.parametrize("soft", [False, True])
def test_some_rows_are_saturated_before_distances_are_compared(soft):
    """Coordinates reach five times the limit, which most are below."""
    query = small_query("full", soft, False, (0,) * 6)
    maps = (IntMap(np.array([[1500, -90], [-200, -1200]]) << 6, 6),)
    query = replace(query, maps=maps, table_shift=47 if soft else 0)
    check_fits(query)
    rng = np.random.default_rng(2)
    u, labels = rng.integers(-46_000, 46_000, (60, 2)), rng.integers(0, 3, 60)
    far = abs((u @ maps[0].matrix.T) >> 6) > saturation(2)
    assert far.any() and not far.all()
    want = reference(query, u.tolist(), labels.tolist())
    assert integers(accumulated(query, u.astype(np.float64), labels)) == want


def test_a_far_centre_and_a_map_that_turns_are_enough_for_rows_to_be_saturated():
    """The nearer cell is another one where the row is not."""
    centres = np.array([[65_000, 0], [0, 0]])
    query = PassQuery(
        "cells.1",
        2,
        np.zeros(2, dtype=np.int64),
        centres,
        4096,
        (Block("count", np.arange(2), 1.0),),
        maps=(IntMap(np.eye(2, dtype=np.int64) * -283, 0),),
        cell_map=np.zeros(2, dtype=np.int64),
        rule="full",
        offsets=np.array([0, 860 * 10**12]),
    )
    check_fits(query)
    row = np.array([[-65_536.0, 0.0]])
    assert saturation(2) ** 2 < (283 * 65_536) ** 2 + 860 * 10**12 < (283 * 130_536) ** 2
    assert integers(accumulated(query, row, np.zeros(1, dtype=np.int64))) == [[1, 0]]


@pytest.mark.parametrize("maps", [None, (0,) * 6, (1, 0, 0, -1, 1, 0)])
@pytest.mark.parametrize(("rule", "soft"), KINDS)
def test_pieces_and_slices_of_any_size_have_the_same_sums(rule, soft, maps, monkeypatch):
    query = small_query(rule, soft, True, maps)
    rng = np.random.default_rng(5)
    u, kept = rng.integers(-46_000, 46_000, (60, 2)).astype(np.float64), rng.integers(1, 5, 60)
    labels = rng.integers(-1, 3, 60)
    want = integers(accumulated(query, u, labels, kept=kept))
    for slice_rows, piece_rows in ((7, 11), (1, 3), (4, 1)):
        monkeypatch.setattr(kernel, "_SLICE_ROWS", slice_rows)
        monkeypatch.setattr(kernel, "_SLICE_BYTES", 0)
        monkeypatch.setattr(kernel, "_SORTED_BYTES", 16 * piece_rows)
        assert integers(accumulated(query, u, labels, kept=kept)) == want


def test_squares_are_of_rows_before_they_are_scaled_down():
    """Scaled down to norm 5 on the lattice (3, 3, 3) would be (2, 2, 2)."""
    blocks = tuple(Block("square", ONE, 1.0, radius=radius) for radius in (5, 6, 1))
    query = one_cell((*blocks, Block("square", ONE, 1.0, radius=5, axes=(0, 2))))
    u = np.array([[3.0, 3.0, 3.0], [0.0, -4.0, 0.0]])
    got = integers(accumulated(query, u, np.zeros(2, dtype=np.int64)))
    assert got == [[25 + 16], [27 + 16], [1 + 1], [18 + 16]]
    plain = one_cell((Block("square", ONE, 1.0), Block("sum", ONE, 1.0)), radius=5)
    got = integers(accumulated(plain, u, np.zeros(2, dtype=np.int64)))
    assert got == [[25 + 16], [2, 2 - 4, 2]]


@pytest.mark.parametrize("statistic", ["sum", "second", "square"])
def test_squares_and_lengths_beyond_exact_floats_are_bounded_exactly(statistic):
    """Mapped coordinates near 2**52 have squares near 2**104: compared, never summed."""
    maps = (IntMap(np.array([[(1 << 34) + 1, 3], [5, (1 << 34) - 7]]), -1),)
    blocks = tuple(
        Block(statistic, ONE, 1.0, 1.0, radius, axes)
        for radius in (None, 1, 99_991, 1 << 20)
        for axes in (None, (0, 1), (1, 2))
    )
    query = one_cell(blocks, d=2, maps=maps, cell_map=ONE)
    u = np.array([[65536, 0], [-65535, 1], [1, 0], [0, -1], [0, 0], [40000, 40000]], dtype=float)
    labels = np.zeros(len(u), dtype=np.int64)
    assert integers(accumulated(query, u, labels)) == reference(query, python_rows(u), [0] * 6)


def test_sums_move_on_to_integers_by_the_largest_radius_of_any_block():
    """Odd numbers past 2**53: had they stayed in float64 for as long as radius 1 allows, they
    would have been rounded."""
    blocks = tuple(Block(s, ONE, 1.0, 1.0, 65_535) for s in ("sum", "second", "square"))
    query = one_cell((Block("sum", ONE, 1.0), *blocks), radius=1, d=1)
    kernel = Kernel(query)
    total = kernel.start()
    n, repeats = 16_385, 301
    rows, labels = np.full((n, 1), 65_535.0), np.zeros(n, dtype=np.int64)
    for _ in range(repeats):
        kernel.accumulate(total, rows, labels)
    whole = n * repeats
    assert whole * 65_535**2 > 1 << 53 and whole % 2
    square = whole * 65_535**2
    assert integers(total.finish()) == [[whole], [whole * 65_535], [square], [square]]


@pytest.mark.parametrize("statistic", ["sum", "second", "square"])
def test_a_block_that_sees_other_axes_or_another_radius_than_it_says_is_noticed(statistic):
    """The comparison has power: what a kernel that did so would answer is not the reference."""
    query = one_cell((Block(statistic, ONE, 1.0, 1.0, 500, (1, 2)), Block("sum", ONE, 1.0)))
    rng = np.random.default_rng(4)
    u, labels = rng.integers(-400, 400, (20, 3)).astype(float), np.zeros(20, dtype=np.int64)
    u[::5] *= 3
    want = reference(query, python_rows(u), labels.tolist())
    assert integers(accumulated(query, u, labels)) == want
    for wrong in ({"axes": (0, 2)}, {"axes": None}, {"axes": (0, 1)}, {"radius": 505}):
        executed = replace(query, blocks=(replace(query.blocks[0], **wrong), query.blocks[1]))
        assert integers(accumulated(executed, u, labels)) != want


@pytest.mark.parametrize("statistic", ["sum", "second"])
def test_some_axes_are_clipped_by_themselves(statistic):
    """Not the whole row first, which would scale down what is short enough in the axes seen."""
    query = one_cell((Block(statistic, ONE, 1.0, 1.0, 10, (0, 1)),), d=2)
    u = np.array([[7.0, 100.0], [-20.0, 3.0]])
    want = {"sum": [[7 - 10]], "second": [[49 + 100]]}[statistic]
    assert integers(accumulated(query, u, np.zeros(2, dtype=np.int64))) == want


@pytest.mark.parametrize("statistic", ["sum", "second", "square"])
@pytest.mark.parametrize("radius", [None, 1, 700])
@pytest.mark.parametrize("axes", [None, (0, 2), (1, 3)])
def test_a_block_that_is_alone_is_clipped_as_it_says(statistic, radius, axes):
    query = one_cell((Block(statistic, ONE, 1.0, 1.0, radius, axes),))
    u = [[900, -900, 50], [1, 1, 0], [0, 1, 1], [1, 0, 0], [-300, 20, 950], [699, 37, 1]]
    want = reference(query, u, [0] * len(u))
    assert integers(accumulated(query, np.array(u, float), np.zeros(len(u), np.int64))) == want


# ---------------------------------------------------------------- sums that labels share


def pooled_query(weighted: bool = False, mapped: bool = False, **more) -> PassQuery:
    """Three labels of one cell each about centres of their own, every sum in common."""
    cells, all_of_them = np.arange(3), np.zeros(3, dtype=np.int64)
    matrix = np.array([[1 << 20, 3 << 18], [-(1 << 19), 1 << 20]])
    query = PassQuery(
        "moments.pooled",
        2,
        cells,
        np.array([[0, 0], [500, -20], [-3000, 41]]),
        900,
        (
            Block("count", all_of_them, 1.0),
            Block("sum", all_of_them, 1.0),
            Block("second", all_of_them, 1.0, 1.0),
        ),
        maps=(IntMap(matrix, 20),) if mapped else (),
        cell_map=all_of_them if mapped else None,
        weighted=weighted,
        unit_bits=6 if weighted else 0,
    )
    query = replace(query, **more)
    check_fits(query)
    return query


def labelled_rows(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows around the centres of :func:`pooled_query`, some of no label, and rows kept of units."""
    rng = np.random.default_rng(8)
    labels = rng.integers(-1, 3, n)
    u = pooled_query().centres[labels] + np.rint(rng.normal(size=(n, 2)) * 600)
    return u, labels, rng.integers(1, 5, n)


@pytest.mark.parametrize("view", [{}, {"radius": 300}, {"axes": (1, 2)}])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_that_labels_share_are_the_sums_of_their_labels(weighted, mapped, view):
    """The way without a sort against the way with one, over several slices and cuts."""
    pooled = pooled_query(weighted, mapped)
    square = Block("square", pooled.blocks[0].groups, 1.0, **view)
    pooled = replace(pooled, blocks=(*pooled.blocks, square) if view else pooled.blocks)
    apart = replace(pooled, blocks=tuple(replace(b, groups=np.arange(3)) for b in pooled.blocks))
    assert Kernel(pooled)._is_pooled and not Kernel(apart)._is_pooled
    u, labels, kept = labelled_rows(70_000)
    of = kept if weighted else None
    got = integers(accumulated(pooled, u, labels, 1, 7, 40_000, kept=of))
    for sums, parts in zip(got, integers(accumulated(apart, u, labels, kept=of)), strict=True):
        want = np.array(parts, dtype=object).reshape(3, -1).sum(axis=0)
        assert sums == want.tolist()
    small = u.astype(np.int32)
    assert integers(accumulated(pooled, small, labels, kept=of)) == got


@pytest.mark.parametrize("mapped", [False, True])
def test_a_shared_sum_about_the_centre_of_another_label_is_noticed(mapped):
    query = pooled_query(mapped=mapped)
    u, labels, _ = labelled_rows(40)
    want = reference(query, python_rows(u), labels.tolist())
    assert integers(accumulated(query, u, labels)) == want
    kernel = Kernel(query)
    kernel.shifted = np.roll(kernel.shifted, 1, axis=0)
    total = kernel.start()
    kernel.accumulate(total, u, labels)
    assert integers(total.finish()) != want


def test_rows_of_no_label_enter_no_shared_sum():
    query = pooled_query()
    u, labels, _ = labelled_rows(40)
    assert not any(map(any, integers(accumulated(query, u, np.full(40, -1)))))
    assert not any(map(any, integers(accumulated(query, u[:0], labels[:0]))))


def test_groups_of_labels_beside_shared_sums_get_their_own_rows():
    groups = [np.zeros(3, dtype=np.int64), np.array([0, 1, 1]), np.arange(3)]
    blocks = tuple(Block(s, g, 1.0, 1.0) for s in ("count", "sum", "second") for g in groups)
    query = pooled_query(blocks=blocks)
    assert Kernel(query)._is_pooled
    u, labels, _ = labelled_rows(40)
    assert integers(accumulated(query, u, labels)) == reference(
        query, python_rows(u), labels.tolist()
    )


def test_labels_that_differ_in_cells_maps_or_groups_are_not_pooled():
    mapped = pooled_query(mapped=True)
    two = (*mapped.maps, *mapped.maps)
    for other in (
        pooled_query(mapped=True, maps=two, cell_map=np.array([0, 1, 0])),
        pooled_query(mapped=True, cell_map=np.array([0, -1, 0])),
        pooled_query(cell_label=np.array([0, 1, 1])),
        pooled_query(blocks=(Block("count", np.array([0, 0, 1]), 1.0),)),
        pooled_query(rule="nearest", slopes=np.ones((3, 2), dtype=np.int64)),
        pooled_query(rule="full"),
    ):
        assert not Kernel(other)._is_pooled


def test_sums_of_long_rows_move_on_to_integers_before_they_are_inexact(monkeypatch):
    """As if float64 held integers up to 100 alone: eleven squares of 3."""
    monkeypatch.setattr(kernel, "EXACT", 100)
    query = PassQuery(
        "components.1", 1, ONE, ONE[:, None], 1, (Block("square", ONE, 1.0, radius=3),)
    )
    found, total = Kernel(query), Kernel(query).start()
    for _ in range(7):
        found.accumulate(total, np.full((5, 1), 3.0), np.zeros(5, dtype=np.int64))
        assert 0 < total._pending[0].max() <= 100
    assert integers(total.finish()) == [[7 * 5 * 9]]


@pytest.mark.parametrize("statistic", ["count", "bins"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_move_on_to_integers_before_they_are_inexact(statistic, weighted, monkeypatch):
    """As if float64 held integers up to 16 alone."""
    monkeypatch.setattr(kernel, "EXACT", 16)
    zero, bins = np.zeros(1, dtype=np.int64), (np.array([0, 1]),)
    query = PassQuery(
        "counts",
        1,
        zero,
        zero[:, None],
        1,
        (Block(statistic, zero, 1.0, bins=bins if statistic == "bins" else None),),
        unit_bits=1 if weighted else 0,
        weighted=weighted,
        edges=(np.array([0.5]),) if statistic == "bins" else (),
    )
    kept = np.ones(3, dtype=np.int64) if weighted else None
    found, total = Kernel(query), Kernel(query).start()
    for _ in range(7):
        found.accumulate(total, np.zeros((3, 1)), np.zeros(3, dtype=np.int64), kept)
        assert all(sums.max() <= 16 for sums in total._pending)
    rows = 21 * query.weight_unit
    assert integers(total.finish()) == [[rows, 0] if statistic == "bins" else [rows]]
