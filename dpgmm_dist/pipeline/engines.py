"""The engine of a release that names none, and the rows that an engine keeps between passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dpgmm_dist.data.lazy import LazySource
from dpgmm_dist.data.source import AnySource
from dpgmm_dist.engine import engine_in_use
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.local import LocalEngine


def default_engine(rows: AnySource, threads: int | None) -> Engine:
    """Threads of this process; for Dask collections the current client, if there is one."""
    if isinstance(rows, LazySource) and (engine := engine_in_use()) is not None:
        return engine
    return LocalEngine(threads)


@contextmanager
def rows_forgotten(engine: Engine) -> Iterator[None]:
    """Drop the rows that an engine keeps between passes; they may change before the next run."""
    try:
        yield
    finally:
        if isinstance(engine, LocalEngine):  # no other engine keeps rows
            engine.forget()
