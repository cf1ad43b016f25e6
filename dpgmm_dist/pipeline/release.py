"""release(): the whole story of a release, on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.receipt import budget_rho, build_receipt
from dpgmm_dist.artifact.write import claim_output, release_exists, write_release
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.records import Charge, random_release_id, rho_of_mu_exact
from dpgmm_dist.data.describe import describe_input
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.source import AnySource, DaskArraySource, ParquetSource
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.memory import memory_plan, require_memory
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import fit, schedule
from dpgmm_dist.pipeline.plan import Plan, plan, render_plan
from dpgmm_dist.pipeline.privacy_units import check_units, input_of_passes, share_of
from dpgmm_dist.pipeline.session import Session
from dpgmm_dist.pipeline.unit_words import estimated, unit_words
from dpgmm_dist.privacy.noise import (
    InsecureTestNoise,
    NoiseSource,
    insecure_noise,
    noise_source,
)
from dpgmm_dist.progress import Progress
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.spec.windows import account_of, window_of

__all__ = ["Plan", "ReleaseResult", "plan", "release", "render_plan"]

_LEAST_EPSILON = 1e-3
_ROUNDING = 1 - 2.0**-40
"""Shares of the budget are sums of floats: this much of it stays unspent."""


@dataclass(frozen=True)
class ReleaseResult:
    """Where a release is, and what was spent on it."""

    path: str
    release_id: str
    already_done: bool
    fitted: Fitted | None = None
    receipt: dict[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """Public facts to print."""
        if self.receipt is None or self.fitted is None:
            return {}
        return {
            "privacy": self.receipt["privacy"],
            "epsilon": self.receipt["totals"]["epsilon"],
            "delta": self.receipt["totals"]["delta"],
            "components": self.fitted.mixture.n_components,
            "dimension": self.fitted.mixture.dimension,
            "passes": len(self.receipt["queries"]),
        }


def release(
    spec: ReleaseSpec,
    *,
    output: str | None = None,
    release_id: str | None = None,
    engine: Engine | None = None,
    insecure_test_noise: int | None = None,
    progress: Progress | None = None,
    source: AnySource | None = None,
    scratch: str | None = None,
) -> ReleaseResult:
    """Release a differentially private mixture of the rows a specification names.

    Parameters
    ----------
    spec : the specification; everything public that defines the release
    output : directory or URL of the release, in place of ``spec.output.path``
    release_id : the same id resumes a killed job and is never charged twice;
        ``spec.output.release_id`` by default, or random
    engine : where passes run; what ``spec.cluster`` says by default
    insecure_test_noise : seed of reproducible noise for tests; the release is NOT PRIVATE
    progress : called with :class:`dpgmm_dist.progress.PassProgress`
    source : rows in memory or of a dask array, in place of ``spec.dataset``; a dask array is
        computed by the Dask client in use, where there is one and no other engine is named
    scratch : private directory or URL for ``dataset.privacy_unit``, reached by all workers; by
        default that for temporary files, where all run on this machine

    Raises
    ------
    SpecError, LedgerRefused, DataError, ClusterError
        With what was wrong and what to do; the first three kinds before anything is spent,
        unless storage fails later.
    """
    if engine is None and spec.cluster.kind != "threads":
        from dpgmm_dist.engine import open_engine

        with open_engine(cluster=spec.cluster) as cluster:
            return release(
                spec,
                output=output,
                release_id=release_id,
                engine=cluster,
                insecure_test_noise=insecure_test_noise,
                progress=progress,
                source=source,
                scratch=scratch,
            )
    target = output or spec.output.path
    if target is None:
        raise SpecError("output.path is missing: set it or give --output URL")
    _require_drawable(spec)
    noise = _noise(spec, insecure_test_noise)
    name = release_id or spec.output.release_id or random_release_id()
    digest = spec.digest()
    where = {
        "output_options": spec.output.storage_options,
        "ledger_options": spec.privacy.storage_options,
    }

    def claim() -> None:
        claim_output(
            target,
            release_id=name,
            specification_digest=digest,
            storage_options=spec.output.storage_options,
        )

    if release_exists(target, spec.output.storage_options) is not None:
        claim()
        # A driver that was killed after the manifest has not said so.
        journal = Journal.locate(name, target, spec.privacy.ledger, **where)
        journal.finish_begun({"output": target})
        return ReleaseResult(target, name, already_done=True)

    _require_window_of_files(spec, source)
    rows = source or ParquetSource.from_spec(spec, engine.gather if engine else None)
    schema = describe_input(rows)  # now: at the end the input may be gone
    _require_same_labels(spec, rows)
    check_units(spec, rows, engine, scratch)
    features = feature_map(spec, rows.width)
    problem = problem_of(spec, rows.width, budget_rho_of(spec, noise) * _ROUNDING)
    steps = schedule(problem)
    engine = engine or _engine_here(spec, rows)
    require_memory(engine, memory_plan(problem, rows.plan()))
    charge = Charge.of_release(
        name,
        digest,
        spec.privacy.epsilon,
        spec.privacy.delta,
        gaussian=noise.accounting == "gdp",
        account=account_of(spec),
        window=window_of(spec),
    )
    budget = Budget.locate(charge, target, spec.privacy.ledger, **where)
    budget.check(spec.public_dict(), _mechanism(noise))
    claim()
    budget.begin(spec.public_dict(), _mechanism(noise))
    budget.require_same_input(_fingerprint(rows))

    # What follows the gate runs on one BLAS thread: the same answers give the same file. Noise may
    # overflow where nothing is left of the data; a warning would be a line that others do not get.
    with (
        threadpool_limits(1, "blas"),
        np.errstate(all="ignore"),
        _forgotten_rows(engine),
        input_of_passes(
            spec, rows, features, engine=engine, release_id=name, scratch=scratch
        ) as prepared,
    ):
        session = Session(
            budget=budget,
            rho=_exact_rho(charge),
            noise=noise,
            engine=engine,
            rows=prepared,
            features=features,
            unit=share_of(spec),
            passes=len(steps),
            progress=progress or (lambda _: None),
        )
        fitted = fit(problem, session.ask)
    receipt = _receipt(spec, name, digest, noise, session, fitted, budget)
    write_release(
        target,
        mixture=fitted.mixture,
        standard_errors=fitted.errors,
        transform=transform_of(features, fitted),
        receipt=receipt,
        input_schema=schema,
        storage_options=spec.output.storage_options,
    )
    budget.journal.finish({"output": target})
    return ReleaseResult(target, name, already_done=False, fitted=fitted, receipt=receipt)


def feature_map(spec: ReleaseSpec, width: int) -> FeatureMap:
    """The public map from input rows to the lattice that a specification defines."""
    bounds = spec.bounds
    if spec.is_table and bounds.columns is not None:
        ranges = [bounds.columns[name] for name in spec.feature_names]
        low, high = tuple(lo for lo, _ in ranges), tuple(hi for _, hi in ranges)
        return FeatureMap(width, spec.norm_bound, lower=low, upper=high)
    return FeatureMap(width, spec.norm_bound, center=bounds.center)


def problem_of(spec: ReleaseSpec, width: int, rho: float) -> Problem:
    """What the model is asked to release, in feature units."""
    model = spec.model
    if model.dimension is not None and model.dimension > width:
        raise SpecError(
            f"model.dimension is {model.dimension} but rows have {width} features: "
            f"use at most {width}, or leave it out"
        )
    return Problem(
        width=width,
        norm=spec.norm_bound,
        # The model plans what one row costs; a unit of m rows costs m^2 times that.
        rho=rho / share_of(spec).rows ** 2,
        label_values=spec.label_values,
        components=model.components,
        covariance=model.covariance,
        assignment=model.assignment,
        dimension=None if model.dimension == width else model.dimension,
        allocation=model.allocation,
    )


def budget_rho_of(spec: ReleaseSpec, noise: NoiseSource) -> float:
    """The zCDP rho (mu^2/2 for exact Gaussian noise) that (epsilon, delta) allows."""
    return budget_rho(spec.privacy.epsilon, spec.privacy.delta, noise.accounting)


def transform_of(features: FeatureMap, fitted: Fitted) -> Transform:
    """The public map between latent and input units."""
    latent = fitted.latent
    return Transform(
        center=features.offset,
        half_width=features.half_widths,
        basis=latent.basis,
        offset=latent.offset,
        residual_variance=fitted.residual_variance,
    )


def _require_drawable(spec: ReleaseSpec) -> None:
    """Refuse, before anything is spent, budgets whose noise no 64-bit integer could hold."""
    if spec.privacy.epsilon < _LEAST_EPSILON:
        raise SpecError(
            f"privacy.epsilon is {spec.privacy.epsilon:g}, below {_LEAST_EPSILON:g}: its noise "
            "would exceed any statistic; use at least that"
        )
    rows, delta = share_of(spec).rows, spec.privacy.delta
    one_row = budget_rho(spec.privacy.epsilon, delta, "zcdp") / rows**2
    if rows > 1 and one_row < budget_rho(_LEAST_EPSILON, delta, "zcdp"):
        raise SpecError(
            f"dataset.privacy_unit.max_rows is {rows}, too many for privacy.epsilon "
            f"{spec.privacy.epsilon:g}: noise grows with it; use fewer, or aggregate: weight"
        )


def _require_same_labels(spec: ReleaseSpec, rows: AnySource) -> None:
    """Refuse rows whose label codes would count for other labels than the specification's."""
    named = tuple(spec.label_values or ())
    if tuple(rows.labels) != named:
        raise SpecError(
            f"the source has the labels {tuple(rows.labels)!r}, dataset.labels says {named!r}: "
            "make them the same, in the same order"
        )


def _require_window_of_files(spec: ReleaseSpec, source: AnySource | None) -> None:
    """Refuse a window over rows in memory: they have no column it could be about."""
    if spec.dataset.window is not None and not isinstance(source, ParquetSource | None):
        raise SpecError(
            "dataset.window selects rows of files, and these rows are an array: select them "
            "before, and remove dataset.window"
        )


def _noise(spec: ReleaseSpec, insecure_test_noise: int | None) -> NoiseSource:
    if insecure_test_noise is None:
        return noise_source(spec.privacy.noise)
    if spec.privacy.ledger is not None:
        raise SpecError(
            "--insecure-test-noise protects nobody, so nothing may be charged for it: "
            "take privacy.ledger out of the specification, or the flag off the command"
        )
    return insecure_noise(spec.privacy.noise, insecure_test_noise)


def _mechanism(noise: NoiseSource) -> str:
    if isinstance(noise, InsecureTestNoise):
        return f"{noise.name}:{noise.seed}"
    return noise.name


def _exact_rho(charge: Charge) -> Fraction:
    """What the queries may cost: mu^2/2 exactly where the charge is in mu (its rho is rounded)."""
    return Fraction(charge.rho) if charge.mu is None else rho_of_mu_exact(charge.mu)


def _engine_here(spec: ReleaseSpec, rows: AnySource) -> Engine:
    """Threads of this process; for a dask array the client in use, where there is one."""
    from dpgmm_dist.engine.local import LocalEngine

    if isinstance(rows, DaskArraySource):
        from dpgmm_dist.engine import engine_in_use

        if (engine := engine_in_use()) is not None:
            return engine
    return LocalEngine(spec.cluster.threads)


@contextmanager
def _forgotten_rows(engine: Engine) -> Iterator[None]:
    """Rows kept between the passes of a release may have changed before the next one."""
    from dpgmm_dist.engine.local import LocalEngine

    try:
        yield
    finally:
        if isinstance(engine, LocalEngine):  # no other keeps rows
            engine.forget()


def _fingerprint(rows: AnySource) -> bytes:
    import json

    return json.dumps(rows.fingerprint(), sort_keys=True).encode()


def _receipt(
    spec: ReleaseSpec,
    name: str,
    digest: str,
    noise: NoiseSource,
    session: Session,
    fitted: Fitted,
    budget: Budget,
) -> dict[str, Any]:
    return build_receipt(
        release_id=name,
        specification=spec.public_dict(),
        specification_digest=digest,
        epsilon=spec.privacy.epsilon,
        delta=spec.privacy.delta,
        mechanism=noise.name,
        accounting=noise.accounting,
        queries=session.receipt_queries(),
        private=noise.private,
        privacy_reason=None if noise.private else "made with --insecure-test-noise",
        unit=unit_words(spec),
        ledger=budget.facts(),
        more={
            "plan": fitted.notes,
            "noisy_rows": fitted.rows,
            "estimated": estimated(spec),
        },
    )
