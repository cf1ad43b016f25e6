"""All queries of a release, in order: bounds, single columns, and the mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpgmm_dist.column_kinds import Kind
from dpgmm_dist.model.problem import Fitted
from dpgmm_dist.model.strategy import fit
from dpgmm_dist.pipeline.bounds import Bounds, bounds_steps, find_bounds
from dpgmm_dist.pipeline.marginals import Scores, find_scores, marginals_steps
from dpgmm_dist.pipeline.resolve import problem_of
from dpgmm_dist.pipeline.session import Session
from dpgmm_dist.spec.release_spec import ReleaseSpec


@dataclass(frozen=True)
class Measured:
    """What was found, from noisy answers alone."""

    bounds: Bounds
    scores: Scores | None
    """Maps of single columns, where the specification wants them."""
    fitted: Fitted


def first_steps(spec: ReleaseSpec) -> dict[str, float]:
    """The steps before those of the mixture, with their shares of the budget."""
    return {**bounds_steps(spec), **marginals_steps(spec)}


def measure_model(
    spec: ReleaseSpec,
    session: Session,
    *,
    width: int,
    kinds: Sequence[Kind | None],
    types: Mapping[str, str],
    rho: float,
) -> Measured:
    """Ask all queries of a release.

    Parameters
    ----------
    session : answers the queries.
    width : number of features d.
    kinds : what each column of a table holds, where that is known.
    types : the names of the types of the columns.
    rho : the whole budget.
    """
    first = first_steps(spec)
    rho_in_rows = problem_of(spec, width, rho).rho
    bounds = find_bounds(spec, width, rho_in_rows, session.ask_bins, kinds)
    session.use(bounds.features)
    scores = find_scores(
        spec, bounds.features, types, rho_in_rows, session.ask_bins, session.keep_codes
    )
    if scores is not None:
        session.use_scores(scores.codes, scores.norm)
    norm = bounds.features.norm if scores is None else scores.norm
    coordinates = width if scores is None else scores.width
    problem = problem_of(spec, coordinates, rho * (1 - sum(first.values())), norm)
    fitted = fit(problem, session.ask, lambda count: session.expect_passes(len(first) + count))
    return Measured(bounds, scores, fitted if scores is None else scores.behind(fitted))
