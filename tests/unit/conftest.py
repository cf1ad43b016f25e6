"""Stores that the tests of ledgers, journals and storage write to."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from dpgmm_dist.storage.store import FsspecStore, open_store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FsspecStore:
    """An empty store of either kind."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def memory() -> FsspecStore:
    """An empty, fast store."""
    return open_store(f"memory://{uuid.uuid4().hex}")
