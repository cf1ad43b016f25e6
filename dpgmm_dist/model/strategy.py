"""The sequence of passes of a release and their budgets: the entry point of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dpgmm_dist.model import schedule as stages
from dpgmm_dist.model.affordable import affordable, is_tied, padded
from dpgmm_dist.model.fitting import cells, components
from dpgmm_dist.model.fitting.first_moments import find_centre
from dpgmm_dist.model.fitting.fixed_point import CellMeasure
from dpgmm_dist.model.fitting.informative_subspace import informative_subspace
from dpgmm_dist.model.fitting.initialisation import (
    InitialMixture,
    candidates,
    initial_mixture,
    is_overseeded,
    overseeded_mixture,
)
from dpgmm_dist.model.fitting.joint_fit import History
from dpgmm_dist.model.fitting.merging import components_in_pass, merge_down_to
from dpgmm_dist.model.label_budget import SHARES, adapted, needs_krylov
from dpgmm_dist.model.labels import krylov_directions as krylov
from dpgmm_dist.model.labels import tied_covariances as tied
from dpgmm_dist.model.problem import Ask, Centre, Fitted, Problem
from dpgmm_dist.model.shrinkage import NEARLY_ALL
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.centre import measure as locate

_FEW_DIMENSIONS = 5
"""Up to this dimension second moments of cells cost so little that cells get a larger share."""

_NARROW_CELLS = {"cells.1": 0.08, "cells.2": 0.14}
"""Shares of the cells passes where the second one measures a few directions only."""

_OVERSEEDED = {
    "cells.1": 0.06,
    "cells.2": 0.10,
    "components.1": 0.13,
    "components.2": 0.13,
    "components.3": 0.13,
    "components.4": 0.10,
    "components.5": 0.24,
}
"""Shares where components are merged between the components passes."""


def schedule(problem: Problem) -> dict[str, float]:
    """The share of rho of each pass of the longest way a release may take, in order: public."""
    return {"moments.centre": stages.CENTRE_SHARE, **joint_schedule(problem)}


def joint_schedule(problem: Problem) -> dict[str, float]:
    """The share of rho of each pass after the centre, where components are fitted jointly."""
    p = problem.latent_dimension
    left = 1 - stages.CENTRE_SHARE
    if is_tied(problem):
        return {step: left * share for step, share in SHARES.items()}
    if p <= cells.SECOND_DIMENSION and max(candidates(problem)) == 1:
        # One Gaussian per label is known from the centre: it needs no cells.
        shares = {"components.1": 0.28, "components.2": 0.50}
    elif p <= _FEW_DIMENSIONS:
        shares = {"cells.1": 0.10, "cells.2": 0.30, "components.1": 0.15, "components.2": 0.35}
    elif p <= cells.SECOND_DIMENSION:
        shares = {"cells.1": 0.07, "cells.2": 0.20, "components.1": 0.15, "components.2": 0.48}
    elif is_overseeded(problem):
        shares = _OVERSEEDED
    elif problem.assignment == "hard":
        shares = {**_NARROW_CELLS, "components.1": 0.20, "components.2": 0.48}
    else:
        shares = {
            **_NARROW_CELLS,
            "components.1": 0.12,
            "components.2": 0.16,
            "components.3": 0.40,
        }
    # Without labels the first pass has measured the number of rows and their mean.
    moments = {"moments.second": 0.07}
    if problem.labels > 1:
        moments = {"moments.sum": 0.03, **moments}
    total = sum(moments.values()) + sum(shares.values())
    return {step: left * share / total for step, share in {**moments, **shares}.items()}


def fit(
    problem: Problem, ask: Ask, announce: Callable[[int], None] = lambda passes: None
) -> Fitted:
    """Release a mixture: every number used here is public or the answer to a charged query.

    ``announce`` is called with the number of passes once the noisy number of rows is known.
    """
    location = locate(problem, ask, stages.CENTRE_SHARE * problem.rho)
    joint = affordable(problem, location.rows)
    announce(len(schedule(problem)) if joint else stages.passes(problem))
    if joint is None:
        return padded(problem, stages.fit(problem, ask, location))
    return padded(problem, _joint(joint, ask, location))


def _joint(problem: Problem, ask: Ask, location: Location) -> Fitted:
    """A joint fit of components to all noisy moments, where each component can be measured."""
    budget = {step: share * problem.rho for step, share in joint_schedule(problem).items()}
    # Labels have counts and means of their own.
    centre = find_centre(problem, ask, location if problem.labels == 1 else None, budget)
    if is_tied(problem):
        if needs_krylov(problem, centre.rows):
            return krylov.fit(problem, ask, centre, adapted(problem, budget, centre.rows))
        return tied.fit(problem, ask, centre, budget)
    cell_steps = [(step, rho) for step, rho in budget.items() if step.startswith("cells")]
    component_steps = [step for step in budget if step.startswith("components")]
    final_rho = budget[component_steps[-1]]
    history = History(centre)
    initial = _initial_mixture(problem, ask, centre, cell_steps, history, final_rho)
    mixture, wanted, p = initial.mixture, initial.wanted, centre.pooled.shape[0]
    level = components.second_level(problem, centre.rows, max(wanted), p, final_rho)
    sought = is_overseeded(problem)
    for step in component_steps:
        last = step == component_steps[-1]
        if sought:
            mixture = merge_down_to(mixture, components_in_pass(step, wanted))
        estimate = components.step(
            problem, ask, centre, mixture, step, budget[step], level, last, sought, history
        )
        mixture = estimate.mixture
    return Fitted(
        mixture=mixture,
        errors=estimate.errors,
        latent=centre.latent,
        residual_variance=centre.residual_variance,
        rows=centre.total,
        notes={
            "structure": _structure(wanted, level),
            "second_moments": level,
            "components_per_label": wanted,
            "components_choice": initial.choice or "as specified",
            "agrees_with_cells": None if sought else history.trusted,
            "expected_kl": estimate.expected_kl,
            "error_bars": _error_notes(estimate),
        },
    )


def _initial_mixture(
    problem: Problem,
    ask: Ask,
    centre: Centre,
    steps: list[tuple[str, float]],
    history: History,
    final_rho: float,
) -> InitialMixture:
    """The cells passes if there are any, and the mixture that the components passes begin with."""
    density = cells.initial_density(problem, centre)
    if not steps:
        return InitialMixture(density, [1] * problem.labels, [])
    measures: list[list[CellMeasure]] = []
    # From the last cells pass on, in many dimensions: a subspace, and what was measured in it.
    subspace, inner_history, inner_centre = None, history, centre
    for step, rho in steps:
        last = step == steps[-1][0]
        if last and centre.pooled.shape[0] > cells.SECOND_DIMENSION:
            measured = [passes[-1] for passes in history.labels]
            subspace = informative_subspace(centre, measured, max(candidates(problem)))
            density, inner_centre = subspace.project(density), subspace.centre
            measures, inner_history = [], History(inner_centre)
        density, of_labels, answer = cells.measure_cells(
            problem, ask, inner_centre, density, step, rho, last
        )
        measures.append(of_labels)
        inner_history.add(answer, [None] * problem.labels)
    numbers = candidates(problem)
    if is_overseeded(problem) and len(numbers) == 1:
        initial = InitialMixture(density, list(numbers) * problem.labels, [])
    else:
        initial = initial_mixture(
            problem, inner_centre, density, measures, inner_history, final_rho
        )
    if subspace is None:
        return initial
    history.trusted = inner_history.trusted
    mixture = initial.mixture
    if is_overseeded(problem):
        mixture = overseeded_mixture(problem, inner_centre, density, initial.wanted)
    return replace(initial, mixture=subspace.lift(mixture))


def _structure(numbers: list[int], level: str) -> str:
    """The structure in words: components of each label, and whose covariances differ."""
    fewest, largest = min(numbers), max(numbers)
    count = str(largest) if fewest == largest else f"{fewest} to {largest}"
    components = f"{count} component{'s' * (largest > 1)}"
    labels = f" for each of {len(numbers)} labels" if len(numbers) > 1 else ""
    kinds = {"component": "a covariance for each", "label": "a covariance for each label"}
    return f"{components}{labels}; {kinds.get(level, 'one covariance')}"


def _error_notes(estimate: components.Estimate) -> dict[str, Any]:
    """Kinds of standard errors: shrinkage makes them approximate, and its bias is listed."""
    kept = estimate.keep
    return {
        "covariances": "nominal" if float(kept.min()) > NEARLY_ALL else "approximate",
        "weight_of_own_covariance": [round(float(weight), 6) for weight in kept],
        "relative_shrinkage_bias": None
        if estimate.bias is None
        else [round(float(bias), 6) for bias in estimate.bias],
    }
