"""The budget of the stages: never more than there is, never so little that it cannot be drawn."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.schedule import CENTRE_SHARE, allocate, fit, most_axes
from dpgmm_dist.model.stages.centre import measure
from dpgmm_dist.model.strategy import joint_schedule, schedule

from .stages.asking import ask_of, rows

PROBLEMS = st.builds(
    lambda d, rho, labels, covariance, components, assignment: Problem(
        d, 1.0, rho, tuple(range(labels)) if labels > 1 else (), components, covariance, assignment
    ),
    st.integers(1, 5000),
    st.floats(1e-9, 1e6),
    st.integers(1, 100) | st.just(10_000),
    st.sampled_from(["auto", "full", "diag", "spherical", "tied"]),
    st.sampled_from([1, 10, "auto", (1, 3)]),
    st.sampled_from(["soft", "hard"]),
)


@given(PROBLEMS, st.floats(20, 1e13), st.booleans(), st.randoms(use_true_random=False))
def test_stages_share_no_more_than_the_budget(
    problem: Problem, count: float, counted: bool, random: Random
) -> None:
    counts = [random.uniform(3.0, count) for _ in range(problem.labels)] if counted else None
    found = allocate(problem, count, None if counts is None else np.array(counts))
    second = found.second
    look = second.square + second.pooled
    parts = [found.means, found.pooled, look, second.sums, second.seconds]
    assert all(part >= 0 for part in parts)
    assert CENTRE_SHARE * problem.rho + sum(parts) <= problem.rho * (1 + 1e-12)
    assert sum(parts) >= 0.9 * problem.rho
    # Noise that cannot be drawn would refuse a release after its charge.
    assert found.pooled >= 2e-4 * problem.rho
    assert look >= 1.5e-4 * problem.rho
    assert second.sums >= 5e-4 * problem.rho
    if problem.labels > 1:
        assert found.means >= 0.1 * problem.rho
    assert 0 <= second.axes <= most_axes(problem) <= problem.width
    assert (second.axes > 0) == (second.seconds > 0)


@given(PROBLEMS)
def test_a_joint_fit_shares_the_whole_budget(problem: Problem) -> None:
    assert sum(schedule(problem).values()) == pytest.approx(1)
    assert sum(joint_schedule(problem).values()) == pytest.approx(1 - CENTRE_SHARE)
    assert ("moments.sum" in schedule(problem)) == (problem.labels > 1)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("rho", [1e-6, 0.01, 10.0])
def test_what_is_asked_costs_no_more_than_the_budget(labels: int, rho: float) -> None:
    X, y = rows(2000, labels, 6)
    costs: list[float] = []
    problem = Problem(6, 1.0, rho, tuple(range(labels)) if labels > 1 else ())
    ask = ask_of(X, y, costs=costs)
    fit(problem, ask, measure(problem, ask, CENTRE_SHARE * rho))
    assert 0.99 * rho < sum(costs) <= rho * (1 + 1e-12)


def test_the_fewer_rows_a_label_has_the_more_goes_to_its_mean() -> None:
    problem = Problem(100, 1.0, 0.1, tuple(range(10)))
    shares = [allocate(problem, count).means for count in (1e2, 1e3, 1e4)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 1.5 * shares[-1]


def test_labels_of_unequal_size_take_from_the_covariance_for_their_means() -> None:
    problem, rows = Problem(100, 1.0, 0.1, tuple(range(10))), 1e4
    public = allocate(problem, rows)
    equal = allocate(problem, rows, np.full(10, 1e3))
    assert equal == public
    unequal = allocate(problem, rows, rows / 2.0 ** np.arange(1, 11))
    assert unequal.means == public.means  # spent when the counts are known
    assert unequal.pooled < 0.9 * public.pooled
    assert unequal.second.sums > 1.2 * public.second.sums


def test_labels_that_hardly_have_rows_leave_the_covariance_most_of_its_budget() -> None:
    problem, rows = Problem(100, 1.0, 0.1, tuple(range(10))), 1e6
    public = allocate(problem, rows)
    found = allocate(problem, rows, np.array([1e5] * 5 + [3.0] * 5))
    assert 0.6 * public.pooled < found.pooled < public.pooled
