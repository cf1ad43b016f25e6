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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.em import Fit, log_components
from dpgmm_dist.model.seeding import nearest
from dpgmm_dist.model.shrinkage import whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_PARAMETERS = 1500
"""Of a label's mixture, up to which the normal equations are solved: K (1 + p + p (p + 1) / 2)."""
_DRAWS = 100_000
_SLOPE_DRAWS = 16_000
_CHORDS = 2
"""Steps taken with one derivative."""
_STEPS = 6
_TOLERANCE = 1e-3
_PRIOR = (1.0, 1.0, 0.5)
"""Standard deviations that log weights, means and covariances may move from where a fit starts, in
units of the component's own: a weak prior, for directions that are noise only."""
_LONGEST = 1.0
_LEAST_SHARE = 1e-4
_LEAST_PART = 1e-3
"""Of a cell's rows, below which what it says of a component is left out."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one pass measured of one label, in shares of its rows."""

    centres: Floats
    """(C, p)"""
    maps: Floats
    """(C, p, p): a cell sees a row as ``map @ (x - centre)``, clipped to the radius."""
    radius: float
    values: Floats
    """(C, M) count, sum and, where measured, the upper triangle of the second moment."""
    sigma: Floats
    """(C, M) standard deviation of the noise on each."""
    rows: float
    """Rows that shares are of, which says how large their sampling error is."""
    asked: Fit | None = None
    """The mixture whose responsibilities assign rows; None for the nearest cell."""
    metric: Floats | None = None
    """(p, p) map in which the nearest cell is sought; None for the coordinates themselves."""

    @property
    def second(self) -> bool:
        """Whether second moments were measured."""
        return self.values.shape[1] > 1 + self.centres.shape[1]

    def shares(self, x: Floats) -> Floats | Ints:
        """Responsibilities (n, C), or the index (n,) of each row's cell."""
        if self.asked is not None:
            return responsibilities(self.asked, x)
        if self.metric is None:
            return nearest(x, self.centres)
        return nearest(x @ self.metric.T, self.centres @ self.metric.T)

    def inside(self, x: Floats, cell: int) -> Floats:
        """Rows (n, p) as a cell sees them: mapped and clipped."""
        v = (x - self.centres[cell]) @ self.maps[cell].T
        length = np.sqrt(np.einsum("ij,ij->i", v, v))
        v *= np.minimum(1.0, self.radius / np.maximum(length, 1e-300))[:, None]
        return np.asarray(v)

    def features(self, x: Floats, cell: int) -> Floats:
        """What rows (n, p) add to a cell's statistics (n, M)."""
        v = self.inside(x, cell)
        if not self.second:
            return np.hstack([np.ones((len(v), 1)), v])
        return np.hstack([np.ones((len(v), 1)), v, _pairs(v)])

    def total(self, x: Floats, weight: Floats, cell: int) -> Floats:
        """(M,) weighted sum of :meth:`features`."""
        v = self.inside(x, cell)
        parts = [[weight.sum()], weight @ v]
        if self.second:
            parts.append(((v * weight[:, None]).T @ v)[np.triu_indices(v.shape[1])])
        return np.concatenate(parts)


def responsibilities(fit: Fit, x: Floats) -> Floats:
    """Posterior probabilities (n, K) of components; weights need not sum to one."""
    joint = log_components(x, fit.means, fit.covariances) + np.log(fit.weights)
    share = np.exp(joint - joint.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Explained:
    """A mixture fitted to answers."""

    fit: Fit
    misfit: float
    """Sum of squared residuals, each in units of its standard deviation."""
    answers: int
    """How many numbers were to be explained."""
    covariance: Floats
    """(P, P) of the parameters' error from the noise alone (see :func:`parameters`)."""
    fisher: Floats
    """(P, P) Fisher information of a row."""


def explain(
    start: Fit,
    answers: Sequence[Seen],
    seed: int,
    steps: int = _STEPS,
    draws: int = _DRAWS,
    slope_draws: int = _SLOPE_DRAWS,
) -> Explained:
    """Fit a mixture to all answers, beginning at ``start``.

    Deterministic given the public seed; the mixture of the lowest misfit met is returned.
    """
    problem = _Problem(start, answers, seed, draws, slope_draws)
    prior = _prior(*start.means.shape)
    fit, moved = start, np.zeros(len(prior))
    residual = problem.residual(fit)
    least = float(residual @ residual)
    damping = 1e-3
    for _ in range(steps):
        slope = problem.slope(fit)
        normal = slope.normal() + np.diag(prior)
        before = least
        for _ in range(_CHORDS):
            pull = slope.pull(residual) - prior * moved
            held = normal + damping * np.diag(np.diagonal(normal))
            step = _bounded(np.linalg.solve(held, pull), *start.means.shape)
            tried = moved_by(fit, step)
            after = problem.residual(tried)
            if float(after @ after) < least:
                fit, residual, moved = tried, after, moved + step
                least = float(after @ after)
                damping = max(damping / 5, 1e-6)
            else:
                damping = min(damping * 10, 1e3)
        if before - least < _TOLERANCE * before:
            break
    slope = problem.slope(fit)
    inverse = np.linalg.inv(slope.normal() + np.diag(prior))
    covariance = inverse @ slope.normal(problem.noise_share) @ inverse
    released = replace(fit, weights=fit.weights / float(fit.weights.sum()))
    return Explained(released, least, len(residual), covariance, problem.fisher(fit))


@dataclass(frozen=True, eq=False)
class _Slope:
    """Derivatives (A, P) of the answers, as blocks: a cell's rows know few components."""

    blocks: list[tuple[slice, Ints, Floats]]
    """Answers, parameters, and the derivative of those by these."""
    size: int

    def normal(self, weight: Floats | None = None) -> Floats:
        """(P, P) the slope's transpose times itself, answers weighted by (A,)."""
        out = np.zeros((self.size, self.size))
        for answers, parameters, block in self.blocks:
            own = block if weight is None else block * weight[answers, None]
            out[np.ix_(parameters, parameters)] += own.T @ own
        return out

    def pull(self, residual: Floats) -> Floats:
        """(P,) the slope's transpose times residuals (A,)."""
        out = np.zeros(self.size)
        for answers, parameters, block in self.blocks:
            out[parameters] += block.T @ residual[answers]
        return out


class _Problem:
    """Residuals and their derivatives, in units of each answer's standard deviation."""

    def __init__(
        self, start: Fit, answers: Sequence[Seen], seed: int, draws: int, slope_draws: int
    ) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        self.answers = answers
        self.pick, self.normal = _stream(start, draws, rng)
        self.slope_pick, self.slope_normal = _stream(start, slope_draws, rng)
        self.offsets = [self._offset(one) for one in answers]
        sampling = [self._sampling(start, one) for one in answers]
        noise = [one.sigma.ravel() for one in answers]
        self.scale = np.concatenate(
            [np.sqrt(s**2 + e) for s, e in zip(noise, sampling, strict=True)]
        )
        self.noise_share = np.concatenate(noise) / self.scale
        """(A,) how much of each answer's standard deviation is noise."""
        self.target = np.concatenate([one.values.ravel() for one in answers])

    def residual(self, fit: Fit) -> Floats:
        """(A,) what was measured less what the mixture's draws give."""
        x, mass = _points(fit, self.pick, self.normal)
        seen = [
            (_statistics(one, x, mass) + offset).ravel()
            for one, offset in zip(self.answers, self.offsets, strict=True)
        ]
        return np.asarray((self.target - np.concatenate(seen)) / self.scale)

    def slope(self, fit: Fit) -> _Slope:
        """Derivatives of the expected answers by the parameters."""
        x, mass = _points(fit, self.slope_pick, self.slope_normal)
        share = responsibilities(fit, x) * mass[:, None]
        scores = [_score(fit, x, k) for k in range(len(fit.weights))]
        blocks, start = [], 0
        for one in self.answers:
            for some, weight, cell in _cells(one, x):
                features = one.features(x[some], cell)
                own = slice(start, start + features.shape[1])
                start = own.stop
                within = share[some] * weight[:, None]
                known = np.flatnonzero(within.sum(axis=0) > _LEAST_PART * within.sum())
                if not len(known):
                    continue
                parts = [
                    features.T @ (scores[k][some] * within[:, k, None]) for k in known
                ]
                size = parts[0].shape[1]
                columns = (known[:, None] * size + np.arange(size)).ravel()
                blocks.append((own, columns, np.hstack(parts) / self.scale[own, None]))
        return _Slope(blocks, len(scores) * scores[0].shape[1])

    def fisher(self, fit: Fit) -> Floats:
        """(P, P) information of one row about the parameters."""
        x, mass = _points(fit, self.slope_pick, self.slope_normal)
        share = responsibilities(fit, x)
        scores = [_score(fit, x, k) for k in range(len(fit.weights))]
        size = scores[0].shape[1]
        out = np.zeros((len(scores) * size, len(scores) * size))
        for k in range(len(scores)):
            for other in range(k + 1):
                both = np.flatnonzero(share[:, k] * share[:, other] > _LEAST_SHARE)
                weight = share[both, k] * share[both, other] * mass[both]
                block = (scores[k][both] * weight[:, None]).T @ scores[other][both]
                here, there = (slice(i * size, (i + 1) * size) for i in (k, other))
                out[here, there], out[there, here] = block, block.T
        return out

    def _offset(self, one: Seen) -> Floats | float:
        """Exact expectation of the asked mixture less that of its draws: a control variate."""
        if one.asked is None or len(one.asked.weights) != int(self.pick.max()) + 1:
            return 0.0
        x, mass = _points(one.asked, self.pick, self.normal)
        return own_answers(one) - _statistics(one, x, mass)

    def _sampling(self, start: Fit, one: Seen) -> Floats:
        """(C M,) variance that the rows' own sampling and the draws' leave."""
        x, mass = _points(start, self.slope_pick, self.slope_normal)
        out = np.empty(one.values.shape)
        for some, weight, cell in _cells(one, x):
            features = one.features(x[some], cell)
            out[cell] = (mass[some] * weight**2) @ features**2
        draws = 0.0 if one.asked is not None else 1 / len(self.normal)
        return np.asarray(out.ravel() * (1 / max(one.rows, 1.0) + draws))


def own_answers(one: Seen) -> Floats:
    """(C, M) exact answers of the mixture a soft pass was asked with: what clipping leaves."""
    from dpgmm_dist.model.allocation import clipped_share

    if one.asked is None:
        raise ValueError("only a pass with responsibilities has exact answers of its own")
    p = one.centres.shape[1]
    out = np.zeros(one.values.shape)
    out[:, 0] = one.asked.weights
    if one.second:
        rows, columns = np.triu_indices(p)
        diagonal = 1 + p + np.flatnonzero(rows == columns)
        out[:, diagonal] = one.asked.weights[:, None] * clipped_share(p, one.radius)
    return out


def _statistics(one: Seen, x: Floats, mass: Floats) -> Floats:
    """(C, M) what a pass would measure of weighted draws."""
    out = np.empty(one.values.shape)
    for some, weight, cell in _cells(one, x):
        out[cell] = one.total(x[some], mass[some] * weight, cell)
    return out


def _cells(one: Seen, x: Floats) -> Iterator[tuple[Ints, Floats, int]]:
    """Every cell with the rows that have a share in it, and how much."""
    share = one.shares(x)
    if share.ndim == 1:
        order = np.argsort(share, kind="stable")
        edges = np.searchsorted(share[order], np.arange(len(one.centres) + 1))
        for cell in range(len(one.centres)):
            some = order[edges[cell] : edges[cell + 1]]
            yield some, np.ones(len(some)), cell
        return
    for cell in range(len(one.centres)):
        some = np.flatnonzero(share[:, cell] > _LEAST_SHARE)
        yield some, np.asarray(share[some, cell], dtype=np.float64), cell


def _pairs(v: Floats) -> Floats:
    """(n, p (p + 1) / 2) products of coordinates, in the order of the upper triangle."""
    p = v.shape[1]
    out = np.empty((len(v), p * (p + 1) // 2))
    start = 0
    for i in range(p):
        np.multiply(v[:, i:], v[:, i, None], out=out[:, start : start + p - i])
        start += p - i
    return out


def _score(fit: Fit, x: Floats, k: int) -> Floats:
    """(n, P / K) derivative of component k's log density by its own parameters."""
    p = x.shape[1]
    rows, columns = np.triu_indices(p)
    w = (x - fit.means[k]) @ whitener(fit.covariances[k])
    out = np.empty((len(x), 1 + p + len(rows)))
    out[:, 0], out[:, 1 : 1 + p] = 1.0, w
    # By E this is (w w^T - I) / 2; a parameter off the diagonal stands for two entries.
    out[:, 1 + p :] = _pairs(w)
    diagonal = 1 + p + np.flatnonzero(rows == columns)
    out[:, diagonal] = (out[:, diagonal] - 1) / 2
    return out


def moved_by(fit: Fit, step: Floats) -> Fit:
    """The mixture moved by (P,) log weights, means and covariances in each component's own units.

    ``C -> B (I + E / 2)^2 B`` stays positive definite, and is ``B (I + E) B`` to first order.
    """
    components, p = fit.means.shape
    rows, columns = np.triu_indices(p)
    each = step.reshape(components, -1)
    weights = fit.weights * np.exp(each[:, 0])
    means, covariances = fit.means.copy(), np.empty_like(fit.covariances)
    for k in range(components):
        back = np.linalg.inv(whitener(fit.covariances[k]))
        means[k] = fit.means[k] + back @ each[k, 1 : 1 + p]
        change = np.zeros((p, p))
        change[rows, columns] = change[columns, rows] = each[k, 1 + p :]
        half = back @ (np.eye(p) + change / 2)
        covariances[k] = half @ half.T
    return Fit(weights, means, covariances, fit.score)


def _bounded(step: Floats, components: int, p: int) -> Floats:
    """A step, shortened where a component would move further than draws can follow."""
    each = step.reshape(components, -1).copy()
    longest = np.maximum(np.abs(each[:, 0]), np.linalg.norm(each[:, 1 : 1 + p], axis=1) / 2)
    longest = np.maximum(longest, np.linalg.norm(each[:, 1 + p :], axis=1) / 2)
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
