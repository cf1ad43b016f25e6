"""The membership game: from noisy answers guess which of two data sets they are about.

The guess is the data set of the larger likelihood, for Gaussian noise of the declared scale: no
other guess is right more often. If guesses are right too often, the claim is refuted.

With a mu-Gaussian-DP mechanism no guess is right with a chance of more than Phi(mu / 2), if both
data sets are asked about equally often (Dong, Roth and Su, arXiv 1905.02383, section 2). So a
lower bound on that chance is one on mu, and one on epsilon by the curve of that mu.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import special

from dpgmm_dist.privacy.accounting import epsilon_from_mu
from dpgmm_dist.privacy.query import PassQuery

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Entries of the answer to a query whose noise has one scale."""

    name: str
    sd: float
    """Declared standard deviation of the noise, in the units of the answer: whole rows."""


def parts_of(query: PassQuery) -> list[Part]:
    """The parts of a query, in the order of :func:`entries_of`."""
    unit, parts = float(query.weight_unit), []
    for block in query.blocks:
        if block.statistic != "second":
            parts.append(Part(block.statistic, block.sigma / unit))
            continue
        parts.append(Part("second, diagonal", block.sigma / unit))
        if query.dimension_of(block) > 1:
            parts.append(Part("second, off-diagonal", (block.sigma_off or 0.0) / unit))
    return parts


def entries_of(query: PassQuery, values: tuple[Floats, ...], answers: int = 1) -> list[Floats]:
    """The entries of answers, each measured once: (answers, entries) for each part."""
    entries = []
    for block, value in zip(query.blocks, values, strict=True):
        if block.statistic != "second":
            entries.append(value.reshape(answers, -1))
            continue
        p = query.dimension_of(block)
        entries.append(value[:, range(p), range(p)].reshape(answers, -1))
        if p > 1:
            rows, columns = np.triu_indices(p, 1)
            entries.append(value[:, rows, columns].reshape(answers, -1))
    return entries


@dataclass(frozen=True)
class Difference:
    """The change of one query by a neighbour, compared with the declared noise."""

    parts: list[Part]
    base: list[Floats]
    """The exact answer without the unit, (1, entries) for each part."""
    shift: list[Floats]
    """What the unit adds to it."""

    @property
    def square(self) -> float:
        """mu^2 of the query for these neighbours, if the noise is as declared."""
        pairs = zip(self.parts, self.shift, strict=True)
        return float(sum(((shift / part.sd) ** 2).sum() for part, shift in pairs))

    def log_ratio(self, entries: list[Floats]) -> Floats:
        """Log likelihood of each answer with the unit, less that without it, (answers,)."""
        total = np.full(len(entries[0]), -self.square / 2)
        for part, base, shift, noisy in zip(
            self.parts, self.base, self.shift, entries, strict=True
        ):
            total += (noisy - base) @ (shift[0] / part.sd**2)
        return total


def difference_of(query: PassQuery, base: list[Floats], other: list[Floats]) -> Difference:
    """What the second exact answer has beyond the first."""
    shift = [other_entry - base_entry for base_entry, other_entry in zip(base, other, strict=True)]
    return Difference(parts_of(query), base, shift)


@dataclass(frozen=True)
class Bound:
    """A lower bound on the privacy loss of a mechanism, from guesses about its answers."""

    right: int
    guesses: int
    mu: float
    """Lower bound on mu (Gaussian DP) at the confidence asked for; 0 if the guesses show
    nothing."""
    epsilon: float
    """The same as epsilon at the delta of the claim."""

    @classmethod
    def of(cls, right: int, guesses: int, delta: float, confidence: float) -> Bound:
        """From the number of right guesses, half of them about each data set (Clopper-Pearson)."""
        chance = special.betaincinv(right, guesses - right + 1, 1 - confidence) if right else 0.0
        mu = max(0.0, 2.0 * float(special.ndtri(chance)))
        return cls(right, guesses, mu, epsilon_from_mu(mu, delta) if mu else 0.0)


def guesses_needed(mu: float, power: float, confidence: float) -> int:
    """Draws per data set for which the bound is about the share ``power`` of the true mu."""
    density = float(np.exp(-(mu**2) / 8) / np.sqrt(2 * np.pi))
    deviation = float(special.ndtri(confidence)) + 1.0  # so that five of six audits reach it
    guesses = (deviation / (density * (1 - power) * mu)) ** 2
    return int(np.ceil(guesses / 2))


@dataclass
class NoiseStatistics:
    """The noise in many answers compared with the declared noise, of one part of one query."""

    entries: int = 0
    squares: float = 0.0
    neighbours: float = 0.0
    """Sum of products of consecutive noise: about 0 where draws are independent."""
    pairs: int = 0
    _before: Floats | None = field(default=None, repr=False)

    def add(self, noise: Floats) -> None:
        """Count the noise of answers (answers, entries), in units of its declared scale.

        Noise is compared with that before it, and with that at the same place of the last call.
        """
        self.entries += noise.size
        self.squares += float((noise**2).sum())
        compared = [(noise[1:], noise[:-1])]
        if self._before is not None:
            rows = min(len(noise), len(self._before))
            compared.append((noise[:rows], self._before[:rows]))
        for later, earlier in compared:
            self.neighbours += float((later * earlier).sum())
            self.pairs += later.size
        self._before = noise

    @property
    def scale(self) -> float:
        """The scale of the noise, 1 as declared."""
        return float(np.sqrt(self.squares / max(self.entries, 1)))

    def highest(self, level: float) -> float:
        """Upper bound on the scale, wrong with a chance of ``level``."""
        chance = special.gammaincinv(self.entries / 2, level)
        return float(np.sqrt(self.squares / (2 * chance)))

    def repeats(self, level: float) -> bool:
        """Whether consecutive answers are more alike than chance allows."""
        if not self.pairs:
            return False
        return bool(self.neighbours / np.sqrt(self.pairs) > -special.ndtri(level))
