"""Known mixtures of Gaussians, as hard to tell apart as asked: the data of density.py.

Everything follows from a seed: weights, full covariances, directions of the means, rows. How far
apart the means are is found by bisection, so that the true posterior misassigns a stated share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from dpgmm_dist.model.mixture import Mixture

Floats = np.ndarray

_TRIAL_ROWS = 20_000
_HALVINGS = 14
_MOST_APART = 20.0
_DATA, _FRESH, _SCALE = 1, 2, 3
"""Streams of a seed: rows to release from, fresh rows to judge by, rows that show the scale."""


@dataclass(frozen=True)
class Recipe:
    """A family of mixtures, one for every seed."""

    name: str
    rows: int
    width: int
    components: int
    misassigned: float = 0.045
    """Share of rows that the true posterior gives to another component than theirs."""
    apart: float = 1.0
    """How much further apart the means then are."""

    def scaled(self, scale: float) -> Recipe:
        """The same with another number of rows."""
        return replace(self, rows=max(1000, round(self.rows * scale)))


RECIPES = {
    one.name: one
    for one in (
        Recipe("overlapping", 100_000, 10, 5),
        Recipe("separated", 100_000, 10, 5, apart=2.0),
        Recipe("plane", 100_000, 2, 4),
        Recipe("wide", 500_000, 16, 8),
    )
}


@dataclass(frozen=True, eq=False)
class Known:
    """One mixture and what goes with it."""

    recipe: Recipe
    seed: int
    truth: Mixture
    norm: float
    """A bound on the norm of rows, as somebody would state it who knows their scale: 1.3 times
    what 999 of 1000 rows, drawn apart from those released from, are within."""

    def rows(self) -> Floats:
        """The rows (n, d) to release from."""
        return self.labelled_rows()[0]

    def labelled_rows(self) -> tuple[Floats, Floats]:
        """The same and the component (n,) of each."""
        return self._draw(self.recipe.rows, _DATA)

    def fresh(self, n: int) -> Floats:
        """Rows (n, d) that no release has seen."""
        return self.labelled_fresh(n)[0]

    def labelled_fresh(self, n: int) -> tuple[Floats, Floats]:
        """The same and the component (n,) of each."""
        return self._draw(n, _FRESH)

    def misassigned(self, n: int = 100_000) -> float:
        """Share of fresh rows that the true posterior gives to another component than theirs."""
        return misassigned(self.truth, *self._draw(n, _FRESH))

    def _draw(self, n: int, stream: int) -> tuple[Floats, Floats]:
        return self.truth.sample(n, np.random.SeedSequence([self.seed, stream]))


def known_mixture(recipe: Recipe, seed: int) -> Known:
    """The mixture of a recipe and a seed."""
    truth = spread_apart(shape(recipe.width, recipe.components, seed), recipe.misassigned, seed)
    if recipe.apart != 1.0:
        truth = Mixture(truth.weights, truth.means * recipe.apart, truth.covariances)
    rows, _ = truth.sample(_TRIAL_ROWS, np.random.SeedSequence([seed, _SCALE]))
    norm = 1.3 * float(np.quantile(np.linalg.norm(rows, axis=1), 0.999))
    return Known(recipe, seed, truth, round(norm, 3))


def shape(d: int, components: int, seed: int) -> Mixture:
    """Weights from a Dirichlet(8), means of norm about 1, covariances with eigenvalues 1/4 to 3/2.

    Eigenvalues are uniform in the logarithm, directions uniform.
    """
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(components, 8.0))
    means = rng.standard_normal((components, d)) / math.sqrt(d)
    covariances = np.empty((components, d, d))
    for k in range(components):
        axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
        values = np.exp(rng.uniform(math.log(0.25), math.log(1.5), d))
        covariances[k] = (axes * values) @ axes.T
    return Mixture(weights, means, (covariances + covariances.transpose(0, 2, 1)) / 2)


def spread_apart(mixture: Mixture, share: float, seed: int) -> Mixture:
    """The mixture with means moved apart until the posterior misassigns this share of rows."""
    near, far = 0.0, _MOST_APART
    out = mixture
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        out = Mixture(mixture.weights, mixture.means * middle, mixture.covariances)
        # The same standard draws at every distance, so the share falls as the distance grows.
        rows, component = out.sample(_TRIAL_ROWS, np.random.SeedSequence([seed, _SCALE]))
        if misassigned(out, rows, component) > share:
            near = middle
        else:
            far = middle
    return out


def misassigned(mixture: Mixture, rows: Floats, component: Floats) -> float:
    """Share of rows (n, d) whose likeliest component is not the one they were drawn from."""
    return float(np.mean(mixture.responsibilities(rows).argmax(axis=1) != component))
