"""A components pass on the public side: the mixture that explains it and all passes before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.em import Fit
from dpgmm_dist.model.fitting.measured_moments import Seen, seen_of
from dpgmm_dist.model.fitting.moment_fit import MOST_PARAMETERS, Effort, Explained, explain
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.numerics.parallel import in_order
from dpgmm_dist.model.pass_plan import Observed, PassPlan
from dpgmm_dist.model.problem import Centre, Problem
from dpgmm_dist.model.shrinkage import floor_eigenvalues, toward, whitener

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_EIGENVALUE = 1e-4
"""Floor on variances, in units of the pooled ones: far below what noise would leave standing."""
_LARGEST_EIGENVALUE = 1e2
_ANCHORS = 4
_FEW_DIMENSIONS = 5
_WRONG_MODEL, _WRONG_IN_FEW_DIMENSIONS = 1.2, 1.5
"""Squared residuals a number, 1 where the model is right, from which the data are no such mixture.
Known mixtures stay below 1. On embeddings in 16 dimensions fits between 1.2 and 1.5 were as good as
what is likeliest for the cells or 20 nats worse, and took four times as long; on flights in five
dimensions, where there are more cells than elsewhere, they were four times as near."""


@dataclass(eq=False)
class History:
    """What all passes so far measured of each label, in pooled-whitened coordinates."""

    centre: Centre
    labels: list[list[Seen]] = field(default_factory=list)
    trusted: bool = True
    """Whether a mixture agreed with the cells; if none did, only the last pass is believed."""

    @property
    def white(self) -> Floats:
        """(p, p) symmetric map from latent to these coordinates."""
        return whitener(self.centre.pooled)

    def note(
        self, answer: Observed, asked: Sequence[Fit | None], metric: Floats | None = None
    ) -> None:
        """Add a pass."""
        white = self.white
        while len(self.labels) < len(self.centre.rows):
            self.labels.append([])
        for label, one in enumerate(asked):
            rows = float(self.centre.rows[label])
            self.labels[label].append(seen_of(answer, label, white, rows, one, metric))


@dataclass(frozen=True, eq=False)
class Refined:
    """The mixture after a pass."""

    mixture: Mixture
    errors: StandardErrors
    keep: Floats
    """(C,) weight each measured covariance kept against the pooled one it was shrunk toward."""
    expected_kl: float
    """Of the noise alone, nats a row."""
    bias: Floats
    """(C,) what shrinkage moved each covariance by, relative to its size (Frobenius norms)."""
    misfit: float
    """Squared residuals a number, of the label that agrees least."""


def wrong_model(p: int) -> float:
    """Squared residuals a number from which rows in p dimensions are no such mixture."""
    return _WRONG_IN_FEW_DIMENSIONS if p <= _FEW_DIMENSIONS else _WRONG_MODEL


def parameters(components: int, p: int) -> int:
    """Number of parameters P of one label's mixture."""
    return components * (1 + p + p * (p + 1) // 2)


def explainable(mixture: Mixture) -> bool:
    """Whether every label's mixture is small enough for the normal equations."""
    most = int(np.bincount(mixture.label_index).max())
    return parameters(most, mixture.dimension) <= MOST_PARAMETERS


def refine(
    problem: Problem,
    centre: Centre,
    asked: Mixture,
    plan: PassPlan,
    answer: Observed,
    history: History,
    last: bool,
) -> Refined:
    """Fit all answers, label by label, and shrink covariances by what the noise calls for."""
    white = history.white
    back = np.linalg.inv(white)
    starts = [_fit_of(asked, label, white) for label in range(problem.labels)]
    soft = plan.soft and plan.rule == "full"
    history.note(answer, [one if soft else None for one in starts], plan.metric)

    def of_label(label: int) -> Explained:
        start = starts[label]
        effort = Effort(anchors=_ANCHORS).shared(problem.labels, parameters(*start.means.shape))
        return explain(start, history.labels[label], 17 + label, effort, errors=last)

    explained = in_order(of_label, range(problem.labels))
    mass = np.array([max(e.total, 1e-12) for e in explained]) * centre.rows
    share = mass / mass.sum()
    weights = np.concatenate([s * e.fit.weights for s, e in zip(share, explained, strict=True)])
    covariances = np.concatenate(
        [
            back @ floor_eigenvalues(c, _LEAST_EIGENVALUE, _LARGEST_EIGENVALUE) @ back
            for e in explained
            for c in e.fit.covariances
        ]
    ).reshape(len(weights), *white.shape)
    means = np.concatenate([e.fit.means for e in explained]) @ back
    label = np.concatenate([np.full(len(e.fit.weights), i) for i, e in enumerate(explained)])
    keep, bias = np.ones(len(weights)), np.zeros(len(weights))
    errors = StandardErrors(
        np.zeros(len(weights)), np.zeros(means.shape), np.zeros(covariances.shape)
    )
    if last:
        blocks = [b for e in explained for b in _blocks(e)]
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
    expected = sum(s * (e.expected_kl or 0.0) for s, e in zip(share, explained, strict=True))
    misfit = max(e.misfit / e.answers for e in explained)
    return Refined(mixture, errors, keep, float(expected), bias, misfit)


def _fit_of(mixture: Mixture, label: int, white: Floats) -> Fit:
    own = mixture.label_index == label
    weights = np.maximum(mixture.weights[own], 1e-12)
    return Fit(
        weights / weights.sum(),
        mixture.means[own] @ white,
        white @ mixture.covariances[own] @ white,
        0.0,
    )


def _blocks(explained: Explained) -> list[Floats]:
    """The error covariance of each component's own parameters."""
    if explained.covariance is None:
        raise ValueError("the fit was made without errors")
    components = len(explained.fit.weights)
    size = len(explained.covariance) // components
    each = [slice(k * size, (k + 1) * size) for k in range(components)]
    return [explained.covariance[own, own] for own in each]


def _shrunk(
    problem: Problem, weights: Floats, covariances: Floats, blocks: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Covariances (C, p, p) shrunk toward the pooled one, in each one's own units, and the keep."""
    pooled = np.asarray(np.einsum("c,cij->ij", weights / weights.sum(), covariances))
    p = pooled.shape[0]
    if problem.covariance == "tied":
        return np.repeat(pooled[None], len(weights), axis=0), np.zeros(len(weights))
    rows, columns = np.triu_indices(p)
    twice = np.where(rows == columns, 1.0, 2.0)
    out, keep = np.empty_like(covariances), np.ones(len(weights))
    if len(weights) == 1:  # it is the pooled one: nothing moves it, and its error stays whole
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
    """Standard errors in latent units, to first order, of what the noise did.

    A component's covariance is ``B (I + E) B`` with its square root ``B``, its mean moves by
    ``B e`` and its weight by a factor; blocks hold the covariance of these.
    """
    p = covariances.shape[1]
    rows, columns = np.triu_indices(p)
    means, each = np.empty((len(weights), p)), np.empty_like(covariances)
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
        each[k] = full
    relative = np.sqrt([max(float(block[0, 0]), 0.0) for block in blocks])
    return StandardErrors(weights * relative, means, each)
