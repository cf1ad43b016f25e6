"""Retrying a read after a temporary failure: throttling, a lost connection, a truncated read.

Items that were already yielded are skipped, so none is yielded twice. After the pass, and before
noise is drawn for it, `ParquetSource.unchanged` checks that the file is still the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from dpgmm_dist.usage import count_retry

T = TypeVar("T")

ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.5
_FINAL = (FileNotFoundError, PermissionError, MemoryError)
"""Failures that a retry does not fix."""


def read_on(
    begin: Callable[[], Iterator[T]],
    attempts: int = ATTEMPTS,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """Yield the items of ``begin()``; after an exception, begin again and skip those yielded.

    ``begin`` must give the same items in the same order each time. After ``attempts`` failures in a
    row, the last exception is raised unchanged.
    """
    yielded = failures = 0
    while True:
        try:
            for item in islice(begin(), yielded, None):
                failures = 0
                yielded += 1
                yield item
            return
        except _FINAL:
            raise
        except Exception:
            failures += 1
            if failures >= attempts:
                raise
        count_retry()
        wait(_FIRST_WAIT_SECONDS * 2 ** (failures - 1))
