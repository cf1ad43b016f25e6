"""How a release queries the data: store the query, sum, charge, measure, store the answer.

Everything private stays behind :meth:`Session.ask`. What it returns is noisy, and already stored.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from dpgmm_dist.artifact.receipt import round_up
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.data.codes import ColumnCodes
from dpgmm_dist.data.lattice import FeatureMap, RowMap
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.pass_plan import BinsPlan, Latent, Observed, ObservedBins, PassPlan
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.pipeline.compile import (
    compile_bins,
    compile_pass,
    observe,
    observe_bins,
    with_codes,
)
from dpgmm_dist.pipeline.privacy_units import PassInput, Prepare
from dpgmm_dist.pipeline.run_record import RunRecord
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.measure import NoisyStatistic, measure
from dpgmm_dist.privacy.noise import NoiseSource
from dpgmm_dist.privacy.query import FEATURE_RADIUS, Codes, PassQuery, UnitShare
from dpgmm_dist.privacy.sensitivity import block_cost, query_cost
from dpgmm_dist.progress import PassProgress, Progress
from dpgmm_dist.tracing import span


class Session:
    """Answers plans in order. A restarted job replays stored answers and measures the others."""

    def __init__(
        self,
        *,
        budget: Budget,
        rho: Fraction,
        noise: NoiseSource,
        engine: Engine,
        rows: Prepare,
        unit: UnitShare,
        labels: int,
        passes: int,
        progress: Progress,
        record: RunRecord | None = None,
    ) -> None:
        self._budget = budget
        self._rho = rho
        self._noise = noise
        self._engine = engine
        self._rows = rows
        self._features: FeatureMap | None = None
        self._kept_by: FeatureMap | ColumnCodes | None = None
        self._mapped: tuple[object, RowMap] | None = None
        self._step: float | None = None
        self._codes: Codes | None = None
        self._unit = unit
        self._labels = labels
        self._passes = passes
        self._progress = progress
        self._record = record or RunRecord()
        # What is kept of each query: its arrays are large.
        self._listed: list[dict[str, Any]] = []
        self._spent = Fraction(0)

    def ask_bins(self, plan: BinsPlan) -> tuple[ObservedBins, ...]:
        """Answer a plan that counts bins of columns: the noisy counts of each of its blocks."""
        query, stored = self._answer(compile_bins(plan, self._labels, self._unit))
        return observe_bins(query, stored)

    def use(self, features: FeatureMap) -> None:
        """Set the map of rows to the lattice, once all its bounds are known."""
        self._features, self._step = features, features.step
        self._kept_by = features

    def keep_codes(self, codes: ColumnCodes) -> None:
        """Set the codes that rows of privacy units are kept as, in place of lattice points."""
        self._kept_by = codes

    def use_scores(self, codes: Codes, norm: float) -> None:
        """Replace rows by the scores of their codes, whose norm in feature units is bounded."""
        self._codes, self._step = codes, norm / FEATURE_RADIUS

    def ask(self, plan: PassPlan, latent: Latent) -> Observed:
        """Answer one plan, in the latent coordinates of its cells."""
        step = self._step
        if step is None:
            raise ValueError("the map of rows to the lattice is not known yet")
        planned = compile_pass(plan, latent, step, self._unit)
        if self._codes is not None:
            planned = with_codes(planned, self._codes)
        query, noisy = self._answer(planned)
        return observe(query, noisy, latent, step)

    def _answer(self, planned: PassQuery) -> tuple[PassQuery, NoisyStatistic]:
        """The stored query of this step and its answer.

        The stored query is the one that is executed, priced and read back: a driver on another
        processor would compute other last bits.
        """
        index = len(self._listed)
        journal = self._budget.journal
        query = PassQuery.from_bytes(journal.put_query(index, planned.step, planned.to_bytes()))
        self._require_affordable(planned, query)
        stored = journal.answer(index)
        if stored is None:
            with span("dpgmm.pass", step=query.step):
                stored = self._measure(index, query)
        else:
            self._record.replayed()
        self._progress(PassProgress(query.step, index + 1, self._passes, 1.0))
        return query, NoisyStatistic.from_bytes(stored)

    def expect_passes(self, passes: int) -> None:
        """Set how many passes there will be, as progress shows it."""
        self._passes = passes

    def _measure(self, index: int, query: PassQuery) -> bytes:
        def report(step: str, fraction: float) -> None:
            self._progress(PassProgress(step, index + 1, self._passes, fraction))

        exact = self._sum(self._rows, query, report)
        self._budget.charge()
        noisy = measure(exact, query, self._noise)
        return self._budget.journal.put_answer(index, query.step, noisy.to_bytes())

    def _sum(
        self, prepare: Prepare, query: PassQuery, report: Callable[[str, float], None]
    ) -> ExactStatistic:
        """The exact sums over rows that a query asks for. PRIVATE."""
        rows = prepare(self._kept_by, query, partial(report, "privacy units"))
        report(query.step, 0.0)
        context = PassContext(rows.source, self._row_map(rows, query), query)
        exact = self._record.summed(
            query.step,
            rows.units,
            partial(report, query.step),
            self._engine,
            lambda watched: self._engine.run(context, rows.units, watched),
        )
        rows.require_unchanged()
        return exact

    def _row_map(self, rows: PassInput, query: PassQuery) -> RowMap:
        """The map of the rows to those of the query; the same object for the same map.

        An engine that keeps mapped rows between passes knows them by it.
        """
        key = _identity_of_codes(query) if query.edges else self._features
        is_unchanged = self._mapped is not None and _same_map(self._mapped[0], key)
        if self._mapped is None or not is_unchanged:
            self._mapped = (key, rows.row_map(self._features, query))
        return self._mapped[1]

    def _require_affordable(self, planned: PassQuery, query: PassQuery) -> None:
        same_unit = (query.unit_rows, query.weighted) == (self._unit.rows, self._unit.weighted)
        width = planned.width
        if self._features is not None and self._codes is None and not planned.counts_bins:
            width = self._features.width
        same_kind = (query.counts_bins, query.width) == (planned.counts_bins, width)
        if query.step != planned.step or not same_kind or not same_unit:
            raise DataError(
                f"the journal holds query {query.step!r} where {planned.step!r} is due: it was "
                "written by another version; finish the release with that version, or begin a "
                "new one"
            )
        self._listed.append(receipt_query(query))
        self._spent += query_cost(query)
        if self._spent > self._rho:
            raise DataError(
                f"the stored queries up to {query.step!r} cost rho {float(self._spent):.6g}, more "
                f"than the charge of {float(self._rho):.6g}: the journal does not belong to this "
                "charge"
            )

    def receipt_queries(self) -> list[dict[str, Any]]:
        """Every query as the receipt lists it: radius, noise scale and rho, no centres or maps."""
        return list(self._listed)


def _identity_of_codes(query: PassQuery) -> tuple[Any, ...]:
    """The key of the codes of a query: edges, columns, and the point."""
    empty = np.empty(0)
    columns = empty if query.columns is None else query.columns
    about = empty if query.about is None else query.about
    return (*query.edges, columns, about, np.array(query.missing))


def _same_map(map_a: object, map_b: object) -> bool:
    """Whether two maps, each the arrays of codes or a feature map, are the same."""
    if isinstance(map_a, tuple) and isinstance(map_b, tuple):
        return len(map_a) == len(map_b) and all(map(np.array_equal, map_a, map_b))
    return map_a is map_b


def receipt_query(query: PassQuery) -> dict[str, Any]:
    """A query as the receipt lists it."""
    blocks: list[dict[str, Any]] = [
        {
            "statistic": block.statistic,
            "groups": block.group_count,
            "dimension": query.dimension_of(block),
            "radius": query.radius_of(block),
            "weight_unit": query.weight_unit,
            "unit_rows": query.unit_rows,
            "sigma": block.sigma,
            "sigma_off": block.sigma_off if query.dimension_of(block) > 1 else None,
            "rho": round_up(block_cost(query, block)),
            **({"bins": list(block.bin_counts)} if block.bins else {}),
        }
        for block in query.blocks
    ]
    # The sum of the listed costs, so that a reader's own sum is never above it.
    total = sum((Fraction(block["rho"]) for block in blocks), Fraction(0))
    return {"step": query.step, "blocks": blocks, "rho": round_up(total)}
