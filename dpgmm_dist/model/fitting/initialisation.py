"""The initial mixture: fitted to draws from the cells, chosen by what the cells measured.

Expectation maximisation on draws ends in local optima, and draws from cells filled with Gaussians
do not show which is best. So several different fits are each fitted to the cells' answers, and the
one that agrees with them best is kept. All of it is post-processing.
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
from dpgmm_dist.model.fitting.fixed_point import CellMeasure, cells_log_likelihood, correct_by_cells
from dpgmm_dist.model.fitting.joint_fit import History, parameters, wrong_model
from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments
from dpgmm_dist.model.fitting.merging import MOST_TIMES, components_in_pass
from dpgmm_dist.model.fitting.moment_fit import MOST_PARAMETERS, fit_moments
from dpgmm_dist.model.fitting.search_budget import SearchBudget
from dpgmm_dist.model.fitting.split_merge import split_and_merge
from dpgmm_dist.model.label_budget import MOST_SECONDS
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.numerics.parallel import in_order
from dpgmm_dist.model.problem import Centre, Problem
from dpgmm_dist.model.shrinkage import floor_eigenvalues, whitener

Floats = npt.NDArray[np.float64]

_AUTO = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
_DRAWS = 40_000
_FEW_COMPONENTS = 3
"""Up to this number of components the initial mixture has as many as are released, in any
dimension."""
_MOST_DIMENSIONS = 64
"""Up to this dimension the initial mixture has more components than are released. In 128 dimensions
the noise on their covariances cost more than they gained on one of two data sets (docs/method.md,
section 3.3)."""
_FEW_DRAWS = 20_000
_FEW_STEPS = 20
_FEW_CLUSTERINGS = 3
"""Draws, steps and k-means starts where components passes measure more than the cells did."""
_PATIENCE = 2
_CLOSE = 1e-3
"""Difference of predicted likelihoods, in nats, up to which a number of components is as good as
the best: quick fits differ by as much."""
_REACH = 50.0
_LEAST_EIGENVALUE = 1e-4
_DISTINCT = 4
"""Fits of each number of components that are corrected by the cells and compared."""
_RESTARTS, _CLUSTERINGS = 40, 2
"""Of expectation maximisation on draws: from far-apart draws, and from k-means of the draws."""
_MOMENT_FITS = 2
"""Number of fits with the best likelihood of the draws that are fitted to all answers, even if the
first agrees with them: with much noise several do (`overlapping`, epsilon 0.5, seed 3: .1 nats
instead of .008)."""
_SEARCH_BUDGET = SearchBudget(steps=4)


@dataclass(frozen=True, eq=False)
class InitialMixture:
    """The mixture that the components passes begin with."""

    mixture: Mixture
    wanted: list[int]
    """Number of components of each label that are released; it may be less than in ``mixture``."""
    choice: list[list[dict[str, Any]]]
    """For the receipt: of each label, the predicted likelihood of each number of components."""


def initial_mixture(
    problem: Problem,
    centre: Centre,
    density: Mixture,
    measures: list[list[CellMeasure]],
    history: History,
    rho: float,
) -> InitialMixture:
    """The mixture that agrees with the cells best, for the components passes to begin with.

    Parameters
    ----------
    density : cells as Gaussians, by label
    measures, history : what each cells pass measured of each label
    rho : budget of the last components pass, whose noise decides how many components pay
    """
    white = history.white

    def of_label(label: int) -> tuple[Fit, bool, list[dict[str, Any]]]:
        number = max(4000, _DRAWS // problem.labels)
        draws = cells.draw(density, label, number, 7) @ white
        of_passes = [by_label[label] for by_label in measures]
        rows = float(centre.rows[label])
        return _best_fit(problem, draws, of_passes, history.labels[label], rows, rho, label)

    chosen = in_order(of_label, range(problem.labels))
    history.trusted = all(agrees for _, agrees, _ in chosen)
    parts = [fit for fit, _, _ in chosen]
    mixture = _joined_labels(problem, centre, parts, white)
    entries = [entry for _, _, entry in chosen]
    return InitialMixture(mixture, [len(fit.weights) for fit in parts], entries)


def is_overseeded(problem: Problem) -> bool:
    """Whether there are more components at first than are released: public.

    This is so above 16 dimensions, where a mixture has too many parameters to be fitted to all
    answers, if memory affords second moments of the additional components.
    """
    p, most = problem.latent_dimension, max(candidates(problem))
    if problem.assignment != "soft" or problem.covariance == "tied" or most <= _FEW_COMPONENTS:
        return False
    many_dimensions = cells.SECOND_DIMENSION < p <= _MOST_DIMENSIONS
    numbers = MOST_TIMES * problem.labels * most * p * (p + 1) // 2
    return many_dimensions and parameters(most, p) > MOST_PARAMETERS and numbers <= MOST_SECONDS


def overseeded_mixture(
    problem: Problem, centre: Centre, density: Mixture, wanted: list[int]
) -> Mixture:
    """As many components as the first components pass asks about, where ``wanted`` are released.

    They are not corrected by the cells: the passes measure more dimensions than the cells did.
    """
    white = whitener(centre.pooled)
    numbers = components_in_pass("components.1", wanted)

    def of_label(label: int) -> Fit:
        rows = max(4000, _FEW_DRAWS // problem.labels)
        draws = (cells.draw(density, label, rows, 7) @ white).astype(np.float32)
        return clustered_fits(draws, numbers[label], _FEW_CLUSTERINGS, 11 + label, _FEW_STEPS)[0]

    return _joined_labels(problem, centre, in_order(of_label, range(problem.labels)), white)


def _joined_labels(
    problem: Problem, centre: Centre, parts: Sequence[Fit], white: Floats
) -> Mixture:
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


def _best_fit(
    problem: Problem,
    draws: Floats,
    measures: list[CellMeasure],
    answers: list[MeasuredMoments],
    rows: float,
    rho: float,
    label: int,
) -> tuple[Fit, bool, list[dict[str, Any]]]:
    """The fit (whitened) of the best predicted likelihood: that of the cells, less noise.

    Also whether it agrees with them as well as noise allows, and for the receipt the predicted
    likelihood of each candidate number of components.
    """
    numbers = candidates(problem)
    whole, wrong = 1 / problem.labels, wrong_model(draws.shape[1])

    def search(components: int, search_share: float, with_moves: bool) -> _Candidate:
        fits = _fits(draws, components, measures, answers, label, search_share, with_moves)
        # Among fits of as many components, the one that agrees best with all answers. The
        # likelihood, which knows counts and means alone, compares numbers of components.
        fit, likelihood, chi_squared = min(fits, key=lambda found: (found[2], -found[1]))
        cost = _noise_cost(problem, components, rows, problem.latent_dimension, rho)
        return _Candidate(fit, chi_squared, likelihood, cost)

    quick: dict[int, _Candidate] = {}
    close = list(numbers)
    if len(numbers) > 1:
        quick = _until_worse(numbers, lambda k: search(k, whole / len(numbers), False))
        most = max(candidate.predicted_likelihood for candidate in quick.values())
        close = [
            k for k, candidate in quick.items() if candidate.predicted_likelihood >= most - _CLOSE
        ]
    # A quick fit may have ended in a wrong optimum: those about as good as the best are searched
    # for once more, with all the work that a given number is worth.
    careful = {k: search(k, whole, True) for k in close}
    best = max(careful.values(), key=lambda candidate: candidate.predicted_likelihood)
    if problem.latent_dimension > draws.shape[1] and best.chi_squared >= wrong:
        # No mixture agrees with the cells: the gain of covariances in all dimensions does not show
        # in these few. The noise affords the largest number.
        careful[numbers[-1]] = best = careful.get(numbers[-1]) or search(numbers[-1], whole, True)
    entries = [candidate.receipt_entry(k) for k, candidate in (quick | careful).items()]
    return best.fit, best.chi_squared < wrong, entries


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A number of components, the best fit with it, and its likelihood."""

    fit: Fit
    chi_squared: float
    """Reduced chi-squared; infinite where it was not fitted to the answers."""
    likelihood: float
    cost: float
    """Expected KL of the last pass's noise."""

    @property
    def predicted_likelihood(self) -> float:
        """Likelihood of the cells, less noise."""
        return self.likelihood - self.cost

    def receipt_entry(self, components: int) -> dict[str, Any]:
        """For the receipt."""
        return {
            "components": components,
            "log_likelihood": self.likelihood,
            "expected_noise_kl": self.cost,
        }


def _until_worse(
    numbers: Sequence[int], search: Callable[[int], _Candidate]
) -> dict[int, _Candidate]:
    """Candidates with more and more components, until more only cost more noise."""
    found: dict[int, _Candidate] = {}
    best = None
    for components in numbers:
        found[components] = candidate = search(components)
        if best is None or candidate.predicted_likelihood > found[best].predicted_likelihood:
            best = components
        if len(found) > list(found).index(best) + _PATIENCE:
            break
    return found


def _fits(
    draws: Floats,
    components: int,
    measures: list[CellMeasure],
    answers: list[MeasuredMoments],
    label: int,
    search_share: float,
    with_moves: bool,
) -> list[tuple[Fit, float, float]]:
    """Fits of a number of components to the cells, with their likelihoods and reduced chi-squared.

    The latter is infinite where a fit was not fitted to the answers. ``with_moves`` asks for
    split-and-merge moves; ``search_share`` scales the work.
    """
    size = parameters(components, draws.shape[1])
    fits = fits_of_draws(draws, components, _RESTARTS, _DISTINCT, 11 + label, search_share)
    fits += clustered_fits(draws, components, _CLUSTERINGS, 11 + label, search_share=search_share)
    fits.sort(key=lambda fit: -fit.score)

    def likelihood(fit: Fit) -> float:
        return cells_log_likelihood(fit, measures, _DRAWS, 13 + label)

    def fitted(fit: Fit) -> tuple[Fit, float]:
        search = _SEARCH_BUDGET.shared(math.ceil(1 / search_share), size)
        found = fit_moments(fit, answers, 13 + label, search, errors=False)
        return _bounded(found.fit), found.reduced_chi_squared

    def corrected(fit: Fit) -> tuple[Fit, float, float]:
        fit = correct_by_cells(fit, measures, _DRAWS, 13 + label, search_share=search_share)
        return fit, likelihood(fit), np.inf

    if size > MOST_PARAMETERS:
        return in_order(corrected, fits[:_DISTINCT])
    moment_fits = in_order(fitted, fits[:_MOMENT_FITS])
    fit, chi_squared = min(moment_fits, key=lambda found: found[1])
    if with_moves:
        fit, chi_squared = split_and_merge(fit, chi_squared, answers, draws, 13 + label, fitted)
    if chi_squared < wrong_model(draws.shape[1]):
        return [(fit, likelihood(fit), chi_squared)]
    # No mixture with this many components agrees with the cells. The likeliest for their draws is
    # then safer than the one that agrees best with their noisy moments.
    return [(fit, likelihood(fit), np.inf) for fit in fits[:1]]


def _bounded(fit: Fit) -> Fit:
    """A whitened fit with means and variances within bounds that only noise exceeds."""
    length = np.linalg.norm(fit.means, axis=1)
    means = fit.means * np.minimum(1.0, _REACH / np.maximum(length, 1e-300))[:, None]
    bounded = [floor_eigenvalues(c, _LEAST_EIGENVALUE, _REACH) for c in fit.covariances]
    return replace(fit, means=means, covariances=np.stack(bounded))


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
