"""Maps of columns: inverses, the measured marginals, densities that sum to one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal

from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.tables.column_map import ColumnMap, log_prob, maps_of
from dpgmm_dist.model.tables.marginals import FineBins, Marginal
from dpgmm_dist.model.tables.presence import presences_of

NAN = float("nan")
SMOOTH = ColumnMap(
    np.array([0.0, 1.0, 3.0, 3.5, 10.0]), np.array([-4.0, -1.0, 0.5, 1.0, 4.0]), np.full(4, NAN)
)
WHOLE = ColumnMap(np.array([0.0, 0.5, 1.5, 2.0]), np.array([-5.0, -0.5, 0.7, 5.0]), np.arange(3.0))
MIXED = ColumnMap(
    np.array([0.0, 1.0, 2.0, 6.0]), np.array([-5.0, -0.6, 1.0, 5.0]), np.array([NAN, 1.5, NAN])
)


def mixture(d: int, seed: int = 0) -> Mixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(3, d, d)) * 0.3
    return Mixture(
        weights=np.array([0.5, 0.3, 0.2]),
        means=rng.normal(size=(3, d)) * 0.7,
        covariances=factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(d),
    )


def test_values_survive_the_way_to_scores_and_back():
    values = np.linspace(0.01, 9.99, 500)
    assert np.allclose(SMOOTH.to_values(SMOOTH.to_scores(values)), values)
    assert MIXED.to_values(MIXED.to_scores(np.array([0.3, 1.2, 1.5, 5.0]))).tolist() == (
        pytest.approx([0.3, 1.5, 1.5, 5.0])
    )
    assert WHOLE.to_values(np.array([-9.0, -0.6, 0.0, 0.8, 9.0])).tolist() == [0, 0, 1, 2, 2]


def test_values_are_within_the_bounds_and_scores_go_on_beyond_them():
    assert SMOOTH.to_values(np.array([-50.0, 50.0])).tolist() == [0, 10]
    below, above = SMOOTH.to_scores(np.array([-1.0, 11.0]))
    assert below < -4 and above > 4


def test_maps_that_are_none_are_refused():
    good = (SMOOTH.edges, SMOOTH.scores, SMOOTH.places)
    for index, wrong in (
        (0, SMOOTH.edges[:-1]),
        (0, SMOOTH.edges[::-1]),
        (1, SMOOTH.scores * 0),
        (1, np.append(SMOOTH.scores[:-1], np.inf)),
        (2, SMOOTH.places[:-1]),
    ):
        with pytest.raises(ValueError, match=r"edge|score"):
            ColumnMap(*(wrong if i == index else part for i, part in enumerate(good)))


def test_rows_drawn_have_the_marginal_that_was_measured():
    bins = FineBins.of(0.0, 30.0, True, 2)
    mass = np.random.default_rng(2).dirichlet(np.full(bins.count, 0.4)) + 1e-6
    marginal = Marginal(bins, mass / mass.sum(), bins.single)
    fitted = mixture(2)
    variances = np.diagonal(fitted.covariances, axis1=1, axis2=2)
    maps = maps_of((marginal, marginal), fitted.weights, fitted.means, variances)
    latent, _ = fitted.sample_with(np.random.Generator(np.random.Philox(3)), 200_000)
    for j, column in enumerate(maps):
        drawn = column.to_values(latent[:, j])
        share = np.bincount(drawn.astype(int), minlength=bins.count) / len(drawn)
        assert np.abs(share - marginal.mass).max() < 0.005


def test_without_atoms_the_density_is_that_of_the_mixture_with_its_jacobian():
    fitted = mixture(2)
    rows = np.random.default_rng(4).uniform(0.1, 9.9, (50, 2))
    scores = np.stack([SMOOTH.to_scores(rows[:, j]) for j in range(2)], axis=1)
    slopes = sum(SMOOTH.log_slopes(rows[:, j]) for j in range(2))
    density = sum(
        w * multivariate_normal(m, c).pdf(scores)
        for w, m, c in zip(fitted.weights, fitted.means, fitted.covariances, strict=True)
    )
    assert np.allclose(log_prob(fitted, (SMOOTH, SMOOTH), rows), np.log(density) + slopes)


def test_probabilities_of_atoms_and_densities_between_them_sum_to_one():
    fitted = mixture(2, seed=1)
    x = np.linspace(-2, 14, 4001)
    total = 0.0
    for value in (0.0, 1.0, 2.0):
        rows = np.stack([np.full(len(x), value), x], axis=1)
        total += trapezoid(np.exp(log_prob(fitted, (WHOLE, SMOOTH), rows)), x)
    assert total == pytest.approx(1, abs=2e-3)
    swapped = 0.0
    for value in (0.0, 1.0, 2.0):
        rows = np.stack([x, np.full(len(x), value)], axis=1)
        swapped += trapezoid(np.exp(log_prob(fitted, (SMOOTH, WHOLE), rows)), x)
    # The coordinate before the atom is known, so the order does not matter for one atom.
    assert swapped == pytest.approx(1, abs=2e-3)


def test_rows_of_several_atoms_have_nearly_their_probabilities():
    fitted = mixture(2, seed=5)
    grid = np.array([[a, b] for a in range(3) for b in range(3)], dtype=float)
    found = np.exp(log_prob(fitted, (WHOLE, WHOLE), grid))
    latent, _ = fitted.sample_with(np.random.Generator(np.random.Philox(6)), 200_000)
    drawn = [WHOLE.to_values(latent[:, j]).astype(int) for j in range(2)]
    share = np.bincount(drawn[0] * 3 + drawn[1], minlength=9) / 200_000
    assert found.sum() == pytest.approx(1, abs=0.05)
    assert np.abs(found - share).max() < 0.04


def test_far_rows_and_thin_tails_have_finite_densities():
    rows = np.array([[-1e6, 0.0], [1e6, 1e9], [5.0, -3.0]])
    assert np.isfinite(log_prob(mixture(2), (SMOOTH, WHOLE), rows)).all()


CATEGORY = ColumnMap(
    np.array([0.0, 0.5, 1.5, 2.0]), np.array([-5.0, -0.5, 0.7, 5.0]), np.array([2.0, 0.0, 1.0])
)
"""Three values, of which the last has the lowest scores."""


def test_categories_have_scores_in_an_order_of_their_own():
    values = np.array([0.0, 1.0, 2.0])
    assert CATEGORY.to_values(np.array([-1.0, 0.0, 1.0])).tolist() == [2, 0, 1]
    assert CATEGORY.bins_of(values).tolist() == [1, 2, 0]
    assert CATEGORY.to_values(CATEGORY.to_scores(values)).tolist() == values.tolist()
    assert WHOLE.bins_of(values).tolist() == [0, 1, 2]


def test_the_shares_of_a_component_are_those_of_its_intervals():
    model = mixture(1)
    shares = CATEGORY.shares(model.means[:, 0], np.sqrt(model.covariances[:, 0, 0]))
    assert shares.sum(axis=1) == pytest.approx(1)
    logs = log_prob(model, (CATEGORY,), CATEGORY.places[:, None])
    assert np.exp(logs) == pytest.approx(model.weights @ shares)


def test_missing_values_are_as_many_and_values_as_they_were_measured():
    bins = FineBins.of(0.0, 10.0, False, 1)
    mass = np.linspace(1, 3, bins.count)
    marginal = Marginal(bins, mass / mass.sum(), bins.single, 0.3)
    presences = presences_of((marginal,))
    model = Mixture(
        np.array([0.6, 0.4]),
        np.array([[0.5, 0.4], [-1.0, -0.3]]),
        np.array([np.diag([0.5, 0.2]), np.diag([0.4, 0.3])]),
    )
    variances = np.diagonal(model.covariances, axis1=1, axis2=2)
    (found,) = maps_of((marginal,), model.weights, model.means, variances, presences)
    rows, _ = model.sample(200_000, seed=0)
    has = rows[:, 1] >= found.absent_below
    assert has.mean() == pytest.approx(0.7, abs=0.005)
    counted = np.bincount(found.bins_of(found.to_values(rows[has, 0])), minlength=bins.count)
    upto = np.cumsum(counted / counted.sum())
    assert np.abs(upto - marginal.upto[1:]).max() < 0.01
    # With one column the density of its values, and the share without one, add up to one.
    grid = np.linspace(0.001, 9.999, 20_001)
    there = trapezoid(np.exp(log_prob(model, (found,), grid[:, None])), grid)
    gone = float(np.exp(log_prob(model, (found,), np.array([[NAN]])))[0])
    assert gone == pytest.approx(0.3, abs=1e-3)
    assert there + gone == pytest.approx(1, abs=0.01)
