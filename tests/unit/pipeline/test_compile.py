"""Plans to integer queries and answers back: asked in real coordinates, answered in the same."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.pipeline.compile import MAP_RADIUS, UNIT_BITS, compile_pass, observe
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.query import FEATURE_RADIUS, PassQuery, UnitShare
from dpgmm_dist.privacy.sensitivity import block_cost, check_fits, query_cost

from ...queries import accumulated, reference, shares

NORM = 2.0
STEP = FeatureMap(3, NORM).step
RNG = np.random.default_rng(11)
BASIS = np.linalg.qr(RNG.normal(size=(3, 2)))[0]
LATENTS = {
    "features": Latent(3),
    "moved": Latent(3, None, np.array([0.1, -0.2, 0.05])),
    "projected": Latent(3, BASIS, np.array([0.1, -0.2, 0.05])),
}


class Silence:
    """Noise that adds nothing, so that an answer can be compared with the truth."""

    name, accounting, private = "silence", "zcdp", False

    def draw(self, sigma: float, size: int) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)


def spd(p: int, seed: int) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(p, p))
    return a @ a.T + p * np.eye(p)


def plan_for(latent: Latent, kind: str, radius: float | None = None) -> PassPlan:
    """Three cells of two labels, all statistics, in the coordinates that ``kind`` names."""
    p = latent.dimension
    label = np.array([0, 0, 1])
    centres = np.array([[0.1] * p, [-0.2] * p, [0.05] * p])
    cells = np.arange(3)
    blocks = (
        BlockPlan("count", cells, 0.01),
        BlockPlan("sum", label, 0.02),
        BlockPlan("second", np.zeros(3, dtype=np.int64), 0.03),
    )
    plan = PassPlan("components.1", label, centres, radius or 1.0, blocks)
    if kind == "plain":
        return replace(
            plan, cell_label=cells, blocks=tuple(replace(block, groups=cells) for block in blocks)
        )
    whiten = tuple(spd(p, seed) for seed in (1, 2))
    plan = replace(plan, whiten=whiten, cell_map=np.array([0, 1, 1]), radius=radius or 6.0)
    if kind == "nearest":
        return replace(plan, rule="nearest", metric=whiten[0])
    offsets = np.array([0.0, 1.5, -2.0])
    return replace(plan, rule="full", soft=kind == "soft", offsets=offsets)


def real_rows(n: int, latent: Latent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows as lattice integers, the same in latent coordinates, and labels."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=(n, 3)) * 0.1
    u, _ = FeatureMap(3, NORM).to_lattice(z)
    return u, latent.to_latent(u * STEP), rng.integers(0, 2, n)


def cell_coordinates(plan: PassPlan, y: np.ndarray, cell: int) -> np.ndarray:
    w = y - plan.centres[cell]
    return w if plan.cell_map is None else w @ plan.whiten[plan.cell_map[cell]].T


def real_shares(plan: PassPlan, y: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Responsibilities (n, C) in floating point, by the plan's own words."""
    cells = len(plan.cell_label)
    distance = np.stack([(cell_coordinates(plan, y, k) ** 2).sum(1) for k in range(cells)], axis=1)
    if plan.rule == "nearest":
        apart = (y[:, None] - plan.centres) @ plan.metric.T
        distance = (apart**2).sum(2)
    distance = distance + (0 if plan.offsets is None else plan.offsets)
    distance = np.where(plan.cell_label[None] == label[:, None], distance, np.inf)
    if not plan.soft:
        return np.eye(cells)[distance.argmin(1)]
    weight = np.exp(-0.5 * (distance - distance.min(1, keepdims=True)))
    return weight / weight.sum(1, keepdims=True)


KINDS = ["plain", "nearest", "hard", "soft"]
# Without maps rows are seen in all of feature space.
CASES = [
    (kind, name) for kind in KINDS for name in LATENTS if (kind, name) != ("plain", "projected")
]


@pytest.mark.parametrize(("kind", "latent"), CASES)
def test_a_plan_is_answered_in_its_own_coordinates(kind, latent):
    """Ask without noise: moments of rows clipped to the radius, to the lattice's grain."""
    space = LATENTS[latent]
    plan = plan_for(space, kind, radius=0.25 if kind == "plain" else None)
    u, y, labels = real_rows(400, space)
    if kind == "plain":
        labels = labels + 1  # label 0 never occurs
    query = compile_pass(plan, space, STEP)
    noisy = measure(accumulated(query, u, labels), query, Silence())
    answer = observe(query, noisy, space, STEP)
    share = real_shares(plan, y, labels)
    grain = 3e-3 if kind != "plain" else 3 * STEP
    for block in answer.blocks:
        want = np.zeros(block.values.shape)
        for cell in range(3):
            w = cell_coordinates(plan, y, cell)
            length = np.linalg.norm(w, axis=1)
            w = w * np.minimum(1, plan.radius / length)[:, None]
            r = share[:, cell]
            part = {"count": r.sum(), "sum": r @ w, "second": (w.T * r) @ w}[block.statistic]
            want[block.groups[cell]] += part
        scale = {"count": 1.0, "sum": plan.radius, "second": plan.radius**2}[block.statistic]
        # Rows nearly as close to one centre as to another may fall on either side.
        rows = 400 * (5e-3 if kind == "soft" else 1e-9)
        tolerance = (400 * grain if block.statistic != "count" else 0) * max(
            scale, 1
        ) + rows * scale
        assert np.abs(block.values - want).max() <= tolerance + 1e-9, block.statistic
    assert answer.radius == plan.radius
    assert answer.rho == pytest.approx(plan.rho, rel=1e-9)


@pytest.mark.parametrize(("kind", "latent"), CASES)
def test_cells_are_where_they_were_asked_to_within_a_lattice_step(kind, latent):
    space = LATENTS[latent]
    plan = plan_for(space, kind)
    query = compile_pass(plan, space, STEP)
    answer = observe(
        query,
        measure(accumulated(query, np.zeros((0, 3)), np.zeros(0, int)), query, Silence()),
        space,
        STEP,
    )
    asked = plan.centres if plan.cell_map is not None else space.to_features(plan.centres)
    assert np.abs(answer.centres - asked).max() <= STEP
    if plan.cell_map is not None:
        for cell, index in enumerate(plan.cell_map):
            eye = answer.unwhiten[cell] @ plan.whiten[index]
            assert np.abs(eye - np.eye(len(eye))).max() < 1e-6
    else:
        assert (answer.unwhiten == np.eye(3)).all()


@pytest.mark.parametrize(("kind", "latent"), CASES)
def test_noise_is_told_in_the_answers_units(kind, latent):
    """sigma / unit, to the statistic's power: a draw of one sigma moves the answer by ``sigma``."""
    space = LATENTS[latent]
    plan = plan_for(space, kind)
    query = compile_pass(plan, space, STEP)

    class OneSigma(Silence):
        def draw(self, sigma: float, size: int) -> np.ndarray:
            return np.full(size, round(sigma))

    empty = accumulated(query, np.zeros((0, 3)), np.zeros(0, dtype=np.int64))
    loud = observe(query, measure(empty, query, OneSigma()), space, STEP)
    for block, asked in zip(loud.blocks, query.blocks, strict=True):
        moved = np.array(block.values)
        if block.statistic == "second":
            moved = moved[:, range(query.dimension), range(query.dimension)]
        assert moved == pytest.approx(np.full(moved.shape, block.sigma), rel=1 / asked.sigma)


@pytest.mark.parametrize(("kind", "latent"), CASES)
def test_a_query_costs_what_the_plan_allows_and_hardly_less(kind, latent):
    plan = plan_for(LATENTS[latent], kind)
    query = compile_pass(plan, LATENTS[latent], STEP)
    check_fits(query)
    allowed = sum(Fraction(block.rho) for block in plan.blocks)
    assert allowed * (1 - Fraction(1, 10**9)) < query_cost(query) <= allowed


def test_the_clipping_radius_is_never_smaller_than_planned():
    plan = plan_for(Latent(3), "plain")
    for radius in (0.1, 0.123456, 1.0, NORM):
        query = compile_pass(replace(plan, radius=radius), Latent(3), STEP)
        assert radius <= query.radius * STEP < radius + STEP
    mapped = compile_pass(plan_for(Latent(3), "soft", radius=5.5), Latent(3), STEP)
    assert mapped.radius == MAP_RADIUS


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_may_have_a_radius_and_axes_of_their_own(kind):
    """In the plan's units, rounded up to the lattice, and at the rho that the plan says."""
    plan = plan_for(Latent(3), kind)
    cells = np.arange(3)
    narrower = (
        BlockPlan("square", cells, 0.01),
        BlockPlan("square", cells, 0.02, radius=plan.radius / 3, axes=(1, 3)),
        BlockPlan("sum", cells, 0.03, radius=plan.radius * 1.3),
    )
    plan = replace(plan, blocks=(*plan.blocks, *narrower))
    query = compile_pass(plan, Latent(3), STEP)
    unit = STEP if kind == "plain" else plan.radius / MAP_RADIUS
    for planned, block in zip(plan.blocks, query.blocks, strict=True):
        radius = planned.radius or plan.radius
        assert radius * (1 - 1e-12) <= query.radius_of(block) * unit < radius + unit
        assert block.axes == planned.axes
        assert 0.999 * planned.rho < block_cost(query, block) <= planned.rho
    u, y, labels = real_rows(400, Latent(3))
    answer = observe(
        query, measure(accumulated(query, u, labels), query, Silence()), Latent(3), STEP
    )
    share = real_shares(plan, y, labels)
    for planned, block in zip(narrower[:2], answer.blocks[3:5], strict=True):
        radius = planned.radius or plan.radius
        for cell in cells:
            seen = cell_coordinates(plan, y, cell)[:, slice(*(planned.axes or (0, 3)))]
            want = share[:, cell] @ np.minimum((seen**2).sum(axis=1), radius**2)
            assert block.values[cell] == pytest.approx(want, rel=0.02, abs=0.02 * radius**2)


def test_weights_are_as_fine_as_the_radii_of_blocks_allow():
    """128 rows at the radius fill float64: not a bit less for a block without one of its own."""
    zero = np.zeros(1, dtype=np.int64)
    plan = PassPlan("moments.sum", zero, np.zeros((1, 3)), 1.0, (BlockPlan("sum", zero, 0.01),))
    unit = UnitShare(weighted=True)
    assert compile_pass(plan, Latent(3), 2.0**-16, unit).unit_bits == 53 - 7 - 2 * 16
    larger = replace(plan, blocks=(*plan.blocks, BlockPlan("square", zero, 0.01, radius=2.0)))
    assert compile_pass(larger, Latent(3), 2.0**-16, unit).unit_bits == 53 - 7 - 2 * 17
    smaller = replace(plan, blocks=(BlockPlan("sum", zero, 0.01, radius=0.5),))
    assert compile_pass(smaller, Latent(3), 2.0**-16, unit).unit_bits == 53 - 7 - 2 * 15


@settings(max_examples=60)
@given(st.lists(st.floats(-0.4, 0.4), min_size=3, max_size=3), st.integers(0, 1))
def test_soft_shares_are_the_posterior_on_their_grid(row, label):
    plan = plan_for(Latent(3), "soft")
    query = compile_pass(plan, Latent(3), STEP)
    u, _ = FeatureMap(3, NORM).to_lattice(np.array([row]))
    found = shares(query, [int(v) for v in u[0]], label)
    want = real_shares(plan, u * STEP, np.array([label]))[0]
    for cell in range(3):
        share = found.get(cell, 0) / (1 << UNIT_BITS)
        # The grid, the table's spacing, and coordinates rounded to 1/4096 of the radius.
        assert share <= want[cell] + 0.02
        assert share >= want[cell] - 0.02
    assert sum(found.values()) <= 1 << UNIT_BITS


def test_tables_fall_from_the_top_to_nothing():
    for radius in (2.0, 5.5, 13.3, 40.0):
        query = compile_pass(plan_for(Latent(3), "soft", radius), Latent(3), STEP)
        table = query.table
        assert table[0] == 1 << 20
        assert table[-1] == 0
        assert (np.diff(table) <= 0).all()
        # The excess at which it is zero is some 14 nats: 28 standard deviations squared.
        end = int(np.flatnonzero(table == 0)[0]) << query.table_shift
        assert end / (MAP_RADIUS / radius) ** 2 == pytest.approx(28, rel=0.05)


def test_weights_and_volumes_of_components_reach_the_integers():
    """-2 log weight - 2 log |det whiten|: only differences count, so the least is zero."""
    plan = plan_for(Latent(3), "soft", radius=6.0)
    query = compile_pass(plan, Latent(3), STEP)
    unit = (MAP_RADIUS / 6.0) ** 2
    assert query.offsets.min() == 0
    assert np.diff(query.offsets) / unit == pytest.approx(np.diff(plan.offsets), rel=1e-3)
    moved = compile_pass(replace(plan, offsets=plan.offsets + 1e6), Latent(3), STEP)
    assert np.abs(moved.offsets - query.offsets).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_query_and_the_compiled_one_answer_alike(kind):
    space = LATENTS["moved"]
    query = compile_pass(plan_for(space, kind), space, STEP)
    stored = PassQuery.from_bytes(query.to_bytes())
    u, _, labels = real_rows(30, space)
    rows = [[int(v) for v in row] for row in u]
    assert reference(stored, rows, labels.tolist()) == reference(query, rows, labels.tolist())
    assert stored.notes == query.notes


def test_centres_that_noise_has_thrown_far_are_asked_for_within_the_bound():
    """A release must not fail, and so tell something, because a noisy centre came out far away."""
    for kind in KINDS:
        plan = plan_for(Latent(3), kind)
        far = replace(plan, centres=plan.centres * 1e12)
        query = compile_pass(far, Latent(3), STEP)
        length = np.sqrt((query.centres.astype(float) ** 2).sum(1))
        assert length == pytest.approx(np.full(3, FEATURE_RADIUS), abs=2)
        near = plan.centres / np.linalg.norm(plan.centres, axis=1)[:, None]
        assert query.centres / FEATURE_RADIUS == pytest.approx(near, abs=1e-4)


def test_what_cannot_be_exact_is_refused_with_its_sizes():
    wide = replace(plan_for(Latent(3), "plain"), radius=1e9)
    with pytest.raises(SpecError, match="does not fit exact arithmetic: the radius"):
        compile_pass(wide, Latent(3), STEP)


@settings(max_examples=40)
@given(
    st.floats(-6, 6), st.floats(-6, 6), st.sampled_from([1e-100, 1e-6, 1.0, 1e6, 1e100]), st.data()
)
def test_maps_of_any_scale_fit(a, b, norm, data):
    """From standard deviations of a millionth of the bound to a million times it."""
    features = FeatureMap(3, norm)
    whiten = np.diag([10.0**a, 10.0**b, 1.0]) / norm
    cells = np.zeros(1, dtype=np.int64)
    plan = PassPlan(
        "components.1",
        cells,
        np.full((1, 3), 0.3 * norm),
        4.0,
        (BlockPlan("second", cells, 0.1),),
        whiten=(whiten,),
        cell_map=cells,
    )
    query = compile_pass(plan, Latent(3), features.step)
    row = np.array(data.draw(st.tuples(*[st.floats(-0.5, 0.5)] * 3))) * norm
    u, _ = features.to_lattice(row[None])
    noisy = measure(accumulated(query, u, cells), query, Silence())
    w = whiten @ (u[0] * features.step - np.rint(plan.centres[0] / features.step) * features.step)
    length = np.linalg.norm(w)
    w = w * min(1, 4.0 / max(length, 1e-300))
    got = observe(query, noisy, Latent(3), features.step).block("second").values[0]
    # Far rows saturate coordinate by coordinate before they are clipped, and lose their direction.
    if length * MAP_RADIUS / 4.0 < FEATURE_RADIUS * 256:
        assert np.abs(got - np.outer(w, w)).max() < 16 * 4 / MAP_RADIUS * 4
