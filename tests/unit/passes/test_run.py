"""A pass over plan units: the same sums with and without a cache, and failures without values."""

from __future__ import annotations

import logging
import pickle
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from dpgmm_dist.data.blocks import PlanUnit, RawBlock, RowRange
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.errors import DataError
from dpgmm_dist.passes.cache import LatticeCache
from dpgmm_dist.passes.run import PassContext, PassFailed, PassRun, products_are_exact, run_unit
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.query import PassQuery

from ...queries import accumulated, integers, real_queries

SECRET = 123.456789
FEATURES = FeatureMap(4, 1.0)


def queries() -> tuple[PassQuery, ...]:
    """All that a release of two components a label asks."""
    return real_queries("labelled")


def rows(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, 4)).astype(np.float32) * 0.4
    x[::50, 2] = np.nan
    x[7] = np.inf
    return x, rng.integers(3, 8, n)  # labels 3 and 7 are not in the set


X, Y = rows()
SOURCE = ArraySource(X, Y, (4, 5, 6), chunk_rows=700)


def expected(query: PassQuery) -> list[list[int]]:
    u, valid = FEATURES.to_lattice(X)
    known = (Y >= 4) & (Y <= 6)
    return integers(accumulated(query, u, np.where(valid & known, Y - 4, -1)))


def total(parts: list[ExactStatistic]) -> list[list[int]]:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return integers(whole)


def test_units_sum_to_what_the_kernel_makes_of_all_rows():
    units = SOURCE.plan()
    assert len(units) == 5
    for query in queries():
        context = PassContext(SOURCE, FEATURES, query)
        assert total([run_unit(context, unit) for unit in units]) == expected(query)
        together = PassRun(context)
        for unit in reversed(units):
            together.add(unit)
        assert integers(together.finish()) == expected(query)


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_labels_that_the_query_does_not_know_count_for_nothing(room):
    wider = ArraySource(X, Y, (4, 5, 6, 7, 3), chunk_rows=700)
    cache = LatticeCache(room)
    for query in queries():
        run = PassRun(PassContext(wider, FEATURES, query), cache)
        for unit in wider.plan():
            run.add(unit)
        assert integers(run.finish()) == expected(query)


@pytest.mark.parametrize("room", [0, 20_000, 1 << 30])
def test_kept_rows_are_the_rows(room):
    """A cache of no, some or all units, over the queries of one release and again."""
    cache = LatticeCache(room)
    for query in queries() * 2:
        run = PassRun(PassContext(SOURCE, FEATURES, query), cache)
        for unit in SOURCE.plan():
            run.add(unit)
        assert integers(run.finish()) == expected(query)


def test_products_are_tried_once_and_exact_here():
    products_are_exact.cache_clear()
    assert products_are_exact()
    run_unit(PassContext(SOURCE, FEATURES, queries()[0]), SOURCE.plan()[0])
    assert products_are_exact.cache_info().misses == 1


def test_a_machine_whose_products_are_rounded_is_refused(monkeypatch):
    """A BLAS may compute in float32, or round before it adds."""
    real = np.ndarray.astype

    class Short(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, **options):
            plain = [np.asarray(value) for value in inputs]
            if ufunc is np.matmul:
                plain = [real(value, np.float32) for value in plain]
            return getattr(ufunc, method)(*plain, **options)

    class Drawn:
        def integers(self, *arguments):
            return np.random.Generator(np.random.PCG64(0)).integers(*arguments).view(Short)

    monkeypatch.setattr(np.random, "default_rng", lambda _: Drawn())
    products_are_exact.cache_clear()
    try:
        with pytest.raises(PassFailed, match=r"BLAS of a worker .* not multiply integers"):
            PassRun(PassContext(SOURCE, FEATURES, queries()[0]))
    finally:
        products_are_exact.cache_clear()


@dataclass(frozen=True)
class CountedSource:
    """Passes rows on, counts how often each unit is read, and raises ``error`` in a given block."""

    inner: ArraySource
    read: list[int]
    error: BaseException | None = None
    after: int = 10**9
    width: int = 6

    def blocks(self, unit: PlanUnit, max_rows: int) -> Iterator[RawBlock]:
        self.read.append(unit.index)
        for index, block in enumerate(self.inner.blocks(unit, min(max_rows, 100))):
            if index >= self.after and self.error is not None:
                raise self.error
            yield block


def test_a_unit_that_failed_half_way_is_not_kept():
    """Otherwise the next pass would take the part that was read for the whole unit."""
    units = SOURCE.plan()
    cache = LatticeCache(1 << 30)
    broken = CountedSource(SOURCE, [], DataError("gone"), after=3)
    with pytest.raises(DataError):
        PassRun(PassContext(broken, FEATURES, queries()[0]), cache).add(units[0])
    stopping = PassRun(PassContext(SOURCE, FEATURES, queries()[0]), cache)
    calls = iter([False, False, True])
    small = replace(CountedSource(SOURCE, []), after=0)
    with pytest.raises(PassFailed):
        PassRun(PassContext(small, FEATURES, queries()[0]), cache).add(
            units[1], lambda: next(calls)
        )
    for unit in units:
        stopping.add(unit)
    assert integers(stopping.finish()) == expected(queries()[0])


def test_threads_may_share_a_cache():
    cache = LatticeCache(40_000)
    for query in queries()[:2]:
        runs = [PassRun(PassContext(SOURCE, FEATURES, query), cache) for _ in range(5)]
        threads = [
            threading.Thread(target=run.add, args=(unit,))
            for run, unit in zip(runs, SOURCE.plan(), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert total([run.finish() for run in runs]) == expected(query)


# ---------------------------------------------------------------- failures


def failing(error: BaseException) -> PassContext:
    return PassContext(CountedSource(SOURCE, [], error, after=2), FEATURES, queries()[0])


def everything_said(error: BaseException) -> str:
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error.__dict__)
    return shown + repr(error.__cause__) + repr(error.__context__)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError(f"bad value {SECRET}"), PassFailed, "unit 0 failed (ValueError)"),
        (KeyError(SECRET), PassFailed, "unit 0 failed (KeyError)"),
        (MemoryError(f"for {SECRET}"), PassFailed, "ran out of memory in unit 0"),
        (DataError("cannot read part-1.parquet"), DataError, "cannot read part-1.parquet"),
    ],
)
def test_a_failure_carries_a_code_and_no_cause(error, kind, message):
    try:
        raise ZeroDivisionError(f"{SECRET}")
    except ZeroDivisionError as cause:
        error.__cause__ = cause
    with pytest.raises(kind) as caught:
        run_unit(failing(error), SOURCE.plan()[0])
    assert message in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert str(SECRET) not in everything_said(caught.value)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert str(sent) == str(caught.value)
    assert sent.exit_code == caught.value.exit_code


def test_a_query_that_does_not_fit_fails_before_any_row_is_read():
    source = CountedSource(SOURCE, [])
    context = PassContext(source, FEATURES, replace(queries()[0], radius=0))
    with pytest.raises(PassFailed, match="the query failed"):
        run_unit(context, SOURCE.plan()[0])
    assert source.read == []


def test_what_tasks_are_given_shows_nothing():
    """Dask logs the arguments of a failed task, in full or shortened."""
    context = PassContext(SOURCE, FEATURES, queries()[0])
    texts = [repr(context), str(context), f"{context}", repr(SOURCE), repr(SOURCE.plan()[0])]
    block = next(iter(SOURCE.blocks(PlanUnit(0, (RowRange(0, 5),), 0), 5)))
    texts += [repr(block), str([block]), repr(LatticeCache(1 << 20)), repr(queries()[0])]
    for text in texts:
        assert len(text) < 60
        assert "array" not in text
    assert repr(context) == "PassContext()"


def test_a_context_travels_whole():
    context = pickle.loads(pickle.dumps(PassContext(SOURCE, FEATURES, queries()[1])))
    parts = [run_unit(context, unit) for unit in SOURCE.plan()]
    assert total(parts) == expected(queries()[1])


def test_rows_raise_no_warning_and_no_log_line(caplog):
    """For any values: a warning about a value would say something about a row."""
    wild = np.array([1e300, -1e300, np.inf, np.nan, 5e-324, 0.0] * 40).reshape(-1, 4)
    wild.view(np.uint64)[::7, 0] = 0x7FF4000000000001  # signalling NaN
    with np.errstate(all="ignore"):
        narrow = wild.astype(np.float32)
    for x in (wild, narrow, np.full((9, 4), 255, np.uint8)):
        source = ArraySource(x, np.arange(len(x)) % 3, (0, 1, 2))
        with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
            warnings.simplefilter("error")
            for query in queries():
                run_unit(
                    PassContext(source, FeatureMap(4, 1.0, (0.1,) * 4), query), source.plan()[0]
                )
    assert not caplog.records
