"""Missing values as a state of a column: public numbers only.

A column that lacks values in more rows than noise explains has two coordinates in the mixture:
whether there is a value, and the value, which is 0 (the middle of its scores) where there is none.
These zeros are not values. So the moments of a component are replaced by those of the rows that
have a value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.tables.marginals import FineBins, Marginal
from dpgmm_dist.model.tables.polychoric import valid_covariance

Floats = npt.NDArray[np.float64]

_LEAST_PRESENT = 0.05
"""Share of a component's rows with a value below which its own moments of it tell nothing."""
_LEAST_VARIANCE = 1e-3
"""Least variance of a value among the rows that have it, as a part of that of all rows."""


@dataclass(frozen=True, eq=False)
class Presence:
    """Whether a column has a value: a coordinate beside that of the value."""

    column: int
    """The column, which is the coordinate of its value as well."""
    coordinate: int
    marginal: Marginal
    """Of two bins: no value, and one."""

    @property
    def absent(self) -> float:
        """The score of a row that has no value."""
        return float(self.marginal.scores[0])

    @property
    def present(self) -> float:
        """The score of a row that has one."""
        return float(self.marginal.scores[1])


def presences_of(marginals: tuple[Marginal, ...]) -> tuple[Presence, ...]:
    """The coordinates of presence, after those of the columns."""
    lacking = [j for j, marginal in enumerate(marginals) if marginal.missing > 0]
    return tuple(
        Presence(column, len(marginals) + index, _presence(marginals[column].missing))
        for index, column in enumerate(lacking)
    )


def _presence(missing: float) -> Marginal:
    one_value_each = np.ones(2, dtype=np.bool_)
    bins = FineBins(0.0, 1.0, np.array([0.5]), np.array([0.0, 1.0]), one_value_each)
    return Marginal(bins, np.array([missing, 1 - missing]), one_value_each)


def given_values(mixture: Mixture, offset: Floats, presences: tuple[Presence, ...]) -> Mixture:
    """The mixture whose coordinates of values are those of the rows that have one.

    A value is then independent of whether there is one, within a component; what goes with its
    absence is in the presence coordinate.

    Parameters
    ----------
    mixture : of scores, less the offset
    offset : (p,)
    presences : of which columns values may be missing
    """
    if not presences or isinstance(mixture.form, SharedCovariances):
        return mixture
    moved = [
        _given_values(mean + offset, covariance, presences)
        for mean, covariance in zip(mixture.means, mixture.covariances, strict=True)
    ]
    means, covariances = (np.stack(part) for part in zip(*moved, strict=True))
    return replace(mixture, means=means - offset, covariances=covariances)


def _given_values(
    mean: Floats, covariance: Floats, presences: tuple[Presence, ...]
) -> tuple[Floats, Floats]:
    """Mean (p,) and covariance (p, p) of one component, of rows that have each value."""
    second_moment = covariance + np.outer(mean, mean)
    share, shift = np.ones(len(mean)), np.zeros((len(mean), len(mean)))
    known = [presence for presence in presences if _share_present(presence, mean) >= _LEAST_PRESENT]
    for presence in known:
        share[presence.column] = _share_present(presence, mean)
        # How much larger each coordinate is, on average, in rows that have the value.
        width = presence.present - presence.absent
        shift[presence.column] = covariance[presence.coordinate] / (share[presence.column] * width)
    given = mean / share
    out = covariance.copy()
    for presence in known:
        j = presence.column
        row = second_moment[j] / share[j] - given[j] * (mean + shift[j])
        for other in known:
            i = other.column
            share_of_both = _share_of_both(presence, other, covariance, share)
            row[i] = second_moment[j, i] / share_of_both - given[j] * given[i]
        row[j] = max(
            second_moment[j, j] / share[j] - given[j] ** 2, _LEAST_VARIANCE * covariance[j, j]
        )
        row[presence.coordinate] = 0.0
        out[j], out[:, j] = row, row
    # Columns that lack values together have presences that are all but the same. Whatever noise
    # tells these apart must not scale down the correlations of values.
    doubt = 1 - share
    doubt[[presence.coordinate for presence in presences]] = 1.0
    return given, valid_covariance(out, doubt)


def _share_present(presence: Presence, mean: Floats) -> float:
    """The share of a component's rows that have the value, by its mean (p,)."""
    share = (mean[presence.coordinate] - presence.absent) / (presence.present - presence.absent)
    return float(np.clip(share, 0.0, 1.0))


def _share_of_both(presence: Presence, other: Presence, covariance: Floats, share: Floats) -> float:
    """The share of a component's rows that have both values."""
    widths = (presence.present - presence.absent) * (other.present - other.absent)
    p, q = float(share[presence.column]), float(share[other.column])
    together = p * q + float(covariance[presence.coordinate, other.coordinate]) / widths
    return min(max(together, _LEAST_PRESENT * min(p, q)), p, q)
