"""The second look: what it asks about, and how its answers are read."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.model.problem import Problem
from dpgmm_dist.model.spectrum import Spectrum
from dpgmm_dist.model.stages import pooled_covariance
from dpgmm_dist.model.stages.centre import Location
from dpgmm_dist.model.stages.label_means import LabelMeans, without_labels
from dpgmm_dist.model.stages.pooled_covariance import PooledCovariance, refined
from dpgmm_dist.model.stages.second_look import Budget, measure

from .asking import ask_of, rows


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize(("square", "second"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_answers_are_read_in_the_order_that_the_pass_saw(
    whitened: bool, square: float, second: float
) -> None:
    """Axes of second moments {4, 5, 6} and of sums {1, 2, 4, 6} overlap in part."""
    d, n, rng = 7, 600, np.random.default_rng(0)
    leading, chosen = [4, 5, 6], [1, 2, 4, 6]
    axes, _ = np.linalg.qr(rng.standard_normal((d, d)))
    variances = np.linspace(0.05, 0.2, d) ** 2
    first = PooledCovariance(
        Spectrum(axes, variances, 1.0, 0.0), (axes * variances) @ axes.T, 0.01, 0.01, variances
    )
    y = np.repeat([0, 1, 2], [100, 200, 300])
    turned = [np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(3)]
    # Signs of one length: no row is clipped.
    signs = rng.choice((-0.4, 0.4), (n, d))
    apart = np.stack([turned[label] @ row for label, row in zip(y, signs, strict=True)])
    apart *= variances.min() ** 0.5
    apart -= np.stack([apart[y == label].mean(axis=0) for label in range(3)])[y]
    truth = 0.1 * rng.standard_normal((3, d))
    centre = np.full(d, 0.03)
    X = centre + (truth[y] + apart) @ axes.T
    asked = truth.copy()
    asked[:, chosen] += 0.01 * rng.standard_normal((3, 4))
    unsure = np.full((3, d), 1e-14)
    unsure[:, chosen] = 0.01**2
    counts = np.bincount(y).astype(float)
    look = measure(
        Problem(d, 1.0, 1.0, (0, 1, 2)),
        ask_of(X, y, noise=0.0),
        Location(float(n), 1.0, centre, 1e-3, 0.1, 0.02),
        LabelMeans(counts, 1.0, asked @ axes.T, np.full(3, 0.01), 1.0),
        first,
        asked,
        unsure,
        Budget(square, second, 100.0, 1.0, len(leading), whitened),
    )
    assert np.allclose(look.means, truth, atol=1e-8)
    assert np.allclose(look.variances[:, chosen], 0, atol=1e-10)
    others = np.setdiff1d(np.arange(d), chosen)
    assert not look.moved[:, others].any()
    assert np.array_equal(look.variances[:, others], unsure[:, others])
    assert sorted(look.second_axes) == leading
    frame = variances if whitened else np.full(d, variances.mean())
    assert np.allclose(look.frame, frame)
    white = ((X - centre) @ axes - asked[y]) / np.sqrt(frame)
    for label in range(3):
        of_label = white[y == label][:, look.second_axes]
        assert np.allclose(look.seconds[label], of_label.T @ of_label / counts[label])
    assert (look.pooled is not None) == (square > 0)
    if look.pooled is not None:
        assert look.pooled.trace == pytest.approx((white**2).sum() / n)
        assert (look.pooled.second is not None) == (second > 0)
        if look.pooled.second is not None:
            assert np.allclose(look.pooled.second, white.T @ white / n)


@pytest.mark.parametrize("whitened", [False, True])
def test_the_mean_of_one_label_is_looked_at_again(whitened: bool) -> None:
    """Asked about a centre that is off, it finds most of the way back and no variance in it."""
    d = 8
    X, y = rows(4000, 1, d)
    off = 0.05 * np.eye(d)[3]
    spread = float(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean())
    place = Location(4000.0, 1.0, X.mean(axis=0) + off, 0.05, spread, 0.02)
    ask, problem, labels = ask_of(X, y, 1), Problem(d, 1.0, 1.0), without_labels(place)
    first = pooled_covariance.measure(problem, ask, place, place.centre[None], spread, 1.0)
    variances = np.full((1, d), place.noise**2)
    budget = Budget(square=0.1, pooled=0.9, sums=1.0, whitened=whitened)
    look = measure(problem, ask, place, labels, first, labels.means, variances, budget)
    shift = look.means[0] @ first.axes.T
    assert np.linalg.norm(shift + off) < 0.5 * np.linalg.norm(off)
    assert look.pooled is not None
    found = refined(first, look.pooled, look.moved.T @ look.moved, place.rows, whitened)
    assert found.variances.sum() == pytest.approx(spread, rel=0.1)
