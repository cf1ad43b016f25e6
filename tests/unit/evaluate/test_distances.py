from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from dpgmm_dist.errors import SpecError
from dpgmm_dist.evaluate.distances import (
    frechet_distance,
    memorisation,
    nearest_distances,
    precision_and_recall,
)


def test_frechet_distance_agrees_with_the_formula() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    b = rng.normal(size=(300, 4)) + 1
    first, second = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        first + second - 2 * sqrtm(first @ second).real
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a[:, :1], a[:, :1] + 3) == pytest.approx(9)
    assert frechet_distance(a[:1], a[:1] + 1) == pytest.approx(4)  # one row has no spread


@given(st.integers(1, 40), st.integers(5, 30), st.integers(1, 5))
def test_nearest_distances_are_those_of_brute_force(n: int, m: int, k: int) -> None:
    rng = np.random.default_rng(n * m)
    rows, among = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    expected = np.sort(np.linalg.norm(rows[:, None] - among[None], axis=2), axis=1)[:, :k]
    np.testing.assert_allclose(nearest_distances(rows, among, k), expected)


def test_a_copy_is_at_distance_zero_exactly() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 20)) + 1000
    assert (nearest_distances(rows, rows) == 0).all()


def test_precision_falls_with_outliers_and_recall_with_gaps() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 2))
    assert min(precision_and_recall(real, rng.normal(size=(400, 2)))) > 0.9  # type: ignore[type-var]
    outliers = np.concatenate([rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 30])
    precision, recall = precision_and_recall(real, outliers)
    assert precision == pytest.approx(0.5, abs=0.03) and recall is not None and recall > 0.85
    two_clusters = np.concatenate([real[:200], real[200:] + 30])
    precision, recall = precision_and_recall(two_clusters, rng.normal(size=(400, 2)))
    assert recall == pytest.approx(0.5, abs=0.03) and precision is not None and precision > 0.85
    assert precision_and_recall(real[:3], real) == (None, pytest.approx(1))


def test_memorisation_detects_a_model_that_copies() -> None:
    rng = np.random.default_rng(0)
    training, held_out, fresh = (rng.normal(size=(600, 5)) for _ in range(3))
    honest, to_training, to_held_out = memorisation(fresh, training, held_out)
    assert abs(honest["share_nearer_to_training"] - 0.5) < 3 * honest["standard_error"]
    assert honest["exact_copies_of_training_rows"] == 0
    assert len(to_training) == len(to_held_out) == 600
    leaky, _, _ = memorisation(training + 0.05 * rng.normal(size=(600, 5)), training, held_out)
    assert leaky["share_nearer_to_training"] > 0.95
    copied, _, _ = memorisation(training[:60], training, held_out[:300])
    assert copied["exact_copies_of_training_rows"] > 10 and copied["rows_compared"] == 300
    # If one real row is the nearest to all synthetic rows, the share is a single coin toss.
    hub, _, _ = memorisation(
        fresh, 100 + training[:300], np.concatenate([held_out[:1] * 0, 100 + held_out[:299]])
    )
    assert hub["share_nearer_to_training"] == 0 and hub["standard_error"] == pytest.approx(0.5)
    with pytest.raises(SpecError, match="needs training and held-out"):
        memorisation(fresh, training, held_out[:0])
