"""release(): the story of a release, from its specification to the published files."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.manifest import StoredQueries
from dpgmm_dist.artifact.write import claim_output, release_exists, write_release
from dpgmm_dist.budget.budget import Budget, stored_input
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.records import Charge, random_release_id, rho_of_mu_exact
from dpgmm_dist.data.describe import describe_input
from dpgmm_dist.data.source import SNAPSHOT, column_kinds
from dpgmm_dist.engine import open_engine
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.memory import memory_plan, require_memory
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.problem import Fitted
from dpgmm_dist.model.strategy import schedule
from dpgmm_dist.pipeline.bounds import Bounds
from dpgmm_dist.pipeline.checks import (
    require_drawable,
    require_release_fits,
    require_same_labels,
    require_window_of_columns,
)
from dpgmm_dist.pipeline.engines import default_engine, rows_forgotten
from dpgmm_dist.pipeline.marginals import Scores, most_coordinates
from dpgmm_dist.pipeline.measuring import first_steps, measure_model
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
    source : rows in place of the files of ``spec.dataset``: a pandas or polars frame or a pyarrow
        table with its columns, or a source of :mod:`dpgmm_dist.data.source`. A dask array is
        computed by the current Dask client, if there is one and no other engine is given
    scratch : private directory or URL for ``dataset.privacy_unit`` that all workers reach; by
        default the directory for temporary files, if all workers run on this machine
    run : a name of this run for its record beside the ledger (``dpgmm runs``); random by default

    Raises
    ------
    SpecError, LedgerRefused, DataError, ClusterError
        With what is wrong and what to do. The first three are raised before anything is spent,
        unless storage fails later.
    """
    if engine is None and spec.cluster.kind != "threads":
        with open_engine(cluster=cluster_config(spec.cluster)) as cluster:
            return release(
                spec,
                output=output,
                release_id=release_id,
                engine=cluster,
                insecure_test_noise=insecure_test_noise,
                progress=progress,
                source=source,
                scratch=scratch,
                run=run,
            )
    release_id = release_id or spec.output.release_id or random_release_id()
    record = RunRecord(run)
    with record.noted(release_id):
        return _release(
            spec,
            output=output,
            release_id=release_id,
            engine=engine,
            insecure_test_noise=insecure_test_noise,
            progress=progress,
            source=source,
            scratch=scratch,
            record=record,
        )


def _release(
    spec: ReleaseSpec,
    *,
    output: str | None,
    release_id: str,
    engine: Engine | None,
    insecure_test_noise: int | None,
    progress: Progress | None,
    source: Any,
    scratch: str | None,
    record: RunRecord,
) -> ReleaseResult:
    """The story; parameters are those of :func:`release`."""
    # The output: it may hold this release already.
    target = _Output(spec, output or spec.output.path)
    require_drawable(spec)
    noise = noise_for(spec.privacy, insecure_test_noise)
    if target.holds_release():
        target.claim(release_id)
        target.finish_begun(release_id)
        return ReleaseResult(target.url, release_id, True, run=record.public())

    # The rows: all that is public about them is checked before anything is spent.
    require_window_of_columns(spec, source)
    begun_at = target.snapshot_of(release_id)
    rows = rows_of(spec.dataset, source, engine.gather if engine else None, begun_at)
    table = spec.feature_names if spec.is_table else ()
    schema = describe_input(rows, table)  # now, because the input may be gone at the end
    require_same_labels(spec, rows)
    check_units(spec.dataset, rows, engine, scratch)

    # What is measured, and whether memory suffices for it.
    kinds = column_kinds(rows)
    given_ranges(spec, kinds)  # refuses bounds of another kind than the column
    rho = rho_of(spec.privacy, noise) * ROUNDING
    problem = problem_of(spec, most_coordinates(spec, rows.width), rho)
    require_release_fits(problem)
    passes = len(first_steps(spec)) + len(schedule(problem))
    engine = engine or default_engine(rows, spec.cluster.threads)
    record.uses(engine)
    require_memory(engine, memory_plan(problem, rows.plan()))

    # The budget is reserved for this release: ledger and journal, before the first pass.
    charge = charge_of(spec, release_id, noise)
    budget = Budget.locate(charge, target.url, spec.privacy.ledger, **target.options)
    budget.check(spec.public_dict(), _mechanism(noise))
    target.claim(release_id)
    budget.begin(spec.public_dict(), _mechanism(noise))
    record.keep_in(None if budget.ledger is None else budget.ledger.store)
    budget.require_same_input(json.dumps(rows.fingerprint(), sort_keys=True).encode())

    # The passes: the model asks, the session charges, measures and stores. What follows the gate
    # runs on one BLAS thread, so that the same answers give the same file. Floats may overflow
    # where there are few rows. A warning would then say something about the data.
    with (
        threadpool_limits(1, "blas"),
        np.errstate(all="ignore"),
        rows_forgotten(engine),
        input_of_passes(
            spec.dataset, rows, engine=engine, release_id=release_id, scratch=scratch
        ) as prepared,
    ):
        session = Session(
            budget=budget,
            rho=exact_rho(charge),
            noise=noise,
            engine=engine,
            rows=prepared,
            unit=unit_share(spec.dataset),
            labels=problem.labels,
            passes=passes,
            progress=progress or (lambda _: None),
            record=record,
        )
        types = {column["name"]: column["type"] for column in schema["columns"]}
        measured = measure_model(spec, session, width=rows.width, kinds=kinds, types=types, rho=rho)
    bounds, scores, fitted = measured.bounds, measured.scores, measured.fitted

    # The release, published by its manifest, which is written last.
    receipt = receipt_of(
        spec,
        release_id,
        noise=noise,
        session=session,
        fitted=fitted,
        budget=budget,
        bounds=bounds,
        scores=scores,
    )
    with threadpool_limits(1, "blas"):
        write_release(
            target.url,
            mixture=fitted.mixture,
            standard_errors=fitted.errors,
            transform=transform_of(bounds, fitted, scores),
            receipt=receipt,
            input_schema=schema,
            storage_options=spec.output.storage_options,
            stored_queries=StoredQueries(**budget.journal.stored()),
        )
    budget.journal.finish({"output": target.url})
    return ReleaseResult(
        target.url, release_id, False, fitted=fitted, receipt=receipt, run=record.public()
    )


class _Output:
    """Where a release goes, and where the ledger and the journal beside it are."""

    def __init__(self, spec: ReleaseSpec, url: str | None) -> None:
        if url is None:
            raise SpecError("output.path is missing: set it or give --output URL")
        self.url = url
        self.options = {
            "output_options": spec.output.storage_options,
            "ledger_options": spec.privacy.storage_options,
        }
        self._spec = spec

    def holds_release(self) -> bool:
        return release_exists(self.url, self._spec.output.storage_options) is not None

    def claim(self, release_id: str) -> None:
        """Claim the output for this release; refuse one that holds another release or id."""
        claim_output(
            self.url,
            release_id=release_id,
            specification_digest=self._spec.digest(),
            storage_options=self._spec.output.storage_options,
        )

    def finish_begun(self, release_id: str) -> None:
        """Finish the journal of a driver that was killed after it wrote the manifest."""
        self._journal(release_id).finish_begun({"output": self.url})

    def snapshot_of(self, release_id: str) -> int | None:
        """The snapshot that a release is about whose first answers are stored, if it is known."""
        identifiers = stored_input(self._journal(release_id))
        known = None if identifiers is None else json.loads(identifiers).get(SNAPSHOT)
        return None if known is None else int(known)

    def _journal(self, release_id: str) -> Journal:
        return Journal.locate(release_id, self.url, self._spec.privacy.ledger, **self.options)


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
