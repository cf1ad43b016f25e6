"""Stores that fail on purpose, and charges, for the tests of the budget."""

from __future__ import annotations

from collections.abc import Callable

from dpgmm_dist.budget.records import Charge
from dpgmm_dist.errors import DataError
from dpgmm_dist.storage.store import Store

DIGEST = "d" * 64
SPEC = {"model": {"components": 3}, "privacy": {"epsilon": 1.0, "delta": 1e-6}}


def charge(
    release_id: str = "week-1",
    epsilon: float = 1.0,
    delta: float = 1e-6,
    *,
    gaussian: bool = False,
    digest: str = DIGEST,
) -> Charge:
    return Charge.of_release(release_id, digest, epsilon, delta, gaussian=gaussian)


def in_rho(rho: float, release_id: str = "r") -> Charge:
    return Charge(release_id, DIGEST, rho, None, 1.0, 1e-6)


def in_mu(mu: float, release_id: str = "r") -> Charge:
    from dpgmm_dist.budget.records import rho_of_mu

    return Charge(release_id, DIGEST, rho_of_mu(mu), mu, 1.0, 1e-6)


class Killed(BaseException):
    """Stands for kill -9: nothing in the library may catch it."""


class WrappedStore:
    """Passes everything on; the base of the stores below."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    def create(self, name: str, data: bytes) -> None:
        self.inner.create(name, data)

    def read(self, name: str) -> bytes:
        return self.inner.read(name)

    def list(self, prefix: str) -> list[str]:
        return self.inner.list(prefix)

    def exists(self, name: str) -> bool:
        return self.inner.exists(name)


class FaultyStore(WrappedStore):
    """Fails at operation number ``at`` (from 0), in one of the ways of `FAULTS`."""

    def __init__(self, inner: Store, at: int, fault: str) -> None:
        super().__init__(inner)
        self.at, self.fault, self.count = at, fault, 0

    @property
    def fired(self) -> bool:
        return self.count > self.at

    def _run(self, operation: Callable[[], object], writes: bool = False) -> object:
        now = self.count == self.at
        self.count += 1
        if now and self.fault == "killed before":
            raise Killed
        if now and self.fault == "error before":
            raise DataError("the network is gone")
        result = operation()
        if now and self.fault == "killed after":
            raise Killed
        if now and self.fault == "acknowledgement lost" and writes:
            raise DataError("the network is gone")
        return result

    def create(self, name: str, data: bytes) -> None:
        self._run(lambda: self.inner.create(name, data), writes=True)

    def read(self, name: str) -> bytes:
        return self._run(lambda: self.inner.read(name))  # type: ignore[return-value]

    def list(self, prefix: str) -> list[str]:
        return self._run(lambda: self.inner.list(prefix))  # type: ignore[return-value]

    def exists(self, name: str) -> bool:
        return self._run(lambda: self.inner.exists(name))  # type: ignore[return-value]


FAULTS = ("killed before", "killed after", "error before", "acknowledgement lost")


class InterruptedStore(WrappedStore):
    """Lets somebody else act just before a create whose name contains ``what``, so often."""

    def __init__(self, inner: Store, what: str, act: Callable[[], object], times: int = 1) -> None:
        super().__init__(inner)
        self.what, self.act, self.times = what, act, times

    def create(self, name: str, data: bytes) -> None:
        if self.what in name and self.times > 0 and not self.inner.exists(name):
            self.times -= 1
            self.act()
        self.inner.create(name, data)
