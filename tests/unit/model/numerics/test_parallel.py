"""Pieces of work on all cores: in order, in the caller's context, never threads within threads."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

from dpgmm_dist.model.fitting.em import fits_of_draws
from dpgmm_dist.model.numerics import parallel


@pytest.mark.parametrize("processors", [1, 2, 7])
def test_results_come_in_the_order_of_the_items(processors, monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: processors)
    assert parallel.in_order(lambda i: i * i, range(20)) == [i * i for i in range(20)]
    assert parallel.in_order(lambda i: i, []) == []


def test_pieces_within_pieces_stay_in_their_thread(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 3)

    def outer(_: int) -> tuple[int, set[int]]:
        return threading.get_ident(), set(parallel.in_order(lambda _: threading.get_ident(), "abc"))

    for thread, threads_within in parallel.in_order(outer, range(6)):
        assert threads_within == {thread}


def test_an_error_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        parallel.in_order(lambda i: 1 // i, [1, 0, 1])


def test_warnings_that_are_off_stay_off(monkeypatch):
    """A warning would be a line in a log that depends on noise."""
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        zeros = np.zeros(3)
        assert all(np.isnan(r).all() for r in parallel.in_order(lambda _: zeros / zeros, "ab"))


def test_a_fit_is_the_same_on_any_number_of_cores(monkeypatch):
    draws = np.random.default_rng(0).standard_normal((3000, 3))
    draws[:1000] += 4
    scores = []
    for processors in (1, 4):
        monkeypatch.setattr(parallel, "cores", lambda n=processors: n)
        best = fits_of_draws(draws, 2, 6, 2, 1)[0]
        scores.append((best.score, best.means.tobytes(), best.covariances.tobytes()))
    assert scores[0] == scores[1]
