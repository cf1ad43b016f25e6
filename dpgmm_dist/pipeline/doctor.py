"""Checks of an installation, a store and a cluster, each with what to do if it fails."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from dpgmm_dist.cores import cores
from dpgmm_dist.engine import open_engine
from dpgmm_dist.errors import ClusterError, DpgmmError
from dpgmm_dist.storage.create_only import probe
from dpgmm_dist.storage.store import open_store
from dpgmm_dist.storage.urls import safe_url
from dpgmm_dist.version import __version__

_NAME = re.compile(r"^[A-Za-z0-9_.-]+")
_LEAST = re.compile(r">=\s*([0-9.]+)")


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    ok: bool
    found: str
    """What was found or, if the check failed, what to do."""
    exit_code: int = 0
    """Exit code of the command, if the check failed."""


def installation() -> Iterator[Finding]:
    """Python, this package, and the versions of what it depends on."""
    yield Finding("python", True, f"{platform.python_version()} on {platform.machine()}")
    yield Finding("dpgmm-dist", True, __version__)
    for requirement in _requirements():
        yield _installed(requirement)
    yield Finding("cores", True, str(cores()))


def store(url: str, storage_options: Mapping[str, Any] | None = None) -> Finding:
    """Whether a store can be written and read, and refuses to create a name twice.

    A small object is created and, where that is allowed, removed.
    """

    def check() -> str:
        probe(open_store(url, storage_options))
        return "can be written and read, and creates a name only once"

    return _tried(f"store {safe_url(url)}", check)


def cluster(workers: int | None, scheduler: str | None, scheduler_file: str | None) -> Finding:
    """Whether workers answer, and have the version of this process."""

    def check() -> str:
        with open_engine(workers, scheduler, scheduler_file) as engine:
            answers = set(engine.gather(_worker_version, range(4)))
            kinds = ", ".join(_kind(*limit) for limit in engine.limits())
        if answers != {__version__}:
            raise ClusterError(
                f"its workers run {', '.join(sorted(answers))}, and this is {__version__}: install "
                "one version on all"
            )
        return f"answers, runs the same version, and has workers with {kinds}"

    return _tried("cluster", check)


def _kind(memory: int, threads: int) -> str:
    size = f"{memory / 2**30:.3g} GiB" if memory else "memory of an unknown size"
    return f"{size} and {threads} thread" + ("s" if threads != 1 else "")


def _worker_version(_: int) -> str:
    return __version__


def _tried(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except DpgmmError as error:
        return Finding(name, False, str(error), error.exit_code)


def _requirements() -> list[str]:
    try:
        listed = metadata.requires("dpgmm-dist") or []
    except metadata.PackageNotFoundError:
        return []
    return [line for line in listed if "extra ==" not in line]


def _installed(requirement: str) -> Finding:
    """Whether a requirement such as ``numpy>=2.2`` is met."""
    match = _NAME.match(requirement)
    name = match[0] if match else requirement
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, f"is not installed: pip install '{requirement}'", 1)
    least = _LEAST.search(requirement)
    if least and _parts(version) < _parts(least[1]):
        return Finding(name, False, f"is {version}: pip install '{requirement}'", 1)
    return Finding(name, True, version)


def _parts(version: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
