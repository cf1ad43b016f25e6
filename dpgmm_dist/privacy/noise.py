"""Sources of noise. Only the gate draws from them, on the driver, after the reduction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

Ints = npt.NDArray[np.int64]
NoiseName = Literal["auto", "discrete_gaussian", "gaussian"]


class NoiseSource(Protocol):
    """Integer noise with mean zero: its name, its accounting, and whether it is private."""

    @property
    def name(self) -> str:
        """The mechanism's name in specifications and receipts."""

    @property
    def accounting(self) -> Literal["zcdp", "gdp"]:
        """The currency in which its answers compose."""

    @property
    def private(self) -> bool:
        """Whether a release made with its draws is private."""

    def draw(self, sigma: float, size: int) -> Ints:
        """Draw ``size`` independent integers of scale ``sigma``, afresh in every call."""
        ...


@dataclass(frozen=True)
class DiscreteGaussian:
    """OpenDP's discrete Gaussian: exact, proven, with randomness of the operating system.

    An integer query with L2 sensitivity D costs ``D^2 / (2 sigma^2)`` zCDP (Canonne, Kamath and
    Steinke, "The Discrete Gaussian for Differential Privacy", 2020, theorem 4).
    """

    name: str = "discrete_gaussian"
    accounting: Literal["zcdp", "gdp"] = "zcdp"
    private: bool = True

    def draw(self, sigma: float, size: int) -> Ints:
        """Draw integers (size,) of scale sigma; about 16 microseconds each."""
        import opendp.prelude as dp

        dp.enable_features("contrib")
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
        mechanism = dp.m.make_gaussian(*space, scale=sigma)
        return np.asarray(mechanism(np.zeros(size, dtype=np.int64)), dtype=np.int64)


@dataclass
class InsecureTestNoise:
    """NOT PRIVATE: reproducible noise for tests. A release made with it says so."""

    seed: int
    name: str = "insecure_test_noise"
    accounting: Literal["zcdp", "gdp"] = "zcdp"
    private: bool = False
    _drawn: int = field(default=0, repr=False)

    def restart(self, step: str) -> None:
        """Begin the stream of one query, so that a resumed job draws the same noise."""
        digest = hashlib.sha256(f"{self.seed}/{step}".encode()).digest()
        self._drawn = int.from_bytes(digest[:16], "little")

    def draw(self, sigma: float, size: int) -> Ints:
        """Draw integers (size,): the same for the same seed, query and position."""
        self._drawn += 1
        rng = np.random.Generator(np.random.Philox(self._drawn % (1 << 128)))
        return np.rint(rng.standard_normal(size) * sigma).astype(np.int64)


def noise_source(name: NoiseName) -> NoiseSource:
    """Return the private noise source of a specification's ``privacy.noise``.

    "auto" is the rounded Gaussian: its answers compose exactly in Gaussian DP, so the same
    (epsilon, delta) needs less noise than the discrete Gaussian in zCDP (docs/noise.md).

    Raises
    ------
    SpecError
        If there is no noise of this name.
    """
    if name == "discrete_gaussian":
        return DiscreteGaussian()
    if name in ("auto", "gaussian"):
        return RoundedGaussian()
    raise SpecError(f"privacy.noise: there is no {name!r}; use auto, gaussian or discrete_gaussian")


def insecure_noise(name: NoiseName, seed: int) -> InsecureTestNoise:
    """Return test noise in place of :func:`noise_source`, accounted in the same currency."""
    return InsecureTestNoise(seed, accounting=noise_source(name).accounting)
