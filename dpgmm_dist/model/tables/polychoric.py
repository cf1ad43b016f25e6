"""Normal variables behind scores that are atoms: polychoric correlations, public numbers only.

All rows of an atom, or a category, have one score: the mean of a normal variable over an interval.
Scores vary less than that variable, and their correlations are nearer to 0. A sample is cut
into the same intervals again, and loses as much a second time. So the moments of a component are
replaced by those of the normal variables whose scores have the measured moments.

For standard normal variables with correlation r, ``E[f(X) g(Y)] = sum_n r^n f_n g_n`` with the
coefficients of f and g in normalised Hermite polynomials, which increases with r where f and g do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.special import ndtr, ndtri

from dpgmm_dist.model.covariances import SharedCovariances
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.tables.marginals import Marginal

Floats = npt.NDArray[np.float64]

_LOST = 0.02
"""Share of its variance that a coordinate must lose to its intervals to be corrected."""
_ORDERS = 24
_LARGEST = 0.995
"""Bound on corrected correlations."""
_ITERATIONS = 12
_HALVINGS = 40
_MOST_RATIO = 1.1
"""How much more variance than was measured scores may have."""
_LEAST_CORRELATED = 1e-3
"""Least eigenvalue of the correlations of a component; least share of a coordinate's variance that
those before it do not explain, where correlations are mended."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """The intervals of a standard normal variable, and the score that stands for each."""

    inner: Floats
    """(B - 1,) their ends, not decreasing."""
    scores: Floats
    """(B,) not decreasing."""
    lost: Floats
    """(B,) variance of the variable within each of them."""
    share: float
    """Of the variance of the variable, the share within the intervals."""

    @classmethod
    def of(cls, marginal: Marginal) -> Intervals:
        """The intervals of the distribution of a column."""
        ends = ndtri(marginal.upto)
        density = np.exp(-0.5 * ends**2) / np.sqrt(2 * np.pi)
        weighted = np.where(np.isfinite(ends), ends, 0.0) * density
        within = 1 - np.diff(weighted) / marginal.mass - marginal.scores**2
        within = np.clip(within, 0.0, None)
        return cls(ends[1:-1], marginal.scores, within, float(within @ marginal.mass))

    def moments(self, mean: float, spread: float) -> tuple[float, float, float]:
        """Mean and variance of the scores of a normal variable, and the variance within."""
        upto = np.concatenate([[0.0], ndtr((self.inner - mean) / spread), [1.0]])
        mass = np.diff(upto)
        middle = float(mass @ self.scores)
        variance = float(mass @ (self.scores - middle) ** 2)
        return middle, variance, float(mass @ self.lost)

    def slope(self, mean: float, spread: float) -> float:
        """By how much the mean of the scores grows with that of the variable."""
        ends = (self.inner - mean) / spread
        steep = float(np.diff(self.scores) @ np.exp(-0.5 * ends**2))
        return steep / (spread * math.sqrt(2 * math.pi))

    def hermite(self, mean: float, spread: float) -> Floats:
        """Coefficients (orders,) from the first on of the scores of a normal variable."""
        ends = (self.inner - mean) / spread
        jumps = np.diff(self.scores) * np.exp(-0.5 * ends**2) / np.sqrt(2 * np.pi)
        before, now = np.zeros(len(ends)), np.ones(len(ends))
        found = np.empty(_ORDERS)
        for n in range(1, _ORDERS + 1):
            found[n - 1] = float(jumps @ now) / np.sqrt(n)
            before, now = now, (ends * now - np.sqrt(n - 1) * before) / np.sqrt(n)
        return found


def behind_scores(mixture: Mixture, offset: Floats, columns: tuple[Intervals, ...]) -> Mixture:
    """The mixture of the normal variables whose scores have the moments of the mixture.

    Parameters
    ----------
    mixture : of scores, less the offset
    offset : (p,)
    columns : p coordinates
    """
    coarse = [j for j, column in enumerate(columns) if column.share > _LOST]
    if not coarse or isinstance(mixture.form, SharedCovariances):
        return mixture
    moved = [
        _behind(mean + offset, covariance, columns, coarse)
        for mean, covariance in zip(mixture.means, mixture.covariances, strict=True)
    ]
    means, covariances = (np.stack(part) for part in zip(*moved, strict=True))
    return replace(mixture, means=means - offset, covariances=covariances)


def _behind(
    mean: Floats, covariance: Floats, columns: tuple[Intervals, ...], coarse: list[int]
) -> tuple[Floats, Floats]:
    """Mean (p,) and covariance (p, p) of the normal variables of one component."""
    middle, spread = mean.copy(), np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spread, spread)
    lost = np.zeros(len(mean))
    series = np.zeros((len(mean), _ORDERS))
    series[:, 0] = 1.0
    for j in coarse:
        middle[j], spread[j] = _normal_behind(columns[j], float(mean[j]), float(covariance[j, j]))
        found = columns[j].hermite(float(middle[j]), float(spread[j]))
        _, varies, within = columns[j].moments(float(middle[j]), float(spread[j]))
        lost[j] = within / max(varies + within, 1e-300)
        if varies > 0:
            series[j] = found / np.sqrt(varies)
    whole = lost == 0
    solved = _correlations(np.clip(correlation, -_LARGEST, _LARGEST), series)
    solved = np.where(np.outer(whole, whole), correlation, solved)
    np.fill_diagonal(solved, 1.0)
    return middle, valid_covariance(solved * np.outer(spread, spread), lost)


def _normal_behind(column: Intervals, mean: float, variance: float) -> tuple[float, float]:
    """Mean and spread of a normal variable whose scores have this mean and variance.

    The variance within the intervals is added to that of the scores, as far as the scores do not
    vary more then than was measured: a component that is in one interval stays in it.
    """
    middle = mean
    wide = np.sqrt(variance + column.moments(mean, np.sqrt(variance))[2])
    for _ in range(_ITERATIONS):
        found, varies, _ = column.moments(middle, wide)
        slope = max(column.slope(middle, wide), 0.2)
        middle += float(np.clip((mean - found) / slope, -0.5, 0.5))
        if varies > _MOST_RATIO * variance:
            wide *= np.sqrt(max(variance / varies, 0.25))
    return middle, float(wide)


def _correlations(measured: Floats, series: Floats) -> Floats:
    """Correlations (p, p) of normal variables whose scores have the measured correlations.

    ``series`` (p, orders) has the coefficients of the scores, in units of their spread.
    """
    products = series[:, None, :] * series[None, :, :]
    low, high = np.full(measured.shape, -_LARGEST), np.full(measured.shape, _LARGEST)
    for _ in range(_HALVINGS):
        half = (low + high) / 2
        value = np.zeros(measured.shape)
        for n in range(_ORDERS - 1, -1, -1):
            value = half * (value + products[:, :, n])
        low, high = np.where(value < measured, half, low), np.where(value < measured, high, half)
    return np.asarray((low + high) / 2)


def valid_covariance(covariance: Floats, doubt: Floats) -> Floats:
    """The covariance (p, p), with correlations that are those of some distribution.

    Where they are not, coordinates are taken one by one, and the correlations of each with those
    before it are scaled down as far as they have to be. So a column that hardly varies, whose
    correlations are all noise, does not change those between other columns.

    Parameters
    ----------
    doubt : (p,) coordinates with more of it are taken later
    """
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spread, spread)
    if np.linalg.eigvalsh(correlation)[0] >= _LEAST_CORRELATED:
        return covariance
    order = np.argsort(doubt, kind="stable")
    # Rows of the Cholesky factor: what those before explain of each coordinate.
    factor = np.eye(len(spread))
    for k in range(1, len(spread)):
        row = solve_triangular(factor[:k, :k], correlation[order[k], order[:k]], lower=True)
        row *= math.sqrt(min(1.0, (1 - _LEAST_CORRELATED) / max(float(row @ row), 1e-300)))
        factor[k, :k], factor[k, k] = row, math.sqrt(1 - float(row @ row))
    back = np.argsort(order)
    # Several steps that explain nearly all leave eigenvalues that are too small to be factored.
    values, axes = np.linalg.eigh((factor @ factor.T)[np.ix_(back, back)])
    mended = (axes * np.maximum(values, _LEAST_CORRELATED)) @ axes.T
    scale = spread / np.sqrt(np.diag(mended))
    mended = mended * np.outer(scale, scale)
    return np.asarray((mended + mended.T) / 2)
