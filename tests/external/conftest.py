"""Fixtures of the tests that need servers. Every test here is marked ``system_external``.

``object_store`` is an empty bucket, of each of the three emulators in turn. ``s3_store``,
``azure_store`` and ``gcs_store`` are an empty bucket of one emulator. A server starts once per
session, when the first test needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

# Set before gcsfs is imported, which otherwise asks Google for the kind of each bucket.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import pytest

from .emulators import EMULATORS, Emulator, NotInstalled, ObjectStore

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system_external)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Emulator]]:
    """Return the running emulator of a name; skip the test if it is not installed."""
    running: dict[str, Emulator] = {}
    with ExitStack() as stack:

        def get(name: str) -> Emulator:
            if name not in running:
                folder = tmp_path_factory.mktemp(name)
                try:
                    running[name] = stack.enter_context(EMULATORS[name](folder))
                except NotInstalled as reason:
                    pytest.skip(str(reason))
            return running[name]

        yield get


@pytest.fixture(params=list(EMULATORS))
def object_store(
    request: pytest.FixtureRequest, emulator: Callable[[str], Emulator]
) -> ObjectStore:
    """An empty bucket of each emulator in turn."""
    return emulator(request.param).bucket()


@pytest.fixture
def s3_store(emulator: Callable[[str], Emulator]) -> ObjectStore:
    """An empty S3 bucket."""
    return emulator("s3").bucket()


@pytest.fixture
def azure_store(emulator: Callable[[str], Emulator]) -> ObjectStore:
    """An empty Azure container."""
    return emulator("azure").bucket()


@pytest.fixture
def gcs_store(emulator: Callable[[str], Emulator]) -> ObjectStore:
    """An empty Google Cloud Storage bucket."""
    return emulator("gcs").bucket()
