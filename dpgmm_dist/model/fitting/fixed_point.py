"""The fixed-point correction: EM steps after a pass, on what the pass would measure of a mixture.

Expectation maximisation takes the measured moments as the new parameters. It converges slowly, one
step a pass. But what a pass measures of *any* mixture can be computed from draws. So the mixture
whose own answers agree with the measured ones can be found after the pass, as post-processing:
steps that would each cost a pass and its budget cost nothing.

* After a cells pass, only the count and the mean of each cell are known. Draws of the mixture are
  weighted to each cell's noisy count and moved to its noisy mean, and the mixture is fitted to
  them: expectation maximisation for grouped data.
* After a components pass, the mixture is corrected by the difference between the measured moments
  and those that its own draws would have given.

In both, a mixture's moments are known exactly, and draws (with common random numbers) give only
differences. So a mixture that agrees with what was measured stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import clipped_share
from dpgmm_dist.model.fitting.em import Fit, log_components
from dpgmm_dist.model.fitting.search_budget import affordable_draws
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
"""Corrections are multiplied by this: EM's steps are too short."""
_OPERATIONS = 2e10


@dataclass(frozen=True, eq=False)
class CellMeasure:
    """What one cells pass released about one label, in whitened coordinates."""

    centres: Floats
    """(C, p) centres; a row's cell is the nearest."""
    share: Floats
    """(C,) of the label's rows, summing to one."""
    means: Floats
    """(C, p)"""
    noise: Floats
    """(C,) standard deviation of the noise on each coordinate of the means."""
    rows: Floats
    """(C,) noisy number of rows."""


def correct_by_cells(
    fit: Fit,
    measures: Sequence[CellMeasure],
    draws: int,
    seed: int,
    rounds: int = _ROUNDS,
    search_share: float = 1.0,
) -> Fit:
    """A mixture (whitened coordinates) corrected until its cells agree with the measured ones.

    ``search_share`` scales the work, which bounds the draws.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    components, p = fit.means.shape
    least = 4 * components * (p + 2)
    operations = search_share * _OPERATIONS
    draws = affordable_draws(operations, components, p, 3 * rounds, draws, least)
    # Common random numbers: rounds differ by the mixture, not by sampling error.
    normal = rng.standard_normal((draws + components * (p + 2), p))
    frame = Frame.of(fit)
    for _ in range(rounds):
        pick = _pick(fit, draws)
        points = _draw(fit, pick, normal[: len(pick)])
        parts = [_regroup(points, measure) for measure in measures]
        moved = np.concatenate([part[0] for part in parts])
        mass = np.concatenate([part[1] for part in parts])
        fit = _step(fit, points, moved, mass / mass.sum(), frame)
    return fit


def cells_log_likelihood(fit: Fit, measures: Sequence[CellMeasure], draws: int, seed: int) -> float:
    """Log-likelihood per row of the cells' shares and means under a mixture's own draws."""
    rng = np.random.Generator(np.random.Philox(seed))
    pick = _pick(fit, draws)
    points = _draw(fit, pick, rng.standard_normal((len(pick), fit.means.shape[1])))
    scores = []
    for measure in measures:
        count, mean, spread = _cell_statistics(points, measure)
        share = (count + 0.5) / (count + 0.5).sum()
        distance = ((measure.means - mean) ** 2).sum(axis=1)
        variance = spread * (1 + measure.rows / np.maximum(count, 1))
        variance = np.maximum(variance + measure.rows * measure.noise**2, 1e-12)
        scores.append(float(measure.share @ (np.log(share) - distance / (2 * variance))))
    return sum(scores) / len(scores)


def _step(fit: Fit, points: Floats, moved: Floats, mass: Floats, frame: Frame) -> Fit:
    """One EM step by the difference that moving the draws makes.

    The mixture's moments are known exactly; only the change is taken from draws. So a mixture that
    agrees with the cells stays as it is, whatever the sampling error.
    """
    before = _moments(fit, points, np.full(len(points), 1 / len(points)))
    return _shifted(fit, _moments(fit, moved, mass), before, frame)


def correct_by_components(
    asked: Fit,
    measured: Moments,
    radius: float,
    noise: tuple[float, float],
    rounds: int,
    draws: int,
    seed: int,
    search_share: float = 1.0,
) -> Fit:
    """The mixture of which a pass about ``asked`` would have measured these moments.

    Parameters
    ----------
    asked : the mixture whose responsibilities the pass used
    measured : what it measured, in the same coordinates
    radius : clipping radius of the pass, in standard deviations
    noise : squared distance to stop at, a share of what the noise alone is expected to cause; and
        squared distance from which the plain EM step is kept, as the rows are no such mixture
    rounds : corrections at the most after the first, which is the plain EM step. Each undoes more
        of EM's slow convergence and lets more of the noise through, so they end where the rest is
        little more than noise (Morozov's discrepancy principle)
    draws : points that the corrections are computed from, at the most
    search_share : scales the work, which bounds the draws
    """
    components, p = asked.means.shape
    least_draws = 4 * components * (p + 2)
    operations = search_share * _OPERATIONS
    draws = affordable_draws(operations, components, p, rounds, draws, least_draws)
    rng = np.random.Generator(np.random.Philox(seed))
    exact = moments_of(asked)
    pick = _pick(asked, draws)
    normal = rng.standard_normal((len(pick), p))
    mass = 1 / np.bincount(pick)[pick]
    frame = Frame.of(asked)
    base = _clipped_moments(
        asked, _draw(asked, pick, normal), asked.weights[pick] * mass, frame, radius
    )

    fit = best = plain = _shifted(asked, measured, exact, frame)
    least, stride, worse = np.inf, _STRIDE, 0
    for _ in range(rounds):
        points = _draw(fit, pick, normal)
        # What the pass would measure of ``fit``: exact for ``asked``, draws give the change.
        drawn = _clipped_moments(asked, points, fit.weights[pick] * mass, frame, radius)
        predicted = tuple(e + d - b for e, d, b in zip(exact, drawn, base, strict=True))
        distance = _distance(measured, predicted, frame)
        if fit is plain and distance > noise[1]:
            break
        if distance < least:
            least, best, worse = distance, fit, 0
        else:
            worse, stride = worse + 1, 1.0
        if distance <= noise[0] or worse > _PATIENCE:
            break  # within the noise, or no nearer: the best so far is kept
        aim = [q + stride * (m - q) for m, q in zip(measured, predicted, strict=True)]
        fit = _shifted(fit, aim, predicted, frame)
    return best


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates in which each component of a mixture is white, to keep others near it."""

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
    """Squared distance of moments, each component's in its own coordinates."""
    zero, first, second = (a - b for a, b in zip(measured, predicted, strict=True))
    mean = np.einsum("kij,kj->ki", frame.white, first - zero[:, None] * frame.means)
    cross = np.einsum("ki,kj->kij", first, frame.means)
    outer = np.einsum("ki,kj->kij", frame.means, frame.means) * zero[:, None, None]
    centred = second - cross - cross.transpose(0, 2, 1) + outer
    inside = frame.white @ centred @ frame.white.transpose(0, 2, 1)
    total = zero**2 + (mean**2).sum(axis=1) + (inside**2).sum(axis=(1, 2)) / 4
    return float((total / frame.weights).sum())


def _shifted(fit: Fit, plus: Sequence[Floats], minus: Sequence[Floats], frame: Frame) -> Fit:
    """The mixture whose moments are those of ``fit`` plus a difference, kept valid.

    Variances stay within a factor of ``_REACH`` of those of the frame, means within ``_REACH``
    standard deviations.
    """
    exact = moments_of(fit)
    weights, first, second = (e + a - b for e, a, b in zip(exact, plus, minus, strict=True))
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


def moments_of(fit: Fit) -> Moments:
    """A mixture's moments: its parameters as counts, sums and second moments."""
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

    Second moments are divided by what clipping leaves of a Gaussian's: of the mixture itself the
    expectation is its moments. Of others, rows that fit no component are far out in its
    coordinates, and clipped as in the pass.
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

    Otherwise sampling error would compound from round to round. ``pick`` (n,) ascends.
    """
    points = np.empty_like(normal)
    stop = 0
    for k, (mean, covariance) in enumerate(zip(fit.means, fit.covariances, strict=True)):
        start, stop = stop, int(np.searchsorted(pick, k, "right"))
        centred = normal[start:stop] - normal[start:stop].mean(axis=0)
        factor = np.linalg.cholesky(centred.T @ centred / len(centred))
        root = np.linalg.cholesky(covariance).T
        points[start:stop] = mean + centred @ np.linalg.inv(factor).T @ root
    return points


def _regroup(points: Floats, measure: CellMeasure) -> tuple[Floats, Floats]:
    """Draws (n, p) moved to the measured cell means, and their weights (n,)."""
    index = nearest(points, measure.centres)
    count, mean, spread = _cell_statistics(points, measure)
    ratio = measure.share * len(points) / np.maximum(count, 1)
    # The mean of few draws is noisy, and so is the measured one.
    noise = measure.noise**2 + spread / np.maximum(count, 1)
    apart = ((measure.means - mean) ** 2).sum(axis=1) / points.shape[1]
    trust = np.clip(1 - noise / np.maximum(apart, 1e-12), 0.0, 1.0)
    shift = trust[:, None] * (measure.means - mean)
    return points + shift[index], np.minimum(ratio, _LARGEST_RATIO)[index]


def _cell_statistics(points: Floats, measure: CellMeasure) -> tuple[Floats, Floats, Floats]:
    """Count (C,), mean (C, p) and variance a coordinate (C,) of draws in each cell."""
    cells = len(measure.centres)
    index = nearest(points, measure.centres)
    count = np.bincount(index, minlength=cells).astype(np.float64)
    at_least_one = np.maximum(count, 1)
    mean = np.zeros_like(measure.centres)
    np.add.at(mean, index, points)
    mean /= at_least_one[:, None]
    inside = np.bincount(index, ((points - mean[index]) ** 2).sum(axis=1), minlength=cells)
    return count, mean, inside / at_least_one / points.shape[1]
