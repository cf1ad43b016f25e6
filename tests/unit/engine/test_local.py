"""The engine of threads: the same sums with any cache, and the first failure is reported."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import DataError
from dpgmm_dist.passes.run import PassContext, PassFailed, run_unit

from ...queries import integers, real_queries

QUERY = real_queries("staged")[0]


class Counted(ArraySource):
    """Rows in memory that count how often they are read."""

    def blocks(self, unit, max_rows):
        self.__dict__.setdefault("reads", []).append(unit)
        return super().blocks(unit, max_rows)


def source_of(rows=4000, kind=Counted):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, QUERY.width)) * 0.3
    x[::50] = np.nan
    return kind(x, rng.integers(0, 5, rows), labels=(0, 1, 2), chunk_rows=700)


def context_of(source):
    return PassContext(source, FeatureMap(QUERY.width, 1.0), QUERY)


@pytest.mark.parametrize("cache_bytes", [None, 0, 40_000])
def test_passes_are_the_same_whatever_is_kept(cache_bytes):
    source = source_of()
    units = source.plan()
    parts = [run_unit(context_of(source), unit) for unit in units]
    want = parts[0]
    for part in parts[1:]:
        want = want.merge(part)
    engine = LocalEngine(3, cache_bytes)
    for _ in range(3):
        fractions: list[float] = []
        total = engine.run(context_of(source), units, fractions.append)
        assert integers(total) == integers(want)
        assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_a_kept_source_is_read_once_and_another_anew():
    first, second = source_of(), source_of(3000)
    engine = LocalEngine(2)
    for source in (first, second):
        units = source.plan()
        for _ in range(3):
            engine.run(context_of(source), units, lambda _: None)
        once = len(source.__dict__["reads"])
        assert len(set(source.__dict__["reads"])) == once
    forgetful = LocalEngine(2, cache_bytes=0)
    source = source_of()
    for _ in range(2):
        forgetful.run(context_of(source), source.plan(), lambda _: None)
    assert len(source.__dict__["reads"]) == 2 * len(set(source.__dict__["reads"]))


def test_rows_changed_after_forgetting_are_seen():
    source = source_of()
    engine = LocalEngine(2)
    old = engine.run(context_of(source), source.plan(), lambda _: None)
    source.X[:] = 0.1
    assert integers(engine.run(context_of(source), source.plan(), lambda _: None)) == integers(old)
    engine.forget()
    new = engine.run(context_of(source), source.plan(), lambda _: None)
    want = LocalEngine(2, 0).run(context_of(source), source.plan(), lambda _: None)
    assert integers(new) == integers(want) != integers(old)


class Damaged(ArraySource):
    """One unit cannot be read."""

    def blocks(self, unit, max_rows):
        if unit.index == 1:
            raise DataError("cannot read b.parquet: it is damaged")
        return super().blocks(unit, max_rows)


class Broken(ArraySource):
    """One unit fails with an exception that quotes a value."""

    def blocks(self, unit, max_rows):
        if unit.index == 1:
            raise ValueError("could not convert 4711")
        return super().blocks(unit, max_rows)


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [(Damaged, DataError, "b.parquet"), (Broken, PassFailed, "unit 1 failed (ValueError)")],
)
def test_the_first_failure_is_reported_without_its_cause(kind, error, text):
    source = source_of(kind=kind)
    with pytest.raises(error) as caught:
        LocalEngine(2).run(context_of(source), source.plan(), lambda _: None)
    assert text in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_what_the_caller_raises_ends_the_pass():
    def interrupt(_):
        raise KeyboardInterrupt

    source = source_of()
    with pytest.raises(KeyboardInterrupt):
        LocalEngine(2).run(context_of(source), source.plan(), interrupt)
