"""What tasks say about themselves: it adds up, and a failure is told by the next task."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from dpgmm_dist.storage.rereading import read_on
from dpgmm_dist.usage import Usage, measured, peak_memory, take_retries


@pytest.fixture(autouse=True)
def _nothing_pending() -> None:
    take_retries()


def test_usage_adds_up_in_any_order():
    parts = [
        Usage(1, 0.5, 2, {"a:1": 10, "b:1": 5}),
        Usage(2, 0.25, 0, {"a:1": 7, "c:1": 9}, joined=1),
        Usage(4, 0.125, 1, {}, lost=2),
    ]
    first = parts[0].merge(parts[1]).merge(parts[2])
    other = parts[2].merge(parts[0].merge(parts[1]))
    assert first == other
    assert first == Usage(7, 0.875, 3, {"a:1": 10, "b:1": 5, "c:1": 9}, 1, 2)
    assert "10" not in repr(first)
    assert pickle.loads(pickle.dumps(first)) == first


def test_a_task_that_failed_is_counted_by_the_next():
    def fail():
        raise KeyError("row")

    for _ in range(2):
        with pytest.raises(KeyError):
            measured(fail)
    _, usage = measured(lambda: sum(range(100_000)))
    assert usage.retries == 2
    assert usage.processor_seconds > 0
    assert measured(lambda: None)[1].retries == 0


def test_reads_that_were_repeated_are_counted():
    left = [OSError(), OSError()]

    def begin():
        if left:
            raise left.pop()
        yield from (1, 2)

    result, usage = measured(lambda: list(read_on(begin, wait=lambda _: None)))
    assert (result, usage.retries) == ([1, 2], 2)


def test_the_peak_is_that_of_this_process():
    before = peak_memory()
    block = np.ones(60 << 17)  # 60 MiB
    assert peak_memory() >= min(before, block.nbytes)
    assert peak_memory() >= block.nbytes
