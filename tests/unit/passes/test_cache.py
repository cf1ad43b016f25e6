"""Rows kept between passes: the same rows as read, and never more than the cache has room for."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.data.blocks import PlanUnit
from dpgmm_dist.passes.cache import LatticeCache, default_cache_bytes
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.privacy.query import FEATURE_RADIUS

from ...queries import PROBLEMS, integers, real_queries, real_rows

UNITS = [PlanUnit(index, (), 0) for index in range(4)]
BYTES = 2 * (3 * 4 + 4)
"""Size of a block of two rows of three features."""


class Reader:
    """Blocks of one unit, counted each time they are read."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.read = 0

    def __iter__(self):
        self.read += 1
        buffer = np.empty_like(self.blocks[0])  # each block overwrites the previous one
        for block in self.blocks:
            buffer[:] = block
            yield buffer, np.array([0, -1]), None


def blocks_of(count):
    return [np.array([[i, FEATURE_RADIUS, -1.0], [0.0, -FEATURE_RADIUS, i]]) for i in range(count)]


def test_a_unit_is_read_once_and_comes_back_the_same():
    cache, reader = LatticeCache(10 * BYTES), Reader(blocks_of(3))
    for _ in range(3):
        rows = [(u.astype(float).tolist(), y.tolist()) for u, y, _ in cache.rows(UNITS[0], reader)]
        assert rows == [(block.tolist(), [0, -1]) for block in reader.blocks]
    assert reader.read == 1


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (BYTES - 1, 0), (2 * BYTES, 1), (5 * BYTES, 2)])
def test_units_that_do_not_fit_are_read_again_and_take_no_room(room, kept):
    cache = LatticeCache(room)
    readers = [Reader(blocks_of(2)), Reader(blocks_of(3)), Reader(blocks_of(4))]
    for _ in range(2):
        for unit, reader in zip(UNITS, readers, strict=False):
            rows = np.concatenate([u.copy() for u, *_ in cache.rows(unit, reader)])
            assert rows.tolist() == np.concatenate(reader.blocks).tolist()
    assert [reader.read for reader in readers].count(1) == kept


def test_a_unit_that_was_not_read_to_its_end_is_not_kept():
    cache, reader = LatticeCache(3 * BYTES), Reader(blocks_of(3))
    for _ in range(5):  # if room were lost each time, the last block would not fit
        broken = cache.rows(UNITS[0], reader)
        next(broken)
        broken.close()
    assert len(list(cache.rows(UNITS[0], reader))) == 3
    assert reader.read == 6
    assert len(list(cache.rows(UNITS[0], reader))) == 3
    assert reader.read == 6


def test_the_cache_shows_nothing():
    cache = LatticeCache(1 << 20)
    list(cache.rows(UNITS[0], Reader(blocks_of(2))))
    assert repr(cache) == "<LatticeCache>"


def test_the_default_is_some_memory_and_not_all():
    assert 1 << 20 < default_cache_bytes() < 1 << 45


@pytest.mark.parametrize("name", PROBLEMS)
def test_kept_rows_sum_alike(name):
    """The kernel reads rows in single precision through other code."""
    u, labels = real_rows(name, 3000)
    labels[::13] = -1
    for query in real_queries(name):
        sums = []
        for rows in (u, u.astype(np.float32)):
            kernel = Kernel(query)
            total = kernel.start()
            kernel.accumulate(total, rows, labels)
            sums.append(integers(total.finish()))
        assert sums[0] == sums[1]
