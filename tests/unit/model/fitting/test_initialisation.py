"""How many components: quick fits sort the candidates, careful ones decide among the best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.model.fitting import initialisation
from dpgmm_dist.model.fitting.em import Fit

ROWS, RHO = 1e5, 0.015


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    components: Any,
    quick: dict[int, float],
    careful: dict[int, float],
) -> tuple[int, list[dict[str, Any]], list[tuple[int, float, bool]]]:
    """The number chosen, the receipt's entries, and each search: number, share of work, moves."""
    searches = []

    def fits(
        draws: Any,
        k: int,
        measures: Any,
        answers: Any,
        label: int,
        search_share: float,
        with_moves: bool,
    ) -> list[tuple[Fit, float, float]]:
        searches.append((k, search_share, with_moves))
        likelihood = (careful if search_share == 0.5 else quick)[k]
        fit = Fit(np.full(k, 1 / k), np.zeros((k, 2)), np.stack([np.eye(2)] * k), 0.0)
        return [(fit, likelihood, 1.0)]

    monkeypatch.setattr(initialisation, "_fits", fits)
    problem = SimpleNamespace(components=components, labels=2, latent_dimension=2, allocation="kl")
    fit, agrees, tried = initialisation._best_fit(problem, np.zeros((5, 2)), [], [], ROWS, RHO, 0)
    assert agrees
    return len(fit.weights), tried, searches


def test_a_given_number_is_searched_for_once_with_all_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found, tried, searches = chosen(monkeypatch, 3, {}, {3: -1.0})
    assert found == 3
    assert searches == [(3, 0.5, True)]
    assert [trial["components"] for trial in tried] == [3]


def test_a_careful_fit_overturns_a_quick_one(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {2: -1.1, 3: -1.0004, 4: -1.0, 5: -1.0, 6: -1.0}
    found, tried, searches = chosen(monkeypatch, (2, 3, 4, 5, 6), quick, dict.fromkeys(quick, -0.9))
    careful = [trial for trial in searches if trial[1] == 0.5]
    assert found == 3  # as likely as the others when searched for with all work, with less noise
    assert {3, 4} <= {k for k, _, _ in careful} and all(with_moves for _, _, with_moves in careful)
    assert 2 not in {k for k, _, _ in careful}
    assert not any(with_moves for _, search_share, with_moves in searches if search_share < 0.5)
    assert {trial["components"]: trial["log_likelihood"] for trial in tried}[3] == -0.9


def test_more_components_are_not_tried_once_they_only_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = {k: -1.0 if k > 1 else -2.0 for k in initialisation._AUTO}
    found, tried, _ = chosen(monkeypatch, "auto", likelihood, likelihood)
    assert found == 2
    assert [trial["components"] for trial in tried] == [1, 2, 3, 4]
