"""Merging between passes: pairs whose merger costs the least likelihood become one Gaussian.

Above 16 dimensions the cells show only in which means components differ, and a fit of K Gaussians
there mostly has one over two true ones. Of three times as many, each covers part of one true
component and little else. Passes measure them in all dimensions, where parts of a component become
alike. Between passes such parts are merged, until K components are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.cells import draw
from dpgmm_dist.model.fitting.em import Fit, log_components
from dpgmm_dist.model.mixture import Mixture

Floats = npt.NDArray[np.float64]

MOST_TIMES = 3
TIMES = {"components.1": MOST_TIMES, "components.2": 2.0, "components.3": 1.4}
"""Components that a pass above 16 dimensions asks about, as a multiple of those released; 1 in all
later passes. In a prototype with simulated noise, 10 components in 32 dimensions (300,000 rows,
epsilon 1, three seeds) ended .18 to .36 nats from the truth after passes over 24, 24, 10 and 10,
and .14 to .18 after passes over 30, 20, 14, 10 and 10."""
_NEAREST = 3
"""Pairs whose merger is tried, for each component."""
_DRAWS = 6_000
_LEAST = 1e-4
"""Least share of its density that a draw keeps. Otherwise the draws of a component that is all
noise decide (ten separate components, seed 102: two of them were lost)."""
_SEED = 19


def components_in_pass(step: str, wanted: Sequence[int]) -> list[int]:
    """How many components of each label a pass asks about, where ``wanted`` are released."""
    return [math.ceil(TIMES.get(step, 1.0) * number) for number in wanted]


def merge_down_to(mixture: Mixture, numbers: Sequence[int]) -> Mixture:
    """A mixture with at most these numbers (L,) of components of each label, by merging pairs."""
    index = mixture.label_index
    if (np.bincount(index) <= numbers).all():
        return mixture
    parts = []
    for label, number in enumerate(numbers):
        members = index == label
        weights, means = mixture.weights[members], mixture.means[members]
        fit = Fit(weights, means, mixture.covariances[members], 0.0)
        parts.append(_merge_pairs(fit, number, draw(mixture, label, _DRAWS, _SEED)))
    weights = np.concatenate([part.weights for part in parts])
    return Mixture(
        weights=weights / weights.sum(),
        means=np.concatenate([part.means for part in parts]),
        covariances=np.concatenate([part.covariances for part in parts]),
        labels=np.repeat(np.arange(len(parts)), [len(part.weights) for part in parts]),
        label_values=mixture.label_values,
    )


def merged(fit: Fit, first: int, second: int) -> Fit:
    """The Gaussian with the weight, mean and covariance of two components together."""
    pair = subset(fit, [first, second])
    weight = pair.weights.sum()
    share = pair.weights / weight
    mean = share @ pair.means
    apart = pair.means - mean
    covariance = np.einsum("k,kij->ij", share, pair.covariances) + (apart.T * share) @ apart
    return Fit(np.array([weight]), mean[None], covariance[None], fit.score)


def subset(fit: Fit, which: Sequence[int]) -> Fit:
    """Components of a fit, with the weights they have in it."""
    members = list(which)
    return Fit(fit.weights[members], fit.means[members], fit.covariances[members], fit.score)


def divergence(fit: Fit, first: int, second: int) -> float:
    """Twice the weighted divergence of two components from what they are merged into (Runnalls).

    A merger takes at most half of it from the likelihood of a row, in nats.
    """
    whole = np.linalg.slogdet(merged(fit, first, second).covariances[0])[1]
    pair = [first, second]
    return float(fit.weights[pair] @ (whole - np.linalg.slogdet(fit.covariances[pair])[1]))


def _merge_pairs(fit: Fit, number: int, draws: Floats) -> Fit:
    """A fit of at most ``number`` components, by what costs the least likelihood.

    Two components are merged, or one is dropped: a component that noise has left with hardly any
    rows may lie so far out that a merger would widen the other. Parts of one component cost far
    less to merge than their divergence says. So for the nearest pairs the cost is computed from
    draws (n, p).
    """
    left = list(range(len(fit.weights)))
    joint = log_components(draws, fit.means, fit.covariances) + np.log(fit.weights)
    level = np.logaddexp.reduce(joint, axis=1)
    # Of the fit's own density at each draw: the share of each component, and of all together.
    shares, whole = list(np.exp(joint.T - level)), np.ones(len(draws))
    apart: dict[tuple[int, ...], float] = {}
    for pair in combinations(left, 2):
        apart[pair] = divergence(fit, *pair)
    known: dict[tuple[int, ...], tuple[Fit, Floats]] = {}
    while len(left) > number:
        near = sorted(apart, key=lambda pair: apart[pair])[: _NEAREST * len(left)]
        for first, second in near:
            if (first, second) not in known:
                joined = merged(fit, first, second)
                log_density = log_components(draws, joined.means, joined.covariances)[:, 0]
                known[first, second] = joined, joined.weights * np.exp(log_density - level)
        after = {pair: whole + known[pair][1] - sum(shares[k] for k in pair) for pair in near}
        # Without a component the others have more of the rows.
        total = fit.weights[left].sum()
        after |= {(k,): (whole - shares[k]) / (1 - fit.weights[k] / total) for k in left}
        likelihood = {
            group: float(np.log(np.maximum(density, _LEAST)).sum())
            for group, density in after.items()
        }
        best = max(likelihood, key=lambda group: likelihood[group])
        whole, new = after[best], len(shares)
        left = [k for k in left if k not in best]
        apart = {pair: far for pair, far in apart.items() if not set(pair) & set(best)}
        if best not in known:
            continue
        fit = _joined(fit, known[best][0])
        shares.append(known[best][1])
        apart |= {(k, new): divergence(fit, k, new) for k in left}
        left.append(new)
    return subset(fit, left)


def _joined(first: Fit, second: Fit) -> Fit:
    """The components of both fits."""
    return Fit(
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.means, second.means]),
        np.concatenate([first.covariances, second.covariances]),
        first.score,
    )
