"""One pass over plan units: read rows, put them on the lattice, run the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_info

from dpgmm_dist.data.blocks import PlanUnit, Source
from dpgmm_dist.data.lattice import RowMap
from dpgmm_dist.errors import DataError, DpgmmError
from dpgmm_dist.passes.cache import Lattice, LatticeCache
from dpgmm_dist.passes.kernel import Accumulator, Kernel
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.query import EXACT, PassQuery
from dpgmm_dist.privacy.sensitivity import check_fits
from dpgmm_dist.version import __version__

T = TypeVar("T")

_BLOCK_BYTES = 8 << 20
"""Bytes of lattice rows (float32) in a block: little memory, and it fits the cache."""
_MOST_BLOCK_BYTES = 32 << 20
"""The same limit where rows are wide or there are many cells."""
_ROWS_PER_CELL = 1024
"""Rows per cell that a block should have: one second moment costs as much as some hundred rows."""


class PassFailed(DpgmmError):
    """A plan unit failed. It carries a code and no cause, which could quote private values."""

    exit_code = 5


@dataclass(frozen=True, eq=False, repr=False)
class PassContext:
    """What every task of a pass needs. Its repr shows nothing, because Dask logs arguments."""

    source: Source
    features: RowMap
    query: PassQuery
    version: str = __version__
    """Of the driver: a worker of another version could sum up other integers."""

    def __repr__(self) -> str:
        return "PassContext()"


class PassRun:
    """One pass over plan units, one after the other: one kernel, its buffers and its sums.

    Each thread has its own run. ``cache`` may be shared.

    Raises
    ------
    DataError
        If the input cannot be read. Without a cause.
    PassFailed
        If anything else fails. Without a cause.
    """

    def __init__(self, context: PassContext, cache: LatticeCache | None = None) -> None:
        self._context = context
        self._cache = cache
        _require_exact_products()
        self._kernel, self._total = guarded("the query", lambda: _prepared(context.query))
        self._buffer = _block_buffer(context.query)

    def add(self, unit: PlanUnit, stopped: Callable[[], bool] = lambda: False) -> None:
        """Add the rows of a plan unit; raises PassFailed as soon as ``stopped`` returns True."""
        guarded(f"unit {unit.index}", lambda: self._add(unit, stopped))

    def finish(self) -> ExactStatistic:
        """The exact sums over all units added."""
        # Arrow's buffers are released after the last unit only. Releasing them after each unit
        # would cost half as much time as reading does.
        pa.default_memory_pool().release_unused()
        return self._total.finish()

    def _add(self, unit: PlanUnit, stopped: Callable[[], bool]) -> None:
        blocks: Iterable[Lattice] = self._read(unit)
        if self._cache is not None:
            blocks = self._cache.rows(unit, blocks)
        known = int(self._context.query.cell_label[-1])
        for u, labels, kept in blocks:
            if stopped():
                raise PassFailed("stopped")
            # Whether the pass fails must not depend on a label that the query does not know.
            known_labels = np.where(labels <= known, labels, -1)
            self._kernel.accumulate(self._total, u, known_labels, kept)

    def _read(self, unit: PlanUnit) -> Iterator[Lattice]:
        """Yield blocks of rows on the lattice; each block overwrites the previous one."""
        for block in self._context.source.blocks(unit, len(self._buffer)):
            out = self._buffer[: block.rows]
            u, valid = self._context.features.to_lattice(block.features, block.valid, out)
            yield u, np.where(valid, block.labels, -1), block.kept


def run_unit(context: PassContext, unit: PlanUnit) -> ExactStatistic:
    """Return the exact sums over one plan unit (see :class:`PassRun`)."""
    run = PassRun(context)
    run.add(unit)
    return run.finish()


def _prepared(query: PassQuery) -> tuple[Kernel, Accumulator]:
    check_fits(query)
    kernel = Kernel(query)
    return kernel, kernel.start()


def _block_buffer(query: PassQuery) -> npt.NDArray[np.float32]:
    row = 4 * query.width
    wanted = row * _ROWS_PER_CELL * len(query.cell_label)
    rows = max(_BLOCK_BYTES, min(wanted, _MOST_BLOCK_BYTES)) // row
    return np.empty((max(1024, min(rows, 1 << 16)), query.width), dtype=np.float32)


def _require_exact_products() -> None:
    """Refuse a machine whose BLAS rounds products of integers: sums would not be exact."""
    if not products_are_exact():
        names = {str(pool.get("internal_api")) for pool in threadpool_info()} or {"unknown"}
        raise PassFailed(
            f"the BLAS of a worker ({', '.join(sorted(names))}) does not multiply integers below "
            "2**53 exactly, so its sums cannot be trusted: install numpy with another BLAS there, "
            "or remove that machine from the cluster"
        )


@cache
def products_are_exact() -> bool:
    """Whether GEMM and SYRK of integers are exact up to 2**53; tried once per process."""
    terms = 61
    largest = math.isqrt(EXACT // terms)
    values = np.random.default_rng(0).integers(largest - (1 << 16), largest, (terms, 83))
    first, second = values[:, :45], values[:, 40:]
    a, b = first.astype(np.float64), second.astype(np.float64)
    gemm, syrk = a.T @ b, a.T @ a
    exact = bool((gemm == first.T @ second).all() and (syrk == first.T @ first).all())
    return exact and bool((np.ones(terms) @ a == first.sum(axis=0)).all())


def guarded(what: str, work: Callable[[], T]) -> T:
    """Return the result of ``work``; exceptions become codes, because they could quote rows."""
    try:
        return work()
    except DataError as error:
        failure: DpgmmError = DataError(str(error))
    except MemoryError:
        failure = PassFailed(
            f"a worker ran out of memory in {what}: give workers more memory or fewer threads"
        )
    except Exception as error:
        failure = PassFailed(f"{what} failed ({type(error).__name__})")
    raise failure from None
