"""A specification on made-up rows, ready to run by the real session, for neighbours as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dpgmm_dist.audit.game import difference_of, entries_of
from dpgmm_dist.audit.neighbours import WORST, Neighbours, make_neighbours
from dpgmm_dist.audit.sums import opened
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.data.describe import describe_input
from dpgmm_dist.data.source import AnySource, column_kinds
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.pipeline.checks import require_drawable, require_release_fits
from dpgmm_dist.pipeline.engines import default_engine, rows_forgotten
from dpgmm_dist.pipeline.measuring import measure_model
from dpgmm_dist.pipeline.privacy_units import Prepare, check_units, input_of_passes
from dpgmm_dist.pipeline.release import ROUNDING, charge_of, exact_rho
from dpgmm_dist.pipeline.resolve import (
    noise_for,
    open_dataset,
    problem_of,
    rho_of,
    rows_of,
    unit_share,
)
from dpgmm_dist.pipeline.session import Session
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.measure import NoisyStatistic
from dpgmm_dist.privacy.noise import NoiseSource
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.spec.release_spec import ReleaseSpec

BASE = "base"
Sums = Mapping[str, ExactStatistic]


class AuditedSession(Session):
    """A session that also sums the rows of neighbours, by the same code, for every query."""

    def __init__(
        self, *, about: str, neighbours: Mapping[str, Prepare], **session_arguments: Any
    ) -> None:
        super().__init__(**session_arguments)
        self._about = about
        self._neighbours = neighbours
        self.asked: list[tuple[PassQuery, Sums]] = []

    def _sum(
        self, prepare: Prepare, query: PassQuery, report: Callable[[str, float], None]
    ) -> ExactStatistic:
        exact = super()._sum(prepare, query, report)
        others = {
            name: super(AuditedSession, self)._sum(prepare_neighbour, query, _quiet)
            for name, prepare_neighbour in self._neighbours.items()
        }
        self.asked.append((query, {self._about: exact, **others}))
        return exact


@dataclass(frozen=True)
class Job:
    """A specification with the rows to audit it on, ready to run again and again."""

    spec: ReleaseSpec
    neighbours: Neighbours
    rows: int
    """Rows of the base."""
    engine: Engine
    scratch: str | None
    noise: NoiseSource
    sources: Mapping[str, AnySource]
    problem: Problem
    rho: float

    @classmethod
    def of(
        cls,
        spec: ReleaseSpec,
        rows: int,
        engine: Engine | None,
        scratch: str | None,
        noise: NoiseSource | None,
    ) -> Job:
        width = spec.dim_hint or open_dataset(spec.dataset).width
        spec = _without_places(spec, width)
        require_drawable(spec)
        noise = noise or noise_for(spec.privacy, None)
        neighbours = make_neighbours(spec, width, rows)
        tables = {BASE: neighbours.base, **neighbours.added}
        sources = {name: rows_of(spec.dataset, table) for name, table in tables.items()}
        check_units(spec.dataset, sources[BASE], engine, scratch)
        rho = rho_of(spec.privacy, noise) * ROUNDING
        problem = problem_of(spec, width, rho)
        require_release_fits(problem)
        engine = engine or default_engine(sources[BASE], spec.cluster.threads)
        return cls(spec, neighbours, rows, engine, scratch, noise, sources, problem, rho)

    def run(self, others: tuple[str, ...], about: str = BASE) -> Run:
        """Ask all queries of a release about one data set, and sum the other data sets too."""
        spec = self.spec
        rows = self.sources[about]
        with ExitStack() as stack:
            place = stack.enter_context(TemporaryDirectory(prefix="dpgmm-audit-"))
            charge = charge_of(spec, "audit", self.noise)
            budget = Budget.open(charge, spec.public_dict(), self.noise.name, place)
            for context in (threadpool_limits(1, "blas"), np.errstate(all="ignore")):
                stack.enter_context(context)
            stack.enter_context(rows_forgotten(self.engine))
            prepared = {
                name: stack.enter_context(self._prepared(name)) for name in (about, *others)
            }
            session = AuditedSession(
                about=about,
                neighbours={name: prepared[name] for name in others},
                budget=budget,
                rho=exact_rho(charge),
                noise=self.noise,
                engine=self.engine,
                rows=prepared[about],
                unit=unit_share(spec.dataset),
                labels=self.problem.labels,
                passes=1,
                progress=lambda _: None,
            )
            columns = describe_input(rows)["columns"]
            measure_model(
                spec,
                session,
                width=rows.width,
                kinds=column_kinds(rows),
                types={column["name"]: column["type"] for column in columns},
                rho=self.rho,
            )
            stored = [budget.journal.answer(index) for index in range(len(session.asked))]
            answers = [NoisyStatistic.from_bytes(data) for data in stored if data is not None]
            return Run(session.asked, answers)

    @contextmanager
    def _prepared(self, name: str) -> Iterator[Prepare]:
        with input_of_passes(
            self.spec.dataset,
            self.sources[name],
            engine=self.engine,
            release_id="audit-" + name.replace(" ", "-"),
            scratch=self.scratch,
        ) as prepare:
            yield prepare


@dataclass(frozen=True)
class Run:
    """One run: its queries with the sums of both data sets, and its noisy answers."""

    asked: list[tuple[PassQuery, Sums]]
    answers: list[NoisyStatistic]

    def log_ratio(self) -> float:
        """Log likelihood ratio of all answers together: the worst neighbour against the base."""
        total = 0.0
        for (query, sums), answer in zip(self.asked, self.answers, strict=True):
            base, other = (opened(sums[name], query) for name in (BASE, WORST))
            entries = entries_of(query, answer.values)
            total += float(difference_of(query, base, other).log_ratio(entries)[0])
        return total


def _without_places(spec: ReleaseSpec, width: int) -> ReleaseSpec:
    """The specification for made-up rows: no ledger, no output, no window, no store."""
    document = spec.public_dict()
    document["dataset"] |= {"path": "audit", "width": None if spec.is_table else width}
    document["dataset"].pop("window", None)
    document["privacy"] |= {"ledger": None, "account": None}
    document["output"] = {}
    return ReleaseSpec.from_dict(document)


def _quiet(*_: object) -> None:
    pass
