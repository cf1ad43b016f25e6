"""Reading on after a store's passing trouble: throttling, a broken connection, a truncated read.

What was already handed on is skipped, not handed on twice. Whether the file is still the same is
checked once the pass is over and before anything is drawn for it (`ParquetSource.unchanged`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.5
_FINAL = (FileNotFoundError, PermissionError, MemoryError)
"""Trouble that waiting does not mend."""


def read_on(
    begin: Callable[[], Iterator[T]],
    attempts: int = ATTEMPTS,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """Items of ``begin()``; after an exception it is begun again, without those already given.

    ``begin`` must give the same items each time. The last exception is raised as it is.
    """
    given = failed = 0
    while True:
        try:
            for item in islice(begin(), given, None):
                failed = 0
                given += 1
                yield item
            return
        except _FINAL:
            raise
        except Exception:
            failed += 1
            if failed >= attempts:
                raise
        wait(_FIRST_WAIT_SECONDS * 2 ** (failed - 1))
