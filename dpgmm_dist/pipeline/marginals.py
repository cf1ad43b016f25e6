"""The marginals of a table: asked for before the mixture, which is then fitted to normal scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model import marginals
from dpgmm_dist.model.column_map import ColumnMap, maps_of
from dpgmm_dist.model.problem import Fitted
from dpgmm_dist.pipeline.bounds import AskBins
from dpgmm_dist.privacy.query import FEATURE_RADIUS, Codes
from dpgmm_dist.spec.release_spec import ReleaseSpec


@dataclass(frozen=True, eq=False)
class Scores:
    """The columns of a table as normal scores."""

    columns: tuple[marginals.Marginal, ...]

    @property
    def norm(self) -> float:
        """Bound on the norm of a row of scores."""
        return marginals.norm_of_scores(len(self.columns))

    @property
    def codes(self) -> Codes:
        """The edges of each column, and the lattice coordinate of each of its bins."""
        step = self.norm / FEATURE_RADIUS
        return Codes(
            tuple(column.bins.edges for column in self.columns),
            tuple(np.rint(column.scores / step).astype(np.int64) for column in self.columns),
        )

    def maps(self, fitted: Fitted) -> tuple[ColumnMap, ...]:
        """The maps of columns that give the mixture the measured marginals."""
        mixture, basis = fitted.mixture, fitted.latent.basis
        covariances = mixture.covariances
        if basis is not None:
            covariances = basis @ covariances @ basis.T
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        means = fitted.latent.to_features(mixture.means)
        return maps_of(self.columns, mixture.weights, means, variances)

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """Public facts for the receipt: the bins of each column, and how many of them are atoms."""
        return {
            name: {
                "bins": column.bins.count,
                "atoms": int(column.atoms.sum()),
                "one_value_each": bool(column.bins.single.all()),
            }
            for name, column in zip(names, self.columns, strict=True)
        }


def marginals_steps(spec: ReleaseSpec) -> dict[str, float]:
    """The share of rho of the pass that counts marginals: public, empty where there is none."""
    share = marginals.COARSE_SHARE + marginals.FINE_SHARE
    return {marginals.STEP: share} if spec.has_marginals else {}


def find_scores(
    spec: ReleaseSpec,
    features: FeatureMap,
    types: Mapping[str, str],
    rho: float,
    ask: AskBins,
) -> Scores | None:
    """The normal scores of a table within its bounds; None where columns stay as they are.

    Parameters
    ----------
    types : the type of each column of the input, which decides whether it holds whole numbers
    rho : the budget of the whole release
    """
    if not spec.has_marginals or features.lower is None or features.upper is None:
        return None
    bins = tuple(
        marginals.FineBins.of(low, high, _is_whole(types.get(name, "")), len(spec.feature_names))
        for name, low, high in zip(spec.feature_names, features.lower, features.upper, strict=True)
    )
    coarse, fine = ask(marginals.marginals_plan(bins, rho))
    return Scores(marginals.estimate(bins, coarse, fine))


def _is_whole(kind: str) -> bool:
    return kind.startswith(("int", "uint", "bool", "date32"))
