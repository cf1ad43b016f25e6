"""One row more, as bad as it can be, changes the exact integers by no more than was paid for.

For every query: with D_j the change in block j, ``sum_j sum_i D_ji^2 / (2 sigma_ji^2)``, in exact
fractions with the very scales that are drawn with, is at most ``query_cost(query)``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.query import (
    EXACT,
    FEATURE_RADIUS,
    Block,
    IntMap,
    PassQuery,
    shrink_to_radius,
)
from dpgmm_dist.privacy.sensitivity import (
    _longest,
    block_cost,
    block_rows,
    check_fits,
    off_diagonal,
    query_cost,
    saturation,
    sensitivity,
    sigma_for,
    squared_sensitivity,
)

from ..queries import PROBLEMS, accumulated, integers, queries, real_queries, real_rows, rows_for

KINDS = [("label", False), ("nearest", False), ("full", False), ("full", True)]
WILD = (
    *(0.0, -0.0, 5e-324, 1e-300, 1e-9, 0.5, 1.0, 1.0000001, 2.0, 1e8, 1e154, 1e300),
    *(1.7e308, math.inf, -math.inf, math.nan),
)


def price(query: PassQuery, before: list[list[int]], after: list[list[int]]) -> Fraction:
    """What telling these two apart costs, from the scales that are drawn with."""
    total = Fraction(0)
    for block, a, b in zip(query.blocks, before, after, strict=True):
        scales = [block.sigma] * len(a)
        if block.statistic == "second":
            rows, columns = np.triu_indices(query.dimension_of(block))
            matrix = np.where(rows == columns, block.sigma, block.sigma_off or math.nan)
            scales = matrix.tolist() * block.group_count
        squares: dict[float, int] = defaultdict(int)
        for x, y, scale in zip(a, b, scales, strict=True):
            if x != y:
                squares[scale] += (y - x) ** 2
        for scale, square in squares.items():
            total += square / (2 * Fraction(scale) ** 2)
    return total


def price_of_a_row(query, u, labels, row, label) -> Fraction:
    """Add one lattice row to a data set."""
    more = np.concatenate([u, row[None]])
    return price(
        query,
        integers(accumulated(query, u, labels)),
        integers(accumulated(query, more, np.append(labels, label))),
    )


@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=120)
@given(data=st.data())
def test_one_row_costs_at_most_what_is_declared(rule, soft, data):
    query = data.draw(queries(rule, soft))
    u, labels = data.draw(rows_for(query, 4))
    row, label = data.draw(rows_for(query, 1))
    assert price_of_a_row(query, u, labels, row[0], label[0]) <= query_cost(query)


def wild_rows(width: int, step: float, centres: np.ndarray) -> st.SearchStrategy[list[float]]:
    """Input rows: any floats, and points near, between and far beyond a query's centres."""
    number = st.sampled_from(WILD) | st.sampled_from([-v for v in WILD]) | st.floats()
    points = [[float(c) * step for c in centre] for centre in centres[:8]]
    near = st.tuples(st.sampled_from(points), st.floats(-1, 1)).map(
        lambda found: [c + found[1] * step for c in found[0]]
    )
    far = st.tuples(st.sampled_from(points), st.sampled_from([-1e9, 1e3, 1e300])).map(
        lambda found: [c * found[1] for c in found[0]]
    )
    between = st.tuples(st.sampled_from(points), st.sampled_from(points)).map(
        lambda pair: [(a + b) / 2 for a, b in zip(*pair, strict=True)]
    )
    return st.lists(number, min_size=width, max_size=width) | near | far | between


@pytest.mark.parametrize("name", PROBLEMS)
@settings(max_examples=40)
@given(data=st.data())
def test_one_row_of_any_floats_costs_at_most_what_a_real_query_declares(name, data):
    query = data.draw(st.sampled_from(real_queries(name)))
    features = FeatureMap(query.width, 1.0)
    u, labels = real_rows(name, 20)
    row = data.draw(wild_rows(query.width, features.step, query.centres))
    lattice, valid = features.to_lattice(np.array([row]))
    label = data.draw(st.integers(0, int(query.cell_label[-1])))
    cost = price_of_a_row(query, u, labels, lattice[0], label if valid[0] else -1)
    assert cost <= query_cost(query)
    if not valid[0]:
        assert cost == 0


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_declared_cost_is_not_a_wild_guess(name):
    """A row on the axis of a cell, clipped to its radius, comes close to the declared cost.

    Moments of one row cannot all be at their worst coordinates at once, but nearly: a row at the
    clipping radius has all three changes at their bounds, up to the lattice's rounding.
    """
    for query in real_queries(name):
        alone = replace(query, offsets=None) if query.soft else query
        u, labels = np.zeros((0, query.width)), np.zeros(0, dtype=np.int64)
        best = Fraction(0)
        for axis in np.concatenate([np.eye(query.width), -np.eye(query.width)]):
            row = np.rint(axis * FEATURE_RADIUS)
            best = max(best, price_of_a_row(alone, u, labels, row, 0))
        # Soft shares and cells that a row on an axis falls short of cost less.
        assert best > Fraction(1, 50) * query_cost(query)
        if query.step == "moments.centre":
            assert best == query_cost(query)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("pooled", "moments.label"),
        ("few rows", "subspace.2"),
        ("few rows, more labels", "moments.label"),
        # Its fit is dear, and its passes are of the kinds of the others.
        pytest.param("narrowed", "components.3", marks=pytest.mark.slow),
    ],
)
def test_no_hostile_row_costs_more_than_is_declared_in_many_dimensions(name, step):
    queries = real_queries(name)
    assert step in {query.step for query in queries}  # the path that is meant
    for query in queries:
        assert breaches(query, query) == 0


# ---------------------------------------------------------------- the power of the check


def breaches(query: PassQuery, executed: PassQuery) -> int:
    """How many of a few hostile rows cost more under ``executed`` than ``query`` declares."""
    rng = np.random.default_rng(3)
    rows = np.rint(rng.normal(size=(60, query.width)) * FEATURE_RADIUS)
    rows = shrink_to_radius(rows, FEATURE_RADIUS)
    rows[:4] = np.rint(np.eye(query.width)[0] * FEATURE_RADIUS)
    nothing = integers(accumulated(executed, rows[:0], np.zeros(0, dtype=np.int64)))
    declared = query_cost(query)
    return sum(
        price(executed, nothing, integers(accumulated(executed, row[None], np.array([label]))))
        > declared
        for row in rows
        for label in range(int(query.cell_label[-1]) + 1)
    )


def tight_query(statistic: str, soft: bool = False) -> PassQuery:
    """Rows reach the radius, so that the declared cost is nearly attained."""
    zero = np.zeros(1, dtype=np.int64)
    radius = 4096
    query = PassQuery(
        "components.1",
        3,
        zero,
        np.zeros((1, 3), dtype=np.int64),
        radius,
        (Block(statistic, zero, 1.0),),
        rule="full" if soft else "label",
        soft=soft,
        unit_bits=12 if soft else 0,
        table=np.array([1]) if soft else None,
    )
    sigma = sigma_for(squared_sensitivity(query, query.blocks[0]), 0.01)
    off = off_diagonal(sigma) if statistic == "second" else None
    return replace(query, blocks=(Block(statistic, zero, sigma, off),))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("statistic", ["sum", "second", "square"])
def test_a_radius_one_percent_too_small_is_noticed(statistic, soft):
    query = tight_query(statistic, soft)
    assert breaches(query, query) == 0
    assert breaches(query, replace(query, radius=round(query.radius * 1.01))) > 0


@pytest.mark.parametrize("statistic", ["count", "sum", "second", "square"])
def test_a_scale_one_percent_too_small_is_noticed(statistic):
    query = tight_query(statistic)
    block = query.blocks[0]
    off = block.sigma_off and block.sigma_off / 1.01
    executed = replace(query, blocks=(replace(block, sigma=block.sigma / 1.01, sigma_off=off),))
    assert breaches(query, query) == 0
    assert breaches(query, executed) > 0


@pytest.mark.parametrize("statistic", ["count", "sum", "second", "square"])
def test_a_share_of_more_than_a_row_is_noticed(statistic):
    query = tight_query(statistic, soft=True)
    assert breaches(query, query) == 0
    executed = replace(query, unit_bits=13)  # weighs rows twice as much as it declares
    assert breaches(query, executed) > 0


CLIPPED = ["sum", "second", "square"]


def query_with_an_own_radius(statistic: str, radius: int) -> PassQuery:
    """A block of radius 4096 in a query of another radius, beside a block that has the query's."""
    query = replace(tight_query(statistic), radius=radius)
    other = Block("sum", query.cell_label, 1e12)
    return replace(query, blocks=(replace(query.blocks[0], radius=4096), other))


def with_first_block(query: PassQuery, **change: object) -> PassQuery:
    return replace(query, blocks=(replace(query.blocks[0], **change), *query.blocks[1:]))


@pytest.mark.parametrize("statistic", CLIPPED)
def test_a_block_costs_what_its_own_radius_says(statistic):
    alone = tight_query(statistic)
    for radius in (1, 4096, 1 << 16):
        query = query_with_an_own_radius(statistic, radius)
        assert block_cost(query, query.blocks[0]) == query_cost(alone)
        assert sensitivity(query, query.blocks[1]) == radius


@pytest.mark.parametrize("statistic", CLIPPED)
def test_a_block_whose_own_radius_is_ignored_is_noticed(statistic):
    query = query_with_an_own_radius(statistic, 8192)
    assert breaches(query, query) == 0
    assert breaches(query, with_first_block(query, radius=None)) > 0


@pytest.mark.parametrize("statistic", CLIPPED)
def test_an_own_radius_one_percent_too_small_is_noticed(statistic):
    query = query_with_an_own_radius(statistic, 64)
    assert breaches(query, query) == 0
    assert breaches(query, with_first_block(query, radius=round(4096 * 1.01))) > 0


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 3)])
@pytest.mark.parametrize("statistic", CLIPPED)
def test_a_block_of_some_axes_costs_as_much_as_one_of_all(statistic, axes):
    """The bound is attained: a row along the axes that the block sees is as long there."""
    query = tight_query(statistic)
    narrow = with_first_block(query, axes=axes)
    assert query_cost(narrow) == query_cost(query)
    assert breaches(narrow, narrow) == 0
    assert breaches(narrow, replace(narrow, radius=round(query.radius * 1.01))) > 0
    row = np.zeros(3)
    row[axes[0]] = FEATURE_RADIUS
    nothing = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    sigma = narrow.blocks[0].sigma
    assert price_of_a_row(narrow, *nothing, row, 0) == Fraction(
        sensitivity(query, query.blocks[0])
    ) ** 2 / (2 * Fraction(sigma) ** 2)


def mixed_query(*statistics: str) -> PassQuery:
    """Blocks of the query's radius and axes; each costs little but its first one."""
    query = tight_query(statistics[0])
    more = tuple(Block(s, query.cell_label, 1e18, 1e18) for s in statistics[1:])
    return replace(query, blocks=query.blocks + more)


@pytest.mark.parametrize("statistic", ["sum", "second"])
def test_rows_that_are_not_clipped_beside_a_square_are_noticed(statistic, monkeypatch):
    """Squares are of rows before they are scaled down; the block beside them is not."""
    query = mixed_query(statistic, "square")
    assert breaches(query, query) == 0
    monkeypatch.setattr("dpgmm_dist.passes.kernel.clip_rows", lambda v, radius, limit: v)
    assert breaches(query, query) > 0


def test_a_square_of_rows_that_is_not_bounded_is_noticed(monkeypatch):
    query = tight_query("square")
    assert breaches(query, query) == 0
    monkeypatch.setattr("dpgmm_dist.passes.kernel.np.minimum", lambda lengths, bound: lengths)
    assert breaches(query, query) > 0


def test_an_off_diagonal_scale_taken_for_the_diagonal_is_noticed():
    """With sigma on every entry of the triangle the cost is less; with sigma/sqrt 2, the same."""
    query = tight_query("second")
    block = query.blocks[0]
    everywhere = replace(query, blocks=(replace(block, sigma_off=block.sigma),))
    assert query_cost(everywhere) == query_cost(query)
    low = replace(query, blocks=(replace(block, sigma_off=block.sigma / 2),))
    assert query_cost(low) > Fraction(19, 10) * query_cost(query)
    assert breaches(query, low) > 0


# ---------------------------------------------------------------- rows that are not valid


@pytest.mark.parametrize("name", PROBLEMS)
@settings(max_examples=20)
@given(data=st.data())
def test_invalid_rows_change_nothing_at_all(name, data):
    query = data.draw(st.sampled_from(real_queries(name)))
    d = query.width
    features = FeatureMap(d, 1.0)
    rng = np.random.default_rng(2)
    rows, labels = rng.normal(size=(12, d)), rng.integers(0, int(query.cell_label[-1]) + 1, 12)
    u, _ = features.to_lattice(rows)
    want = integers(accumulated(query, u, labels))
    bad = data.draw(
        st.lists(st.lists(st.sampled_from(WILD), min_size=d, max_size=d), min_size=1, max_size=4)
    )
    structure = data.draw(st.lists(st.booleans(), min_size=len(bad), max_size=len(bad)))
    for row, good in zip(bad, structure, strict=True):
        if good:  # of the right shape, but not finite
            row[data.draw(st.integers(0, d - 1))] = data.draw(
                st.sampled_from([math.nan, math.inf, -math.inf])
            )
    place = data.draw(st.integers(0, 12))
    mixed = np.insert(rows, place, np.array(bad), axis=0)
    valid = np.insert(np.ones(12, dtype=bool), place, structure)
    codes = np.insert(labels, place, data.draw(st.integers(0, int(query.cell_label[-1]))))
    codes = np.insert(codes, place, [0] * (len(bad) - 1))
    v, ok = features.to_lattice(mixed, valid)
    codes[~ok] = -1
    assert integers(accumulated(query, v, codes)) == want


# ---------------------------------------------------------------- scales and costs


@given(st.integers(1, 1 << 60), st.floats(1e-9, 100))
def test_sigma_is_never_below_its_price_and_hardly_above(bound, rho):
    sigma = Fraction(sigma_for(bound**2, rho))
    assert Fraction(bound) ** 2 <= 2 * Fraction(rho) * sigma**2
    if sigma > Fraction(1, 4):
        closer = sigma * (1 - Fraction(1, 1 << 50))
        assert Fraction(bound) ** 2 > 2 * Fraction(rho) * closer**2


def test_a_scale_costs_at_most_its_rho_and_the_float_below_it_more():
    rng = np.random.default_rng(1)
    rhos = (10.0 ** rng.uniform(-9, 1, 400)).tolist()
    for squared, rho in zip(
        (10.0 ** rng.uniform(3, 18, 400)).astype(int).tolist(), rhos, strict=True
    ):
        sigma = sigma_for(squared, rho)
        below = Fraction(math.nextafter(math.nextafter(sigma, 0.0), 0.0))
        assert Fraction(squared) / (2 * Fraction(sigma) ** 2) <= Fraction(rho)
        assert Fraction(squared) / (2 * below**2) > Fraction(rho)
    assert sigma_for(1, 100.0) == 0.25


@given(st.floats(0.25, 1e15))
def test_off_diagonal_variance_is_at_least_half(sigma):
    off = Fraction(off_diagonal(sigma))
    assert 2 * off**2 >= Fraction(sigma) ** 2
    assert 2 * (off * (1 - Fraction(1, 1 << 50))) ** 2 < Fraction(sigma) ** 2


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_a_block_needs_a_budget(rho):
    with pytest.raises(SpecError, match="rho"):
        sigma_for(1, rho)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_must_be_a_number_above_zero(sigma):
    query = tight_query("second")
    for change in ({"sigma": sigma}, {"sigma_off": sigma}):
        wrong = replace(query, blocks=(replace(query.blocks[0], **change),))
        with pytest.raises(SpecError, match="noise scale"):
            query_cost(wrong)


def test_second_moments_need_both_scales():
    query = tight_query("second")
    wrong = replace(query, blocks=(replace(query.blocks[0], sigma_off=None),))
    with pytest.raises(SpecError, match="off-diagonal"):
        query_cost(wrong)


@pytest.mark.parametrize("axes", [(0, 2), (0, 3)])
def test_less_noise_off_the_diagonal_costs_more(axes):
    query = with_first_block(tight_query("second"), axes=axes)
    block = query.blocks[0]
    half = with_first_block(query, sigma_off=off_diagonal(block.sigma) / 2)
    assert query_cost(half) > Fraction(39, 10) * query_cost(query)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_query_costs_the_sum_of_its_blocks_and_no_more_than_planned(name):
    for query in real_queries(name):
        assert query_cost(query) == sum(block_cost(query, block) for block in query.blocks)
    total = sum(query_cost(query) for query in real_queries(name))
    rho = Fraction(PROBLEMS[name].get("rho", 0.05))
    assert Fraction(999, 1000) * rho < total <= rho * (1 + Fraction(1, 1 << 40))


# ---------------------------------------------------------------- what does not fit is refused


def fitting() -> PassQuery:
    cells = np.zeros(2, dtype=np.int64)
    centres = np.array([[0, 0], [100, 0]])
    return PassQuery(
        "components.1",
        2,
        cells,
        centres,
        4096,
        (Block("count", np.arange(2), 1e6), Block("second", cells, 1e6, 1e6)),
        maps=(IntMap(np.eye(2, dtype=np.int64) << 20, 20),),
        cell_map=cells,
        rule="full",
        offsets=cells,
        soft=True,
        unit_bits=12,
        table=np.array([1 << 20, 1 << 10, 0]),
    )


def test_the_query_that_the_next_tests_spoil_fits():
    check_fits(fitting())


def own_block(**change: object) -> Block:
    return Block("square", np.arange(2), 1e6, **change)


FAR = np.array([[0, 0], [1 << 40, 0]])
NEAREST = {"rule": "nearest", "soft": False, "slopes": np.array([[1, 0], [0, 0]])}
WIDE = IntMap(np.eye(2, dtype=np.int64) << 37, 37)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centres": FAR}, "a centred row"),
        ({"maps": (WIDE,)}, "a mapped row"),
        ({"radius": saturation(2) + 1, "soft": False}, "the radius"),
        ({"radius": 1 << 16}, "rows in a block"),
        ({"offsets": np.array([0, 1 << 53])}, "a squared distance"),
        ({"offsets": np.array([0, 3 << 51])}, "a squared distance"),  # beside 2**51
        ({"offsets": np.array([0, -(1 << 53)])}, "a squared distance"),
        ({"table": np.array([1 << 60, 0])}, "a responsibility"),
        ({"table": np.array([1 << 49, 0])}, "a responsibility"),  # of two cells
        ({"unit_bits": 55}, "a responsibility"),
        ({"blocks": (Block("count", np.arange(2), 2.0**55),)}, "a noise scale"),
        ({"blocks": (Block("second", np.arange(2), 1.0, 2.0**56),)}, "a noise scale"),
        ({"blocks": (own_block(radius=saturation(2) + 1),), "soft": False}, "the radius"),
        ({"blocks": (own_block(radius=1 << 16),)}, "rows in a block"),
        ({"blocks": (own_block(), own_block(radius=1 << 16))}, "rows in a block"),
        ({"blocks": (own_block(radius=1 << 22),), "soft": False}, "rows in a block"),
        (NEAREST | {"slopes": FAR}, "a squared distance"),
        (NEAREST | {"offsets": np.array([0, 1 << 53])}, "a squared distance"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(change, message):
    with pytest.raises(SpecError, match=f"does not fit exact arithmetic.*{message}"):
        check_fits(replace(fitting(), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": np.array([5, -1])}, "table"),
        ({"table": np.array([0, 5])}, "table"),
        ({"table": None}, "table"),
        ({"table_shift": -1}, "table_shift"),
        ({"table_shift": 63}, "table_shift"),
        ({"unit_bits": -1}, "unit_bits"),
        ({"rule": "nearest", "slopes": np.array([[1, 0], [0, 0]])}, "rule 'full'"),
        ({"radius": 0}, "radius"),
        ({"radius": -4096}, "radius"),
        ({"cell_label": np.array([1, 0])}, "cell_label"),
        ({"cell_label": np.array([0, 2])}, "cell_label"),
        ({"cell_label": np.array([-1, 0])}, "cell_label"),
        ({"cell_map": np.array([0, 1])}, "cell_map"),
        ({"cell_map": np.array([0])}, "cell_map"),
        ({"cell_map": np.array([0, -2])}, "cell_map"),
        ({"cell_map": np.array([0, -1]), "maps": (IntMap(np.ones((1, 2), int), 0),)}, "cell_map"),
        ({"centres": np.zeros((2, 3), dtype=np.int64)}, "centres"),
        ({"centres": np.zeros((1, 2), dtype=np.int64)}, "centres"),
        ({"centres": np.zeros((2, 2))}, "centres"),
        ({"maps": (IntMap(np.zeros((2, 3), dtype=np.int64), 0),)}, "maps"),
        ({"offsets": np.zeros(3, dtype=np.int64)}, "offsets"),
        (NEAREST | {"slopes": None}, "slopes"),
        (NEAREST | {"slopes": np.zeros((2, 1), dtype=np.int64)}, "slopes"),
        ({"blocks": (Block("count", np.array([0, -1]), 1.0),)}, "groups"),
        ({"blocks": (Block("count", np.zeros(3, dtype=np.int64), 1.0),)}, "groups"),
        ({"blocks": (Block("third", np.arange(2), 1.0),)}, "statistic"),
        ({"radius": 4096.5}, "radius"),
        ({"radius": np.int32(1 << 16)}, "radius"),  # its square is zero
        *(
            ({"blocks": (own_block(radius=radius),)}, "the radius of a block")
            for radius in (0, -4096, 4096.5, math.nan, np.int32(1 << 16))
        ),
        *(
            ({"blocks": (own_block(axes=axes),)}, "axes of a block")
            for axes in ((0, 0), (1, 0), (2, 2), (0, 3), (2, 3), (-1, 1), (-2, -1))
        ),
        *(
            ({"blocks": (own_block(axes=axes),)}, "axes of a block")
            for axes in ((), (0,), (0, 1, 2), (0.0, 1.0), (0, 1.0), (0, math.nan))
        ),
        *(
            ({"blocks": (own_block(), wrong)}, message)
            for wrong, message in (
                (Block("count", np.array([0, -1]), 1.0), "groups"),
                (Block("third", np.arange(2), 1.0), "statistic"),
                (own_block(radius=0), "the radius of a block"),
                (own_block(axes=(0, 3)), "axes of a block"),
                (Block("bins", np.arange(2), 1.0), "bins must number"),
            )
        ),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(change, message):
    """Each of these would break what the proofs assume: cells partition, shares add to one."""
    with pytest.raises(SpecError, match=rf"query components.1 .*{message}"):
        check_fits(replace(fitting(), **change))


def test_more_labels_than_the_kernel_sorts_are_refused():
    many = np.arange((1 << 15) + 1)
    query = PassQuery(
        "moments.sum",
        1,
        many,
        np.zeros((len(many), 1), dtype=np.int64),
        1,
        (Block("count", many, 1.0),),
    )
    with pytest.raises(SpecError, match="cell_label"):
        check_fits(query)


def test_more_cells_of_a_label_than_the_kernel_tells_apart_are_refused():
    cells = np.zeros(1 << 15, dtype=np.int64)
    query = PassQuery(
        "components.1", 1, cells, cells[:, None], 1, (Block("count", np.arange(1 << 15), 1.0),)
    )
    with pytest.raises(SpecError, match="cells"):
        check_fits(query)
    fewer, groups = cells[1:], np.arange((1 << 15) - 1)
    check_fits(
        replace(
            query, cell_label=fewer, centres=fewer[:, None], blocks=(Block("count", groups, 1.0),)
        )
    )


@given(st.integers(1, 70_000))
def test_saturated_coordinates_square_and_sum_exactly(p):
    assert p * saturation(p) ** 2 <= 1 << 52
    assert 8 * p * saturation(p) ** 2 > 1 << 52


@given(st.integers(1, 1 << 21), st.integers(0, 14), st.none() | st.integers(1, 1 << 21))
def test_block_rows_keep_every_sum_exact(radius, bits, block_radius):
    query = replace(fitting(), radius=radius, unit_bits=bits)
    query = replace(query, blocks=(query.blocks[0], own_block(radius=block_radius)))
    assert block_rows(query) * query.weight_unit * max(radius, block_radius or 1) ** 2 <= EXACT


@given(st.lists(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=3, max_size=3), max_size=3))
@example([[3, 4, 0]])
def test_no_vector_is_longer_than_the_longest(vectors):
    bound = Fraction(_longest(np.array(vectors, dtype=np.int64).reshape(-1, 3)))
    assert all(sum(x * x for x in vector) <= bound**2 for vector in vectors)
