from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from dpgmm_dist.model.affine import Transform


def random_transform(seed: int = 0, d: int = 5, p: int = 3) -> Transform:
    rng = np.random.default_rng(seed)
    return Transform(
        center=rng.normal(size=d),
        half_width=rng.uniform(0.5, 4, size=d),
        basis=np.linalg.qr(rng.normal(size=(d, p)))[0],
        offset=rng.normal(size=d),
        residual_variance=0.2,
    )


def test_latent_coordinates_survive_the_way_to_input_units_and_back() -> None:
    transform = random_transform()
    latent = np.random.default_rng(1).normal(size=(20, 3))
    rows = transform.to_input(latent)
    assert np.allclose(transform.to_latent(rows), latent, atol=1e-5)
    assert np.allclose(transform.residual_energy(rows), 0, atol=1e-9)
    noise = np.random.default_rng(2).normal(size=(20, 5))
    noisy = transform.to_input(latent, noise)
    assert np.allclose(transform.to_latent(noisy), latent, atol=1e-5)
    assert (transform.residual_energy(noisy) > 0).all()


def test_the_residual_has_its_variance_outside_the_basis() -> None:
    transform = random_transform()
    noise = np.random.default_rng(3).normal(size=(50_000, 5))
    rows = transform.to_input(np.zeros((50_000, 3)), noise)
    covariance = np.cov(((rows - transform.center) / transform.half_width).T)
    outside = np.eye(5) - transform.basis @ transform.basis.T
    assert np.abs(covariance - 0.2 * outside).max() < 0.01


def test_latent_residual_and_jacobian_add_up_to_the_density_in_input_units() -> None:
    transform = random_transform()
    mean, variance = np.array([0.3, -1, 2]), np.diag([0.5, 1, 2.0])
    rows = np.random.default_rng(4).normal(size=(30, 5))
    q, h = transform.basis, np.diag(transform.half_width)
    feature = q @ variance @ q.T + 0.2 * (np.eye(5) - q @ q.T)
    expected = multivariate_normal(
        transform.center + h @ (transform.offset + q @ mean), h @ feature @ h
    ).logpdf(rows)
    latent = multivariate_normal(mean, variance).logpdf(transform.to_latent(rows))
    actual = latent + transform.residual_log_prob(rows) + transform.log_jacobian
    assert np.allclose(actual, expected, rtol=1e-9)


def test_identity() -> None:
    transform = Transform.identity(3)
    rows = np.random.default_rng(5).normal(size=(4, 3))
    assert transform.is_identity and transform.log_jacobian == 0
    assert np.array_equal(transform.to_latent(rows), rows)
    assert np.array_equal(transform.to_input(rows, np.ones((4, 3))), rows)
    assert not transform.residual_log_prob(rows).any()
    assert not random_transform().is_identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"half_width": [1.0, 0.0]}, "half_width must be positive"),
        ({"half_width": [1.0]}, "same length"),
        ({"center": [np.inf, 0.0]}, "center must be finite"),
        ({"basis": [[2.0], [0.0]]}, "orthonormal"),
        ({"basis": [[1.0], [0.0]], "residual_variance": 0.0}, "residual_variance"),
        ({"basis": np.ones((2, 3))}, "basis must have shape"),
    ],
)
def test_what_is_no_transform_is_refused(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"center": np.zeros(2), "half_width": np.ones(2)}
    with pytest.raises(ValueError, match=message):
        Transform(**(good | change))  # type: ignore[arg-type]


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows must have shape \(n, 5\)"):
        random_transform().to_latent(np.zeros((2, 4)))
