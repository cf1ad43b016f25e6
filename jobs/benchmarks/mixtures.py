"""Known mixtures of Gaussians whose components overlap to a given degree: the data of density.py.

A seed determines everything: weights, full covariances, directions of the means, and rows. The
distance of the means is found by bisection, so that the true posterior misassigns a given share of
the rows.
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
"""Random streams of a seed: rows to release from, fresh rows to score, rows to find the scale."""


@dataclass(frozen=True)
class Recipe:
    """A family of mixtures, one for each seed."""

    name: str
    rows: int
    width: int
    """Number of dimensions."""
    components: int
    misassigned: float = 0.045
    """Share of rows that the true posterior assigns to a wrong component."""
    apart: float = 1.0
    """Factor on the means, after they were placed to misassign that share."""

    def scaled(self, scale: float) -> Recipe:
        """The same recipe with ``scale`` times as many rows, at least 1,000."""
        return replace(self, rows=max(1000, round(self.rows * scale)))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("overlapping", 100_000, 10, 5),
        Recipe("separated", 100_000, 10, 5, apart=2.0),
        Recipe("plane", 100_000, 2, 4),
        Recipe("wide", 500_000, 16, 8),
    )
}


@dataclass(frozen=True, eq=False)
class KnownMixture:
    """A mixture, a norm bound for its rows, and rows drawn from it."""

    recipe: Recipe
    seed: int
    truth: Mixture
    norm: float
    """A norm bound that a user could state who knows the scale of the rows: 1.3 times the 99.9%
    quantile of the norms of separately drawn rows."""

    def rows(self) -> Floats:
        """The rows (n, d) to release from."""
        return self.labelled_rows()[0]

    def labelled_rows(self) -> tuple[Floats, Floats]:
        """The same rows, and the component (n,) of each."""
        return self._draw(self.recipe.rows, _DATA)

    def fresh(self, n: int) -> Floats:
        """Rows (n, d) that are not released from."""
        return self.labelled_fresh(n)[0]

    def labelled_fresh(self, n: int) -> tuple[Floats, Floats]:
        """The same rows, and the component (n,) of each."""
        return self._draw(n, _FRESH)

    def misassigned(self, n: int = 100_000) -> float:
        """Share of n fresh rows that the true posterior assigns to a wrong component."""
        return misassigned(self.truth, *self._draw(n, _FRESH))

    def _draw(self, n: int, stream: int) -> tuple[Floats, Floats]:
        return self.truth.sample(n, np.random.SeedSequence([self.seed, stream]))


def known_mixture(recipe: Recipe, seed: int) -> KnownMixture:
    """The mixture of a recipe and a seed."""
    truth = spread_apart(shape(recipe.width, recipe.components, seed), recipe.misassigned, seed)
    if recipe.apart != 1.0:
        truth = Mixture(truth.weights, truth.means * recipe.apart, truth.covariances)
    rows, _ = truth.sample(_TRIAL_ROWS, np.random.SeedSequence([seed, _SCALE]))
    norm = 1.3 * float(np.quantile(np.linalg.norm(rows, axis=1), 0.999))
    return KnownMixture(recipe, seed, truth, round(norm, 3))


def shape(d: int, components: int, seed: int) -> Mixture:
    """A mixture whose means have norms of about 1.

    Weights are from a Dirichlet(8) distribution. The eigenvalues of the covariances are
    log-uniform from 1/4 to 3/2, and their eigenvectors are uniform.
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
    """The mixture with its means scaled so that the posterior misassigns this share of rows."""
    low, high = 0.0, _MOST_APART
    scaled = mixture
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        scaled = Mixture(mixture.weights, mixture.means * middle, mixture.covariances)
        # Common random numbers at every distance: the share falls as the distance grows.
        rows, component = scaled.sample(_TRIAL_ROWS, np.random.SeedSequence([seed, _SCALE]))
        if misassigned(scaled, rows, component) > share:
            low = middle
        else:
            high = middle
    return scaled


def misassigned(mixture: Mixture, rows: Floats, component: Floats) -> float:
    """Share of rows (n, d) whose most probable component is not the one they were drawn from."""
    return float(np.mean(mixture.responsibilities(rows).argmax(axis=1) != component))
