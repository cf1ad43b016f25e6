"""Tests that repeat another test on another kind of job, layout or fault: `make test-variants`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import Any

import pytest

variant = partial(pytest.param, marks=pytest.mark.variant)
"""A case that `make test` leaves to `make test-variants`."""


def mostly_variants(cases: Iterable[Hashable], *kept: Hashable) -> list[Any]:
    """All cases, of which `make test` runs those that are kept."""
    found = list(cases)
    missing = [case for case in kept if case not in found]
    assert not missing, missing
    return [case if case in kept else variant(case) for case in found]
