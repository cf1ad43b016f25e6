"""One more unit, of any content, changes the exact integers by no more than was paid for.

Units go through the code of a release: rows on the lattice; rows kept, weighed or averaged; and the
kernel. Costs are exact fractions of the scales that are drawn with.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpgmm_dist.data.arrays import ArraySource
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.unit_files import kept_files, spread_files
from dpgmm_dist.data.unit_rows import (
    KeptRows,
    UnitRows,
    buckets_of,
    coefficients,
    content_hashes,
    kept_of,
    means_of,
    smallest,
)
from dpgmm_dist.data.unit_values import object_digests
from dpgmm_dist.errors import SpecError
from dpgmm_dist.passes.unit_tasks import Gather, KeptSource, Spread, UnitRule
from dpgmm_dist.privacy.query import FEATURE_RADIUS, Block, PassQuery, UnitShare, shrink_to_radius
from dpgmm_dist.privacy.sensitivity import check_fits, query_cost
from dpgmm_dist.storage.parquet_files import Place

from ..queries import PROBLEMS, accumulated, integers, queries, real_queries, reference, rows_for
from .test_sensitivity import KINDS, price

KEY = b"key"
AGGREGATES = ["rows", "weight", "mean"]
Rows = list[tuple[tuple[int, ...], int]]


def unit_rows(rows: np.ndarray, labels: np.ndarray, units: list[Any]) -> UnitRows:
    """Valid rows on the lattice with the digests of their units."""
    small, codes = rows.astype(np.int32), labels.astype(np.int32)
    hashes = content_hashes(small, codes, coefficients(KEY, rows.shape[1]))
    return UnitRows(small, codes, object_digests(units)[0], hashes)


def summed(query: PassQuery, rows: UnitRows, most: int, aggregate: str) -> list[list[int]]:
    """The exact sums of a query over what units contribute."""
    kept = means_of(rows, most) if aggregate == "mean" else kept_of(rows, most)
    u, labels = kept.rows.astype(np.float64), kept.labels.astype(np.int64)
    return integers(accumulated(query, u, labels, kept=kept.kept.astype(np.int64)))


def with_share(query: PassQuery, most: int, aggregate: str) -> PassQuery:
    """The query that a release of such units asks, with the same noise scales."""
    if aggregate == "mean":
        return query
    if aggregate == "rows":
        return replace(query, unit_rows=most)
    return replace(query, weighted=True, unit_bits=max(query.unit_bits, 6))


# ---------------------------------------------------------------- what a unit costs


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_a_unit_costs_at_most_what_is_declared(rule, soft, aggregate, data):
    most = data.draw(st.integers(1, 4))
    query = with_share(data.draw(queries(rule, soft)), most, aggregate)
    try:
        check_fits(query)
    except SpecError:
        assume(False)
    others, other_labels = data.draw(rows_for(query, 6))
    added, added_labels = data.draw(rows_for(query, 8))
    names = data.draw(st.lists(st.sampled_from("ab"), min_size=len(others), max_size=len(others)))
    u, labels = np.concatenate([others, added]), np.concatenate([other_labels, added_labels])
    units = [*names, *["added"] * len(added)]
    valid = labels >= 0
    with_unit = unit_rows(
        u[valid], labels[valid], [unit for unit, ok in zip(units, valid, strict=True) if ok]
    )
    kept = valid[: len(others)]
    without = unit_rows(
        others[kept], other_labels[kept], [unit for unit, ok in zip(names, kept, strict=True) if ok]
    )
    before = summed(query, without, most, aggregate)
    after = summed(query, with_unit, most, aggregate)
    assert price(query, before, after) <= query_cost(query)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_an_adversarial_unit_costs_at_most_what_a_real_query_declares(name, aggregate):
    """Huge rows, NaN, infinities, rows at every centre, of all labels, far more than are kept."""
    most = 3
    for query in real_queries(name):
        query = with_share(query, most, aggregate)
        features = FeatureMap(query.width, 1.0)
        rng = np.random.default_rng(1)
        centres = query.centres * features.step
        x = np.concatenate([centres, centres * 1e9, rng.normal(size=(300, query.width)) * 1e6])
        x[::7, 0] = np.nan
        x[3::11, -1] = np.inf
        u, valid = features.to_lattice(x)
        labels = rng.integers(0, int(query.cell_label[-1]) + 1, len(u))
        of_unit = unit_rows(u[valid], labels[valid], ["mine"] * int(valid.sum()))
        none = summed(query, of_unit.at(np.zeros(0, dtype=np.intp)), most, aggregate)
        cost = price(query, none, summed(query, of_unit, most, aggregate))
        assert 0 < cost <= query_cost(query)


def one_cell(aggregate: str, most: int, statistic: str = "sum") -> PassQuery:
    zero = np.zeros(1, dtype=np.int64)
    block = Block(statistic, zero, 1e6, 1e6 if statistic == "second" else None)
    query = PassQuery("components.1", 2, zero, np.zeros((1, 2), dtype=np.int64), 4096, (block,))
    return with_share(query, most, aggregate)


def equal_rows(n: int) -> UnitRows:
    return unit_rows(np.tile([[4096.0, 0.0]], (n, 1)), np.zeros(n), ["mine"] * n)


@pytest.mark.parametrize("statistic", ["count", "sum", "second", "square"])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_declared_cost_is_attained(aggregate, statistic):
    query = one_cell(aggregate, 4, statistic)
    rows = equal_rows(1000)
    none = summed(query, rows.at(np.zeros(0, dtype=np.intp)), 4, aggregate)
    assert price(query, none, summed(query, rows, 4, aggregate)) == query_cost(query)


@pytest.mark.parametrize("aggregate", ["rows", "weight"])
def test_a_unit_of_one_more_row_than_declared_is_noticed(aggregate):
    """The check has power: keeping five rows where four are paid for costs too much."""
    query = one_cell("rows", 4)
    none = summed(query, equal_rows(1).at(np.zeros(0, dtype=np.intp)), 4, "rows")
    assert price(query, none, summed(query, equal_rows(9), 5, "rows")) > query_cost(query)
    if aggregate == "weight":
        query = one_cell("weight", 4)
        kept = kept_of(equal_rows(9), 4)
        u, labels = kept.rows.astype(float), kept.labels.astype(np.int64)
        wrong = integers(accumulated(query, u, labels, kept=kept.kept.astype(np.int64) - 1))
        assert price(query, none, wrong) > query_cost(query)


@pytest.mark.parametrize(("rule", "soft"), KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_weighted_sums_are_those_of_the_reference(rule, soft, data):
    query = with_share(data.draw(queries(rule, soft)), 4, "weight")
    try:
        check_fits(query)
    except SpecError:
        assume(False)
    u, labels = data.draw(rows_for(query))
    kept = np.array([data.draw(st.integers(1, 300)) for _ in labels])
    cut = data.draw(st.integers(0, len(u)))
    want = reference(query, [[int(x) for x in row] for row in u], labels.tolist(), kept.tolist())
    assert integers(accumulated(query, u, labels, cut, kept=kept)) == want


def test_the_noise_of_a_plan_grows_with_the_rows_of_a_unit():
    from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
    from dpgmm_dist.pipeline.compile import compile_pass

    zero = np.zeros(1, dtype=np.int64)
    blocks = (BlockPlan("sum", zero, 0.01 / 16),)
    plan = PassPlan("moments.sum", zero, np.zeros((1, 3)), 1.0, blocks)
    one_row = compile_pass(plan, Latent(3), 2.0**-16)
    four_rows = compile_pass(plan, Latent(3), 2.0**-16, UnitShare(4))
    weighted = compile_pass(plan, Latent(3), 2.0**-16, UnitShare(weighted=True))
    assert math.isclose(four_rows.blocks[0].sigma, one_row.blocks[0].sigma)
    assert math.isclose(float(query_cost(four_rows)), 0.01)  # for the same noise, 16 times the rho
    assert query_cost(four_rows) == 16 * query_cost(one_row)
    assert math.isclose(float(query_cost(weighted)), 0.01 / 16)
    assert weighted.weight_unit >= 1 << 12


# ---------------------------------------------------------------- which rows are kept


def in_python(rows: np.ndarray, labels: np.ndarray, units: list[str], most: int) -> dict[str, Rows]:
    """The rows kept of each unit, as docs/privacy.md defines them, in Python integers."""
    factors = [int(f) for f in coefficients(KEY, rows.shape[1])]
    by_name: dict[str, list[tuple[int, bytes, tuple[int, ...], int]]] = {}
    for row, label, unit in zip(rows.astype(int).tolist(), labels.tolist(), units, strict=True):
        h = sum(f * v for f, v in zip(factors, [*row, label], strict=True)) % 2**64
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            h = (h ^ (h >> 33)) * factor % 2**64
        content = b"".join(v.to_bytes(4, "little", signed=True) for v in [*row, label])
        by_name.setdefault(unit, []).append((h ^ (h >> 33), content, tuple(row), label))
    return {
        unit: [(row, label) for _, _, row, label in sorted(rows_of)[:most]]
        for unit, rows_of in by_name.items()
    }


def by_unit(rows: UnitRows, units: list[str]) -> dict[str, Counter[Any]]:
    names = {object_digests([unit])[0].tobytes(): unit for unit in units}
    out: dict[str, Counter[Any]] = {}
    for row, label, digest in zip(
        rows.rows.tolist(), rows.labels.tolist(), rows.units, strict=True
    ):
        out.setdefault(names[digest.tobytes()], Counter())[(tuple(row), label)] += 1
    return out


@st.composite
def unit_data(draw: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows of few units, many of them equal."""
    n = draw(st.integers(1, 40))
    near = st.integers(-2, 2) | st.sampled_from([-FEATURE_RADIUS, 40_000])
    rows = shrink_to_radius(
        np.array([[draw(near), draw(near)] for _ in range(n)], dtype=np.float64), FEATURE_RADIUS
    )
    labels = np.array([draw(st.integers(0, 2)) for _ in range(n)])
    return rows, labels, [draw(st.sampled_from("abcd")) for _ in range(n)]


@settings(max_examples=100)
@given(unit_data(), st.integers(1, 5), st.randoms())
def test_the_rows_kept_are_the_least_by_content(data, most, random):
    rows, labels, units = data
    want = {unit: Counter(of) for unit, of in in_python(rows, labels, units, most).items()}
    order = list(range(len(units)))
    random.shuffle(order)
    for places in (list(range(len(units))), order):
        kept = smallest(unit_rows(rows[places], labels[places], [units[i] for i in places]), most)
        assert by_unit(kept, units) == want


def several_units() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Units of 1 to 60 rows, one after another, few of them unlike."""
    rng = np.random.default_rng(6)
    units = [*"a" * 9, "b", *"c" * 60, *"d" * 4, *"e" * 3]
    rows = rng.integers(-2, 3, (len(units), 2)).astype(np.float64)
    return rows, rng.integers(0, 3, len(units)), units


@pytest.mark.parametrize("most", [1, 3, 4, 60])
def test_each_of_several_units_keeps_its_least_rows(most):
    rows, labels, units = several_units()
    want = {unit: Counter(of) for unit, of in in_python(rows, labels, units, most).items()}
    whole = unit_rows(rows, labels, units)
    for order in (np.arange(len(units)), np.random.default_rng(most).permutation(len(units))):
        assert by_unit(smallest(whole.at(order), most), units) == want
        kept = kept_of(whole.at(order), most)
        assert counted(kept) == sum(want.values(), Counter())
        assert sorted(kept.kept.tolist()) == sorted(
            count.total() for count in want.values() for _ in range(count.total())
        )


@pytest.mark.parametrize("of_rows", [lambda u: u[:, 0] > 0, lambda u: 10 + 5 * u[:, 0] + u[:, 1]])
def test_rows_that_collide_in_several_units_are_distinguished(of_rows):
    """Ties of rows, or of labels alone; within a unit, and from the end of one to the next."""
    rows, labels, units = several_units()
    rng, whole = np.random.default_rng(2), unit_rows(rows, labels, units)
    hashes = of_rows(rows).astype(np.uint64)
    content = [np.array([*row, y], "<i4").tobytes() for row, y in zip(rows, labels, strict=True)]
    for most in range(1, 40, 3):
        want = {}
        for unit in "abcde":
            of_unit = [i for i, name in enumerate(units) if name == unit]
            of_unit.sort(key=lambda i: (hashes[i], content[i]))
            want[unit] = Counter((tuple(rows[i].tolist()), int(labels[i])) for i in of_unit[:most])
        for order in (np.arange(len(units)), rng.permutation(len(units))):
            assert by_unit(smallest(replace(whole, hashes=hashes).at(order), most), units) == want


def test_every_row_of_a_unit_is_in_one_bucket_of_those_there_are():
    units = object_digests([f"unit {i % 100}" for i in range(300)])[0]
    for count in (1, 2, 7):
        found = buckets_of(units, 12345, count)
        assert sorted(set(found.tolist())) == list(range(count))
        assert found[:100].tolist() == found[100:200].tolist() == found[200:].tolist()
        assert count == 1 or found.tolist() != buckets_of(units, 54321, count).tolist()


def test_units_without_rows_contribute_nothing():
    none = unit_rows(np.zeros((0, 2)), np.zeros(0), [])
    for made in (kept_of(none, 3), means_of(none, 3)):
        assert len(made.rows) == len(made.labels) == len(made.kept) == 0


@settings(max_examples=60)
@given(unit_data(), st.integers(1, 5), st.integers(0, 40))
def test_the_least_of_parts_are_the_least(data, most, cut):
    rows, labels, units = data
    whole = unit_rows(rows, labels, units)
    cut = min(cut, len(units))
    parts = [whole.at(np.arange(cut)), whole.at(np.arange(cut, len(units)))]
    again = smallest(UnitRows.joined([smallest(part, most) for part in parts]), most)
    assert by_unit(again, units) == by_unit(smallest(whole, most), units)


def test_rows_made_to_collide_are_distinguished():
    """With the key one can make hashes equal. Then the bytes decide, whatever the order."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-30_000, 30_000, (2000, 2)).astype(np.float64)
    unit = unit_rows(rows, np.zeros(2000), ["mine"] * 2000)
    same = replace(unit, hashes=np.full(2000, 7, dtype=np.uint64))
    want = sorted(np.array(row, "<i4").tobytes() + bytes(4) for row in rows.astype(int).tolist())[
        :5
    ]
    for order in (np.arange(2000), rng.permutation(2000)):
        kept = smallest(same.at(order), 5)
        got = [
            np.array([*row, label], "<i4").tobytes()
            for row, label in zip(kept.rows.tolist(), kept.labels.tolist(), strict=True)
        ]
        assert sorted(got) == want


@pytest.mark.parametrize("buffer", [1 << 30, 3000, 1])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_two_steps_keep_what_is_defined(aggregate, buffer, tmp_path):
    """Of rows that are finite, have a public label, and belong to a unit."""
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(90, 2)) * 0.3, rng.integers(0, 3, 90)
    units = [f"unit {i}" for i in rng.integers(0, 12, 90)]
    features = FeatureMap(2, 1.0)
    use = [i for i in range(90) if i % 9 and y[i] < 2 and i % 7]
    u = features.to_lattice(x[use])[0]
    of_unit = u, y[use], [units[i] for i in use]
    if aggregate == "mean":
        want = Counter({(*row, 1): n for row, n in means_in_python(*of_unit, 3).items()})
    else:
        kept = in_python(*of_unit, 3).values()
        want = Counter((row, label, len(rows)) for rows in kept for row, label in rows)
    x[::9, 1] = np.nan
    of = [None if i % 7 == 0 else unit for i, unit in enumerate(units)]
    source = ArraySource(x, y, (0, 1), 25, np.array(of, dtype=object))
    place, rule = Place(str(tmp_path), {}), UnitRule(3, aggregate, KEY, 99, 2)
    spread = Spread(source, features, 2, rule, place, buffer)
    assert sum(map(spread, source.plan())) >= len(source.plan())
    gather = Gather(spread_files(place), 2, rule, place, buffer)
    assert [gather(0), gather(1)] == [1, 1]
    got: Counter[Any] = Counter()
    read = KeptSource(place, 2, (0, 1), kept_files(place, 2))
    for unit in read.plan():
        for block in read.blocks(unit, 100):
            rows = zip(block.features.tolist(), block.labels, block.kept, strict=True)
            got.update((tuple(row), int(label), int(count)) for row, label, count in rows)
    assert got == want


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_any_partition_and_buffer_keeps_the_same_rows(aggregate, tmp_path):
    rng = np.random.default_rng(4)
    n = 3000
    x = rng.normal(size=(n, 3)) * 0.3
    x[::50] = np.nan
    y = rng.integers(0, 3, n)  # 2 is not a public label
    units = rng.integers(0, 200, n).astype(object)
    units[::31] = None
    units[::3] = 7  # one unit with a third of the rows
    results = []
    for trial, (chunk, buffer, buckets) in enumerate([(n, 1 << 30, 1), (170, 2000, 5), (31, 1, 8)]):
        order = rng.permutation(n) if trial else np.arange(n)
        source = ArraySource(x[order], y[order], (0, 1), chunk, units[order])
        folder = tmp_path / str(trial)
        folder.mkdir()
        place = Place(str(folder), {})
        rule = UnitRule(4, aggregate, KEY, 99 + trial, buckets)
        spread = Spread(source, FeatureMap(3, 1.0), 3, rule, place, buffer)
        for unit in source.plan():
            spread(unit)
            spread(unit)  # a task that runs again changes nothing
        gather = Gather(spread_files(place), 3, rule, place, buffer)
        for bucket in range(buckets):
            gather(bucket)
        kept = KeptSource(place, 3, (0, 1), kept_files(place, 3))
        rows: Counter[Any] = Counter()
        for unit in kept.plan():
            for block in kept.blocks(unit, 100):
                parts = zip(block.features.tolist(), block.labels, block.kept, strict=True)
                rows.update((tuple(row), int(label), int(count)) for row, label, count in parts)
        results.append(rows)
    assert results[0] == results[1] == results[2]
    assert sum(results[0].values()) <= 200 * (1 if aggregate == "mean" else 4)


# ---------------------------------------------------------------- means


def means_in_python(
    rows: np.ndarray, labels: np.ndarray, units: list[str], most: int
) -> Counter[Any]:
    """The mean of each unit's kept rows of its commonest label, from exact fractions."""
    want: Counter[Any] = Counter()
    for kept in in_python(rows, labels, units, most).values():
        counts = Counter(label for _, label in kept)
        commonest = min(counts, key=lambda label: (-counts[label], label))
        chosen = [row for row, label in kept if label == commonest]
        mean = [float(round(Fraction(sum(v), len(chosen)))) for v in zip(*chosen, strict=True)]
        short = shrink_to_radius(np.array([mean]), FEATURE_RADIUS)[0]
        want[(tuple(short.astype(int).tolist()), commonest)] += 1
    return want


def counted(made: KeptRows) -> Counter[Any]:
    """How often each row and label occurs."""
    pairs = zip(made.rows.tolist(), made.labels.tolist(), strict=True)
    return Counter((tuple(row), label) for row, label in pairs)


@pytest.mark.parametrize("most", [1, 3, 4, 60])
def test_each_of_several_units_has_one_mean(most):
    rows, labels, units = several_units()
    made = means_of(unit_rows(rows, labels, units), most)
    assert counted(made) == means_in_python(rows, labels, units, most)


@settings(max_examples=100)
@given(unit_data(), st.integers(1, 6))
def test_a_mean_is_one_row_in_the_ball(data, most):
    rows, labels, units = data
    made = means_of(unit_rows(rows, labels, units), most)
    assert counted(made) == means_in_python(rows, labels, units, most)
    assert ((made.rows.astype(object) ** 2).sum(axis=1) <= FEATURE_RADIUS**2).all()
    assert (made.kept == 1).all()
