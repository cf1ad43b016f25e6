"""The memory plan grows with the sums of a pass and not with rows; refusals state the sizes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dpgmm_dist.data.blocks import PlanUnit, RowRange
from dpgmm_dist.engine.memory import memory_plan, require_memory, tasks_per_thread
from dpgmm_dist.errors import ClusterError
from dpgmm_dist.model.affordable import sizes
from dpgmm_dist.model.fitting.merging import MOST_TIMES
from dpgmm_dist.model.problem import Problem


@dataclass
class Workers:
    """An engine that has only limits."""

    sizes: list[tuple[int, int]]

    def limits(self) -> list[tuple[int, int]]:
        return self.sizes


def units(count: int, size: int = 128 << 20) -> list[PlanUnit]:
    return [PlanUnit(i, (RowRange(i, i + 1),), size) for i in range(count)]


def problem(width: int, components: int = 10) -> Problem:
    return Problem(width=width, norm=1.0, rho=0.1, components=components)


def test_it_does_not_grow_with_the_rows() -> None:
    few, many = (memory_plan(problem(64), units(count)) for count in (10, 10_000))
    assert few.worker(1) == many.worker(1)
    assert few.driver == many.driver


def test_few_tasks_are_handed_out_ahead_where_their_results_are_large() -> None:
    small, large = (memory_plan(problem(d), units(1000)) for d in (64, 4096))
    assert small.statistic < 32 << 20 < large.statistic
    assert (small.results(1), large.results(1)) == (12, 8)
    assert (small.results(2), large.results(2)) == (20, 12)
    assert (tasks_per_thread(small.statistic), tasks_per_thread(large.statistic)) == (4, 2)
    # There are no more results than tasks.
    assert memory_plan(problem(64), units(1)).results(1) == 1


@pytest.mark.parametrize(("d", "labels"), [(4096, 1000), (512, 1000), (784, 100)])
def test_many_labels_in_many_dimensions_fit_workers_and_drivers_of_four_gigabytes(
    d: int, labels: int
) -> None:
    wide = Problem(d, 1.0, 0.1, tuple(range(labels)), components="auto")
    plan = memory_plan(wide, units(1000))
    assert plan.worker(1) < 4_000_000_000
    assert plan.driver < 4_000_000_000
    # At the least the sums, and the second moment that all labels share with its axes.
    assert plan.worker(1) > 2 * 16 * sizes(wide).statistics
    assert plan.driver > 16 * sizes(wide).statistics + 3 * 8 * d * d


def test_the_sums_grow_with_components_and_squared_dimension() -> None:
    small, wide = (memory_plan(problem(d), units(1)).statistic for d in (100, 1000))
    assert 60 < wide / small < 100
    few, many = (memory_plan(problem(400, k), units(1)).statistic for k in (10, 40))
    assert 3 < many / few < 4


def test_components_that_memory_does_not_afford_are_not_measured() -> None:
    """Beyond ten million numbers of second moments, more components take no more memory."""
    many, more = (memory_plan(problem(1000, k), units(1)) for k in (100, 1000))
    assert many == more
    assert many.statistic < 16 * 11_000_000


def test_the_statistic_is_the_size_of_the_real_one() -> None:
    """An upper bound of the right order on the counts, sums and second moments of all cells."""
    plan = memory_plan(problem(50, 8), units(1))
    sought = MOST_TIMES * 8  # more at first than are released
    exact = 16 * sought * (1 + 50 + 50 * 51 // 2)
    assert exact <= plan.statistic < 2 * exact


@pytest.mark.parametrize("limit", [0, 8 << 30])
def test_enough_or_unknown_memory_passes(limit: int) -> None:
    require_memory(Workers([(limit, 1)]), memory_plan(problem(64), units(1)))  # type: ignore[arg-type]


def test_too_little_is_refused_with_the_sizes_of_the_smallest_worker() -> None:
    plan = memory_plan(problem(2048), units(1))
    with pytest.raises(ClusterError) as caught:
        require_memory(Workers([(64 << 30, 1), (1 << 30, 2)]), plan)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "1.00 GiB of memory for 2 thread(s)" in text
    assert f"{plan.worker(2) / 2**30:.2f} GiB" in text
    assert "model.dimension" in text
