"""How a specification names a snapshot of a table."""

from __future__ import annotations

import re
from datetime import datetime

from dpgmm_dist.windows import instant

Snapshot = int | str
"""A version or id, the name of a tag or branch, or a time in ISO 8601."""
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


def time_of(snapshot: Snapshot | None) -> datetime | None:
    """Return the time that a snapshot is given by; None for a version or a tag."""
    is_time = isinstance(snapshot, str) and _TIME.fullmatch(snapshot)
    return instant(str(snapshot)) if is_time else None
