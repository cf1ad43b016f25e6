"""The mixture that explains every noisy answer so far: one least-squares fit, post-processing.

What a pass measures of *any* mixture can be computed from draws: rows are assigned, mapped, clipped
and summed as the pass did. So after each pass the mixture is sought whose own answers agree best
with all measured ones, each weighted by its known noise and by the sampling error of the rows.
Gauss-Newton steps need the derivative of an expected statistic ``T`` by the parameters, which is
``E[T(x) s(x)]`` with the mixture's score ``s``: one product of matrices over the same draws.

Expectation maximisation would take the last pass's moments as the new parameters. It creeps towards
its fixed point a pass a step, and forgets what earlier passes paid for; clipped tails bias it. Here
all three cost draws instead of budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.em import Fit, pairs, triangle
from dpgmm_dist.model.fitting.measured_moments import (
    Seen,
    cells_of,
    own_answers,
    responsibilities,
    squares,
    statistics,
)
from dpgmm_dist.model.shrinkage import floor_eigenvalues, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

MOST_PARAMETERS = 1500
"""Of a label's mixture, up to which the normal equations are solved: K (1 + p + p (p + 1) / 2)."""
_WORTH = 0.01
"""Relative gain of beginning again, below which that ends."""
_CHORDS = 3
"""Steps taken with one derivative, at the most."""
_PRIOR = (1.0, 1.0, 0.5)
"""Standard deviations that log weights, means and covariances may move from where a fit starts, in
units of the component's own: a weak prior, for directions that are noise only."""
_LONGEST = 1.0
_LEAST_EIGENVALUE, _LARGEST_EIGENVALUE = 1e-6, 1e4
"""Of a covariance, in the whitened coordinates of the fit: beyond these, rows that are all alike
would shrink it step by step until it cannot be factorised. Releases are held to tighter ones."""
_LEAST_SHARE = 1e-3
"""Of a row, below which a component's or a cell's part in it is left out of derivatives."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A mixture fitted to answers."""

    fit: Fit
    misfit: float
    """Sum of squared residuals, each in units of its standard deviation."""
    answers: int
    """How many numbers were to be explained."""
    total: float
    """The label's rows, as a multiple of the number that shares are of."""
    covariance: Floats | None = None
    """(P, P) of the parameters' error from the noise alone, each component in its own units."""
    expected_kl: float | None = None
    """Of the noise alone, in nats a row of the label: half the trace of information and error."""


@dataclass(frozen=True)
class Effort:
    """How much work a fit may be."""

    steps: int = 6
    """Derivatives taken, at the most."""
    tolerance: float = 2e-3
    """Relative gain of a step below which the fit ends."""
    draws: int = 60_000
    slope_draws: int = 15_000
    anchors: int = 1
    """How often a fit may begin again where it ended."""

    def shared(self, labels: int, parameters: int) -> Effort:
        """The effort for one of several labels, still enough for its number of parameters."""
        draws = max(self.draws // labels, 30 * parameters, 10_000)
        slope = max(self.slope_draws // labels, 24 * parameters, 5_000)
        return replace(self, draws=min(draws, self.draws), slope_draws=min(slope, self.draws // 2))


def explain(
    start: Fit, answers: Sequence[Seen], seed: int, effort: Effort, errors: bool = True
) -> Explained:
    """Fit a mixture to all answers, beginning at ``start``.

    Deterministic given the public seed; the mixture of the lowest misfit met is returned.
    ``errors`` asks for the covariance and expected KL too.
    """
    prior = _prior(*start.means.shape)
    problem = _Problem(start, answers, seed, effort)
    fit, least = _descended(problem, start, prior, effort)
    for _ in range(effort.anchors - 1):
        # The prior and the sampling errors were those about the start: now about what was found.
        nearer = _Problem(fit, answers, seed, effort)
        found, misfit = _descended(nearer, fit, prior, effort)
        if not misfit < least:
            break
        enough = misfit > (1 - _WORTH) * least
        problem, fit, least = nearer, found, misfit
        if enough:
            break
    total = float(fit.weights.sum())
    released = replace(fit, weights=fit.weights / total)
    if not errors:
        return Explained(released, least, len(problem.target), total)
    covariance = problem.error(fit, prior)
    expected = 0.5 * float((problem.fisher(fit) * covariance).sum())
    return Explained(released, least, len(problem.target), total, covariance, expected)


def _descended(problem: _Problem, start: Fit, prior: Floats, effort: Effort) -> tuple[Fit, float]:
    """The mixture at the end of damped Gauss-Newton steps from ``start``, and its misfit."""
    fit, moved = start, np.zeros(len(prior))
    residual = problem.residual(fit)
    least = float(residual @ residual)
    damping = 1e-3
    for _ in range(effort.steps):
        slope, before = problem.slope(fit), least
        normal = _normal(slope, prior)
        for _ in range(_CHORDS):
            pull = slope.T @ residual.astype(np.float32) - prior * moved
            held = normal + damping * np.diag(np.diagonal(normal))
            step = _bounded(np.asarray(np.linalg.solve(held, pull)), *start.means.shape)
            tried = moved_by(fit, step)
            after = problem.residual(tried)
            gained = least - float(after @ after)
            if gained > 0:  # not so where noise has left no number, either
                fit, residual, moved = tried, after, moved + step
                least -= gained
                damping = max(damping / 5, 1e-4)
            else:
                damping *= 10
            if least < before and not gained > effort.tolerance * least:
                break  # what is left wants another derivative, if anything does
        if not before - least > effort.tolerance * before:
            break
    return fit, least


class _Problem:
    """Residuals and their derivatives, in units of each answer's standard deviation."""

    def __init__(self, start: Fit, answers: Sequence[Seen], seed: int, effort: Effort) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        self.answers = answers
        self.pick, self.normal = _stream(start, effort.draws, rng)
        self.slope_pick, self.slope_normal = _stream(start, effort.slope_draws, rng)
        self.offsets = [self._offset(one) for one in answers]
        sampling = [self._sampling(start, one) for one in answers]
        noise = [one.sigma.ravel() for one in answers]
        variance = np.concatenate([s**2 + e for s, e in zip(noise, sampling, strict=True)])
        # What no draw reaches they cannot explain to less than one draw, however many the rows.
        self.scale = np.maximum(np.sqrt(variance), 1 / len(self.normal))
        self.noise_share = np.concatenate(noise) / self.scale
        """(A,) how much of each answer's standard deviation is noise."""
        self.target = np.concatenate([one.values.ravel() for one in answers])

    def residual(self, fit: Fit) -> Floats:
        """(A,) what was measured less what the mixture's draws give."""
        x, mass = _points(fit, self.pick, self.normal)
        seen = [
            (statistics(one, x, mass) + offset).ravel()
            for one, offset in zip(self.answers, self.offsets, strict=True)
        ]
        return np.asarray((self.target - np.concatenate(seen)) / self.scale)

    def slope(self, fit: Fit) -> Singles:
        """(A, P) derivatives of the expected answers by the parameters."""
        x, mass = _points(fit, self.slope_pick, self.slope_normal)
        share = (responsibilities(fit, x) * mass[:, None]).astype(np.float32)
        members = [np.flatnonzero(s > _LEAST_SHARE * mass) for s in share.T]
        scores = [_score(fit, x.take(own, axis=0), k) for k, own in enumerate(members)]
        size = scores[0].shape[1]
        out = np.zeros((len(self.target), size * len(scores)), dtype=np.float32)
        start = 0
        for one in self.answers:
            for some, weight, cell in cells_of(one, x):
                features = one.features(x.take(some, axis=0), cell, np.float32)
                own = slice(start, start + features.shape[1])
                start = own.stop
                place = np.full(len(x), -1)
                place[some] = np.arange(len(some))
                for k, rows in enumerate(members):
                    both = np.flatnonzero(place[rows] >= 0)
                    here = place[rows[both]]
                    part = share[rows[both], k] * weight[here].astype(np.float32)
                    left = features.take(here, axis=0)
                    left *= part[:, None]
                    out[own, k * size : (k + 1) * size] = left.T @ scores[k].take(both, axis=0)
        out /= self.scale[:, None].astype(np.float32)
        return out

    def fisher(self, fit: Fit) -> Floats:
        """(P, P) information of one row about the parameters."""
        x, mass = _points(fit, self.slope_pick, self.slope_normal)
        share = responsibilities(fit, x)
        size = 1 + x.shape[1] + x.shape[1] * (x.shape[1] + 1) // 2
        out = np.zeros((share.shape[1] * size, share.shape[1] * size))
        for k in range(share.shape[1]):
            for other in range(k + 1):
                both = np.flatnonzero(share[:, k] * share[:, other] > _LEAST_SHARE)
                weight = (share[both, k] * share[both, other] * mass[both]).astype(np.float32)
                left = _score(fit, x[both], k) * weight[:, None]
                block = left.T @ _score(fit, x[both], other)
                here, there = (slice(i * size, (i + 1) * size) for i in (k, other))
                out[here, there], out[there, here] = block, block.T
        return out

    def error(self, fit: Fit, prior: Floats) -> Floats:
        """(P, P) covariance of the parameters from the noise, with the weight of the total fixed.

        Weights are released as shares, so what all log weights do together is taken out.
        """
        slope = self.slope(fit)
        inverse = np.linalg.inv(_normal(slope, prior))
        slope *= self.noise_share[:, None].astype(np.float32)
        covariance = inverse @ (slope.T @ slope).astype(np.float64) @ inverse
        share = fit.weights / fit.weights.sum()
        size = len(prior) // len(share)
        levels = np.arange(len(share)) * size
        relative = np.eye(len(prior))
        relative[np.ix_(levels, levels)] -= share
        return np.asarray(relative @ covariance @ relative.T)

    def _offset(self, one: Seen) -> Floats | float:
        """Exact expectation of the asked mixture less that of its draws: a control variate."""
        if one.asked is None or len(one.asked.weights) != int(self.pick.max()) + 1:
            return 0.0
        x, mass = _points(one.asked, self.pick, self.normal)
        return own_answers(one) - statistics(one, x, mass)

    def _sampling(self, start: Fit, one: Seen) -> Floats:
        """(C M,) variance that the rows' own sampling and the draws' leave."""
        x, mass = _points(start, self.slope_pick, self.slope_normal)
        draws = 0.0 if one.asked is not None else 1 / len(self.normal)
        return np.asarray(squares(one, x, mass).ravel() * (1 / max(one.rows, 1.0) + draws))


def _score(fit: Fit, x: Floats, k: int) -> Singles:
    """(n, P / K) derivative of component k's log density by its own parameters."""
    p = x.shape[1]
    rows, columns = triangle(p)
    w = (x - fit.means[k]) @ whitener(fit.covariances[k])
    w = w.astype(np.float32)
    out = np.empty((len(x), 1 + p + len(rows)), dtype=np.float32)
    out[:, 0], out[:, 1 : 1 + p] = 1.0, w
    # By E this is (w w^T - I) / 2; a parameter off the diagonal stands for two entries.
    pairs(w, out[:, 1 + p :])
    diagonal = 1 + p + np.flatnonzero(rows == columns)
    out[:, diagonal] = (out[:, diagonal] - 1) / 2
    return out


def _normal(slope: Singles, prior: Floats) -> Floats:
    """(P, P) normal equations of a slope (A, P) and the prior's precision (P,)."""
    return np.asarray((slope.T @ slope).astype(np.float64) + np.diag(prior))


def moved_by(fit: Fit, step: Floats) -> Fit:
    """The mixture moved by (P,) log weights, means and covariances in each component's own units.

    ``C -> B (I + E / 2)^2 B`` has no negative eigenvalues, and is ``B (I + E) B`` to first order.
    It is kept away from singular ones.
    """
    components, p = fit.means.shape
    rows, columns = triangle(p)
    each = step.reshape(components, -1)
    weights = fit.weights * np.exp(each[:, 0])
    means, covariances = fit.means.copy(), np.empty_like(fit.covariances)
    for k in range(components):
        back = np.linalg.inv(whitener(fit.covariances[k]))
        means[k] = fit.means[k] + back @ each[k, 1 : 1 + p]
        change = np.zeros((p, p))
        change[rows, columns] = change[columns, rows] = each[k, 1 + p :]
        half = back @ (np.eye(p) + change / 2)
        covariances[k] = _held(half @ half.T)
    return Fit(weights, means, covariances, fit.score)


def _held(covariance: Floats) -> Floats:
    """A covariance (p, p) that stays well enough conditioned to be factorised."""
    values = np.linalg.eigvalsh(covariance)
    if values[0] >= _LEAST_EIGENVALUE and values[-1] <= _LARGEST_EIGENVALUE:
        return covariance
    return floor_eigenvalues(covariance, _LEAST_EIGENVALUE, _LARGEST_EIGENVALUE)


def _bounded(step: Floats, components: int, p: int) -> Floats:
    """A step, shortened where a component would move further than draws can follow."""
    each = step.reshape(components, -1).copy()
    longest = np.maximum(np.abs(each[:, 0]), np.linalg.norm(each[:, 1 : 1 + p], axis=1) / 2)
    longest = np.maximum(longest, np.linalg.norm(each[:, 1 + p :], axis=1) / 1.2)
    each *= np.minimum(1.0, _LONGEST / np.maximum(longest, 1e-300))[:, None]
    return each.ravel()


def _prior(components: int, p: int) -> Floats:
    """(P,) precision of the prior of each parameter."""
    one = [_PRIOR[0], *[_PRIOR[1]] * p, *[_PRIOR[2]] * (p * (p + 1) // 2)]
    return np.asarray(np.tile(1 / np.square(one), components))


def _stream(fit: Fit, draws: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Component of each draw and standard normals (n, p), in pairs of opposite sign."""
    p = fit.means.shape[1]
    share = fit.weights / fit.weights.sum()
    # Half by weight, half alike: small components need draws too.
    counts = np.floor(draws * (share + 1 / len(share)) / 4).astype(np.int64) + p + 2
    pick = np.repeat(np.arange(len(counts)), counts)
    half = rng.standard_normal((len(pick), p))
    parts = []
    for k in range(len(counts)):
        own = half[pick == k]
        own = np.concatenate([own, -own])
        factor = np.linalg.cholesky(own.T @ own / len(own))
        parts.append(own @ np.linalg.inv(factor).T)
    return np.repeat(np.arange(len(counts)), 2 * counts), np.concatenate(parts)


def _points(fit: Fit, pick: Ints, normal: Floats) -> tuple[Floats, Floats]:
    """Draws (n, p) of a mixture from common random numbers, and their mass (n,)."""
    x = np.empty_like(normal)
    each = np.bincount(pick)
    edges = np.concatenate([[0], np.cumsum(each)])
    for k, (mean, covariance) in enumerate(zip(fit.means, fit.covariances, strict=True)):
        own = slice(edges[k], edges[k + 1])
        back = np.linalg.inv(whitener(covariance))
        x[own] = mean + normal[own] @ back
    return x, (fit.weights / each)[pick]
