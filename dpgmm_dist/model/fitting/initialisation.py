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

from dpgmm_dist.model.allocation import expected_kl, kl_curvatures, split, whitened_radius
from dpgmm_dist.model.fitting import cells
from dpgmm_dist.model.fitting.em import Fit, clustered_fits, fits_of_draws
from dpgmm_dist.model.fitting.fixed_point import CellMeasure, match_cells, score_cells
from dpgmm_dist.model.fitting.measured_moments import Seen
from dpgmm_dist.model.fitting.merging import MOST_TIMES, in_pass
from dpgmm_dist.model.fitting.moment_fit import MOST_PARAMETERS, Effort, explain
from dpgmm_dist.model.fitting.refinement import History, parameters, wrong_model
from dpgmm_dist.model.fitting.split_merge import escaped
from dpgmm_dist.model.label_budget import MOST_SECONDS
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.numerics.parallel import in_order
from dpgmm_dist.model.problem import Centre, Problem
from dpgmm_dist.model.shrinkage import floor_eigenvalues, whitener

Floats = npt.NDArray[np.float64]

_AUTO = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_DRAWS = 40_000
_FEW = 3
"""Up to so many components the first mixture has one for each, however many dimensions."""
_MOST_DIMENSIONS = 64
"""Up to here more are sought than are released. In 128 dimensions noise on their covariances lost
more than was found on one of two data sets (docs/method.md, section 3.3)."""
_FEW_DRAWS = 20_000
_FEW_STEPS = 20
_FEW_CLUSTERINGS = 3
"""Of draws, steps and k-means starts where components passes see more than the cells did."""
_PATIENCE = 2
_CLOSE = 1e-3
"""Nats of promise up to which a number of components is as good as the best: hasty fits differ by
as much."""
_REACH = 50.0
_LEAST_EIGENVALUE = 1e-4
_DIFFERENT = 4
"""Fits of each number of components that are matched and compared."""


_RESTARTS, _CLUSTERINGS = 40, 2
"""Of expectation maximisation on draws: from far-apart draws, and from k-means of the draws."""
_EXPLAINED = 2
"""Fits of the best likelihood of the draws that are fitted to all answers, even if the first leaves
nothing unexplained: much noise hides which is right (`overlapping`, epsilon 0.5, seed 3: .1 nats in
place of .008)."""
_EFFORT = Effort(steps=4)


@dataclass(frozen=True, eq=False)
class First:
    """The mixture that the components passes begin with."""

    mixture: Mixture
    wanted: list[int]
    """How many components of each label are released; above 16 dimensions there are more first."""
    choice: list[list[dict[str, Any]]]
    """For the receipt: what each number of components of each label promised, where it chose."""


def start_mixture(
    problem: Problem,
    centre: Centre,
    density: Mixture,
    measures: list[list[CellMeasure]],
    history: History,
    rho: float,
) -> First:
    """The mixture that explains the cells best, for the components passes to begin with.

    Parameters
    ----------
    density : cells as Gaussians, by label
    measures, history : what each cells pass measured of each label
    rho : budget of the last components pass, whose noise decides how many components pay
    """
    white = history.white

    def of_label(label: int) -> tuple[Fit, bool, list[dict[str, Any]]]:
        some = max(4000, _DRAWS // problem.labels)
        draws = cells.draw(density, label, some, 7) @ white
        own = [one[label] for one in measures]
        rows = float(centre.rows[label])
        return _best(problem, draws, own, history.labels[label], rows, rho, label)

    chosen = in_order(of_label, range(problem.labels))
    history.trusted = all(agrees for _, agrees, _ in chosen)
    parts = [fit for fit, _, _ in chosen]
    mixture = _together(problem, centre, parts, white)
    return First(mixture, [len(fit.weights) for fit in parts], [told for _, _, told in chosen])


def overseeds(problem: Problem) -> bool:
    """Whether more components are sought at first than are released: public.

    Above 16 dimensions, where a mixture has too many parameters to be fitted to all answers, and
    memory affords second moments of them.
    """
    p, most = problem.latent_dimension, max(candidates(problem))
    several = most > _FEW and problem.assignment == "soft" and problem.covariance != "tied"
    many = cells.SECOND_DIMENSION < p <= _MOST_DIMENSIONS
    numbers = MOST_TIMES * problem.labels * most * p * (p + 1) // 2
    return several and many and parameters(most, p) > MOST_PARAMETERS and numbers <= MOST_SECONDS


def overseeded(problem: Problem, centre: Centre, density: Mixture, wanted: list[int]) -> Mixture:
    """As many components as the first components pass asks about, where ``wanted`` are released.

    They are not matched to the cells' answers: the passes see more dimensions than the cells did.
    """
    white = whitener(centre.pooled)
    numbers = in_pass("components.1", wanted)

    def of_label(label: int) -> Fit:
        rows = max(4000, _FEW_DRAWS // problem.labels)
        draws = (cells.draw(density, label, rows, 7) @ white).astype(np.float32)
        return clustered_fits(draws, numbers[label], _FEW_CLUSTERINGS, 11 + label, _FEW_STEPS)[0]

    return _together(problem, centre, in_order(of_label, range(problem.labels)), white)


def _together(problem: Problem, centre: Centre, parts: Sequence[Fit], white: Floats) -> Mixture:
    """The mixture of all labels' whitened fits."""
    back = np.linalg.inv(white)
    share = centre.rows / centre.rows.sum()
    counts = [len(fit.weights) for fit in parts]
    covariances = np.concatenate([back @ fit.covariances @ back for fit in parts])
    return Mixture(
        weights=np.concatenate([s * fit.weights for s, fit in zip(share, parts, strict=True)]),
        means=np.concatenate([fit.means @ back for fit in parts]),
        covariances=(covariances + covariances.transpose(0, 2, 1)) / 2,
        labels=np.repeat(np.arange(problem.labels), counts),
        label_values=problem.label_values,
    )


def _best(
    problem: Problem,
    draws: Floats,
    measures: list[CellMeasure],
    seen: list[Seen],
    rows: float,
    rho: float,
    label: int,
) -> tuple[Fit, bool, list[dict[str, Any]]]:
    """The fit (whitened) of the best predicted likelihood: what explains the cells, less noise.

    Also whether it agrees with them as well as noise lets it, and for the receipt what each
    candidate number of components promised.
    """
    numbers = candidates(problem)
    whole, wrong = 1 / problem.labels, wrong_model(draws.shape[1])

    def sought(components: int, effort: float, moves: bool) -> _Candidate:
        fits = _fits(draws, components, measures, seen, label, effort, moves)
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
    again = {k: sought(k, whole, True) for k in close}
    best = max(again.values(), key=lambda one: one.promise)
    if problem.latent_dimension > draws.shape[1] and best.misfit >= wrong:
        # No mixture: what covariances gain in all dimensions does not show in these few. Noise
        # affords as many as the largest number.
        again[numbers[-1]] = best = again.get(numbers[-1]) or sought(numbers[-1], whole, True)
    told = [one.told(k) for k, one in (tried | again).items()]
    return best.fit, best.misfit < wrong, told


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
    moves: bool,
) -> list[tuple[Fit, float, float]]:
    """Fits of so many components that agree with the cells, ``moves`` asked to find them.

    Each with its likelihood of them, and with its misfit a number (infinite where it was not
    fitted to them).
    """
    size = parameters(components, draws.shape[1])
    fits = fits_of_draws(draws, components, _RESTARTS, _DIFFERENT, 11 + label, effort)
    fits += clustered_fits(draws, components, _CLUSTERINGS, 11 + label, effort=effort)
    fits.sort(key=lambda fit: -fit.score)

    def likelihood(fit: Fit) -> float:
        return score_cells(fit, measures, _DRAWS, 13 + label)

    def explained(fit: Fit) -> tuple[Fit, float]:
        work = _EFFORT.shared(math.ceil(1 / effort), size)
        found = explain(fit, seen, 13 + label, work, errors=False)
        return _held(found.fit), found.misfit / found.answers

    def matched(fit: Fit) -> tuple[Fit, float, float]:
        fit = match_cells(fit, measures, _DRAWS, 13 + label, effort=effort)
        return fit, likelihood(fit), np.inf

    if size > MOST_PARAMETERS:
        return in_order(matched, fits[:_DIFFERENT])
    fit, misfit = min(in_order(explained, fits[:_EXPLAINED]), key=lambda one: one[1])
    if moves:
        fit, misfit = escaped(fit, misfit, seen, draws, 13 + label, explained)
    if misfit < wrong_model(draws.shape[1]):
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
