"""The moments passes: private centre, covariance, projection and whitening."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import clipped_share, whitened_radius
from dpgmm_dist.model.label_budget import adapted
from dpgmm_dist.model.pass_plan import BlockPlan, Latent, Observed, PassPlan
from dpgmm_dist.model.problem import Ask, Centre, Problem
from dpgmm_dist.model.shrinkage import (
    floor_eigenvalues,
    kept_signal,
    rotation_invariant,
    whitener,
)
from dpgmm_dist.model.stages.centre import Location

Floats = npt.NDArray[np.float64]

_COUNT_SHARE = 0.1
_LEAST_VARIANCE = 1e-7
"""Floor on variances as a share of the squared norm bound: below the lattice's own reach."""
_LEAST_KEPT = 0.2
"""Share of a label's noisy difference from the overall mean that is kept: its direction helps."""
_LEAST_OF_NOISE = 0.02
"""Floor on pooled variances as a share of the noise on the second moment's eigenvalues."""
_LEAST_SPREAD = 0.05
_SPREAD_RADIUS = 1.6
"""Squared clipping radius about the noisy means, over the largest mean squared distance."""
_LABEL_SHARE = 0.1
"""Share of the pooled second moment's budget that measures each label's: its trace is enough."""
_TRACE_PRIOR = 0.3
"""Relative deviation of a trace from what is known of it before it is measured."""
_SIZE_RANGE = (0.2, 3.0)
_LEAST_EIGENVALUE = 0.05
"""Floor on a label's variances, in units of the pooled ones."""


def find_centre(
    problem: Problem, ask: Ask, location: Location | None, budget: dict[str, float]
) -> Centre:
    """Run the moments passes: counts and means, then second moments about the noisy means.

    ``location`` has the count and mean where there is one label; None asks for them.
    """
    start = Latent(problem.width)
    if location is not None:
        rows, rows_sigma = np.array([location.rows]), location.rows_noise
        means = location.centre[None]
    else:
        rows, rows_sigma, means = _means(problem, ask(_sums(problem, budget["moments.sum"]), start))
    budget = adapted(problem, budget, rows)
    second = ask(_second(problem, means, rows, budget["moments.second"]), start)
    pooled, scales = _pooled(problem, second, rows, means)
    latent, residual = _project(problem, pooled, means, rows)
    if latent.basis is not None:
        means = latent.to_latent(means)
        pooled = latent.basis.T @ pooled @ latent.basis
    covariances = scales[:, None, None] * pooled
    if budget.get("moments.label", 0.0) > 0:
        plan = _label_seconds(problem, means, pooled, scales, budget["moments.label"])
        third = ask(plan, latent)
        pooled, covariances = _label_covariances(third, rows, scales)
    return Centre(latent, rows, rows_sigma, means, covariances, pooled, residual)


def _sums(problem: Problem, rho: float) -> PassPlan:
    labels = np.arange(problem.labels)
    share = 0.5 if problem.allocation == "even" else _COUNT_SHARE
    return PassPlan(
        step="moments.sum",
        cell_label=labels,
        centres=np.zeros((problem.labels, problem.width)),
        radius=problem.norm,
        blocks=(
            BlockPlan("count", labels, rho * share),
            BlockPlan("sum", labels, rho * (1 - share)),
        ),
    )


def _means(problem: Problem, answer: Observed) -> tuple[Floats, float, Floats]:
    """Noisy counts (at least 1) and means, each shrunk toward the overall one, inside the bound."""
    counts, sums = answer.block("count"), answer.block("sum")
    rows = np.maximum(counts.values, 1.0)
    overall = sums.values.sum(axis=0) / max(float(rows.sum()), 1.0)
    overall *= min(1.0, problem.norm / max(float(np.linalg.norm(overall)), 1e-300))
    # A label with few rows has a mean of pure noise: James-Stein toward the overall mean.
    apart = sums.values / rows[:, None] - overall
    noise = problem.width * (sums.sigma / rows) ** 2
    # At most 1; and no division of zero by zero where a mean is the overall one.
    share = noise / np.maximum((apart**2).sum(axis=1), noise)
    keep = np.clip(1 - share, _LEAST_KEPT if problem.labels > 1 else 0.0, 1.0)
    means = overall + keep[:, None] * apart
    long = np.linalg.norm(means, axis=1)
    means *= np.minimum(1.0, problem.norm / np.maximum(long, 1e-300))[:, None]
    return rows, counts.sigma, means


def _second(problem: Problem, means: Floats, rows: Floats, rho: float) -> PassPlan:
    """Second moments about the noisy means: of all rows, and a little for each label's size."""
    one_group = np.zeros(problem.labels, dtype=np.int64)
    # A row within the norm bound is this close to the mean unless it points the other way.
    radius = math.hypot(problem.norm, float(np.linalg.norm(means, axis=1).max()))
    if problem.labels == 1:
        blocks: tuple[BlockPlan, ...] = (BlockPlan("second", one_group, rho),)
    else:
        # Rows of norm at most r have E|z - m|^2 <= r^2 - |m|^2: clip not far beyond that.
        radius = min(radius, math.sqrt(_SPREAD_RADIUS * _spread(problem, rows, means)))
        blocks = (
            BlockPlan("second", one_group, rho * (1 - _LABEL_SHARE)),
            BlockPlan("second", np.arange(problem.labels), rho * _LABEL_SHARE),
        )
    return PassPlan(
        step="moments.second",
        cell_label=np.arange(problem.labels),
        centres=means,
        radius=radius,
        blocks=blocks,
    )


def _spread(problem: Problem, rows: Floats, means: Floats) -> float:
    """The largest mean squared distance from the label means of rows within the bound."""
    spread = problem.norm**2 - float(rows @ (means**2).sum(axis=1)) / float(rows.sum())
    return max(spread, _LEAST_SPREAD * problem.norm**2)


def _pooled(
    problem: Problem, answer: Observed, rows: Floats, means: Floats
) -> tuple[Floats, Floats]:
    """Pooled covariance (p, p), positive definite, and the size (L,) of each label's against it."""
    total = max(float(rows.sum()), 1.0)
    together = answer.block("second", 1)
    noisy, variance = together.values[0], together.sigma**2
    sizes = np.ones(problem.labels)
    if problem.labels > 1:
        of_labels = answer.block("second", problem.labels)
        sum_variance = problem.labels * of_labels.sigma**2
        noisy = (noisy * sum_variance + of_labels.values.sum(axis=0) * variance) / (
            variance + sum_variance
        )
        variance = variance * sum_variance / (variance + sum_variance)
    noisy = noisy / total
    scale = math.sqrt(variance) / total
    p = len(noisy)
    bound = problem.norm**2
    if problem.labels > 1:
        # A noisy trace says less than the bound does: embeddings often have norm 1.
        spread = _spread(problem, rows, means)
        trust = 1 / (1 + p * (scale / (_TRACE_PRIOR * spread)) ** 2)
        noisy += np.eye(p) * (1 - trust) * (spread - float(np.trace(noisy))) / p
    least = max(_LEAST_VARIANCE * bound, _LEAST_OF_NOISE * scale * math.sqrt(p))
    pooled = floor_eigenvalues(rotation_invariant(noisy, scale), min(least, bound / p), bound)
    trace = float(np.trace(pooled))
    # Flooring adds variance; the trace itself has little noise.
    measured_trace = float(np.clip(np.trace(noisy), 0.25 * trace, trace))
    pooled *= measured_trace / trace
    if problem.labels > 1:
        traces = np.trace(of_labels.values, axis1=1, axis2=2) / rows / measured_trace
        sizes = _label_sizes(traces, of_labels.sigma * math.sqrt(p) / rows / measured_trace)
    return pooled, sizes


def _label_sizes(noisy: Floats, noise: Floats) -> Floats:
    """Each label's variance over the pooled one (L,), shrunk toward 1 by its own noise."""
    signal = min(kept_signal((noisy - 1)[:, None], noise), _TRACE_PRIOR**2)
    sizes = 1 + (noisy - 1) * signal / (signal + noise**2 + 1e-300)
    return np.clip(sizes, *_SIZE_RANGE)


def _project(problem: Problem, pooled: Floats, means: Floats, rows: Floats) -> tuple[Latent, float]:
    """DP-PCA: the leading eigenvectors of the noisy total covariance (post-processing)."""
    p = problem.latent_dimension
    if p == problem.width:
        return Latent(problem.width), 0.0
    share = rows / rows.sum()
    middle = share @ means
    between = (means - middle).T @ ((means - middle) * share[:, None])
    values, vectors = np.linalg.eigh(pooled + between)
    basis = vectors[:, ::-1][:, :p].copy()
    # Signs of eigenvectors are arbitrary: make the largest entry of each positive.
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(p)])
    residual = max(float(values[: problem.width - p].mean()), _LEAST_VARIANCE * problem.norm**2)
    return Latent(problem.width, basis, middle), residual


def _label_seconds(
    problem: Problem, means: Floats, pooled: Floats, sizes: Floats, rho: float
) -> PassPlan:
    """Second moments of each label, where its rows have about unit variance in all directions."""
    labels = np.arange(problem.labels)
    white = whitener(pooled)
    return PassPlan(
        step="moments.label",
        cell_label=labels,
        centres=means,
        radius=whitened_radius(means.shape[1]),
        blocks=(BlockPlan("second", labels, rho),),
        whiten=tuple(white / math.sqrt(size) for size in sizes),
        cell_map=labels,
    )


def _label_covariances(answer: Observed, rows: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Pooled covariance (p, p) and each label's (L, p, p), shrunk by the known noise."""
    block = answer.block("second")
    p = block.values.shape[1]
    kept = clipped_share(p, answer.radius)
    covariances = np.empty_like(block.values)
    for label, count in enumerate(rows):
        noisy = block.values[label] / count / kept
        scale = block.sigma / count / kept
        doubt = 1 - 1 / (1 + (scale / _TRACE_PRIOR) ** 2 / p)
        noisy += np.eye(p) * doubt * (1 - float(np.trace(noisy)) / p)
        shrunk = rotation_invariant(noisy, scale)
        shrunk = floor_eigenvalues(shrunk, _LEAST_EIGENVALUE, answer.radius**2)
        unwhiten = answer.unwhiten[label]
        covariance = unwhiten @ shrunk @ unwhiten.T
        covariances[label] = (covariance + covariance.T) / 2
    return np.einsum("l,lij->ij", rows / rows.sum(), covariances), covariances
