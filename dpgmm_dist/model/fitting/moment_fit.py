"""The moment fit: one mixture for all noisy answers so far, by weighted least squares.

What a pass would measure of *any* mixture can be computed from draws: they are assigned, mapped,
clipped and summed as the pass does with rows. After each pass the fit finds the mixture whose own
answers agree best with all measured ones. Each answer is weighted by its known noise and by the
sampling error of the rows. Gauss-Newton steps need the derivative of an expected statistic ``T`` by
the parameters. It is ``E[T(x) s(x)]`` with the mixture's score ``s``: one product of matrices over
the same draws. All of it is post-processing.

Expectation maximisation would take the last pass's moments as the new parameters. It converges
slowly, one step a pass, and forgets what earlier passes measured; clipping biases it. The moment
fit removes all three at the price of draws, not of budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.em import Fit, pairs, triangle
from dpgmm_dist.model.fitting.measured_moments import (
    MeasuredMoments,
    exact_statistics,
    members_by_cell,
    responsibilities,
    squares,
    statistics,
)
from dpgmm_dist.model.fitting.search_budget import SearchBudget
from dpgmm_dist.model.shrinkage import floor_eigenvalues, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]

MOST_PARAMETERS = 1500
"""Most parameters of a label's mixture, K (1 + p + p (p + 1) / 2), for which the normal equations
are solved."""
_LEAST_GAIN = 0.01
"""Relative gain of a round below which no other round follows."""
_STEPS_PER_SLOPE = 3
"""Most steps with one derivative."""
_PRIOR = (1.0, 1.0, 0.5)
"""Standard deviations of a weak prior about the start of a fit, for directions that are all noise:
of log weights, means and covariances, in each component's own units."""
_LONGEST_STEP = 1.0
"""Largest length of a step in any component's own units."""
_LEAST_EIGENVALUE, _LARGEST_EIGENVALUE = 1e-6, 1e4
"""Bounds on the eigenvalues of a covariance, in the whitened coordinates of the fit. Without them
identical rows would shrink it step by step until it cannot be factorised. Releases have tighter
bounds."""
_LEAST_SHARE = 1e-3
"""Least share of a row: derivatives leave out components and cells with less."""


@dataclass(frozen=True, eq=False)
class MomentFit:
    """A mixture fitted to measured moments."""

    fit: Fit
    chi_squared: float
    """Sum of squared residuals, each in units of its standard deviation."""
    answers: int
    """Number of residuals."""
    total: float
    """The label's rows, as a multiple of the number that shares are of."""
    covariance: Floats | None = None
    """(P, P) of the parameters' error from the noise alone, each component in its own units."""
    expected_kl: float | None = None
    """Of the noise alone, in nats a row of the label: half the trace of information and error."""

    @property
    def reduced_chi_squared(self) -> float:
        """Chi-squared for each answer: about 1 where the model is right."""
        return self.chi_squared / self.answers


def fit_moments(
    start: Fit,
    answers: Sequence[MeasuredMoments],
    seed: int,
    search: SearchBudget,
    errors: bool = True,
) -> MomentFit:
    """Fit a mixture to all answers by weighted least squares, beginning at ``start``.

    Deterministic given the public seed. Returns the mixture of the least chi-squared that was met.
    ``errors`` asks for the covariance and expected KL too.
    """
    prior = _prior(*start.means.shape)
    problem = _Problem(start, answers, seed, search)
    fit, chi_squared = _descend(problem, start, prior, search)
    for _ in range(search.rounds - 1):
        # The prior and the sampling errors were those about the start: now about what was found.
        nearer = _Problem(fit, answers, seed, search)
        found, new = _descend(nearer, fit, prior, search)
        if not new < chi_squared:
            break
        converged = new > (1 - _LEAST_GAIN) * chi_squared
        problem, fit, chi_squared = nearer, found, new
        if converged:
            break
    total = float(fit.weights.sum())
    released = replace(fit, weights=fit.weights / total)
    if not errors:
        return MomentFit(released, chi_squared, len(problem.target), total)
    covariance = problem.error(fit, prior)
    expected = 0.5 * float((problem.fisher(fit) * covariance).sum())
    return MomentFit(released, chi_squared, len(problem.target), total, covariance, expected)


def _descend(
    problem: _Problem, start: Fit, prior: Floats, search: SearchBudget
) -> tuple[Fit, float]:
    """The mixture at the end of damped Gauss-Newton steps from ``start``, and its chi-squared."""
    fit, moved = start, np.zeros(len(prior))
    residual = problem.residual(fit)
    chi_squared = float(residual @ residual)
    damping = 1e-3
    for _ in range(search.steps):
        slope, before = problem.slope(fit), chi_squared
        normal = _normal(slope, prior)
        for _ in range(_STEPS_PER_SLOPE):
            gradient = slope.T @ residual.astype(np.float32) - prior * moved
            damped = normal + damping * np.diag(np.diagonal(normal))
            step = _bounded(np.asarray(np.linalg.solve(damped, gradient)), *start.means.shape)
            tried = moved_by(fit, step)
            after = problem.residual(tried)
            gained = chi_squared - float(after @ after)
            if gained > 0:  # false too where noise has left no finite number
                fit, residual, moved = tried, after, moved + step
                chi_squared -= gained
                damping = max(damping / 5, 1e-4)
            else:
                damping *= 10
            if chi_squared < before and not gained > search.tolerance * chi_squared:
                break  # what is left needs another derivative
        if not before - chi_squared > search.tolerance * before:
            break
    return fit, chi_squared


class _Problem:
    """Residuals and their derivatives, in units of each answer's standard deviation."""

    def __init__(
        self, start: Fit, answers: Sequence[MeasuredMoments], seed: int, search: SearchBudget
    ) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        self.answers = answers
        self.pick, self.normal = _stream(start, search.draws, rng)
        self.slope_pick, self.slope_normal = _stream(start, search.slope_draws, rng)
        self.offsets = [self._offset(measured) for measured in answers]
        sampling = [self._sampling(start, measured) for measured in answers]
        noise = [measured.sigma.ravel() for measured in answers]
        variance = np.concatenate([s**2 + e for s, e in zip(noise, sampling, strict=True)])
        # An answer that no draw contributes to is known no more precisely than one draw, however
        # many rows there are.
        self.scale = np.maximum(np.sqrt(variance), 1 / len(self.normal))
        self.noise_share = np.concatenate(noise) / self.scale
        """(A,) how much of each answer's standard deviation is noise."""
        self.target = np.concatenate([measured.values.ravel() for measured in answers])

    def residual(self, fit: Fit) -> Floats:
        """(A,) what was measured less what the mixture's draws give."""
        x, mass = _points(fit, self.pick, self.normal)
        predicted = [
            (statistics(measured, x, mass) + offset).ravel()
            for measured, offset in zip(self.answers, self.offsets, strict=True)
        ]
        return np.asarray((self.target - np.concatenate(predicted)) / self.scale)

    def slope(self, fit: Fit) -> Singles:
        """(A, P) derivatives of the expected answers by the parameters."""
        x, mass = _points(fit, self.slope_pick, self.slope_normal)
        share = (responsibilities(fit, x) * mass[:, None]).astype(np.float32)
        members = [np.flatnonzero(s > _LEAST_SHARE * mass) for s in share.T]
        scores = [_score(fit, x.take(rows, axis=0), k) for k, rows in enumerate(members)]
        size = scores[0].shape[1]
        out = np.zeros((len(self.target), size * len(scores)), dtype=np.float32)
        start = 0
        for measured in self.answers:
            for in_cell, weight, cell in members_by_cell(measured, x):
                features = measured.features(x.take(in_cell, axis=0), cell, np.float32)
                answers = slice(start, start + features.shape[1])
                start = answers.stop
                position = np.full(len(x), -1)
                position[in_cell] = np.arange(len(in_cell))
                for k, rows in enumerate(members):
                    common = np.flatnonzero(position[rows] >= 0)
                    index = position[rows[common]]
                    part = share[rows[common], k] * weight[index].astype(np.float32)
                    left = features.take(index, axis=0)
                    left *= part[:, None]
                    right = scores[k].take(common, axis=0)
                    out[answers, k * size : (k + 1) * size] = left.T @ right
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
                common = np.flatnonzero(share[:, k] * share[:, other] > _LEAST_SHARE)
                weight = (share[common, k] * share[common, other] * mass[common]).astype(np.float32)
                left = _score(fit, x[common], k) * weight[:, None]
                block = left.T @ _score(fit, x[common], other)
                first, second = (slice(i * size, (i + 1) * size) for i in (k, other))
                out[first, second], out[second, first] = block, block.T
        return out

    def error(self, fit: Fit, prior: Floats) -> Floats:
        """(P, P) covariance of the parameters from the noise, with the total weight fixed.

        Weights are released as shares, so a common change of all log weights is taken out.
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

    def _offset(self, measured: MeasuredMoments) -> Floats | float:
        """Exact expectation of the asked mixture less that of its draws: a control variate."""
        asked = measured.asked
        if asked is None or len(asked.weights) != int(self.pick.max()) + 1:
            return 0.0
        x, mass = _points(asked, self.pick, self.normal)
        return exact_statistics(measured) - statistics(measured, x, mass)

    def _sampling(self, start: Fit, measured: MeasuredMoments) -> Floats:
        """(C M,) variance that the rows' own sampling and the draws' leave."""
        x, mass = _points(start, self.slope_pick, self.slope_normal)
        draws = 0.0 if measured.asked is not None else 1 / len(self.normal)
        variance = squares(measured, x, mass).ravel()
        return np.asarray(variance * (1 / max(measured.rows, 1.0) + draws))


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

    A covariance ``C = B B`` becomes ``B (I + E / 2)^2 B``. This has no negative eigenvalues, and is
    ``B (I + E) B`` to first order. It is kept away from singular matrices.
    """
    components, p = fit.means.shape
    rows, columns = triangle(p)
    change = step.reshape(components, -1)
    weights = fit.weights * np.exp(change[:, 0])
    means, covariances = fit.means.copy(), np.empty_like(fit.covariances)
    for k in range(components):
        root = np.linalg.inv(whitener(fit.covariances[k]))
        means[k] = fit.means[k] + root @ change[k, 1 : 1 + p]
        symmetric = np.zeros((p, p))
        symmetric[rows, columns] = symmetric[columns, rows] = change[k, 1 + p :]
        half = root @ (np.eye(p) + symmetric / 2)
        covariances[k] = _well_conditioned(half @ half.T)
    return Fit(weights, means, covariances, fit.score)


def _well_conditioned(covariance: Floats) -> Floats:
    """A covariance (p, p) that can be factorised."""
    values = np.linalg.eigvalsh(covariance)
    if values[0] >= _LEAST_EIGENVALUE and values[-1] <= _LARGEST_EIGENVALUE:
        return covariance
    return floor_eigenvalues(covariance, _LEAST_EIGENVALUE, _LARGEST_EIGENVALUE)


def _bounded(step: Floats, components: int, p: int) -> Floats:
    """A step, shortened for components that would move further than their draws are valid for."""
    steps = step.reshape(components, -1).copy()
    longest = np.maximum(np.abs(steps[:, 0]), np.linalg.norm(steps[:, 1 : 1 + p], axis=1) / 2)
    longest = np.maximum(longest, np.linalg.norm(steps[:, 1 + p :], axis=1) / 1.2)
    steps *= np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, 1e-300))[:, None]
    return steps.ravel()


def _prior(components: int, p: int) -> Floats:
    """(P,) precision of the prior of each parameter."""
    deviations = [_PRIOR[0], *[_PRIOR[1]] * p, *[_PRIOR[2]] * (p * (p + 1) // 2)]
    return np.asarray(np.tile(1 / np.square(deviations), components))


def _stream(fit: Fit, draws: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Component of each draw and standard normals (n, p), in pairs of opposite sign."""
    p = fit.means.shape[1]
    share = fit.weights / fit.weights.sum()
    # Half by weight, half in equal parts: small components need draws too.
    counts = np.floor(draws * (share + 1 / len(share)) / 4).astype(np.int64) + p + 2
    pick = np.repeat(np.arange(len(counts)), counts)
    half = rng.standard_normal((len(pick), p))
    parts = []
    for k in range(len(counts)):
        draws_of_k = half[pick == k]
        draws_of_k = np.concatenate([draws_of_k, -draws_of_k])
        factor = np.linalg.cholesky(draws_of_k.T @ draws_of_k / len(draws_of_k))
        parts.append(draws_of_k @ np.linalg.inv(factor).T)
    return np.repeat(np.arange(len(counts)), 2 * counts), np.concatenate(parts)


def _points(fit: Fit, pick: Ints, normal: Floats) -> tuple[Floats, Floats]:
    """Draws (n, p) of a mixture from common random numbers, and their mass (n,)."""
    x = np.empty_like(normal)
    counts = np.bincount(pick)
    edges = np.concatenate([[0], np.cumsum(counts)])
    for k, (mean, covariance) in enumerate(zip(fit.means, fit.covariances, strict=True)):
        members = slice(edges[k], edges[k + 1])
        root = np.linalg.inv(whitener(covariance))
        x[members] = mean + normal[members] @ root
    return x, (fit.weights / counts)[pick]
