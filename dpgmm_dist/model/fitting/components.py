"""The components passes: noisy EM steps on the mixture, clipped in each component's coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import (
    clipped_share,
    component_radius,
    kl_curvatures,
    rows_per_component,
    split,
    whitened_radius,
)
from dpgmm_dist.model.fitting.cells import SECOND_DIMENSION
from dpgmm_dist.model.fitting.em import Fit
from dpgmm_dist.model.fitting.fixed_point import correct_by_components, moments_of
from dpgmm_dist.model.fitting.joint_fit import (
    History,
    fit_jointly,
    has_few_parameters,
    wrong_model,
)
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.numerics.parallel import in_order
from dpgmm_dist.model.pass_plan import BlockPlan, Observed, PassPlan
from dpgmm_dist.model.problem import Ask, Centre, Problem
from dpgmm_dist.model.shrinkage import (
    floor_eigenvalues,
    isotropic,
    noise_energy,
    toward,
    whitener,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Level = Literal["component", "label", "all"]

_LEAST_EIGENVALUE = 0.02
"""Floor on a component's new variances, in units of those it was measured in."""
_DRAWS = 20_000
_ROUNDS = 40
_NOISE_LEFT, _WRONG_MODEL = 0.2, 2.0
"""Multiples of the squared distance that noise alone causes. The fixed-point correction stops at
the first: directions that converge slowly have little noise. Where cells measure only means, it is
not used above the second: known mixtures stayed below. Other rows did not, and the correction lost
up to 20 nats a row there. In few dimensions it helps them too: flights .005 instead of .02."""
_MOST_DIMENSIONS = 64
"""Most dimensions in which the correction is used. In 128 it amplified noise, and lost 5 to 10 nats
a row on a known mixture and on two sets of embeddings. In 64 it gained up to 4 on some seeds."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One pass's mixture with the standard error of its numbers."""

    mixture: Mixture
    errors: StandardErrors
    keep: Floats
    """(C,) weight each measured covariance kept against what it was shrunk toward."""
    expected_kl: float | None = None
    """Of the noise alone, nats a row; None before the last pass, or where it is not known."""
    bias: Floats | None = None
    """(C,) what shrinkage is estimated to have moved each covariance by, relative to its size."""


def second_level(problem: Problem, rows: Floats, components: int, p: int, rho: float) -> Level:
    """The finest level at which second moments are worth measuring, by the noise alone."""
    needed = rows_per_component(p, rho, problem.allocation)
    if float(rows.min()) / components > needed:
        return "component"
    if float(rows.min()) > needed:
        return "label"
    return "label" if problem.labels > 1 else "all"


def step(
    problem: Problem,
    ask: Ask,
    centre: Centre,
    mixture: Mixture,
    name: str,
    rho: float,
    level: Level,
    last: bool,
    sought: bool,
    history: History,
) -> Estimate:
    """One pass: ask for the moments of the mixture's components, and re-estimate it.

    ``sought`` says that passes are to find components in dimensions that no pass has measured yet.
    Covariances distinguish them there, and are asked for with the least noise.
    """
    if problem.covariance == "tied":
        level = "all"
    joint = not sought and level == "component" and history.trusted and has_few_parameters(mixture)
    radius = (component_radius if joint else whitened_radius)(mixture.dimension)
    if sought and not last:
        radius = math.sqrt(mixture.dimension)
    plan = _plan(problem, mixture, name, rho, level, last or sought, radius)
    answer = ask(plan, centre.latent)
    if joint:
        fitted = fit_jointly(problem, centre, mixture, plan, answer, history, last)
        if not last or fitted.chi_squared < wrong_model(mixture.dimension):
            means = _inside(problem, centre, fitted.mixture.means)
            bounded = replace(fitted.mixture, means=means)
            return Estimate(bounded, fitted.errors, fitted.keep, fitted.expected_kl, fitted.bias)
        # No such mixture agrees with all answers: only the last are used.
        history.trusted = False
    estimate = _estimate(problem, centre, mixture, answer, sought)
    if not plan.soft or (sought and not last) or mixture.dimension > _MOST_DIMENSIONS:
        return estimate
    corrected = _corrected(mixture, estimate.mixture, answer)
    bounded = replace(corrected, means=_inside(problem, centre, corrected.means))
    return replace(estimate, mixture=bounded)


def _corrected(asked: Mixture, measured: Mixture, answer: Observed) -> Mixture:
    """Undo EM's slow convergence label by label (:mod:`dpgmm_dist.model.fitting.fixed_point`)."""
    p = asked.dimension
    sigmas = [answer.block(statistic).sigma for statistic in ("count", "sum", "second")]
    energy = sigmas[0] ** 2 + p * sigmas[1] ** 2 + noise_energy(p, sigmas[2]) / 4
    counts = answer.block("count").values
    search_share = 1 / max(1, len(asked.label_values))
    most = _WRONG_MODEL if p > SECOND_DIMENSION else math.inf

    def of_label(label: int) -> Fit | None:
        members = np.flatnonzero(asked.label_index == label)
        if len(members) == 1:
            return None
        before, after = _members_of(asked, members), _members_of(measured, members)
        rows = max(float(counts[members].sum()), 1.0)
        noise = energy / rows**2 * float((1 / before.weights).sum())
        return correct_by_components(
            before,
            moments_of(after),
            answer.radius,
            (_NOISE_LEFT * noise, most * noise),
            _ROUNDS,
            _DRAWS,
            17 + label,
            search_share,
        )

    weights, means = measured.weights.copy(), measured.means.copy()
    covariances = measured.covariances.copy()
    labels = range(max(1, len(asked.label_values)))
    for label, fit in zip(labels, in_order(of_label, labels), strict=True):
        if fit is None:
            continue
        members = np.flatnonzero(asked.label_index == label)
        weights[members], means[members] = weights[members].sum() * fit.weights, fit.means
        covariances[members] = fit.covariances
    return Mixture(
        weights, means, covariances, asked.label_index, asked.label_values, asked.component_number
    )


def _members_of(mixture: Mixture, members: Ints) -> Fit:
    """Components of a mixture, with weights that sum to one."""
    weights = mixture.weights[members]
    means, covariances = mixture.means[members], mixture.covariances[members]
    return Fit(weights / weights.sum(), means, covariances, 0.0)


def _plan(
    problem: Problem,
    mixture: Mixture,
    name: str,
    rho: float,
    level: Level,
    last: bool,
    radius: float,
) -> PassPlan:
    p = mixture.dimension
    cells = np.arange(mixture.n_components)
    # Before the last pass counts and means decide where components go: by the KL of the noise alone
    # they would get almost nothing.
    allocation = problem.allocation if last else "even"
    shares = split(rho, [1.0, radius, radius**2], kl_curvatures(p), allocation)
    groups = {
        "component": cells,
        "label": mixture.label_index,
        "all": np.zeros(len(cells), dtype=np.int64),
    }[level]
    blocks = (
        BlockPlan("count", cells, shares[0]),
        BlockPlan("sum", cells, shares[1]),
        BlockPlan("second", groups, shares[2]),
    )
    pooled = pooled_covariance(mixture)
    if level == "component":
        whiten = tuple(whitener(covariance) for covariance in mixture.covariances)
        cell_map = cells
    else:
        whiten, cell_map = (whitener(pooled),), np.zeros(len(cells), dtype=np.int64)
    plan = PassPlan(
        step=name,
        cell_label=mixture.label_index,
        centres=mixture.means,
        radius=radius,
        blocks=blocks,
        whiten=whiten,
        cell_map=cell_map,
        rule="label",
    )
    if mixture.n_components == problem.labels:
        return plan
    if problem.assignment == "hard":
        return replace(plan, rule="nearest", metric=whitener(pooled))
    log_det = np.array([-2 * np.linalg.slogdet(whiten[m])[1] for m in cell_map])
    offsets = log_det - 2 * np.log(np.maximum(mixture.weights, 1e-12))
    return replace(plan, rule="full", soft=True, offsets=offsets)


def pooled_covariance(mixture: Mixture) -> Floats:
    """The weighted mean of the component covariances (p, p)."""
    return np.asarray(np.einsum("c,cij->ij", mixture.weights, mixture.covariances))


def _estimate(
    problem: Problem,
    centre: Centre,
    before: Mixture,
    answer: Observed,
    sought: bool,
) -> Estimate:
    counts, sums, seconds = (answer.block(s) for s in ("count", "sum", "second"))
    rows = np.maximum(counts.values, max(counts.sigma, 1.0))
    weights = np.maximum(counts.values, 0.0) + 1e-6 * rows
    weights = weights / weights.sum()
    shift = sums.values / rows[:, None]
    length = np.linalg.norm(shift, axis=1)
    shift = shift * np.minimum(1.0, answer.radius / np.maximum(length, 1e-12))[:, None]
    white, scale = _white_covariances(answer, seconds.groups, rows, shift, sums.sigma)
    unwhiten = answer.unwhiten
    means = answer.centres + np.einsum("cij,cj->ci", unwhiten, shift)
    groups = seconds.groups
    covariances, keep = _shrink(problem, white, scale, unwhiten, groups, weights, sought)
    mixture = Mixture(
        weights=weights,
        means=_inside(problem, centre, means),
        covariances=covariances,
        labels=before.label_index,
        label_values=problem.label_values,
        component=before.component_number,
    )
    errors = _errors(answer, counts.sigma, sums.sigma, rows, weights, scale * keep, mixture)
    return Estimate(mixture, errors, keep)


def _inside(problem: Problem, centre: Centre, means: Floats) -> Floats:
    """Means moved into the public bound."""
    z = centre.latent.to_features(means)
    length = np.linalg.norm(z, axis=1)
    return centre.latent.to_latent(
        z * np.minimum(1.0, problem.norm / np.maximum(length, 1e-300))[:, None]
    )


def _white_covariances(
    answer: Observed, groups: Ints, rows: Floats, shift: Floats, sum_sigma: float
) -> tuple[Floats, Floats]:
    """Covariance of each component (C, p, p) in its own coordinates, and the noise scale on it.

    Second moments about the asked centre less the squared shift of the mean, whose own noise
    would bias it by its variance; divided by what clipping leaves of a Gaussian's variance.
    """
    seconds = answer.block("second")
    p = shift.shape[1]
    kept = clipped_share(p, answer.radius)
    outer = rows[:, None, None] * np.einsum("ci,cj->cij", shift, shift)
    outer -= np.minimum(sum_sigma**2 / rows, rows)[:, None, None] * np.eye(p)
    count = np.bincount(groups, rows)
    centred = seconds.values.copy()
    np.subtract.at(centred, groups, outer)
    white = centred / count[:, None, None] / kept
    return white[groups], (seconds.sigma / count / kept)[groups]


def _shrink(
    problem: Problem,
    white: Floats,
    scale: Floats,
    unwhiten: Floats,
    groups: Ints,
    weights: Floats,
    sought: bool,
) -> tuple[Floats, Floats]:
    """Known-noise shrinkage toward the pooled covariance, which is shrunk toward a sphere.

    Where components are sought, shrinkage is toward the covariances that earlier passes found.
    """
    p = white.shape[1]
    raw = unwhiten @ white @ unwhiten.transpose(0, 2, 1)
    pooled = np.einsum("c,cij->ij", weights, raw)
    out = np.empty_like(raw)
    keep = np.ones(len(raw))
    for k in range(len(raw)):
        inverse = np.linalg.inv(unwhiten[k])
        share = weights[groups == groups[k]].sum()
        pooled_scale = float(scale[k] * np.sqrt(share))
        target = inverse @ pooled @ inverse.T
        target, _ = toward(target, isotropic(target), noise_energy(p, pooled_scale))
        target = np.eye(p) if sought else floor_eigenvalues(target, _LEAST_EIGENVALUE)
        if problem.covariance == "tied":
            mended = target
        else:
            mended, keep[k] = toward(white[k], target, noise_energy(p, float(scale[k])))
        mended = floor_eigenvalues(mended, _LEAST_EIGENVALUE)
        covariance = unwhiten[k] @ mended @ unwhiten[k].T
        out[k] = _structured(problem.covariance, (covariance + covariance.T) / 2)
    if problem.covariance == "tied":
        out[:] = np.einsum("c,cij->ij", weights, out)
    return out, keep


def _structured(kind: str, covariance: Floats) -> Floats:
    if kind == "diag":
        return np.diag(np.diagonal(covariance))
    if kind == "spherical":
        return isotropic(covariance)
    return covariance


def _errors(
    answer: Observed,
    count_sigma: float,
    sum_sigma: float,
    rows: Floats,
    weights: Floats,
    scale: Floats,
    mixture: Mixture,
) -> StandardErrors:
    """Standard errors from the known noise (the data's own sampling error is not in them).

    With symmetric noise E of scale s, ``B E B^T`` has variance
    ``s^2/2 (V_aa V_bb + V_ab^2)`` at (a, b), where ``V = B B^T``.
    """
    unwhiten = answer.unwhiten
    total = float(rows.sum())
    spread = np.einsum("cij,ckj->cik", unwhiten, unwhiten)
    diagonal = np.einsum("cii->ci", spread)
    means = (sum_sigma / rows)[:, None] * np.sqrt(diagonal)
    relative = (count_sigma / rows)[:, None, None] * mixture.covariances
    noise = scale[:, None, None] ** 2 / 2
    noise = noise * (diagonal[:, :, None] * diagonal[:, None, :] + spread**2)
    others = count_sigma * np.sqrt((1 - weights) ** 2 + weights**2 * (len(weights) - 1))
    return StandardErrors(
        weights=others / total, means=means, covariances=np.sqrt(noise + relative**2)
    )
