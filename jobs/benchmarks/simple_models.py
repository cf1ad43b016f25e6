"""Simple private models at the budget of a release: what regimes.py compares it with.

One row is the unit. Every model spends exactly mu of Gaussian differential privacy: a query with a
share s of the budget has noise of standard deviation ``sensitivity / (mu sqrt(s))``. Labels
partition the rows, so all labels together have the sensitivity of one.

The noise is numpy's and the sums are floating point. That is good enough to measure accuracy and
not good enough to publish anything.

* ``sphere``: a mean for each label, and one variance for all labels and directions.
* ``nearest_mean``: the whole budget on the labels' means; the label of the nearest one wins.
* ``stages``: centre, labels' means, one second moment about them, a second look at the means. Each
  answer is shrunk toward the stage before it by the amount that its known noise calls for.
* ``logistic``: logistic regression by noisy gradients, a classifier that nothing is sampled from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from density_baselines import clipped
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import isotonic_regression
from scipy.special import logsumexp, softmax

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LEAST_COUNT = 3.0
"""Released counts are at least this, so that a label without rows has a mean too."""
_LEAST_SPREAD = 0.01
"""Released variances (of a row, all directions together) are at least this share of the bound's."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Private rows and what is public about them."""

    X: Floats
    """(n, d) in input units."""
    y: Integers
    """(n,), the label of each row from 0; all 0 without labels."""
    labels: int
    norm: float
    """Public bound on the length of a row; longer rows are scaled down to it."""

    @cached_property
    def unit(self) -> Floats:
        """(n, d) rows in units of the bound, so that none is longer than 1."""
        return clipped(self.X, self.norm) / self.norm

    @property
    def width(self) -> int:
        """Number of columns d."""
        return int(self.X.shape[1])

    def counts(self) -> Floats:
        """Exact number of rows of each label (labels,)."""
        return np.bincount(self.y, minlength=self.labels).astype(np.float64)

    def sums(self, rows: Floats) -> Floats:
        """Exact sum of ``rows`` (n, p) for each label: (labels, p)."""
        out = np.zeros((self.labels, rows.shape[1]))
        for label in np.unique(self.y):
            out[label] = rows[self.y == label].sum(axis=0)
        return out


class Budget:
    """mu, given out in shares that add up to at most one, and the noise that they buy."""

    def __init__(self, mu: float, rng: np.random.Generator) -> None:
        self.mu, self.rng, self.spent = mu, rng, 0.0

    def noise(self, share: float, sensitivity: float) -> float:
        """The noise's standard deviation for one query; its share is spent."""
        self.spent += share
        if self.spent > 1 + 1e-9:
            raise ValueError(f"the queries' shares add up to {self.spent}, more than the budget")
        return sensitivity / (self.mu * math.sqrt(share))

    def answer(self, exact: Floats | float, share: float, sensitivity: float) -> Floats:
        """An exact answer with noise."""
        scale = self.noise(share, sensitivity)
        return exact + scale * self.rng.standard_normal(np.shape(exact))

    def second_moment(self, exact: Floats, share: float, sensitivity: float) -> Floats:
        """An exact second moment (p, p) with noise that is isotropic in the Frobenius norm.

        Off the diagonal the noise's standard deviation is a factor sqrt 2 smaller.
        """
        scale = self.noise(share, sensitivity)
        square = self.rng.standard_normal(exact.shape)
        return exact + scale * (square + square.T) / 2


@dataclass(frozen=True, eq=False)
class LabelGaussians:
    """A Gaussian for each label, all with one covariance."""

    weights: Floats
    """(labels,), summing to one."""
    means: Floats
    """(labels, d)."""
    axes: Floats
    """(d, d), orthogonal, a direction a column."""
    variances: Floats
    """(d,) along the axes."""

    def log_joint(self, rows: Floats) -> Floats:
        """Log density of each row (m, d) and each label: (m, labels)."""
        scale = np.sqrt(self.variances)
        x, means = rows @ self.axes / scale, self.means @ self.axes / scale
        squared = (x**2).sum(axis=1)[:, None] - 2 * x @ means.T + (means**2).sum(axis=1)
        constant = np.log(2 * np.pi * self.variances).sum()
        return np.asarray(np.log(self.weights) - (squared + constant) / 2)

    def log_density(self, rows: Floats) -> Floats:
        """Log density (m,) of rows (m, d), labels marginalised."""
        return np.asarray(logsumexp(self.log_joint(rows), axis=1))

    def predict(self, rows: Floats) -> Integers:
        """The likeliest label (m,) of rows (m, d)."""
        return np.asarray(self.log_joint(rows).argmax(axis=1))

    def in_input_units(self, norm: float) -> LabelGaussians:
        """The model of rows that are ``norm`` times as long."""
        return LabelGaussians(self.weights, norm * self.means, self.axes, norm**2 * self.variances)


# The two simplest ---------------------------------------------------------------------------


def sphere(rows: Rows, budget: Budget) -> LabelGaussians:
    """Means of labels, shrunk together, and one variance."""
    # Of the least expected KL divergence, for rows of a third of the bound's squared length: noise
    # in means costs it labels^2 d^2 / 2 over their share, noise in the variance d 1.2^4 9 / 4.
    share = 0.97 / (1 + 0.4 * rows.labels * math.sqrt(rows.width))
    counts, means = _shrunk_means(rows, budget, count_share=0.03, sum_share=0.97 - share)
    weights = counts / counts.sum()
    residuals = clipped(rows.unit - means[rows.y], 1.2)
    total = budget.answer((residuals**2).sum(), share, 1.2**2) / counts.sum()
    variance = max(float(total), _LEAST_SPREAD) / rows.width
    return _sphere(weights, means, variance).in_input_units(rows.norm)


def nearest_mean(rows: Rows, budget: Budget) -> LabelGaussians:
    """Labels of equal weight about their means; the variance is that of rows as long as the bound.

    The variance plays no part in which label is likeliest.
    """
    counts, means = _shrunk_means(rows, budget, count_share=0.1, sum_share=0.9)
    between = float(counts @ (means**2).sum(axis=1) / counts.sum())
    variance = max(1 - between, _LEAST_SPREAD) / rows.width
    weights = np.full(rows.labels, 1 / rows.labels)
    return _sphere(weights, means, variance).in_input_units(rows.norm)


def _sphere(weights: Floats, means: Floats, variance: float) -> LabelGaussians:
    d = means.shape[1]
    return LabelGaussians(weights, means, np.eye(d), np.full(d, variance))


def _shrunk_means(
    rows: Rows, budget: Budget, count_share: float, sum_share: float
) -> tuple[Floats, Floats]:
    """Counts (labels,) and means (labels, d), each drawn toward the common one by its noise."""
    counts = np.maximum(budget.answer(rows.counts(), count_share, 1.0), _LEAST_COUNT)
    sums = budget.answer(rows.sums(rows.unit), sum_share, 1.0)
    noise = 1 / (budget.mu * math.sqrt(sum_share))
    centre = sums.sum(axis=0) / counts.sum()
    centre = centre * _kept(centre, rows.labels * rows.width * (noise / counts.sum()) ** 2)
    if rows.labels == 1:
        return counts, centre[None]
    apart = sums / counts[:, None] - centre
    energy = rows.width * (noise / counts) ** 2
    kept = [_kept(row, noise_energy) for row, noise_energy in zip(apart, energy, strict=True)]
    return counts, centre + np.array(kept)[:, None] * apart


def _kept(vector: Floats, noise_energy: float) -> float:
    """The share of a noisy vector that is kept (James and Stein, positive part)."""
    return max(1 - noise_energy / max(float(vector @ vector), 1e-300), 0.0)


# The stages ---------------------------------------------------------------------------------

_CENTRE_SHARES = (0.01, 0.03, 0.01)
"""Budget for the number of rows, their sum, their squared lengths."""
_CENTRE = sum(_CENTRE_SHARES)
_SURE = 1.5
"""A spread smaller than so many standard errors is not believed: it would clip nearly all rows."""
_RADIUS, _TIGHT, _LOOSE = 1.2, 0.9, 1.5
"""Clipping radii of sums, second moments and squared lengths, in root mean squares of a row."""
_LOOK_RADIUS = 1.1
"""Clipping radius of the second look, in root mean squares of a whitened row."""


@dataclass(frozen=True)
class Allocation:
    """Budget shares of the stages after the centre."""

    means: float
    pooled: float
    look: float

    @classmethod
    def of(cls, rows: float, width: int, labels: int, mu: float) -> Allocation:
        """From the noisy number of rows: the more noise in the means, the more budget for them."""
        if labels == 1:
            pooled, look = 0.75, 0.0
        else:
            # About the noise's energy in a label's mean at half the budget; a row's is one.
            drowned = width * (labels / (0.7 * mu * rows)) ** 2
            pooled, look = 0.3 / (1 + 2 * drowned), 0.3 / (1 + 4 * drowned)
        return cls(1 - _CENTRE - pooled - look, pooled, look)


def stages(rows: Rows, budget: Budget) -> LabelGaussians:
    """Centre, means of labels, one covariance, and the means again along its axes."""
    d, X = rows.width, rows.unit
    n, centre, spread, least = _centre(X, budget)
    shares = Allocation.of(n, d, rows.labels, budget.mu)

    Z = X - centre
    radius = min(_RADIUS * math.sqrt(spread), 1.0)
    counts = np.maximum(budget.answer(rows.counts(), 0.05 * shares.means, 1.0), _LEAST_COUNT)
    weights = counts / counts.sum()
    sums = budget.answer(rows.sums(clipped(Z, radius)), 0.95 * shares.means, radius)
    means = sums / counts[:, None]
    noise = (radius / (budget.mu * math.sqrt(0.95 * shares.means) * counts)) ** 2
    about = _first_means(means, noise)

    within = max(spread - float(weights @ (about**2).sum(axis=1)), least)
    axes, variances = _pooled(Z - about[rows.y], n, within, shares.pooled, budget)
    if rows.labels == 1:
        return LabelGaussians(weights, centre + about, axes, variances).in_input_units(rows.norm)

    along, unsure = shrunk_along_axes(means @ axes, noise, variances)
    along = _second_look(rows, Z @ axes, counts, along, unsure, variances, shares.look, budget)
    released = LabelGaussians(weights, centre + along @ axes.T, axes, variances)
    return released.in_input_units(rows.norm)


def _centre(X: Floats, budget: Budget) -> tuple[float, Floats, float, float]:
    """Number of rows, their mean (d,), their mean squared distance from it, and its least value."""
    n = max(float(budget.answer(float(len(X)), _CENTRE_SHARES[0], 1.0)), 20.0)
    mean = budget.answer(X.sum(axis=0), _CENTRE_SHARES[1], 1.0) / n
    noise = X.shape[1] / (budget.mu**2 * _CENTRE_SHARES[1] * n**2)
    mean = mean * _kept(mean, noise)
    squared = float(budget.answer((X**2).sum(), _CENTRE_SHARES[2], 1.0)) / n
    least = max(_SURE / (budget.mu * math.sqrt(_CENTRE_SHARES[2]) * n), _LEAST_SPREAD)
    return n, mean, min(max(squared - float(mean @ mean), least), 1.0), min(least, 1.0)


def _first_means(means: Floats, noise: Floats) -> Floats:
    """Means (labels, d) before anything is known of directions: one factor for all of them."""
    d = means.shape[1]
    if len(means) > 1:
        return shrunk_along_axes(means, noise, np.ones(d))[0]
    return means * _kept(means[0], d * float(noise[0]))


def _pooled(
    residuals: Floats, n: float, spread: float, share: float, budget: Budget
) -> tuple[Floats, Floats]:
    """Axes (d, d) and variances (d,) of one covariance; the trace is measured by itself."""
    d = residuals.shape[1]
    tight, loose = _TIGHT * math.sqrt(spread), _LOOSE * math.sqrt(spread)
    squared = (clipped(residuals, loose) ** 2).sum()
    trace = max(float(budget.answer(squared, 0.08 * share, loose**2)) / n, _LEAST_SPREAD)
    inside = clipped(residuals, tight)
    moment = budget.second_moment(inside.T @ inside, 0.92 * share, tight**2) / n
    scale = tight**2 / (budget.mu * math.sqrt(0.92 * share)) / n
    # The trace of the clipped rows: from the moment, and from the loose trace to about a tenth.
    guess = min(trace, tight**2)
    weight = 1 / (1 + d * scale**2 / (0.1 * guess) ** 2)
    clipped_trace = max(weight * float(np.trace(moment)) + (1 - weight) * guess, 0.3 * guess)
    axes, variances = cleaned_spectrum(moment, scale, clipped_trace)
    return axes, variances * trace / variances.sum()


def shrunk_along_axes(means: Floats, noise: Floats, variances: Floats) -> tuple[Floats, Floats]:
    """Posterior means of labels along axes, and their posterior variances.

    Parameters
    ----------
    means : noisy (labels, d) along the axes
    noise : (labels,) variance of the noise in each entry of a label's mean
    variances : (d,) of a row along each axis

    Notes
    -----
    A mean's prior variance along axis j is ``a variances_j^g``; a and g maximise the marginal
    likelihood of the noisy means.
    """
    centre = (means / noise[:, None]).sum(axis=0) / (1 / noise).sum()
    apart = means - centre
    squared, relative = apart**2, variances / variances.mean()
    best, prior = -np.inf, np.zeros_like(variances)
    for power in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0):
        for size in np.geomspace(1e-9, 1.0, 40):
            candidate = size * relative**power
            total = candidate + noise[:, None]
            fit = -0.5 * float((np.log(total) + squared / total).sum())
            if fit > best:
                best, prior = fit, candidate
    kept = prior / (prior + noise[:, None])
    return centre + kept * apart, kept * noise[:, None]


def _second_look(
    rows: Rows,
    along: Floats,
    counts: Floats,
    means: Floats,
    unsure: Floats,
    variances: Floats,
    share: float,
    budget: Budget,
) -> Floats:
    """Means (labels, d) along the axes, measured again where they are still uncertain.

    ``along`` (n, d) are the centred rows along the axes; ``unsure`` are the means' posterior
    variances. The query is whitened: its error counts in units of the variance that it meets.
    """
    doubt = unsure / variances
    order = np.argsort(-(counts @ doubt), kind="stable")
    scale = _LOOK_RADIUS / (budget.mu * math.sqrt(share) * counts)
    # With p axes the radius grows as sqrt p, and so does the noise of each of them.
    sizes = np.unique(np.geomspace(1, rows.width, 24).round().astype(int))
    gains = []
    for p in sizes:
        prior, error = doubt[:, order[:p]], p * scale[:, None] ** 2
        gains.append(float((counts[:, None] * prior**2 / (prior + error)).sum()))
    axes = order[: sizes[int(np.argmax(gains))]]
    radius, root = _LOOK_RADIUS * math.sqrt(len(axes)), np.sqrt(variances[axes])
    white = clipped((along[:, axes] - means[rows.y][:, axes]) / root, radius)
    moved = budget.answer(rows.sums(white), share, radius) / counts[:, None]
    error = len(axes) * scale[:, None] ** 2
    out = means.copy()
    out[:, axes] += root * moved * doubt[:, axes] / (doubt[:, axes] + error)
    return out


# The spectrum -------------------------------------------------------------------------------

_SMOOTHING = (0.1, 0.2, 0.4, 0.8, 1.6)
_FLOORS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
_PULLS = (1.0, 0.75, 0.5)
_DOUBT = 2.0
"""Standard errors that a candidate must gain beside the sphere."""
_PROBES = 16


def cleaned_spectrum(moment: Floats, scale: float, trace: float) -> tuple[Floats, Floats]:
    """Axes (p, p) and variances (p,) of a second moment that is seen through known noise.

    Parameters
    ----------
    moment : (p, p), noisy
    scale : standard deviation of the noise on the diagonal; off it a factor sqrt 2 smaller
    trace : what the variances add up to

    Notes
    -----
    The axes are the noisy eigenvectors. Each candidate for the variances f along them is judged by
    an unbiased estimate of the log likelihood of the moment S without noise,
    ``-(sum log f + tr(F^-1 S)) / 2``. The noise N makes ``tr(F^-1 (S + N))`` too small by
    ``E tr(F^-1 N)``, which is by Stein's identity, with g = 1/f as a function of the noisy
    eigenvalues y, ``scale^2 (sum_j dg_j/dy_j + sum_{i<j} (g_i - g_j) / (y_i - y_j))``. The
    derivatives are estimated from small steps in random directions.

    The first candidate is a sphere. Another must gain twice the standard error of its gain.
    """
    noisy, axes = eigh(moment)
    edge = scale * math.sqrt(len(noisy) / 2)
    candidates = _candidates(noisy, edge, trace)
    gain = -0.5 * (
        np.log(candidates).sum(axis=1)
        + (noisy / candidates).sum(axis=1)
        - noise_overlap(noisy, scale, lambda y: 1 / _candidates(y, edge, trace))
    )
    bolder = ((1 / candidates - 1 / candidates[0]) ** 2).sum(axis=1)
    error = 0.5 * scale * np.sqrt(bolder)
    return axes, candidates[int((gain - gain[0] - _DOUBT * error).argmax())]


def noise_overlap(noisy: Floats, scale: float, precisions: Callable[[Floats], Floats]) -> Floats:
    """Estimate ``E tr(G N)`` (c,) of c functions G of a noisy matrix and its noise N.

    ``precisions`` gives G's eigenvalues (c, p) from those of the noisy matrix (p,), in order.
    """
    p, values = len(noisy), precisions(noisy)
    apart = noisy[:, None] - noisy[None, :]
    apart[np.tril_indices(p)] = np.inf
    pairs = np.array([((g[:, None] - g[None, :]) / apart).sum() for g in values])
    rng = np.random.default_rng(1)  # independent of the noise, and public
    step = 0.01 * scale
    slopes = np.zeros(len(values))
    for _ in range(_PROBES):
        signs = rng.choice([-1.0, 1.0], p)
        change = precisions(noisy + step * signs) - precisions(noisy - step * signs)
        slopes += change @ signs / (2 * step)
    return np.asarray(scale**2 * (slopes / _PROBES + pairs))


def _candidates(noisy: Floats, edge: float, trace: float) -> Floats:
    """Variances (c, p) along the noisy eigenvectors, a sphere first.

    The noise's own spectrum is a semicircle of radius 2 edge. The variance along the eigenvector of
    a noisy eigenvalue y is ``y - 2 edge^2 H(y)``, with H the Hilbert transform of the noisy
    spectrum (Bun, Allez, Bouchaud and Potters 2016). Candidates differ in how much H is smoothed,
    in a floor, and in a pull toward the mean.
    """
    p, mean = len(noisy), trace / len(noisy)
    found = [np.full(p, mean)]
    apart = noisy[:, None] - noisy[None, :]
    least = min(0.05 * edge / mean, 0.4)
    for width in _SMOOTHING:
        hilbert = (apart / (apart**2 + (width * edge) ** 2)).mean(axis=1)
        variances = isotonic_regression(noisy - 2 * edge**2 * hilbert).x
        variances += mean - variances.mean()
        for floor in dict.fromkeys(max(floor, least) for floor in _FLOORS):
            raised = _with_mean(variances, mean, floor * mean)
            found += [mean + pull * (raised - mean) for pull in _PULLS]
    return np.array(found)


def _with_mean(variances: Floats, mean: float, floor: float) -> Floats:
    """Variances no smaller than the floor, the excess over it scaled so that the mean is right."""
    excess = np.maximum(variances - floor, 0)
    if not excess.any():
        return np.full_like(variances, mean)
    return floor + excess * (mean - floor) / excess.mean()


# A classifier for comparison ----------------------------------------------------------------

_STEPS = 60
_RATE_PER_ROW, _RATES = 1 / 270, (0.5, 32.0)
"""Learning rate for each row and unit of mu, within limits; chosen on held-out training rows."""
_MOMENTUM = 0.9
_CONSTANT = 0.2
"""The column that stands for intercepts: a large one would take signal from the others."""


def logistic(rows: Rows, budget: Budget) -> LogisticRule:
    """Logistic regression by full gradients, each of rows clipped to norm 1, with momentum."""
    X = _with_constant(rows.unit)
    onehot = np.eye(rows.labels)[rows.y]
    n = max(float(budget.answer(float(len(X)), 0.01, 1.0)), 20.0)
    rate = float(np.clip(_RATE_PER_ROW * budget.mu * n, *_RATES))
    weights = np.zeros((X.shape[1], rows.labels))
    velocity, average = np.zeros_like(weights), np.zeros_like(weights)
    lengths = np.linalg.norm(X, axis=1)
    for step in range(_STEPS):
        error = softmax(X @ weights, axis=1) - onehot
        size = np.linalg.norm(error, axis=1) * lengths
        error *= (1 / np.maximum(size, 1))[:, None]
        gradient = budget.answer(X.T @ error, 0.99 / _STEPS, 1.0) / n
        velocity = _MOMENTUM * velocity - rate * gradient
        weights = weights + velocity
        average += weights * (step >= _STEPS // 2)
    return LogisticRule(average, rows.norm)


@dataclass(frozen=True, eq=False)
class LogisticRule:
    """A linear rule; nothing can be sampled from it."""

    weights: Floats
    """(d + 1, labels)."""
    norm: float

    def predict(self, rows: Floats) -> Integers:
        """The likeliest label (m,) of rows (m, d)."""
        return np.asarray((_with_constant(rows / self.norm) @ self.weights).argmax(axis=1))


def _with_constant(unit: Floats) -> Floats:
    """Rows of norm at most 1 with a constant column, so that they still have norm at most 1."""
    constant = np.full((len(unit), 1), _CONSTANT)
    return np.hstack([unit, constant]) / math.sqrt(1 + _CONSTANT**2)
