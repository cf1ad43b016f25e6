"""How a release asks about the data: store the query, sum, charge, measure, store the answer.

Everything private stays behind :meth:`Session.ask`. What it returns is noisy, and already stored.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

from dpgmm_dist.artifact.receipt import round_up
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.errors import DataError
from dpgmm_dist.model.plan import Latent, Observed, PassPlan
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.pipeline.compile import compile_pass, observe
from dpgmm_dist.pipeline.privacy_units import Prepare
from dpgmm_dist.privacy.measure import NoisyStatistic, measure
from dpgmm_dist.privacy.noise import NoiseSource
from dpgmm_dist.privacy.query import PassQuery, UnitShare
from dpgmm_dist.privacy.sensitivity import block_cost, query_cost
from dpgmm_dist.progress import PassProgress, Progress


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
        features: FeatureMap,
        unit: UnitShare,
        passes: int,
        progress: Progress,
    ) -> None:
        self._budget = budget
        self._rho = rho
        self._noise = noise
        self._engine = engine
        self._rows = rows
        self._features = features
        self._unit = unit
        self._passes = passes
        self._progress = progress
        # What is kept of each query: its arrays are large.
        self._listed: list[dict[str, Any]] = []
        self._spent = Fraction(0)

    def ask(self, plan: PassPlan, latent: Latent) -> Observed:
        """Answer one plan, in the latent coordinates of its cells.

        The stored query is the one that is executed, priced and read back: a driver on another
        processor would compute other last bits.
        """
        index = len(self._listed)
        step = self._features.step
        planned = compile_pass(plan, latent, step, self._unit).to_bytes()
        query = PassQuery.from_bytes(self._budget.journal.put_query(index, plan.step, planned))
        self._require_affordable(plan, query)
        stored = self._budget.journal.answer(index)
        if stored is None:
            stored = self._measure(index, query)
        self._progress(PassProgress(query.step, index + 1, self._passes, 1.0))
        return observe(query, NoisyStatistic.from_bytes(stored), latent, step)

    def expect_passes(self, passes: int) -> None:
        """Set how many passes there will be, as progress shows it."""
        self._passes = passes

    def _measure(self, index: int, query: PassQuery) -> bytes:
        def report(step: str, fraction: float) -> None:
            self._progress(PassProgress(step, index + 1, self._passes, fraction))

        rows = self._rows(partial(report, "privacy units"))
        report(query.step, 0.0)
        exact = self._engine.run(
            PassContext(rows.source, rows.features, query), rows.units, partial(report, query.step)
        )
        rows.require_unchanged()
        self._budget.charge()
        noisy = measure(exact, query, self._noise)
        return self._budget.journal.put_answer(index, query.step, noisy.to_bytes())

    def _require_affordable(self, plan: PassPlan, query: PassQuery) -> None:
        same_unit = (query.unit_rows, query.weighted) == (self._unit.rows, self._unit.weighted)
        if query.step != plan.step or query.width != self._features.width or not same_unit:
            raise DataError(
                f"the journal holds query {query.step!r} where {plan.step!r} is due: it was "
                "written by another version; finish the release with that version, or begin a "
                "new one"
            )
        self._listed.append(_receipt_query(query))
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


def _receipt_query(query: PassQuery) -> dict[str, Any]:
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
        }
        for block in query.blocks
    ]
    # The sum of what is listed, so that a reader's own sum is never above it.
    total = sum((Fraction(block["rho"]) for block in blocks), Fraction(0))
    return {"step": query.step, "blocks": blocks, "rho": round_up(total)}
