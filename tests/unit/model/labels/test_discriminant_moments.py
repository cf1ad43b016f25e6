"""Tails of two labels along a discriminant: the sum that is asked for, and what a row changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model.labels.discriminant_moments import tail_difference
from dpgmm_dist.model.pass_plan import Latent, Observed, PassPlan
from dpgmm_dist.pipeline.compile import compile_pass
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.privacy.sensitivity import query_cost, sensitivity

from ....queries import accumulated, integers
from .test_tied_covariances import ask_of

P = 30
RADIUS = 0.8


def rows(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels, label means and the unit vector between them."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, 2, n))
    means = 0.03 * rng.standard_normal((2, P))
    X = means[y] + rng.standard_normal((n, P)) @ np.diag(np.linspace(0.1, 0.02, P))
    normal = means[1] - means[0]
    return X, y, means, normal / np.linalg.norm(normal)


def test_it_is_the_sum_of_the_rows_nearest_the_other_label() -> None:
    X, y, means, normal = rows(4000)
    spread = np.array([(X[y == k] @ normal).std() for k in (0, 1)])
    costs: list[float] = []
    found, noise = tail_difference(
        ask_of(X, y, costs), Latent(P), "components.2", means, normal, spread, RADIUS, 1e6
    )
    assert sum(costs) == pytest.approx(1e6)
    # Farther toward the other label than 0.52 deviations: label 0 upward, label 1 downward.
    sign = np.where(y == 1, 1.0, -1.0)
    tail = -sign * ((X - means[y]) @ normal) > 0.52 * spread[y]
    assert 0.25 < tail.mean() < 0.35
    truth = (sign * tail) @ (X - means.mean(axis=0))
    truth -= (truth @ normal) * normal
    assert found @ normal == pytest.approx(0.0, abs=1e-9)
    assert np.linalg.norm(found - truth) < 0.02 * np.linalg.norm(truth) + 5 * noise * P**0.5


def test_one_row_changes_no_more_than_is_paid_for() -> None:
    X, y, means, normal = rows(50)
    features = FeatureMap(P, 1.0)
    asked: list[PassQuery] = []

    def ask(plan: PassPlan, latent: Latent) -> Observed:
        asked.append(compile_pass(plan, latent, features.step))
        return ask_of(X, y, [])(plan, latent)

    tail_difference(ask, Latent(P), "components.2", means, normal, np.full(2, 0.05), RADIUS, 1.0)
    (query,) = asked
    assert query_cost(query) <= 1
    largest = 0.0
    far = np.random.default_rng(1).standard_normal((200, P))
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    for row in np.concatenate([far, X]):
        for label in (0, 1):
            u, _ = features.to_lattice(row[None])
            (value,) = integers(accumulated(query, u, np.array([label])))
            largest = max(largest, math.sqrt(sum(coordinate * coordinate for coordinate in value)))
    bound = sensitivity(query, query.blocks[0])
    # Reached by rows beyond the radius, passed by none.
    assert 0.99 * bound < largest <= bound
