"""The kernel against Python integers: the same sums, in any blocks, order and number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.privacy.query import Block, PassQuery

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
        tuple(Block(s, zero, 1.0, 1.0) for s in ("count", "sum", "second")),
    )
    kernel = Kernel(query)
    total = kernel.start()
    rows = np.tile(np.array([[float(1 << 16), 0.0]]), (cut, 1))
    blocks = 1100
    for _ in range(blocks):
        kernel.accumulate(total, rows, np.zeros(cut, dtype=np.int64))
    exact = total.finish()
    n = cut * blocks
    assert integers(exact) == [[n], [n << 16, 0], [n << 32, 0, 0]]
    for doubling in range(1, 14):
        exact = exact.merge(exact)
        assert integers(exact) == [
            [n << doubling],
            [n << (16 + doubling), 0],
            [n << (32 + doubling), 0, 0],
        ]
