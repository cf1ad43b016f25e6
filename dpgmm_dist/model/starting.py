"""The first mixture: fitted to draws from the cells, chosen by what the cells measured.

Expectation maximisation on draws ends in local optima, and draws from cells filled with Gaussians
blur which is best. So several different fits are each matched to the cells' own answers, and the
one that explains those answers best is kept. All of it is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model import cells
from dpgmm_dist.model.allocation import expected_kl, kl_curvatures, split, whitened_radius
from dpgmm_dist.model.em import Fit, clustered_fits, fits_of_draws
from dpgmm_dist.model.explain import MOST_PARAMETERS, Effort, explain
from dpgmm_dist.model.matching import CellMeasure, match_cells, score_cells
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.moves import RIGHT, escaped
from dpgmm_dist.model.parallel import in_order
from dpgmm_dist.model.problem import Centre, Problem
from dpgmm_dist.model.refining import History, parameters
from dpgmm_dist.model.seen import Seen
from dpgmm_dist.model.shrinkage import floor_eigenvalues

Floats = npt.NDArray[np.float64]

_AUTO = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_DRAWS = 40_000
_PATIENCE = 2
_CLOSE = 1e-3
"""Nats of promise up to which a number of components is as good as the best: hasty fits differ by
as much."""
WRONG_MODEL = 1.5
"""Squared residuals a number, 1 where the model is right, from which the data are no such mixture.
Known mixtures stayed below 1.3, even at a wrong optimum; flights, which are none, do not."""
_REACH = 50.0
_LEAST_EIGENVALUE = 1e-4
_DIFFERENT = 4
"""Fits of each number of components that are matched and compared."""


@dataclass(frozen=True)
class Care:
    """How much work the first mixture is worth."""

    restarts: int
    """Of expectation maximisation on draws, from far-apart draws."""
    clusterings: int
    """The same from k-means of the draws."""
    steps: int
    """Of expectation maximisation from those, at the most."""
    search: float
    """Draws for them, as a multiple of what all their steps could afford: few take them all."""
    explained: int
    """Fits of the best likelihood of the draws that are fitted to all answers."""
    fit: Effort
    """How each is fitted."""
    moves: bool = False
    """Whether moves are tried where the fit leaves much unexplained: not after a hasty one."""
    compared: bool = False
    """Whether all those fits are made, even if the first leaves nothing unexplained: much noise
    hides which is right (`overlapping`, epsilon 0.5, seed 3: .1 nats in place of .008)."""
    single: bool = False
    """Whether the draws are handled in float32: two thirds of the time."""
    parameters: float = math.inf
    """Of a mixture times steps, and times fits begun again, beyond which there are fewer."""

    def effort(self, share: float, size: int) -> Effort:
        """For a fit of ``size`` parameters that is one of 1 / ``share``."""
        steps = max(1, int(min(self.parameters / size, self.fit.steps)))
        fit = replace(self.fit, steps=steps, anchors=min(self.fit.anchors, steps))
        return fit.shared(math.ceil(1 / share), size)


FULL = Care(
    restarts=40,
    clusterings=2,
    steps=40,
    search=1.0,
    explained=2,
    fit=Effort(steps=4),
    moves=True,
    compared=True,
)
START = Care(
    restarts=0,
    clusterings=8,
    steps=10,
    search=0.4,
    explained=2,
    fit=Effort(steps=6, draws=20_000, anchors=3),
    single=True,
    parameters=1000,
)
"""Where components passes see dimensions that this mixture was not sought in: they measure it
better than more steps would, but cannot lead out of a wrong optimum (docs/method.md, section
3.3)."""


def start_mixture(
    problem: Problem,
    centre: Centre,
    density: Mixture,
    measures: list[list[CellMeasure]],
    history: History,
    rho: float,
    care: Care = FULL,
) -> tuple[Mixture, list[list[dict[str, Any]]]]:
    """The mixture that the components passes begin with, and why it has that many components.

    Parameters
    ----------
    density : cells as Gaussians, by label
    measures, history : what each cells pass measured of each label
    rho : budget of the last components pass, whose noise decides how many components pay
    care : how much work to do
    """
    white = history.white

    def of_label(label: int) -> tuple[Fit, bool, list[dict[str, Any]]]:
        some = max(4000, min(_DRAWS, care.fit.draws) // problem.labels)
        draws = cells.draw(density, label, some, 7) @ white
        own = [one[label] for one in measures]
        rows = float(centre.rows[label])
        return _best(problem, draws, own, history.labels[label], rows, rho, label, care)

    chosen = in_order(of_label, range(problem.labels))
    parts = [fit for fit, _, _ in chosen]
    history.trusted = all(agrees for _, agrees, _ in chosen)
    back = np.linalg.inv(white)
    share = centre.rows / centre.rows.sum()
    counts = [len(fit.weights) for fit in parts]
    covariances = np.concatenate([back @ fit.covariances @ back for fit in parts])
    mixture = Mixture(
        weights=np.concatenate([s * fit.weights for s, fit in zip(share, parts, strict=True)]),
        means=np.concatenate([fit.means @ back for fit in parts]),
        covariances=(covariances + covariances.transpose(0, 2, 1)) / 2,
        labels=np.repeat(np.arange(problem.labels), counts),
        label_values=problem.label_values,
    )
    return mixture, [candidates for _, _, candidates in chosen]


def _best(
    problem: Problem,
    draws: Floats,
    measures: list[CellMeasure],
    seen: list[Seen],
    rows: float,
    rho: float,
    label: int,
    care: Care,
) -> tuple[Fit, bool, list[dict[str, Any]]]:
    """The fit (whitened) of the best predicted likelihood: what explains the cells, less noise.

    Also whether it agrees with them as well as noise lets it, and for the receipt what each
    candidate number of components promised.
    """
    numbers = candidates(problem)
    whole = 1 / problem.labels

    def sought(components: int, effort: float, moves: bool) -> _Candidate:
        fits = _fits(draws, components, measures, seen, label, effort, care, moves)
        # Of as many components, the one that agrees best with all answers; their likelihood,
        # which knows counts and means alone, compares numbers of components.
        fit, likelihood, misfit = min(fits, key=lambda one: (one[2], -one[1]))
        cost = _noise_cost(problem, components, rows, problem.latent_dimension, rho)
        return _Candidate(fit, misfit, likelihood, cost)

    tried: dict[int, _Candidate] = {}
    close = list(numbers)
    if len(numbers) > 1:
        tried = _until_worse(numbers, lambda k: sought(k, whole / len(numbers), False))
        most = max(one.promise for one in tried.values())
        close = [k for k, one in tried.items() if one.promise >= most - _CLOSE]
    # A hasty fit may have ended in a wrong optimum: those about as good as the best are sought
    # again with all the work that a given number is worth.
    again = {k: sought(k, whole, care.moves) for k in close}
    best = max(again.values(), key=lambda one: one.promise)
    if problem.latent_dimension > draws.shape[1] and best.misfit >= WRONG_MODEL:
        # No mixture: what covariances gain in all dimensions does not show in these few. Noise
        # affords as many as the largest number.
        again[numbers[-1]] = best = again.get(numbers[-1]) or sought(numbers[-1], whole, care.moves)
    told = [one.told(k) for k, one in (tried | again).items()]
    return best.fit, best.misfit < WRONG_MODEL, told


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A number of components: the best fit with so many, and what it promises."""

    fit: Fit
    misfit: float
    likelihood: float
    cost: float
    """Expected KL of the last pass's noise."""

    @property
    def promise(self) -> float:
        """Likelihood of the cells, less noise."""
        return self.likelihood - self.cost

    def told(self, components: int) -> dict[str, Any]:
        """For the receipt."""
        return {
            "components": components,
            "log_likelihood": self.likelihood,
            "expected_noise_kl": self.cost,
        }


def _until_worse(
    numbers: Sequence[int], sought: Callable[[int], _Candidate]
) -> dict[int, _Candidate]:
    """Ever more components, until more of them only cost more noise."""
    tried: dict[int, _Candidate] = {}
    best = None
    for components in numbers:
        tried[components] = sought(components)
        if best is None or tried[components].promise > tried[best].promise:
            best = components
        if len(tried) > list(tried).index(best) + _PATIENCE:
            break
    return tried


def _fits(
    draws: Floats,
    components: int,
    measures: list[CellMeasure],
    seen: list[Seen],
    label: int,
    effort: float,
    care: Care,
    moves: bool,
) -> list[tuple[Fit, float, float]]:
    """Fits of so many components that agree with the cells, ``moves`` asked to find them.

    Each with its likelihood of them, and with its misfit a number (infinite where it was not
    fitted to them).
    """
    size = parameters(components, draws.shape[1])
    search = effort * care.search
    fits = []
    if care.restarts:
        fits += fits_of_draws(draws, components, care.restarts, _DIFFERENT, 11 + label, effort)
    rows = draws.astype(np.float32) if care.single else draws
    fits += clustered_fits(
        rows, components, care.clusterings, 11 + label, care.steps, effort=search
    )
    fits.sort(key=lambda fit: -fit.score)

    def likelihood(fit: Fit) -> float:
        return score_cells(fit, measures, min(_DRAWS, care.fit.draws), 13 + label)

    def explained(fit: Fit) -> tuple[Fit, float]:
        work = care.effort(effort, size)
        found = explain(fit, seen, 13 + label, work, errors=False)
        return _held(found.fit), found.misfit / found.answers

    def matched(fit: Fit) -> tuple[Fit, float, float]:
        fit = match_cells(fit, measures, _DRAWS, 13 + label, effort=effort)
        return fit, likelihood(fit), np.inf

    if size > MOST_PARAMETERS:
        return in_order(matched, fits[:_DIFFERENT])
    best: list[tuple[Fit, float]] = []
    likeliest = fits[: care.explained]
    for some in [likeliest] if care.compared else [[one] for one in likeliest]:
        best += in_order(explained, some)
        if best[-1][1] <= RIGHT:
            break
    fit, misfit = min(best, key=lambda one: one[1])
    if moves:
        fit, misfit = escaped(fit, misfit, seen, draws, 13 + label, explained)
    if misfit < WRONG_MODEL:
        return [(fit, likelihood(fit), misfit)]
    # No mixture of so many agrees with the cells: what is likeliest for their draws is safer than
    # what agrees best with their noisy moments.
    return [(fit, likelihood(fit), np.inf) for fit in fits[:1]]


def _held(fit: Fit) -> Fit:
    """A whitened fit that noise cannot have led astray: means and variances within reach."""
    length = np.linalg.norm(fit.means, axis=1)
    means = fit.means * np.minimum(1.0, _REACH / np.maximum(length, 1e-300))[:, None]
    held = [floor_eigenvalues(one, _LEAST_EIGENVALUE, _REACH) for one in fit.covariances]
    return replace(fit, means=means, covariances=np.stack(held))


def candidates(problem: Problem) -> Sequence[int]:
    """The numbers of components of a label that may be chosen."""
    if isinstance(problem.components, int):
        return (problem.components,)
    if isinstance(problem.components, tuple):
        return tuple(sorted(problem.components))
    return _AUTO


def _noise_cost(problem: Problem, components: int, rows: float, p: int, rho: float) -> float:
    """Expected KL from the final pass's noise with this many equal components of one label."""
    radius = whitened_radius(p)
    sensitivities = [1.0, radius, radius**2]
    shares = split(rho, sensitivities, kl_curvatures(p), problem.allocation)
    variances = [d**2 / (2 * r) for d, r in zip(sensitivities, shares, strict=True)]
    weights = np.full(components, 1 / components)
    return sum(expected_kl(p, max(rows, 1.0), weights, variances))
