"""Covariances that share their axes: what is computed from them is what full matrices give."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.covariances import SharedCovariances, from_columns
from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.numerics.repeatable import Grid, repeatable_matmul


def shared(components: int = 3, p: int = 5, q: int = 2, seed: int = 0) -> SharedCovariances:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(components, q, q))
    blocks = half @ half.transpose(0, 2, 1) + 0.3 * np.eye(q)
    return SharedCovariances(rng.normal(size=(p, p)) + 2 * np.eye(p), blocks)


def matrices(form: SharedCovariances) -> np.ndarray:
    """The definition: axes @ diag(block, identity) @ axes.T."""
    out = []
    for block in form.blocks:
        middle = np.eye(len(form.axes))
        middle[: len(block), : len(block)] = block
        out.append(form.axes @ middle @ form.axes.T)
    return np.stack(out)


def pair(form: SharedCovariances, **more: Any) -> tuple[Mixture, Mixture]:
    """The same mixture in the shared form and with full matrices."""
    rng = np.random.default_rng(9)
    count, p = form.shape
    weights, means = rng.dirichlet(np.ones(count)), 3 * rng.normal(size=(count, p))
    full = matrices(form)
    return (
        Mixture(weights, means, form, **more),
        Mixture(weights, means, (full + full.transpose(0, 2, 1)) / 2, **more),
    )


SHAPES = pytest.mark.parametrize(("p", "q"), [(1, 0), (1, 1), (5, 0), (5, 2), (5, 5), (40, 7)])


@SHAPES
def test_full_matrices_and_traces_are_those_of_the_definition(p: int, q: int) -> None:
    form = shared(p=p, q=q)
    assert np.allclose(form.full(), matrices(form), rtol=1e-12)
    assert np.allclose(form.traces(), np.trace(matrices(form), axis1=1, axis2=2), rtol=1e-12)
    assert np.allclose(pair(form)[0].covariances, pair(form)[1].covariances, rtol=1e-12)


@SHAPES
def test_densities_are_those_of_full_matrices(p: int, q: int) -> None:
    mixture, full = pair(shared(p=p, q=q))
    rows = 4 * np.random.default_rng(1).normal(size=(700, p))
    # Squares cancel to about 1e-16 of the squared distance from the middle of the means.
    close = {"rtol": 1e-9, "atol": 1e-8}
    assert np.allclose(mixture.component_log_prob(rows), full.component_log_prob(rows), **close)
    assert np.allclose(mixture.log_prob(rows), full.log_prob(rows), **close)
    assert np.allclose(mixture.responsibilities(rows), full.responsibilities(rows), atol=1e-8)


@SHAPES
def test_samples_have_the_means_and_covariances(p: int, q: int) -> None:
    mixture, full = pair(shared(p=p, q=q))
    rows, index = mixture.sample(60_000, seed=4)
    assert np.array_equal(index, full.sample(60_000, seed=4)[1])
    for k, covariance in enumerate(full.covariances):
        centred = rows[index == k] - mixture.means[k]
        white = np.linalg.solve(np.linalg.cholesky(covariance), centred.T)
        error = 6 / np.sqrt(len(centred))
        assert np.abs(white.mean(axis=1)).max() < error
        assert np.abs(white @ white.T / len(centred) - np.eye(p)).max() < 2 * error


def test_samples_depend_on_the_seed_alone() -> None:
    mixture, _ = pair(shared())
    assert np.array_equal(mixture.sample(50, seed=1)[0], mixture.sample(50, seed=1)[0])
    assert not np.array_equal(mixture.sample(50, seed=1)[0], mixture.sample(50, seed=2)[0])
    # A worker gets it pickled.
    again = pickle.loads(pickle.dumps(mixture))
    assert np.array_equal(mixture.sample(50, seed=1)[0], again.sample(50, seed=1)[0])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_a_linear_map_keeps_the_form(p: int, q: int, m: int, seed: int) -> None:
    """Whether it has fewer dimensions than the axes or than a block."""
    q, m = min(p, q), min(p, m)
    form = shared(p=p, q=q, seed=seed)
    map_ = np.linalg.qr(np.random.default_rng(seed).normal(size=(p, m)))[0].T
    found, full = form.mapped(map_), matrices(form)
    wanted = map_ @ full @ map_.T
    assert found.own_axes == min(q, m)
    assert np.allclose(matrices(found), wanted, rtol=1e-8, atol=1e-8 * np.abs(full).max())


def test_signs_of_axes_do_not_matter() -> None:
    form = shared()
    signs = np.array([1, -1, -1, 1, -1])
    flipped = from_columns(form.axes * signs, form.blocks * np.outer(signs[:2], signs[:2]))
    fixed = from_columns(form.axes, form.blocks)
    assert np.array_equal(flipped.axes, fixed.axes)
    assert np.array_equal(flipped.blocks, fixed.blocks)
    assert np.allclose(matrices(fixed), matrices(form))


def test_one_label_and_a_scale() -> None:
    labels = {"labels": np.array([0, 1, 1]), "label_values": ("a", "b")}
    mixture, full = pair(shared(), **labels)
    rows = np.random.default_rng(2).normal(size=(30, 5))
    mixture.log_prob(rows)  # whatever has been computed of the axes before
    given, wanted = mixture.for_label("b"), full.for_label("b")
    assert given.form.shape == (2, 5)
    assert np.allclose(given.log_prob(rows), wanted.log_prob(rows))
    assert np.allclose(given.sample(9, seed=1)[0].shape, (9, 5))
    assert np.allclose(matrices(shared().scaled(4.0)), 4 * matrices(shared()))
    assert not mixture.shares_covariance
    assert pair(shared(q=0))[0].shares_covariance


def test_far_rows_have_no_density_and_near_ones_keep_theirs() -> None:
    mixture, full = pair(shared())
    assert (mixture.log_prob(np.full((1, 5), 1e200)) == -np.inf).all()
    far = np.full((1, 5), 1e9)
    assert np.allclose(mixture.log_prob(far), full.log_prob(far), rtol=1e-9)


def test_matrices_that_would_be_too_large_are_refused_with_their_size() -> None:
    p, count = 300, 3000
    form = SharedCovariances(np.eye(p), np.broadcast_to(np.eye(1), (count, 1, 1)))
    mixture = Mixture(np.full(count, 1 / count), np.zeros((count, p)), form)
    with pytest.raises(SpecError, match=r"3,000 full covariances of 300 x 300 .* 2\.01 GiB"):
        _ = mixture.covariances
    assert np.isfinite(mixture.log_prob(np.zeros((2, p)))).all()
    assert "3000 components" in repr(mixture)


@pytest.mark.parametrize(
    ("axes", "blocks", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 1, 1)), "axes must be"),
        (np.full((2, 2), np.nan), np.ones((1, 1, 1)), "axes must be finite"),
        (np.eye(2), np.ones((1, 1)), "blocks must have shape"),
        (np.eye(2), np.eye(3)[None], "with q up to 2"),
        (np.eye(2), np.full((1, 1, 1), np.inf), "blocks must be finite"),
        (np.eye(2), -np.ones((1, 1, 1)), "positive definite"),
        (np.eye(2), np.array([[[1.0, 0.5], [0.0, 1.0]]]), "symmetric"),
    ],
)
def test_what_are_no_covariances_is_refused(axes: Any, blocks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharedCovariances(axes, blocks)


def test_axes_without_an_inverse_have_no_density() -> None:
    form = SharedCovariances(np.ones((2, 2)), np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="invertible"):
        _ = form.log_determinant


def test_shapes_have_to_agree_with_the_means() -> None:
    with pytest.raises(ValueError, match=r"covariances must have shape \(2, 5, 5\)"):
        Mixture(np.full(2, 0.5), np.zeros((2, 5)), shared(components=3))


def test_errors_that_are_not_known_take_no_memory() -> None:
    errors = StandardErrors.without_covariances(np.ones(1000), np.ones((1000, 4000)))
    assert errors.covariances.shape == (1000, 4000, 4000)
    assert errors.covariances[3, 2, 1] == np.inf
    assert not errors.knows_covariances
    taken = errors.take(np.array([5, 5]))
    assert taken.covariances.shape == (2, 4000, 4000)
    assert not taken.knows_covariances
    known = StandardErrors(np.ones(2), np.ones((2, 1)), np.full((2, 1, 1), np.inf))
    assert known.knows_covariances
    assert known.take(np.array([1])).covariances.shape == (1, 1, 1)


def test_a_factor_rounded_beforehand_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(7, 30)), rng.normal(size=(30, 4))
    assert np.array_equal(repeatable_matmul(left, Grid.of(right)), repeatable_matmul(left, right))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@SHAPES
def test_regularised_covariances_lie_between_their_average_and_their_own(
    p: int, q: int, share: float
) -> None:
    for mixture in pair(shared(p=p, q=q)):
        full = mixture.covariances
        average = np.einsum("c,cij->ij", mixture.weights, full)
        found = mixture.regularised(share)
        assert np.allclose(found.covariances, average + share * (full - average), rtol=1e-10)
        assert np.array_equal(found.means, mixture.means)
        assert type(found.form) is type(mixture.form)
