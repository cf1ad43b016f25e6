"""What a release would measure: the real strategy on simulated answers without noise.

Nothing is read and nothing is spent. A public guess of the number of rows decides what depends
on it: the number of cells, and the level at which second moments are worth their noise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from dpgmm_dist.artifact.receipt import Accounting
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affordable import LAST_SHARE, rows_for_components
from dpgmm_dist.model.allocation import expected_kl, rows_per_component
from dpgmm_dist.model.pass_plan import (
    POWERS,
    BinsPlan,
    Latent,
    Observed,
    ObservedBins,
    ObservedBlock,
    PassPlan,
    inverses_of,
)
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.schedule import planned_structure, predicted_loss
from dpgmm_dist.model.strategy import fit
from dpgmm_dist.pipeline.bounds import bounds_steps, find_bounds
from dpgmm_dist.pipeline.compile import compile_bins, compile_pass, with_codes
from dpgmm_dist.pipeline.marginals import find_scores, marginals_steps
from dpgmm_dist.pipeline.outlook import (
    Outlook,
    Setting,
    epsilon_for,
    outlooks,
    rows_for,
    structure_words,
)
from dpgmm_dist.pipeline.resolve import (
    open_dataset,
    problem_of,
    rho_of,
    unit_share,
)
from dpgmm_dist.privacy.noise import noise_source
from dpgmm_dist.privacy.query import FEATURE_RADIUS, Codes, PassQuery, UnitShare
from dpgmm_dist.privacy.sensitivity import block_cost
from dpgmm_dist.spec.release_spec import ReleaseSpec

Floats = npt.NDArray[np.float64]

ASSUMED_ROWS = 100_000
"""The number of rows where no guess is given."""
_OF_NOISY_ANSWERS = ("gain_over_sphere", "gain_error", "tells_little_beyond_means")
_AS_SPECIFIED = "as specified"
_SPREAD = 3.0
"""The norm bound divided by the root mean square length of the rows that are assumed."""
_NOT_IN_JSON = ("width", "features", "queries", "setting", "driver_seconds")


@dataclass(frozen=True)
class PlannedBlock:
    """One line of the plan."""

    step: str
    statistic: str
    groups: int
    dimension: int
    radius: float
    """In cell coordinates: feature units, or standard deviations after whitening."""
    rho: float
    noise: float
    """Standard deviation of the noise, in the same units (to the statistic's power)."""
    expected_kl: float | None
    """Nats, for the last pass, if a number of rows is given."""
    unit: str = "input units"
    """What ``radius`` is in; ``noise`` is in rows, in it, or in its square."""


@dataclass(frozen=True)
class Wanted:
    """Settings that reach a wanted loss."""

    loss: float
    """Nats a row."""
    epsilon: float | None
    """The least epsilon for the guessed rows; None if no epsilon up to 256 does."""
    rows: int | None
    """About how many rows the epsilon of the specification needs."""


@dataclass(frozen=True)
class Plan:
    """What a release would measure, and what it would cost."""

    epsilon: float
    delta: float
    rho: float
    rows: int | None
    blocks: tuple[PlannedBlock, ...]
    accounting: Accounting
    """The currency of the noise: "gdp", where rho is mu^2/2, or "zcdp"."""
    notes: dict[str, Any] = field(default_factory=dict)
    outlooks: tuple[Outlook, ...] = ()
    """The expected loss of the specification from noise, and changes that would lower it."""
    want: Wanted | None = None
    """Settings that reach the loss that was asked for."""
    width: int = field(default=0, repr=False, compare=False)
    """Number of features."""
    features: FeatureMap | None = field(default=None, repr=False, compare=False)
    """The map of rows to the lattice; with assumed bounds where these are found privately."""
    queries: tuple[PassQuery, ...] = field(default=(), repr=False, compare=False)
    """The queries of the passes, on simulated answers."""
    setting: Setting = field(repr=False, compare=False, kw_only=True)
    """The problem and its budget, to compare with other settings."""
    driver_seconds: float = field(default=0.0, repr=False, compare=False)
    """Time of the driver's own work between the passes, on this machine."""

    def to_dict(self) -> dict[str, Any]:
        """What would be measured and what it would cost, as JSON values."""
        document = asdict(replace(self, queries=(), features=None))
        return {key: document[key] for key in document if key not in _NOT_IN_JSON}


def plan(spec: ReleaseSpec, *, rows: int | None = None, want: float | None = None) -> Plan:
    """The plan of a specification, for a public guess of the number of rows.

    ``want`` asks which epsilon, and how many rows, lose at most that many nats a row.

    Raises
    ------
    SpecError
        When the number of features is neither in the specification nor in the schema, or ``want``
        is not positive.
    """
    width = spec.dim_hint or _schema_width(spec)
    noise = noise_source(spec.privacy.noise)
    rho = rho_of(spec.privacy, noise)
    guess = rows or ASSUMED_ROWS
    imagined = _Imagined(problem_of(spec, width, rho), guess, unit_share(spec.dataset))
    problem, features = _first_answers(spec, imagined, width, rho)
    privacy = spec.privacy
    setting = Setting(problem, rho, privacy.epsilon, privacy.delta, noise.accounting, guess)
    wanted = None
    if want is not None:
        wanted = Wanted(want, epsilon_for(setting, want), rows_for(setting, want))
    start = time.perf_counter()
    with threadpool_limits(1, "blas"), np.errstate(all="ignore"):
        fitted = fit(problem, imagined.ask)
    driver_seconds = time.perf_counter() - start
    last, weights = imagined.blocks[-1].step, fitted.mixture.weights
    notes = fitted.notes
    if "gain_over_sphere" in notes:
        notes = _staged_notes(problem, guess, notes)
    elif chooses_components(notes):
        # Simulated rows are one Gaussian, so the number chosen for them says nothing.
        notes["structure"] = f"{structure_words(problem, guess)}, chosen by noisy answers"
    if rows is not None:
        notes["rows_per_component"] = _rows_rule(problem, imagined.blocks, rows, fitted)
    return Plan(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        rho=rho,
        rows=rows,
        blocks=tuple(_with_kl(block, last, problem, rows, weights) for block in imagined.blocks),
        accounting=noise.accounting,
        notes=notes,
        outlooks=outlooks(setting),
        want=wanted,
        setting=setting,
        width=width,
        features=features,
        queries=tuple(imagined.queries),
        driver_seconds=driver_seconds,
    )


def _first_answers(
    spec: ReleaseSpec, imagined: _Imagined, width: int, rho: float
) -> tuple[Problem, FeatureMap]:
    """The mixture's problem once bounds and marginals are known, and the map of rows.

    ``rho`` is the whole budget. After this, ``imagined`` answers queries about that problem.
    """
    rho_in_rows = problem_of(spec, width, rho).rho
    bounds = find_bounds(spec, width, rho_in_rows, imagined.ask_bins)
    scores = find_scores(spec, bounds.features, {}, rho_in_rows, imagined.ask_bins)
    first = {**bounds_steps(spec), **marginals_steps(spec)}
    norm = bounds.features.norm if scores is None else scores.norm
    coordinates = width if scores is None else scores.width
    problem = problem_of(spec, coordinates, rho * (1 - sum(first.values())), norm)
    imagined.use(
        problem,
        norm / FEATURE_RADIUS,
        None if scores is None else scores.codes,
        _unit_of(spec, scores is not None),
    )
    return problem, bounds.features


def _unit_of(spec: ReleaseSpec, scores: bool) -> str:
    """The unit of features, in words."""
    if scores:
        return "normal scores"
    return "half widths of the bounds" if spec.bounds.columns is not None else "input units"


def _staged_notes(problem: Problem, rows: int, notes: dict[str, Any]) -> dict[str, Any]:
    """The structure and loss of the stages for a guess of the rows: simulated answers lack them."""
    kept = {key: value for key, value in notes.items() if key not in _OF_NOISY_ANSWERS}
    return {
        **kept,
        "structure": planned_structure(problem, rows),
        "expected_loss": predicted_loss(problem, rows),
        "rows_for_components": rows_for_components(problem, rows),
    }


def chooses_components(notes: Mapping[str, Any]) -> bool:
    """Whether a release chooses the number of components among several, by noisy answers."""
    return bool(notes.get("components_choice", _AS_SPECIFIED) != _AS_SPECIFIED)


def _rows_rule(
    problem: Problem, blocks: list[PlannedBlock], rows: int, fitted: Fitted
) -> dict[str, float]:
    """Rows of a component by this guess, and rows that a covariance of its own needs."""
    last = blocks[-1].step
    if last.startswith("components"):
        last_rho = sum(block.rho for block in blocks if block.step == last)
    else:
        last_rho = LAST_SHARE * problem.rho  # the budget that a pass over the components would have
    return {
        "expected": rows / fitted.mixture.n_components,
        "needed": rows_per_component(fitted.mixture.dimension, last_rho, problem.allocation),
    }


def _schema_width(spec: ReleaseSpec) -> int:
    try:
        return open_dataset(spec.dataset).width
    except SpecError as error:
        raise SpecError(f"{error} (or set dataset.width to plan without the data)") from None


class _Imagined:
    """Answers plans as if rows were one spherical Gaussian per label, and records the queries."""

    def __init__(self, problem: Problem, rows: int, unit: UnitShare) -> None:
        self._problem = problem
        self._rows = rows
        self._step = 1.0
        self._codes: Codes | None = None
        self._unit = unit
        self._unit_name = "input units"
        self.blocks: list[PlannedBlock] = []
        self.queries: list[PassQuery] = []

    def use(self, problem: Problem, step: float, codes: Codes | None, unit: str) -> None:
        """Set the problem, the spacing of the lattice with its unit, and the scores of columns."""
        self._problem, self._step, self._codes, self._unit_name = problem, step, codes, unit

    def ask_bins(self, plan: BinsPlan) -> tuple[ObservedBins, ...]:
        """Record the query and answer it as if half the rows were at 1 and half at -1."""
        query = compile_bins(plan, self._problem.labels, self._unit)
        self.queries.append(query)
        self._note(query, 1.0, "rows")
        answers = []
        for block in query.blocks:
            counts = []
            for edges, bins in zip(plan.edges, block.bins or (), strict=True):
                codes = np.searchsorted(edges, [-1.0, 1.0], "right")
                share = np.full(2, self._rows / 2)
                found = np.bincount(bins[codes], share, minlength=int(bins.max()) + 1)
                groups = (block.group_count, len(found))
                evenly = np.broadcast_to(found / block.group_count, groups)
                counts.append(evenly if block.group_count > 1 else found.astype(np.float64))
            answers.append(ObservedBins(tuple(counts), 1e-9))
        return tuple(answers)

    def ask(self, plan: PassPlan, latent: Latent) -> Observed:
        """Record the query and answer it without noise."""
        query = compile_pass(plan, latent, self._step, self._unit)
        if self._codes is not None:
            query = with_codes(query, self._codes)
        self.queries.append(query)
        if plan.cell_map is None:
            self._note(query, self._step, self._unit_name)
        else:
            self._note(query, plan.radius / query.radius, "standard deviations")
        p = query.dimension
        spread = 1.0 if plan.cell_map is not None else self._variance(p)
        per_label = self._rows / self._problem.labels
        share = per_label / np.bincount(plan.cell_label)[plan.cell_label]
        blocks = []
        for block in plan.blocks:
            count = np.bincount(block.groups, share).astype(np.float64)
            start, stop = block.axes or (0, p)
            q = stop - start
            values: Floats = {
                "count": count,
                "square": count * q * spread,
                "sum": np.zeros((len(count), q)),
                "second": count[:, None, None] * np.eye(q) * spread,
            }[block.statistic]
            blocks.append(ObservedBlock(block.statistic, block.groups, values, 1e-9))
        return Observed(
            plan.step,
            plan.cell_label,
            plan.centres,
            partial(_inverses, plan, p),
            plan.radius,
            tuple(blocks),
            0.0,
        )

    def _variance(self, p: int) -> float:
        return (self._problem.norm / _SPREAD) ** 2 / p

    def _note(self, query: PassQuery, unit: float, name: str) -> None:
        """Record the lines of the plan; ``unit`` is a lattice step in the units of that name."""
        for block in query.blocks:
            self.blocks.append(
                PlannedBlock(
                    step=query.step,
                    statistic=block.statistic,
                    groups=block.group_count,
                    dimension=query.dimension_of(block),
                    radius=query.radius_of(block) * unit,
                    rho=float(block_cost(query, block)),
                    noise=block.sigma / query.weight_unit * unit ** POWERS[block.statistic],
                    expected_kl=None,
                    unit=name,
                )
            )


def _inverses(plan: PassPlan, p: int) -> Floats:
    if plan.cell_map is None:
        return np.broadcast_to(np.eye(p), (len(plan.cell_label), p, p))
    return inverses_of(plan.whiten, plan.cell_map)


def _with_kl(
    block: PlannedBlock, last: str, problem: Problem, rows: int | None, weights: np.ndarray
) -> PlannedBlock:
    """Add the expected KL of the last pass's blocks, where components are estimated."""
    if rows is None or block.step != last or not block.step.startswith("components"):
        return block
    index = ("count", "sum", "second").index(block.statistic)
    pooled = np.ones(1) if block.groups == 1 else np.full(block.groups, 1 / block.groups)
    share = weights if block.groups == len(weights) else pooled
    variances = [0.0, 0.0, 0.0]
    variances[index] = block.noise**2
    kl = expected_kl(block.dimension, float(rows), share, variances)[index]
    return replace(block, expected_kl=kl)
