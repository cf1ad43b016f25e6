"""Charges, and stores that fail on purpose, for the tests of the budget."""

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
    """Simulates kill -9: nothing in the library may catch it."""


class WrappedStore:
    """Passes every operation on. The base of the stores below."""

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
    """Fails at operation number ``at``, from 0, with one of the `FAULTS`."""

    def __init__(self, inner: Store, at: int, fault: str) -> None:
        super().__init__(inner)
        self.at, self.fault, self.count = at, fault, 0

    @property
    def fired(self) -> bool:
        return self.count > self.at

    def _run(self, operation: Callable[[], object], writes: bool = False) -> object:
        fault = self.fault if self.count == self.at else None
        self.count += 1
        if fault == "killed before":
            raise Killed
        if fault == "error before":
            raise DataError("the network is gone")
        result = operation()
        if fault == "killed after":
            raise Killed
        if fault == "acknowledgement lost" and writes:
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
    """Calls ``act`` before each of the first ``times`` creates whose name contains ``part``."""

    def __init__(self, inner: Store, part: str, act: Callable[[], object], times: int = 1) -> None:
        super().__init__(inner)
        self.part, self.act, self.times = part, act, times

    def create(self, name: str, data: bytes) -> None:
        if self.part in name and self.times > 0 and not self.inner.exists(name):
            self.times -= 1
            self.act()
        self.inner.create(name, data)
