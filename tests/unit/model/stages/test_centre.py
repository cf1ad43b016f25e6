"""The first stage: number of rows, centre and spread."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.stages.centre import measure

from .asking import HOSTILE, ask_of, rows

D = 8
PROBLEM = Problem(D, 1.0, 1.0, (0, 1, 2))


def test_without_noise_it_is_the_rows_own() -> None:
    X, y = rows(3000, 3, D)
    costs: list[float] = []
    found = measure(PROBLEM, ask_of(X, y, noise=0.0, costs=costs), 0.1)
    assert costs == [pytest.approx(0.1)]
    assert found.rows == pytest.approx(3000)
    assert np.allclose(found.centre, X.mean(axis=0))
    assert found.spread == pytest.approx(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean())


def test_a_mean_of_noise_is_mostly_nothing_and_within_the_bound() -> None:
    X, y = rows(3000, 3, D)
    lengths = [
        np.linalg.norm(measure(PROBLEM, ask_of(X, y, seed=seed), 1e-10).centre)
        for seed in range(20)
    ]
    assert sum(length == 0 for length in lengths) >= 5
    assert max(lengths) <= 1 + 1e-9


def test_the_noise_it_states_is_the_noise_it_has() -> None:
    X, y = rows(3000, 3, D)
    found = [measure(PROBLEM, ask_of(X, y, seed=seed), 0.1) for seed in range(60)]
    spread = np.std([answer.centre for answer in found], axis=0).mean()
    assert spread == pytest.approx(found[0].noise, rel=0.2)
    assert np.std([answer.rows for answer in found]) == pytest.approx(found[0].rows_noise, rel=0.3)


@pytest.mark.parametrize("kind", HOSTILE)
def test_any_answers_give_a_place_and_a_spread_within_the_bound(kind: str) -> None:
    X, y = rows(50, 3, D)
    found = measure(PROBLEM, ask_of(X, y, change=HOSTILE[kind]), 0.01)
    assert found.rows >= 20
    assert np.isfinite(found.centre).all()
    assert 0 < found.spread <= 1
