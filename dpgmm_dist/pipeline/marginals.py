"""The marginals of a table, measured before the mixture, which is then fitted to normal scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.data.codes import ColumnCodes
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model.problem import Fitted
from dpgmm_dist.model.tables import categories, marginals
from dpgmm_dist.model.tables.column_map import ColumnMap, maps_of
from dpgmm_dist.model.tables.polychoric import Intervals, behind_scores
from dpgmm_dist.model.tables.presence import Presence, given_values, presences_of
from dpgmm_dist.pipeline.bounds import AskBins
from dpgmm_dist.privacy.query import FEATURE_RADIUS, Codes
from dpgmm_dist.spec.release_spec import ReleaseSpec

Floats = npt.NDArray[np.float64]
KeepCodes = Callable[[ColumnCodes], None]


@dataclass(frozen=True, eq=False)
class Scores:
    """The columns of a table as normal scores."""

    columns: tuple[marginals.Marginal, ...]
    missing: bool = False
    """Whether rows may lack values."""

    @cached_property
    def presences(self) -> tuple[Presence, ...]:
        """The presence coordinates of columns that lack values, after those of the columns."""
        return presences_of(self.columns)

    @property
    def width(self) -> int:
        """Number of coordinates of a row."""
        return len(self.columns) + len(self.presences)

    @property
    def norm(self) -> float:
        """Bound on the norm of a row of scores."""
        return marginals.norm_of_scores(self.width)

    @property
    def codes(self) -> Codes:
        """The edges of each coordinate, and the lattice coordinate of each of its codes."""
        edges = [column.bins.edges for column in self.columns]
        scores = [column.scores[column.bins.rank] for column in self.columns]
        if not self.missing:
            return Codes(tuple(edges), self._on_lattice(scores))
        scores = [np.append(of_column, 0.0) for of_column in scores]
        edges += [np.empty(0)] * len(self.presences)
        scores += [np.array([presence.present, presence.absent]) for presence in self.presences]
        features = [*range(len(self.columns)), *(presence.column for presence in self.presences)]
        return Codes(tuple(edges), self._on_lattice(scores), np.array(features), missing=True)

    def _on_lattice(self, scores: list[Floats]) -> tuple[npt.NDArray[np.int64], ...]:
        step = self.norm / FEATURE_RADIUS
        return tuple(np.rint(column / step).astype(np.int64) for column in scores)

    def behind(self, fitted: Fitted) -> Fitted:
        """The fitted mixture with the moments of the normal variables behind the scores.

        Coordinates of values are then those of the rows that have one.
        """
        if fitted.latent.basis is not None:
            return fitted
        offset = np.zeros(self.width) if fitted.latent.offset is None else fitted.latent.offset
        mixture = given_values(fitted.mixture, offset, self.presences)
        measured = (*self.columns, *(presence.marginal for presence in self.presences))
        intervals = tuple(Intervals.of(marginal) for marginal in measured)
        return replace(fitted, mixture=behind_scores(mixture, offset, intervals))

    def maps(self, fitted: Fitted) -> tuple[ColumnMap, ...]:
        """The maps of columns that give the mixture the measured marginals."""
        mixture, basis = fitted.mixture, fitted.latent.basis
        covariances = mixture.covariances
        if basis is not None:
            covariances = basis @ covariances @ basis.T
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        means = fitted.latent.to_features(mixture.means)
        return maps_of(self.columns, mixture.weights, means, variances, self.presences)

    def describe(self, spec: ReleaseSpec) -> dict[str, Any]:
        """Public facts for the receipt.

        For each column: the number of bins, and how many of them are atoms; its unit, where there
        is one; the order in which the values of categories have their scores; the share of rows
        that lack a value, where asked.
        """
        facts: dict[str, Any] = {}
        for name, column in zip(spec.feature_names, self.columns, strict=True):
            facts[name] = {
                "bins": column.bins.count,
                "atoms": int(column.atoms.sum()),
                "one_value_each": bool(column.bins.single.all()),
            }
            if column.bins.unit:
                facts[name]["unit"] = column.bins.unit
            if name in spec.categories:
                places = column.bins.places.astype(int).tolist()
                facts[name]["order"] = [spec.categories[name][place] for place in places]
            if self.missing:
                facts[name]["missing"] = column.missing
        return facts


def marginals_steps(spec: ReleaseSpec) -> dict[str, float]:
    """The share of rho of each pass that counts marginals: public, empty where there is none."""
    if not spec.has_marginals:
        return {}
    of_categories = {categories.STEP: categories.SHARE} if spec.categories else {}
    return {
        **of_categories,
        marginals.FIRST_STEP: marginals.FIRST_SHARE,
        marginals.STEP: marginals.COARSE_SHARE + marginals.FINE_SHARE,
    }


def most_coordinates(spec: ReleaseSpec, width: int) -> int:
    """The largest number of coordinates that a row of ``width`` features may have."""
    return 2 * width if spec.models_nulls else width


def find_scores(
    spec: ReleaseSpec,
    features: FeatureMap,
    types: Mapping[str, str],
    rho: float,
    ask: AskBins,
    keep: KeepCodes = lambda _: None,
) -> Scores | None:
    """The normal scores of a table within its bounds; None where columns stay as they are.

    Parameters
    ----------
    types : the type of each column of the input, which decides whether it holds whole numbers
    rho : the budget of the whole release
    keep : called with the codes that rows of privacy units are kept as, where the lattice is not
        enough: it cannot represent missing values
    """
    if not spec.has_marginals or features.lower is None or features.upper is None:
        return None
    missing, sizes = spec.models_nulls, _sizes(spec)
    bins = _bins(spec, features, types)

    def keep_codes_of(edges: tuple[Floats, ...]) -> None:
        """Codes of which every query asks for some, or for the presence of a value."""
        if missing or spec.categories:
            named = (categories.edges_of(size) for size in sizes.tolist())
            keep(ColumnCodes((*edges, *named), missing=missing))

    keep_codes_of(marginals.first_edges(bins))
    counted: tuple[marginals.Marginal, ...] = ()
    if spec.categories:
        category_features = len(bins) + np.arange(len(sizes))
        answers = ask(categories.categories_plan(sizes, category_features, rho, missing))
        counted = categories.estimate(sizes, answers[0])
    number_features = np.arange(len(bins)) if spec.categories else None
    first_counts, *of_units = ask(marginals.first_plan(bins, rho, number_features, missing))
    bins = marginals.refine(bins, first_counts, *of_units)
    keep_codes_of(tuple(column.edges for column in bins))
    coarse, fine = ask(marginals.marginals_plan(bins, rho, number_features, missing))
    return Scores((*marginals.estimate(bins, first_counts, coarse, fine), *counted), missing)


def _sizes(spec: ReleaseSpec) -> npt.NDArray[np.int64]:
    """The number of values of each column of categories."""
    return np.array([len(values) for values in spec.categories.values()], dtype=np.int64)


def _bins(
    spec: ReleaseSpec, features: FeatureMap, types: Mapping[str, str]
) -> tuple[marginals.FineBins, ...]:
    """The fine bins of the columns that hold numbers."""
    names = spec.dataset.number_names
    lower, upper = features.lower or (), features.upper or ()
    return tuple(
        marginals.FineBins.of(
            low, high, unit_of(types.get(name, "")), len(names), _is_clock(types.get(name, ""))
        )
        for name, low, high in zip(names, lower, upper, strict=False)
    )


def unit_of(kind: str) -> float:
    """The unit that all numbers of a type are multiples of; 0 where there is none."""
    if kind.startswith(("int", "uint", "bool", "date")):
        return 1.0
    if scale := re.fullmatch(r"decimal\d+\(\d+, (-?\d+)\)", kind):
        return float(f"1e{-int(scale[1])}")
    if resolution := re.match(r"(?:timestamp|time32|time64|duration)\[(s|ms|us|ns)", kind):
        return {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[resolution[1]]
    return 0.0


def _is_clock(kind: str) -> bool:
    return kind.startswith(("timestamp", "time32", "time64", "duration"))
