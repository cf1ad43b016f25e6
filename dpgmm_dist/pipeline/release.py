"""release(): the story of a release, from its specification to the published files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.manifest import StoredQueries
from dpgmm_dist.artifact.write import write_release
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.records import Charge, random_release_id, rho_of_mu_exact
from dpgmm_dist.column_kinds import Kind
from dpgmm_dist.data.describe import describe_input
from dpgmm_dist.data.source import AnySource, column_kinds
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.memory import memory_plan, require_memory
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import schedule
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.pipeline.bounds import Bounds
from dpgmm_dist.pipeline.checks import (
    require_drawable,
    require_release_fits,
    require_same_labels,
    require_window_of_columns,
)
from dpgmm_dist.pipeline.engines import default_engine, rows_forgotten
from dpgmm_dist.pipeline.marginals import Scores, most_coordinates
from dpgmm_dist.pipeline.measuring import Measured, first_steps, measure_model
from dpgmm_dist.pipeline.output import Output
from dpgmm_dist.pipeline.privacy_units import check_units, input_of_passes
from dpgmm_dist.pipeline.resolve import (
    account_of,
    cluster_config,
    given_ranges,
    noise_for,
    problem_of,
    rho_of,
    rows_of,
    unit_share,
    window_of,
)
from dpgmm_dist.pipeline.result import ReleaseResult, receipt_of
from dpgmm_dist.pipeline.run_record import RunRecord
from dpgmm_dist.pipeline.session import Session
from dpgmm_dist.privacy.noise import InsecureTestNoise, NoiseSource
from dpgmm_dist.progress import Progress
from dpgmm_dist.spec.release_spec import ReleaseSpec

ROUNDING = 1 - 2.0**-40
"""Keeps the shares of the budget, which are added up in floats, below the whole."""


def release(
    spec: ReleaseSpec,
    *,
    output: str | None = None,
    release_id: str | None = None,
    engine: Engine | None = None,
    insecure_test_noise: int | None = None,
    progress: Progress | None = None,
    source: Any = None,
    scratch: str | None = None,
    run: str | None = None,
) -> ReleaseResult:
    """Release a differentially private mixture of the rows a specification names.

    Parameters
    ----------
    spec : the specification; everything public that defines the release
    output : directory or URL of the release, in place of ``spec.output.path``
    release_id : the same id resumes a killed job and is never charged twice; by default
        ``spec.output.release_id``, or a random one
    engine : where passes run; what ``spec.cluster`` names by default
    insecure_test_noise : seed of reproducible noise for tests; the release is then NOT PRIVATE
    progress : called with :class:`dpgmm_dist.progress.PassProgress`
    source : rows in place of the files of ``spec.dataset``: a pandas, polars or dask frame or a
        pyarrow table with its columns, or a source of :mod:`dpgmm_dist.data.source`. A dask array
        or DataFrame is computed by the current Dask client, if there is one and no other engine is
        given
    scratch : private directory or URL for ``dataset.privacy_unit`` that all workers reach; by
        default the directory for temporary files, if all workers run on this machine
    run : a name of this run for its record beside the ledger (``dpgmm runs``); random by default

    Raises
    ------
    SpecError, LedgerRefused, DataError, ClusterError
        With what is wrong and what to do. The first three are raised before anything is spent,
        unless storage fails later.
    """
    options = _Options(output, insecure_test_noise, progress, source, scratch)
    release_id = release_id or spec.output.release_id or random_release_id()
    record = RunRecord(run)
    if engine is None and spec.cluster.kind != "threads":
        with (
            open_engine(cluster=cluster_config(spec.cluster)) as cluster,
            record.noted(release_id),
        ):
            return _Run(spec, release_id, options, record).release(cluster)
    with record.noted(release_id):
        return _Run(spec, release_id, options, record).release(engine)


@dataclass(frozen=True, repr=False)
class _Options(Opaque):
    """Options of :func:`release`, as its parameters are."""

    output: str | None
    insecure_test_noise: int | None
    progress: Progress | None
    source: Any
    scratch: str | None


@dataclass(frozen=True, repr=False)
class _Input(Opaque):
    """The rows, and what is public about their columns."""

    rows: AnySource
    schema: dict[str, Any]
    kinds: Sequence[Kind | None]


class _Run(Opaque):
    """One run of a release."""

    def __init__(
        self, spec: ReleaseSpec, release_id: str, options: _Options, record: RunRecord
    ) -> None:
        self.spec, self.release_id, self.options, self.record = spec, release_id, options, record
        self.target = Output(spec, options.output or spec.output.path)
        require_drawable(spec)
        self.noise = noise_for(spec.privacy, options.insecure_test_noise)

    def release(self, engine: Engine | None) -> ReleaseResult:
        """The story of a release."""
        # The output may hold this release already.
        spec, target, record = self.spec, self.target, self.record
        if target.holds_release():
            target.claim(self.release_id)
            target.finish_begun(self.release_id)
            return ReleaseResult(target.url, self.release_id, True, run=record.public())

        # The rows, what is measured of them, and whether memory suffices: nothing is spent yet.
        read = self._open_input(engine)
        rho = rho_of(spec.privacy, self.noise) * ROUNDING
        problem = problem_of(spec, most_coordinates(spec, read.rows.width), rho)
        require_release_fits(problem)
        engine = engine or default_engine(read.rows, spec.cluster.threads)
        record.uses(engine)
        require_memory(engine, memory_plan(problem, read.rows.plan()))

        # The budget is reserved for this release, in ledger and journal, before the first pass.
        charge = charge_of(spec, self.release_id, self.noise)
        budget = self._reserve(charge, read.rows)

        # The passes: the model asks, the session charges, measures and stores.
        session, measured = self._measure(engine, read, problem, rho, charge, budget)

        # The release, published by its manifest, which is written last.
        receipt = receipt_of(
            spec,
            self.release_id,
            noise=self.noise,
            session=session,
            budget=budget,
            measured=measured,
        )
        self._publish(receipt, read.schema, measured, budget.journal)
        return ReleaseResult(
            target.url, self.release_id, False, measured.fitted, receipt, record.public()
        )

    def _open_input(self, engine: Engine | None) -> _Input:
        """Open the rows, and check all that is public about them."""
        spec = self.spec
        require_window_of_columns(spec, self.options.source)
        begun_at = self.target.snapshot_of(self.release_id)
        gather = engine.gather if engine else None
        rows = rows_of(spec.dataset, self.options.source, gather, begun_at)
        table = spec.feature_names if spec.is_table else ()
        schema = describe_input(rows, table)  # now, because the input may be gone at the end
        require_same_labels(spec, rows)
        check_units(spec.dataset, rows, engine, self.options.scratch)
        kinds = column_kinds(rows)
        given_ranges(spec, kinds)  # refuses bounds of another kind than the column
        return _Input(rows, schema, kinds)

    def _reserve(self, charge: Charge, rows: AnySource) -> Budget:
        """Open ledger and journal, and claim the output for this release id."""
        spec, target = self.spec, self.target
        mechanism = _mechanism(self.noise)
        budget = Budget.locate(charge, target.url, spec.privacy.ledger, **target.options)
        budget.check(spec.public_dict(), mechanism)
        target.claim(self.release_id)
        budget.begin(spec.public_dict(), mechanism)
        self.record.keep_in(None if budget.ledger is None else budget.ledger.store)
        budget.require_same_input(json.dumps(rows.fingerprint(), sort_keys=True).encode())
        return budget

    def _measure(
        self,
        engine: Engine,
        read: _Input,
        problem: Problem,
        rho: float,
        charge: Charge,
        budget: Budget,
    ) -> tuple[Session, Measured]:
        """Run the passes and fit the mixture to their answers.

        What follows the gate runs on one BLAS thread, so that the same answers give the same file.
        Floats may overflow where there are few rows. A warning would then say something about the
        data.
        """
        spec, options = self.spec, self.options
        with (
            threadpool_limits(1, "blas"),
            np.errstate(all="ignore"),
            rows_forgotten(engine),
            input_of_passes(
                spec.dataset,
                read.rows,
                engine=engine,
                release_id=self.release_id,
                scratch=options.scratch,
            ) as prepared,
        ):
            session = Session(
                budget=budget,
                rho=exact_rho(charge),
                noise=self.noise,
                engine=engine,
                rows=prepared,
                unit=unit_share(spec.dataset),
                labels=problem.labels,
                passes=len(first_steps(spec)) + len(schedule(problem)),
                progress=options.progress or (lambda _: None),
                record=self.record,
            )
            types = {column["name"]: column["type"] for column in read.schema["columns"]}
            return session, measure_model(
                spec, session, width=read.rows.width, kinds=read.kinds, types=types, rho=rho
            )

    def _publish(
        self,
        receipt: dict[str, Any],
        schema: dict[str, Any],
        measured: Measured,
        journal: Journal,
    ) -> None:
        """Write the files of the release, and finish its journal."""
        with threadpool_limits(1, "blas"):
            write_release(
                self.target.url,
                mixture=measured.fitted.mixture,
                standard_errors=measured.fitted.errors,
                transform=transform_of(measured.bounds, measured.fitted, measured.scores),
                receipt=receipt,
                input_schema=schema,
                storage_options=self.spec.output.storage_options,
                stored_queries=StoredQueries(**journal.stored()),
            )
        journal.finish({"output": self.target.url})


def transform_of(bounds: Bounds, fitted: Fitted, scores: Scores | None) -> Transform:
    """The public map between latent and input units."""
    return Transform(
        center=bounds.features.offset,
        half_width=bounds.features.half_widths,
        basis=fitted.latent.basis,
        offset=fitted.latent.offset,
        residual_variance=fitted.residual_variance,
        columns=() if scores is None else scores.maps(fitted),
    )


def charge_of(spec: ReleaseSpec, release_id: str, noise: NoiseSource) -> Charge:
    """What a release is charged: its whole budget."""
    return Charge.of_release(
        release_id,
        spec.digest(),
        spec.privacy.epsilon,
        spec.privacy.delta,
        gaussian=noise.accounting == "gdp",
        account=account_of(spec),
        window=window_of(spec.dataset),
    )


def exact_rho(charge: Charge) -> Fraction:
    """What the queries may cost: mu^2/2 exactly where the charge is in mu (its rho is rounded)."""
    return Fraction(charge.rho) if charge.mu is None else rho_of_mu_exact(charge.mu)


def _mechanism(noise: NoiseSource) -> str:
    """The noise as the journal records it; a seed of test noise is part of it."""
    if isinstance(noise, InsecureTestNoise):
        return f"{noise.name}:{noise.seed}"
    return noise.name
