"""How many components are fitted, what an excess of them is, and what a release takes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model import schedule
from dpgmm_dist.model.affordable import affordable, padded, sizes
from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.pass_plan import Latent
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import fit
from dpgmm_dist.pipeline.checks import require_release_fits
from dpgmm_dist.pipeline.plan import _Imagined
from dpgmm_dist.privacy.query import UnitShare

from ...variants import variant


def fitted(labels: list[int], p: int = 2) -> Fitted:
    """A mixture with a component for each of the labels listed."""
    rng = np.random.default_rng(0)
    count = len(labels)
    half = rng.standard_normal((count, p, p))
    mixture = Mixture(
        weights=np.arange(1.0, count + 1) / (count * (count + 1) / 2),
        means=rng.standard_normal((count, p)),
        covariances=half @ half.transpose(0, 2, 1) + 0.1 * np.eye(p),
        labels=np.array(labels),
        label_values=tuple(range(max(labels) + 1)) if max(labels) else (),
    )
    errors = StandardErrors(0.01 * mixture.weights, mixture.means**2, mixture.covariances**2)
    return Fitted(mixture, errors, Latent(p), 0.0, 100.0)


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1, 1], [0, 0, 0, 1, 2, 2]])
@pytest.mark.parametrize("wanted", [3, 4, 10])
def test_an_excess_divides_components_and_changes_no_density(
    labels: list[int], wanted: int
) -> None:
    count = max(labels) + 1
    problem = Problem(2, 1.0, 1.0, tuple(range(count)) if count > 1 else (), components=wanted)
    before = fitted(labels)
    after = padded(problem, before)
    assert np.bincount(after.mixture.label_index).tolist() == [wanted] * count
    x = np.random.default_rng(1).standard_normal((200, 2)) * 3
    assert np.allclose(after.mixture.log_prob(x), before.mixture.log_prob(x), rtol=0, atol=1e-9)
    assert np.allclose(after.mixture.label_weights, before.mixture.label_weights)
    assert after.errors.weights.shape == after.mixture.weights.shape
    assert after.errors.covariances.shape == after.mixture.covariances.shape


def test_the_largest_are_divided() -> None:
    after = padded(Problem(2, 1.0, 1.0, components=5), fitted([0, 0]))  # weights 1/3 and 2/3
    assert sorted(np.round(after.mixture.weights * 18).astype(int).tolist()) == [3, 3, 4, 4, 4]
    assert after.notes["components_told_apart"] == [2]


@pytest.mark.parametrize("wanted", ["auto", (1, 3), 2])
def test_nothing_is_divided_where_none_are_missing(wanted: Any) -> None:
    before = fitted([0, 0])
    assert padded(Problem(2, 1.0, 1.0, components=wanted), before) is before


@pytest.mark.parametrize("labels", [(), (0, 1)])
@pytest.mark.parametrize("d", [2, 10, 18])
def test_fewer_are_fitted_the_more_noise_there_is(labels: tuple[int, ...], d: int) -> None:
    counts = []
    for rows in (20, 1e3, 1e4, 1e5, 1e6, 1e12):
        found = affordable(Problem(d, 1.0, 0.1, labels, components=10), rows)
        counts.append(0 if found is None else found.components)
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 10)
    auto = [affordable(Problem(d, 1.0, 0.1, labels, components="auto"), n) for n in (20, 1e12)]
    assert auto[0] is None
    assert auto[1] is not None
    assert auto[1].components == tuple(range(1, 17))


def test_candidates_are_cut_to_what_is_affordable() -> None:
    problem = Problem(6, 1.0, 0.1, components=(1, 4, 1000))
    found = affordable(problem, 3e4)
    assert found is not None
    *few, most = found.components
    assert most < 1000
    assert set(few) <= {1, 4}


# ---------------------------------------------------------------- what a release takes


def statistic_sizes(query: Any) -> int:
    """Numbers in the exact sums of a query."""
    total = 0
    for block in query.blocks:
        p = query.dimension_of(block)
        of_group = {"count": 1, "square": 1, "sum": p, "second": p * (p + 1) // 2}[block.statistic]
        total += block.group_count * of_group
    return total


def check_sizes(problem: Problem, rows: int) -> None:
    step = FeatureMap(problem.width, problem.norm).step
    imagined = _Imagined(problem, rows, UnitShare())
    imagined.use(problem, step, None, "input units")
    with np.errstate(all="ignore"):
        released = fit(problem, imagined.ask)
    size = sizes(problem)
    for query in imagined.queries:
        assert statistic_sizes(query) <= size.statistics, query.step
        assert sum(linear.matrix.size for linear in query.maps) <= size.maps, query.step
    mixture = released.mixture
    if isinstance(mixture.form, SharedCovariances):
        form = mixture.form
        assert form.axes.size + form.blocks.size + mixture.means.size <= size.shared
    else:
        assert mixture.covariances.size + mixture.means.size <= size.full


STAGED = [
    Problem(1, 1.0, 0.01),
    Problem(40, 1.0, 1e-3, components=3),
    Problem(3, 1.0, 0.01, tuple(range(50))),
    Problem(30, 1.0, 0.01, (0, 1, 2), components="auto"),
    Problem(64, 1.0, 0.01, (0, 1), components=4, covariance="tied"),
    Problem(20, 1.0, 0.01, tuple(range(9)), components=2, dimension=5),
]


@pytest.mark.parametrize("rows", [1, 3000])
@pytest.mark.parametrize("problem", STAGED, ids=str)
def test_sizes_bound_what_stages_sum_and_release(problem: Problem, rows: int) -> None:
    if affordable(problem, max(rows, 20)) is not None:
        problem = replace(problem, rho=1e-9)  # noise that leaves nothing to a joint fit
    check_sizes(problem, rows)


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("problem", "rows"),
    [
        slow(Problem(2, 1.0, 0.1, components="auto"), 10_000),
        variant(Problem(2, 1.0, 0.1, components=(1, 2)), 10_000),
        slow(Problem(2, 1.0, 0.1, (0, 1), components=(1, 2)), 10_000),
        (Problem(18, 1.0, 1.0, components=2), 10_000),
        slow(Problem(6, 1.0, 1.0, (0, 1), components=2, dimension=2, covariance="diag"), 10_000),
        (Problem(26, 1.0, 0.001, (0, 1), components=1), 3000),
        (Problem(26, 1.0, 0.5, (0, 1, 2), components="auto"), 30_000),
    ],
    ids=str,
)
def test_sizes_bound_what_joint_fits_sum_and_release(problem: Problem, rows: int) -> None:
    assert affordable(problem, rows) is not None
    check_sizes(problem, rows)


WIDE = Problem(4096, 1.0, 1.0, tuple(range(1000)))


@pytest.mark.parametrize(
    "problem",
    [
        WIDE,
        replace(WIDE, components=10),
        replace(WIDE, dimension=2000),
        replace(WIDE, width=512),
        Problem(784, 1.0, 1.0, tuple(range(100)), components=10),
        Problem(4096, 1.0, 1.0),
        Problem(4096, 1.0, 1.0, components=1000),
    ],
    ids=lambda problem: f"{problem.width}-{problem.labels}-{problem.components}",
)
def test_covariances_that_share_their_axes_fit_the_driver(problem: Problem) -> None:
    assert schedule.shares_axes(problem) or problem.labels * problem.asked_components == 1
    require_release_fits(problem)


def test_a_release_that_the_driver_cannot_hold_is_refused_with_what_to_change() -> None:
    wide = replace(WIDE, covariance="diag")
    with pytest.raises(SpecError, match=r"4,096 features, 1,000 label.* model\.dimension to") as at:
        require_release_fits(wide)
    text = str(at.value)
    most = int(text.split("model.dimension to ")[1].split(" ")[0].replace(",", ""))
    require_release_fits(replace(wide, dimension=most))
    with pytest.raises(SpecError):
        require_release_fits(replace(wide, dimension=most + 1))
    # Kinds that have no axes to share are said to take more than others would.
    assert "model.covariance to auto" in text
    require_release_fits(replace(wide, covariance="auto"))
    with pytest.raises(SpecError, match="project the rows to fewer features"):
        require_release_fits(replace(WIDE, width=16384))
    with pytest.raises(SpecError, match=r"fewer dataset\.labels"):
        require_release_fits(replace(WIDE, label_values=tuple(range(30_000))))


def test_small_releases_have_a_matrix_for_each_component() -> None:
    """2^27 bytes of triangles: 32 labels of 1,023 features; kinds without axes at any size."""
    small = Problem(1023, 1.0, 1.0, tuple(range(32)), components="auto")
    assert not schedule.shares_axes(small)
    assert schedule.shares_axes(replace(small, width=1024))
    assert schedule.shares_axes(replace(small, components=2))
    assert not schedule.shares_axes(replace(small, components=2, dimension=700))
    assert not schedule.shares_axes(replace(small, width=1024, covariance="spherical"))


@settings(max_examples=200)
@given(
    d=st.integers(1, 5000),
    labels=st.integers(1, 2000),
    components=st.sampled_from([1, 10, 500, "auto", (1, 3)]),
)
def test_joint_fits_never_take_more_than_memory_affords(
    d: int, labels: int, components: Any
) -> None:
    problem = Problem(d, 1.0, 1.0, tuple(range(labels)) if labels > 1 else (), components)
    size = sizes(problem)
    triangle = d * (d + 1) // 2
    cells = 64 * labels * (1 + d + 136)  # second moments of cells in 16 directions at the most
    # The second moments of one pass, the sums of its cells, or the moment that all share.
    assert size.statistics <= max(10_000_000, triangle, 1 << 22) + 10_000_000 + 20 * cells
