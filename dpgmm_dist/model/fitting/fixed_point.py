"""Fitting a mixture to what a pass measured, by asking what the pass would have seen of it.

Expectation maximisation takes the measured moments as the new parameters, and creeps towards its
fixed point, a pass a step. But what a pass measures of *any* mixture can be computed from draws,
so the mixture whose own answers agree with the measured ones can be found after the pass, as
post-processing: steps that would each cost a pass and its budget cost nothing.

* After a cells pass, nothing was measured inside a cell but the count and the mean. Draws of the
  mixture are weighted to each cell's noisy count and moved to its noisy mean, and the mixture is
  fitted to them: expectation maximisation for grouped data.
* After a components pass about the mixture asked with, the mixture is corrected by the difference
  between the measured moments and those its own draws would have given.

In both, a mixture's own moments are known exactly and draws (with common random numbers) give
only differences; so a mixture that agrees with what was measured stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import clipped_share
from dpgmm_dist.model.fitting.em import Fit, log_components
from dpgmm_dist.model.fitting.search_budget import affordable
from dpgmm_dist.model.fitting.seeding import nearest
from dpgmm_dist.model.shrinkage import floor_eigenvalues, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Moments = tuple[Floats, Floats, Floats]
"""Count (K,), sum (K, p) and second moment (K, p, p) of each component, as shares of the rows."""

_ROUNDS = 10
_LARGEST_RATIO = 5.0
_REACH = 20.0
_PATIENCE = 3
_STRIDE = 1.6
"""Corrections are taken this much further: EM's steps are too short, never by less than half."""
_OPERATIONS = 2e10


@dataclass(frozen=True, eq=False)
class CellMeasure:
    """What one cells pass released about one label, in whitened coordinates."""

    centres: Floats
    """(C, p) which a row's cell is the nearest of."""
    share: Floats
    """(C,) of the label's rows, summing to one."""
    means: Floats
    """(C, p)"""
    noise: Floats
    """(C,) standard deviation of the noise on each coordinate of the means."""
    rows: Floats
    """(C,) noisy number of rows."""


def match_cells(
    fit: Fit,
    measures: Sequence[CellMeasure],
    draws: int,
    seed: int,
    rounds: int = _ROUNDS,
    effort: float = 1.0,
) -> Fit:
    """Refit a mixture (whitened coordinates) until its own cells look like the measured ones."""
    rng = np.random.Generator(np.random.Philox(seed))
    components, p = fit.means.shape
    draws = affordable(
        effort * _OPERATIONS, components, p, 3 * rounds, draws, 4 * components * (p + 2)
    )
    # Common random numbers: rounds differ by the mixture, not by the luck of the draw.
    normal = rng.standard_normal((draws + components * (p + 2), p))
    frame = Frame.of(fit)
    for _ in range(rounds):
        pick = _pick(fit, draws)
        points = _draw(fit, pick, normal[: len(pick)])
        parts = [_regroup(points, one) for one in measures]
        moved = np.concatenate([part[0] for part in parts])
        mass = np.concatenate([part[1] for part in parts])
        fit = _step(fit, points, moved, mass / mass.sum(), frame)
    return fit


def score_cells(fit: Fit, measures: Sequence[CellMeasure], draws: int, seed: int) -> float:
    """Log-likelihood per row of the cells' shares and means under a mixture's own draws."""
    rng = np.random.Generator(np.random.Philox(seed))
    pick = _pick(fit, draws)
    points = _draw(fit, pick, rng.standard_normal((len(pick), fit.means.shape[1])))
    scores = []
    for one in measures:
        count, mean, spread = _cells_of(points, one)
        share = (count + 0.5) / (count + 0.5).sum()
        apart = ((one.means - mean) ** 2).sum(axis=1)
        doubt = spread * (1 + one.rows / np.maximum(count, 1)) + one.rows * one.noise**2
        scores.append(float(one.share @ (np.log(share) - apart / (2 * np.maximum(doubt, 1e-12)))))
    return sum(scores) / len(scores)


def _step(fit: Fit, points: Floats, moved: Floats, mass: Floats, frame: Frame) -> Fit:
    """One EM step by the difference that moving the draws makes.

    The mixture's own moments are known exactly; only the change is taken from draws. So a mixture
    that agrees with the cells stays where it is, whatever the luck of the draw.
    """
    before = _moments(fit, points, np.full(len(points), 1 / len(points)))
    return _shifted(fit, _moments(fit, moved, mass), before, frame)


def match_components(
    asked: Fit,
    measured: Moments,
    radius: float,
    noise: tuple[float, float],
    rounds: int,
    draws: int,
    seed: int,
    effort: float = 1.0,
) -> Fit:
    """The mixture of which a pass about ``asked`` would have measured these moments.

    Parameters
    ----------
    asked : the mixture whose responsibilities the pass used
    measured : what it measured, in the same coordinates
    radius : clipping radius of the pass, in standard deviations
    noise : squared disagreement to stop at, a share of what the noise alone is expected to make,
        and from which on the plain EM step stands, as the rows are no such mixture
    rounds : corrections at the most after the first, which is the plain EM step. Each undoes more
        of EM's slow convergence and lets more of the noise through, so they end where little more
        than noise is left to explain (Morozov's discrepancy principle)
    draws : points the corrections are computed from, at the most
    effort : scales the work, which bounds the draws

    Returns
    -------
    Fit
    """
    components, p = asked.means.shape
    draws = affordable(effort * _OPERATIONS, components, p, rounds, draws, 4 * components * (p + 2))
    rng = np.random.Generator(np.random.Philox(seed))
    own = own_moments(asked)
    pick = _pick(asked, draws)
    normal = rng.standard_normal((len(pick), p))
    each = 1 / np.bincount(pick)[pick]
    frame = Frame.of(asked)
    base = _clipped_moments(
        asked, _draw(asked, pick, normal), asked.weights[pick] * each, frame, radius
    )

    fit = best = plain = _shifted(asked, measured, own, frame)
    least, stride, worse = np.inf, _STRIDE, 0
    for _ in range(rounds):
        points = _draw(fit, pick, normal)
        # What the pass would see of ``fit``: exact for ``asked``, draws give the change.
        seen = _clipped_moments(asked, points, fit.weights[pick] * each, frame, radius)
        predicted = tuple(o + s - b for o, s, b in zip(own, seen, base, strict=True))
        apart = _distance(measured, predicted, frame)
        if fit is plain and apart > noise[1]:
            break
        if apart < least:
            least, best, worse = apart, fit, 0
        else:
            worse, stride = worse + 1, 1.0
        if apart <= noise[0] or worse > _PATIENCE:
            break  # within the noise, or no nearer: what agreed best so far stands
        aim = [q + stride * (m - q) for m, q in zip(measured, predicted, strict=True)]
        fit = _shifted(fit, aim, predicted, frame)
    return best


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates in which each component of a mixture is white, for holding others near it."""

    weights: Floats
    means: Floats
    white: Floats
    """(K, p, p)"""
    back: Floats
    """(K, p, p)"""

    @classmethod
    def of(cls, fit: Fit) -> Frame:
        """The frame of a mixture."""
        white: Floats = np.stack([whitener(c) for c in fit.covariances])
        back = np.asarray(np.linalg.inv(white), dtype=np.float64)
        return cls(fit.weights, fit.means, white, back)


def _distance(measured: Sequence[Floats], predicted: Sequence[Floats], frame: Frame) -> float:
    """Squared disagreement of moments, component by component in its own frame."""
    zero, first, second = (a - b for a, b in zip(measured, predicted, strict=True))
    mean = np.einsum("kij,kj->ki", frame.white, first - zero[:, None] * frame.means)
    cross = np.einsum("ki,kj->kij", first, frame.means)
    outer = np.einsum("ki,kj->kij", frame.means, frame.means) * zero[:, None, None]
    centred = second - cross - cross.transpose(0, 2, 1) + outer
    inside = frame.white @ centred @ frame.white.transpose(0, 2, 1)
    total = zero**2 + (mean**2).sum(axis=1) + (inside**2).sum(axis=(1, 2)) / 4
    return float((total / frame.weights).sum())


def _shifted(fit: Fit, plus: Sequence[Floats], minus: Sequence[Floats], frame: Frame) -> Fit:
    """The mixture whose own moments are those of ``fit`` plus a difference, kept valid.

    Variances stay within a factor of ``_REACH`` of those of the frame, means within ``_REACH``
    standard deviations.
    """
    own = own_moments(fit)
    weights, first, second = (o + a - b for o, a, b in zip(own, plus, minus, strict=True))
    weights = np.maximum(weights, frame.weights / _REACH)
    weights = weights / weights.sum()
    raw = first / weights[:, None]
    covariances = second / weights[:, None, None] - np.einsum("ki,kj->kij", raw, raw)
    moved = np.einsum("kij,kj->ki", frame.white, raw - frame.means)
    length = np.sqrt((moved**2).sum(axis=1))
    moved *= np.minimum(1.0, _REACH / np.maximum(length, 1e-12))[:, None]
    means = frame.means + np.einsum("kij,kj->ki", frame.back, moved)
    held = [
        back @ floor_eigenvalues(white @ new @ white, 1 / _REACH, _REACH) @ back
        for new, white, back in zip(covariances, frame.white, frame.back, strict=True)
    ]
    stacked = np.stack(held)
    return Fit(weights, means, (stacked + stacked.transpose(0, 2, 1)) / 2, fit.score)


def own_moments(fit: Fit) -> Moments:
    """A mixture's own moments: its parameters as counts, sums and second moments."""
    raw = fit.covariances + np.einsum("ki,kj->kij", fit.means, fit.means)
    return fit.weights, fit.weights[:, None] * fit.means, fit.weights[:, None, None] * raw


def _moments(fit: Fit, rows: Floats, mass: Floats) -> Moments:
    """Responsibility-weighted count, sum and second moment of each component over draws."""
    share = _shares(fit, rows, mass)
    second = np.stack([(rows * s[:, None]).T @ rows for s in share.T])
    return share.sum(axis=0), share.T @ rows, second


def _shares(fit: Fit, rows: Floats, mass: Floats) -> Floats:
    log_joint = log_components(rows, fit.means, fit.covariances) + np.log(fit.weights)
    share = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    share *= mass[:, None] / share.sum(axis=1, keepdims=True)
    return np.asarray(share)


def _clipped_moments(fit: Fit, rows: Floats, mass: Floats, frame: Frame, radius: float) -> Moments:
    """:func:`_moments` as a pass takes them: clipped in each component's own coordinates.

    Second moments are divided by what clipping leaves of a Gaussian's; of the mixture itself the
    expectation is its own moments. Of others it is what makes the comparison fair: rows that fit
    no component are long in its coordinates.
    """
    share = _shares(fit, rows, mass)
    kept = clipped_share(rows.shape[1], radius)
    firsts, seconds = [], []
    for k, weight in enumerate(share.T):
        inside = (rows - frame.means[k]) @ frame.white[k]
        length = np.sqrt(np.einsum("ij,ij->i", inside, inside))
        inside *= np.minimum(1.0, radius / np.maximum(length, 1e-12))[:, None]
        total = frame.back[k] @ (weight @ inside)
        spread = (inside * weight[:, None]).T @ inside / kept
        cross = np.outer(frame.means[k], total)
        outer = weight.sum() * np.outer(frame.means[k], frame.means[k])
        firsts.append(weight.sum() * frame.means[k] + total)
        seconds.append(frame.back[k] @ spread @ frame.back[k] + cross + cross.T + outer)
    return share.sum(axis=0), np.stack(firsts), np.stack(seconds)


def _pick(fit: Fit, draws: int) -> Ints:
    """Component of each draw (about n,): each has its exact share, and at least p + 2 draws."""
    least = fit.means.shape[1] + 2
    counts = np.maximum(np.floor(fit.weights * draws).astype(np.int64), least)
    return np.repeat(np.arange(len(counts)), counts)


def _draw(fit: Fit, pick: Ints, normal: Floats) -> Floats:
    """Draws (n, p) whose components have exactly the mean and covariance of the mixture's.

    Otherwise the luck of the draw would compound from round to round. ``pick`` (n,) ascends.
    """
    points = np.empty_like(normal)
    stop = 0
    for k, (mean, covariance) in enumerate(zip(fit.means, fit.covariances, strict=True)):
        start, stop = stop, int(np.searchsorted(pick, k, "right"))
        own = normal[start:stop] - normal[start:stop].mean(axis=0)
        factor = np.linalg.cholesky(own.T @ own / len(own))
        root = np.linalg.cholesky(covariance).T
        points[start:stop] = mean + own @ np.linalg.inv(factor).T @ root
    return points


def _regroup(points: Floats, measure: CellMeasure) -> tuple[Floats, Floats]:
    """Draws (n, p) moved to the measured cell means, and their weights (n,)."""
    index = nearest(points, measure.centres)
    count, mean, spread = _cells_of(points, measure)
    ratio = measure.share * len(points) / np.maximum(count, 1)
    # The mean of few draws is itself noisy; and so is the measured one.
    noise = measure.noise**2 + spread / np.maximum(count, 1)
    apart = ((measure.means - mean) ** 2).sum(axis=1) / points.shape[1]
    trust = np.clip(1 - noise / np.maximum(apart, 1e-12), 0.0, 1.0)
    shift = trust[:, None] * (measure.means - mean)
    return points + shift[index], np.minimum(ratio, _LARGEST_RATIO)[index]


def _cells_of(points: Floats, measure: CellMeasure) -> tuple[Floats, Floats, Floats]:
    """Count (C,), mean (C, p) and variance a coordinate (C,) of draws in each cell."""
    cells = len(measure.centres)
    index = nearest(points, measure.centres)
    count = np.bincount(index, minlength=cells).astype(np.float64)
    some = np.maximum(count, 1)
    mean = np.zeros_like(measure.centres)
    np.add.at(mean, index, points)
    mean /= some[:, None]
    inside = np.bincount(index, ((points - mean[index]) ** 2).sum(axis=1), minlength=cells)
    return count, mean, inside / some / points.shape[1]
