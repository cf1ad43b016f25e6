"""What a release returns, and the receipt that it publishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpgmm_dist.artifact.receipt import build_receipt
from dpgmm_dist.budget.budget import Budget
from dpgmm_dist.model.problem import Fitted
from dpgmm_dist.pipeline.measuring import Measured
from dpgmm_dist.pipeline.privacy_units import describe_estimand, describe_unit
from dpgmm_dist.pipeline.session import Session
from dpgmm_dist.privacy.noise import NoiseSource
from dpgmm_dist.spec.release_spec import ReleaseSpec


@dataclass(frozen=True)
class ReleaseResult:
    """The place of a release, and its cost."""

    path: str
    release_id: str
    already_done: bool
    fitted: Fitted | None = None
    receipt: dict[str, Any] | None = None
    run: dict[str, Any] | None = None
    """The public part of the record of the run; the rest is kept beside the ledger."""

    def summary(self) -> dict[str, Any]:
        """The public facts that the command prints."""
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


def receipt_of(
    spec: ReleaseSpec,
    release_id: str,
    *,
    noise: NoiseSource,
    session: Session,
    budget: Budget,
    measured: Measured,
) -> dict[str, Any]:
    """The receipt: the specification, every query with its noise, and what they cost together."""
    found, scores, fitted = measured.bounds.found, measured.scores, measured.fitted
    return build_receipt(
        release_id=release_id,
        specification=spec.public_dict(),
        specification_digest=spec.digest(),
        epsilon=spec.privacy.epsilon,
        delta=spec.privacy.delta,
        mechanism=noise.name,
        accounting=noise.accounting,
        queries=session.receipt_queries(),
        private=noise.private,
        privacy_reason=None if noise.private else "made with --insecure-test-noise",
        unit=describe_unit(spec.dataset.privacy_unit),
        ledger=budget.facts(),
        further_keys={
            **({"bounds_found": found} if found else {}),
            **({"marginals": scores.describe(spec)} if scores else {}),
            "plan": fitted.notes,
            "noisy_rows": fitted.rows,
            "estimated": describe_estimand(spec.dataset.privacy_unit),
        },
    )
