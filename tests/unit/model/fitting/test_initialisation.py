"""How many components: hasty fits sort the candidates, careful ones decide among the best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.model.fitting import initialisation as starting
from dpgmm_dist.model.fitting.em import Fit

ROWS, RHO = 1e5, 0.015


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    components: Any,
    hasty: dict[int, float],
    careful: dict[int, float],
) -> tuple[int, list[dict[str, Any]], list[tuple[int, float, bool]]]:
    """The number chosen, what the receipt is told, and what was sought: number, effort, moves."""
    sought = []

    def fits(
        draws: Any,
        k: int,
        measures: Any,
        seen: Any,
        label: int,
        effort: float,
        moves: bool,
    ) -> list[tuple[Fit, float, float]]:
        sought.append((k, effort, moves))
        likelihood = (careful if effort == 0.5 else hasty)[k]
        fit = Fit(np.full(k, 1 / k), np.zeros((k, 2)), np.stack([np.eye(2)] * k), 0.0)
        return [(fit, likelihood, 1.0)]

    monkeypatch.setattr(starting, "_fits", fits)
    problem = SimpleNamespace(components=components, labels=2, latent_dimension=2, allocation="kl")
    fit, agrees, tried = starting._best(problem, np.zeros((5, 2)), [], [], ROWS, RHO, 0)
    assert agrees
    return len(fit.weights), tried, sought


def test_a_given_number_is_sought_once_with_all_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried, sought = chosen(monkeypatch, 3, {}, {3: -1.0})
    assert found == 3
    assert sought == [(3, 0.5, True)]
    assert [trial["components"] for trial in tried] == [3]


def test_a_careful_fit_overturns_a_hasty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = {2: -1.1, 3: -1.0004, 4: -1.0, 5: -1.0, 6: -1.0}
    found, tried, sought = chosen(monkeypatch, (2, 3, 4, 5, 6), hasty, dict.fromkeys(hasty, -0.9))
    again = [trial for trial in sought if trial[1] == 0.5]
    assert found == 3  # as likely as the others when sought well, with less noise
    assert {3, 4} <= {k for k, _, _ in again} and all(moves for _, _, moves in again)
    assert 2 not in {k for k, _, _ in again}
    assert not any(moves for _, effort, moves in sought if effort < 0.5)
    assert {trial["components"]: trial["log_likelihood"] for trial in tried}[3] == -0.9


def test_more_components_are_not_tried_once_they_only_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = {k: -1.0 if k > 1 else -2.0 for k in starting._AUTO}
    found, tried, _ = chosen(monkeypatch, "auto", likelihood, likelihood)
    assert found == 2
    assert [trial["components"] for trial in tried] == [1, 2, 3, 4]
