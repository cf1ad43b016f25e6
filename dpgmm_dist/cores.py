"""How many processors there are for this process."""

from __future__ import annotations

import os


def cores() -> int:
    """Processors that this process may use; not every system can say which it may."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
