"""After a components pass: the mixture that agrees best with it and with all passes before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.em import Fit
from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments, moments_of_label
from dpgmm_dist.model.fitting.moment_fit import MOST_PARAMETERS, MomentFit, fit_moments
from dpgmm_dist.model.fitting.search_budget import SearchBudget
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.numerics.parallel import in_order
from dpgmm_dist.model.pass_plan import Observed, PassPlan
from dpgmm_dist.model.problem import Centre, Problem
from dpgmm_dist.model.shrinkage import floor_eigenvalues, toward, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_EIGENVALUE = 1e-4
"""Floor on variances, in units of the pooled ones: far below the noise."""
_LARGEST_EIGENVALUE = 1e2
_ROUNDS = 4
_FEW_DIMENSIONS = 5
_WRONG_MODEL, _WRONG_IN_FEW_DIMENSIONS = 1.2, 1.5
"""Reduced chi-squared (1 where the model is right) from which the rows count as not following the
mixture. Known mixtures stay below 1. On embeddings in 16 dimensions, fits between 1.2 and 1.5 were
as good as the likeliest mixture for the cells or 20 nats worse, and took four times as long. On
flights in five dimensions, where there are more cells, their loss was a quarter."""


@dataclass(eq=False)
class History:
    """What all passes so far measured of each label, in pooled-whitened coordinates."""

    centre: Centre
    labels: list[list[MeasuredMoments]] = field(default_factory=list)
    trusted: bool = True
    """Whether a mixture agreed with the cells; if none did, only the last pass is used."""

    @property
    def white(self) -> Floats:
        """(p, p) symmetric map from latent to these coordinates."""
        return whitener(self.centre.pooled)

    def add(
        self, answer: Observed, asked: Sequence[Fit | None], metric: Floats | None = None
    ) -> None:
        """Add a pass."""
        white = self.white
        while len(self.labels) < len(self.centre.rows):
            self.labels.append([])
        for label, mixture in enumerate(asked):
            rows = float(self.centre.rows[label])
            measured = moments_of_label(answer, label, white, rows, mixture, metric)
            self.labels[label].append(measured)


@dataclass(frozen=True, eq=False)
class JointFit:
    """The mixture after a pass."""

    mixture: Mixture
    errors: StandardErrors
    keep: Floats
    """(C,) weight each measured covariance kept against the pooled one it was shrunk toward."""
    expected_kl: float
    """Of the noise alone, nats a row."""
    bias: Floats
    """(C,) what shrinkage moved each covariance by, relative to its size (Frobenius norms)."""
    chi_squared: float
    """Reduced chi-squared of the label that agrees least."""


def wrong_model(p: int) -> float:
    """Reduced chi-squared from which rows in p dimensions do not follow the mixture."""
    return _WRONG_IN_FEW_DIMENSIONS if p <= _FEW_DIMENSIONS else _WRONG_MODEL


def parameters(components: int, p: int) -> int:
    """Number of parameters P of one label's mixture."""
    return components * (1 + p + p * (p + 1) // 2)


def has_few_parameters(mixture: Mixture) -> bool:
    """Whether every label's mixture is small enough for the normal equations."""
    most = int(np.bincount(mixture.label_index).max())
    return parameters(most, mixture.dimension) <= MOST_PARAMETERS


def fit_jointly(
    problem: Problem,
    centre: Centre,
    asked: Mixture,
    plan: PassPlan,
    answer: Observed,
    history: History,
    last: bool,
) -> JointFit:
    """Fit all answers, label by label, and shrink covariances by what the noise calls for."""
    white = history.white
    back = np.linalg.inv(white)
    starts = [_fit_of(asked, label, white) for label in range(problem.labels)]
    soft = plan.soft and plan.rule == "full"
    history.add(answer, [start if soft else None for start in starts], plan.metric)

    def of_label(label: int) -> MomentFit:
        start = starts[label]
        size = parameters(*start.means.shape)
        search = SearchBudget(rounds=_ROUNDS).shared(problem.labels, size)
        return fit_moments(start, history.labels[label], 17 + label, search, errors=last)

    fits = in_order(of_label, range(problem.labels))
    mass = np.array([max(f.total, 1e-12) for f in fits]) * centre.rows
    share = mass / mass.sum()
    weights = np.concatenate([s * f.fit.weights for s, f in zip(share, fits, strict=True)])
    covariances = np.concatenate(
        [
            back @ floor_eigenvalues(c, _LEAST_EIGENVALUE, _LARGEST_EIGENVALUE) @ back
            for f in fits
            for c in f.fit.covariances
        ]
    ).reshape(len(weights), *white.shape)
    means = np.concatenate([f.fit.means for f in fits]) @ back
    label = np.concatenate([np.full(len(f.fit.weights), i) for i, f in enumerate(fits)])
    keep, bias = np.ones(len(weights)), np.zeros(len(weights))
    errors = StandardErrors(
        np.zeros(len(weights)), np.zeros(means.shape), np.zeros(covariances.shape)
    )
    if last:
        blocks = [block for f in fits for block in _error_blocks(f)]
        measured = covariances
        covariances, keep = _shrunk(problem, weights, measured, blocks)
        sizes = np.linalg.norm(covariances, axis=(1, 2))
        bias = np.linalg.norm(covariances - measured, axis=(1, 2)) / sizes
        errors = _errors(weights, covariances, keep, blocks)
    mixture = Mixture(
        weights / weights.sum(),
        means,
        (covariances + covariances.transpose(0, 2, 1)) / 2,
        label,
        problem.label_values,
    )
    expected = sum(s * (f.expected_kl or 0.0) for s, f in zip(share, fits, strict=True))
    chi_squared = max(f.reduced_chi_squared for f in fits)
    return JointFit(mixture, errors, keep, float(expected), bias, chi_squared)


def _fit_of(mixture: Mixture, label: int, white: Floats) -> Fit:
    """The components of one label (whitened)."""
    members = mixture.label_index == label
    weights = np.maximum(mixture.weights[members], 1e-12)
    return Fit(
        weights / weights.sum(),
        mixture.means[members] @ white,
        white @ mixture.covariances[members] @ white,
        0.0,
    )


def _error_blocks(fitted: MomentFit) -> list[Floats]:
    """The error covariance of each component's parameters."""
    if fitted.covariance is None:
        raise ValueError("the fit was made without errors")
    components = len(fitted.fit.weights)
    size = len(fitted.covariance) // components
    slices = [slice(k * size, (k + 1) * size) for k in range(components)]
    return [fitted.covariance[of_component, of_component] for of_component in slices]


def _shrunk(
    problem: Problem, weights: Floats, covariances: Floats, blocks: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Covariances (C, p, p) shrunk toward the pooled one, each in its own units; and the keep."""
    pooled = np.asarray(np.einsum("c,cij->ij", weights / weights.sum(), covariances))
    p = pooled.shape[0]
    if problem.covariance == "tied":
        return np.repeat(pooled[None], len(weights), axis=0), np.zeros(len(weights))
    rows, columns = np.triu_indices(p)
    twice = np.where(rows == columns, 1.0, 2.0)
    out, keep = np.empty_like(covariances), np.ones(len(weights))
    if len(weights) == 1:  # it is the pooled one: nothing to shrink toward
        return _structured(problem.covariance, covariances[0])[None], keep
    for k, (covariance, block) in enumerate(zip(covariances, blocks, strict=True)):
        white = whitener(covariance)
        energy = float(twice @ np.diagonal(block)[1 + p :])
        mended, keep[k] = toward(np.eye(p), white @ pooled @ white, energy)
        back = np.linalg.inv(white)
        out[k] = _structured(problem.covariance, back @ mended @ back)
    return out, keep


def _structured(kind: str, covariance: Floats) -> Floats:
    if kind == "diag":
        return np.diag(np.diagonal(covariance))
    if kind == "spherical":
        return np.eye(len(covariance)) * float(np.trace(covariance)) / len(covariance)
    return covariance


def _errors(
    weights: Floats, covariances: Floats, keep: Floats, blocks: Sequence[Floats]
) -> StandardErrors:
    """Standard errors in latent units from the noise, to first order.

    A component's covariance is ``B (I + E) B`` with its square root ``B``, its mean moves by
    ``B e`` and its weight by a factor; blocks hold the covariance of these.
    """
    p = covariances.shape[1]
    rows, columns = np.triu_indices(p)
    means, deviations = np.empty((len(weights), p)), np.empty_like(covariances)
    for k, (covariance, block) in enumerate(zip(covariances, blocks, strict=True)):
        root = np.linalg.inv(whitener(covariance))
        means[k] = np.sqrt(np.einsum("ai,ij,aj->a", root, block[1 : 1 + p, 1 : 1 + p], root))
        inner = block[1 + p :, 1 + p :]
        # d Sigma_ab = sum over i <= j of (B_ai B_bj + B_aj B_bi) E_ij, once on the diagonal.
        products = root[rows][:, rows] * root[columns][:, columns]
        products += np.where(rows == columns, 0.0, root[rows][:, columns] * root[columns][:, rows])
        variance = np.einsum("qi,qi->q", products @ inner, products)
        full = np.empty((p, p))
        full[rows, columns] = full[columns, rows] = np.sqrt(np.maximum(variance, 0.0)) * keep[k]
        deviations[k] = full
    relative = np.sqrt([max(float(block[0, 0]), 0.0) for block in blocks])
    return StandardErrors(weights * relative, means, deviations)
