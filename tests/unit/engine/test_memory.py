"""The memory plan grows with the sums of a pass and not with rows; refusals state the sizes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dpgmm_dist.data.blocks import PlanUnit, RowRange
from dpgmm_dist.engine.memory import memory_plan, require_memory
from dpgmm_dist.errors import ClusterError
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
    assert memory_plan(problem(64), units(10)) == memory_plan(problem(64), units(10_000))


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
    exact = 16 * 8 * (1 + 50 + 50 * 51 // 2)
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
