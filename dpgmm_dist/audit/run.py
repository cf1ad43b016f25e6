"""An audit: the real pipeline on rows made for it, and the game about its answers.

For the mechanism one run reads the rows once, and the gate then answers each stored query as often
as is asked for, about both data sets. For the pipeline everything runs again for every guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from dpgmm_dist.audit.game import (
    Bound,
    Floats,
    NoiseStatistics,
    difference_of,
    entries_of,
    guesses_needed,
    parts_of,
)
from dpgmm_dist.audit.job import BASE, Job, Sums
from dpgmm_dist.audit.neighbours import NULL_OR_INFINITY, WORST
from dpgmm_dist.audit.rerun import rerun
from dpgmm_dist.audit.result import LEVEL, Audit, NoiseFound, Shown
from dpgmm_dist.audit.sums import opened, query_for, statistic_of
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.errors import SpecError
from dpgmm_dist.passes.kernel import statistic_sizes
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import NoiseSource
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.privacy.sensitivity import query_cost
from dpgmm_dist.spec.release_spec import ReleaseSpec

ROWS = 400
_LEAST_DRAWS = 2_000
_MOST_DRAWS = 40_000
_POWER = 0.8
"""Share of the claim that the default number of draws is to show."""
_LEAST_CALLS = 20
"""Calls of the gate: several, so that noise that repeats between calls is found."""
_MOST_ENTRIES = 1 << 20
_WHOLE_RUNS = "whole release, run again"
Progress = Callable[[str, float], None]


def audit(
    spec: ReleaseSpec,
    *,
    draws: int | None = None,
    reruns: int = 0,
    confidence: float = 0.95,
    rows: int = ROWS,
    engine: Engine | None = None,
    scratch: str | None = None,
    noise: NoiseSource | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Audit:
    """Try to refute the guarantee of a specification, and report how much of it was shown.

    Nothing of the specification's data is read but its schema, and nothing is charged.

    Parameters
    ----------
    draws : answers about each data set, for every query; by default as many as an audit at this
        epsilon needs to show three quarters of it
    reruns : whole runs about each data set, in addition
    confidence : of each single lower bound
    rows : rows that are made up, beside the unit that is added
    engine : where passes run; threads of this process by default
    scratch, noise : as in a release by default
    processes : for whole runs; with ``engine`` or ``noise`` these are made in this process
    progress : called with what is done and the fraction of it

    Raises
    ------
    SpecError
        The specification cannot be released, or an argument is out of range.
    DataError
        The schema is needed, and the data cannot be opened.
    """
    _require_confidence(confidence)
    job, report = Job.of(spec, rows, engine, scratch, noise), progress or _quiet
    asked = job.run(tuple(job.neighbours.added)).asked
    spent = float(sum(query_cost(query) for query, _ in asked))
    draws = draws or _default_draws(np.sqrt(2 * spent), confidence)
    games = _play(job, asked, draws, report)
    shown = _all_shown(job, games, spent, confidence)
    if reruns:
        in_this_process = engine is not None or noise is not None
        ratios = rerun(job, reruns, 1 if in_this_process else processes, report)
        shown.append(_shown(WORST, _WHOLE_RUNS, spent, None, ratios, job, confidence))
    return Audit(
        epsilon=spec.privacy.epsilon,
        delta=spec.privacy.delta,
        confidence=confidence,
        draws=draws,
        reruns=reruns,
        rows=rows,
        mechanism=job.noise.name,
        engine=job.engine.name,
        shown=tuple(shown),
        noise=tuple(found for game in games for found in game.noise_found()),
        null_changes_nothing=_null_changes_nothing(job, games),
    )


def _play(
    job: Job, asked: Sequence[tuple[PassQuery, Sums]], draws: int, report: Progress
) -> list[_Game]:
    """The game of each query."""
    return [
        _Game(query, sums, job.noise, draws, _reporter(report, index, len(asked)))
        for index, (query, sums) in enumerate(asked)
    ]


def _require_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise SpecError(f"--confidence is {confidence:g}: use a number between 0.5 and 1")


def _null_changes_nothing(job: Job, games: Sequence[_Game]) -> bool | None:
    """Whether an invalid unit changes no sum; None where none was added."""
    if NULL_OR_INFINITY not in job.neighbours.added:
        return None
    return all(game.differences[NULL_OR_INFINITY].square == 0 for game in games)


def _all_shown(job: Job, games: Sequence[_Game], spent: float, confidence: float) -> list[Shown]:
    """The whole release for every neighbour, and each query for the worst of them."""
    shown = []
    for name in job.neighbours.added:
        total = np.sum([game.log_ratios[name] for game in games], axis=0)
        square = sum(game.differences[name].square for game in games)
        shown.append(_shown(name, "whole release", spent, square, total, job, confidence))
    for game in games:
        cost, ratios = float(query_cost(game.query)), game.log_ratios[WORST]
        square = game.differences[WORST].square
        shown.append(_shown(WORST, game.query.step, cost, square, ratios, job, confidence))
    return shown


class _Game:
    """Many answers to one query, about the base and about every neighbour."""

    def __init__(
        self,
        query: PassQuery,
        sums: Sums,
        noise: NoiseSource,
        draws: int,
        report: Callable[[float], None],
    ) -> None:
        self.query = query
        self._exact = {name: opened(statistic, query) for name, statistic in sums.items()}
        self.differences = {
            name: difference_of(query, self._exact[BASE], exact)
            for name, exact in self._exact.items()
            if name != BASE
        }
        self._noise = [NoiseStatistics() for _ in parts_of(query)]
        self.log_ratios = {name: np.empty((2, draws)) for name in self.differences}
        copies = max(1, min(draws // _LEAST_CALLS, _MOST_ENTRIES // sum(statistic_sizes(query))))
        for start in range(0, draws, copies):
            stop = min(start + copies, draws)
            repeated_query = query_for(query, stop - start)
            for name in sums:
                exact = statistic_of(query, self._exact[name], stop - start)
                values = measure(exact, repeated_query, noise).values
                self._look(name, slice(start, stop), entries_of(query, values, stop - start))
            report(stop / draws)

    def _look(self, name: str, draws: slice, entries: list[Floats]) -> None:
        parts = parts_of(self.query)
        for part, noise, found, exact in zip(
            parts, self._noise, entries, self._exact[name], strict=True
        ):
            noise.add((found - exact) / part.sd)
        if name != BASE:
            self.log_ratios[name][1, draws] = self.differences[name].log_ratio(entries)
            return
        for neighbour, difference in self.differences.items():
            self.log_ratios[neighbour][0, draws] = difference.log_ratio(entries)

    def noise_found(self) -> Iterator[NoiseFound]:
        for part, noise in zip(parts_of(self.query), self._noise, strict=True):
            yield NoiseFound.of(self.query.step, part, noise)


def _shown(
    neighbour: str,
    query: str,
    rho: float,
    square: float | None,
    log_ratios: Floats,
    job: Job,
    confidence: float,
) -> Shown:
    """The bound from guesses: a guess without the unit is right below zero, one with it above."""
    right = int((log_ratios[0] < 0).sum() + (log_ratios[1] > 0).sum())
    delta = job.spec.privacy.delta
    bound = Bound.of(right, log_ratios.size, delta, confidence)
    certain = Bound.of(right, log_ratios.size, delta, 1 - LEVEL)
    return Shown.of(neighbour, query, rho, square, bound, certain, delta, job.noise.accounting)


def _default_draws(mu: float, confidence: float) -> int:
    return min(max(guesses_needed(mu, _POWER, confidence), _LEAST_DRAWS), _MOST_DRAWS)


def _reporter(report: Progress, index: int, count: int) -> Callable[[float], None]:
    return lambda fraction: report("draws", (index + fraction) / count)


def _quiet(*_: object) -> None:
    pass
