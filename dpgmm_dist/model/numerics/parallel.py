"""Independent pieces of post-processing on all cores; how many does not change the results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from threadpoolctl import threadpool_limits

from dpgmm_dist.cores import cores

T = TypeVar("T")
R = TypeVar("R")

_inside = threading.local()


def in_order(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[work(item) for item in items]`` on a thread for each core; numpy releases the lock.

    Each piece must be a function of its item alone. Pieces that call this again do so in their own
    thread, so that cores are never asked for more than once. They see the caller's context
    (numpy's error state is part of it). BLAS is held to one thread meanwhile: two in each piece
    wait for each other more than they work.
    """
    pieces = list(items)
    threads = min(len(pieces), cores())
    if threads < 2 or getattr(_inside, "piece", False):
        return [work(item) for item in pieces]

    def run_piece(item: T) -> R:
        _inside.piece = True
        return work(item)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        return [f.result() for f in [pool.submit(copy_context().run, run_piece, p) for p in pieces]]
