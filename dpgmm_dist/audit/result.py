"""The results of an audit, as a table and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from dpgmm_dist.artifact.receipt import Accounting, epsilon_of
from dpgmm_dist.audit.game import Bound, NoiseStatistics, Part

LEVEL = 1e-6
"""Chance of a false alarm of each line: an audit has many lines, and refutes if one does."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Shown:
    """A claim, and the lower bound that guesses give."""

    neighbour: str
    query: str
    claimed_epsilon: float
    """The epsilon of the queries at the delta of the release, by its accounting."""
    shown_epsilon: float
    """Lower bound on epsilon at the confidence of the audit."""
    certain_epsilon: float
    """The same bound with a chance of error of one in a million. If it exceeds the claim, it
    refutes it."""
    share: float
    """The bound shown, divided by the claim."""
    right: int
    guesses: int
    moved: float | None
    """How far the unit moves the answers, divided by the distance that was paid for. A value above
    1 refutes the claim without any guess. None where queries differ from guess to guess."""

    @classmethod
    def of(
        cls,
        neighbour: str,
        query: str,
        rho: float,
        square: float | None,
        bound: Bound,
        certain: Bound,
        delta: float,
        accounting: Accounting,
    ) -> Shown:
        """From the cost rho of the queries, the true mu^2 of the neighbours, and the bounds."""
        claimed = epsilon_of(rho, delta, accounting)
        moved = None if square is None else math.sqrt(square / (2 * rho))
        share = bound.epsilon / claimed
        return cls(
            neighbour,
            query,
            claimed,
            bound.epsilon,
            certain.epsilon,
            share,
            bound.right,
            bound.guesses,
            moved,
        )

    @property
    def refutes(self) -> bool:
        """Whether the claim cannot be true."""
        too_far = self.moved is not None and self.moved > 1 + _ROUNDING
        return too_far or self.certain_epsilon > self.claimed_epsilon


@dataclass(frozen=True)
class NoiseFound:
    """The noise of one part of a query compared with the declared noise."""

    query: str
    part: str
    scale: float
    """The scale found, divided by the declared scale."""
    at_most: float
    """Upper bound on the true scale, with a chance of error of one in a million."""
    repeats: bool
    """Whether consecutive answers have noise in common."""
    entries: int

    @classmethod
    def of(cls, query: str, part: Part, noise: NoiseStatistics) -> NoiseFound:
        """From the noise of all answers."""
        highest = noise.highest(LEVEL)
        return cls(query, part.name, noise.scale, highest, noise.repeats(LEVEL), noise.entries)

    @property
    def refutes(self) -> bool:
        """Whether there is less noise than declared, or the same noise twice."""
        return self.at_most < 1 or self.repeats


@dataclass(frozen=True)
class Audit:
    """An attempt to refute a guarantee."""

    epsilon: float
    delta: float
    confidence: float
    draws: int
    reruns: int
    rows: int
    mechanism: str
    engine: str
    shown: tuple[Shown, ...]
    noise: tuple[NoiseFound, ...]
    null_changes_nothing: bool | None
    """Whether rows that are invalid change no answer; None where every row counts."""

    @property
    def refuted(self) -> list[str]:
        """One line for each contradiction of the guarantee; none if it stands."""
        lines = [
            f"{line.query}, {line.neighbour}: at least epsilon {line.certain_epsilon:.4g} is spent"
            f" (moved {'-' if line.moved is None else format(line.moved, '.4g')} of what was paid"
            f" for), {line.claimed_epsilon:.4g} is claimed"
            for line in self.shown
            if line.refutes
        ]
        lines += [
            f"{found.query}, {found.part}: the noise has {found.scale:.4g} of its declared scale"
            + (", and consecutive answers share some" if found.repeats else "")
            for found in self.noise
            if found.refutes
        ]
        if self.null_changes_nothing is False:
            lines.append("a row with a null or an infinity changes an answer")
        return lines

    @property
    def worst(self) -> Shown:
        """The line of the whole release, for the neighbour that moves it most."""
        return self.shown[0]

    def line(self) -> str:
        """One line that may be published with a receipt."""
        worst = self.worst
        return (
            f"audit: epsilon >= {worst.shown_epsilon:.3g} of {self.epsilon:g} at "
            f"{self.confidence:.0%} confidence ({worst.share:.0%}), {worst.neighbour}, "
            f"{self.draws:,} draws of {self.mechanism} noise a side over one reading of the rows"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "refuted": self.refuted, "line": self.line()}


def render(audit: Audit) -> str:
    """The audit as a table for people."""
    lines = [
        f"epsilon {audit.epsilon:g}, delta {audit.delta:g}; {audit.mechanism} noise; "
        f"{audit.rows:,} made-up rows on {audit.engine}; one reading of the rows, "
        f"{audit.draws:,} draws of the noise a side; each bound at {audit.confidence:.0%}",
        "",
        f"{'neighbour':<30} {'query':<26} {'claimed':>8} {'shown':>8} {'share':>6} {'moved':>7}",
    ]
    for line in audit.shown:
        moved = "-" if line.moved is None else f"{line.moved:.2%}"
        lines.append(
            f"{line.neighbour:<30} {line.query:<26} {line.claimed_epsilon:>8.4g} "
            f"{line.shown_epsilon:>8.4g} {line.share:>6.0%} {moved:>7}"
        )
    lines += ["", f"{'query':<26} {'noise of':<22} {'scale':>8} {'entries':>12}"]
    for found in audit.noise:
        lines.append(f"{found.query:<26} {found.part:<22} {found.scale:>8.4f} {found.entries:>12,}")
    lines += ["", _of_nulls(audit.null_changes_nothing), "", audit.line()]
    return "\n".join(lines + [f"REFUTED: {line}" for line in audit.refuted])


def _of_nulls(changes_nothing: bool | None) -> str:
    if changes_nothing is None:
        return "rows that lack values count as others do"
    return f"rows with a null or an infinity change {'nothing' if changes_nothing else 'SOMETHING'}"
