from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import multivariate_normal

from dpgmm_dist.model.mixture import Mixture, StandardErrors
from dpgmm_dist.model.numerics.repeatable import repeatable_matmul


def random_mixture(seed: int = 0, components: int = 3, p: int = 4, **more: object) -> Mixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(components, p, p))
    return Mixture(
        weights=rng.dirichlet(np.ones(components)),
        means=2 * rng.normal(size=(components, p)),
        covariances=factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(p),
        **more,  # type: ignore[arg-type]
    )


def test_log_densities_agree_with_scipy() -> None:
    mixture = random_mixture(p=3)
    rows = np.random.default_rng(1).normal(size=(5000, 3)) * 3
    densities = np.stack(
        [
            multivariate_normal(m, c).logpdf(rows)
            for m, c in zip(mixture.means, mixture.covariances, strict=True)
        ],
        axis=1,
    )
    assert np.allclose(mixture.component_log_prob(rows), densities, rtol=1e-10, atol=1e-9)
    expected = np.log(np.exp(densities) @ mixture.weights)
    assert np.allclose(mixture.log_prob(rows), expected, rtol=1e-9, atol=1e-9)
    posterior = np.exp(densities) * mixture.weights
    posterior /= posterior.sum(axis=1, keepdims=True)
    assert np.allclose(mixture.responsibilities(rows), posterior, atol=1e-9)


def test_density_far_away_is_minus_large_and_responsibilities_stay_finite() -> None:
    mixture = random_mixture()
    far = np.full((2, 4), 1e9)
    assert (mixture.log_prob(far) < -1e15).all()
    assert np.allclose(mixture.responsibilities(far).sum(axis=1), 1)
    assert (mixture.log_prob(np.full((1, 4), 1e200)) == -np.inf).all()


def test_sample_has_the_components_weights_means_and_covariances() -> None:
    mixture = random_mixture()
    rows, index = mixture.sample(60_000, seed=3)
    shares = np.bincount(index, minlength=3) / index.size
    assert np.allclose(shares, mixture.weights, atol=0.01)
    for k in range(3):
        drawn = rows[index == k]
        spread = np.sqrt(np.diag(mixture.covariances[k]).max())
        assert np.abs(drawn.mean(axis=0) - mixture.means[k]).max() < 6 * spread / len(drawn) ** 0.5
        scale = np.abs(mixture.covariances[k]).max()
        assert np.abs(np.cov(drawn.T) - mixture.covariances[k]).max() < 0.08 * scale


def test_sample_depends_on_the_seed_only() -> None:
    mixture = random_mixture()
    first, index = mixture.sample(100, seed=5)
    again, same = mixture.sample(100, seed=np.random.SeedSequence(5))
    other, _ = mixture.sample(100, seed=6)
    assert np.array_equal(first, again) and np.array_equal(index, same)
    assert not np.array_equal(first, other)
    assert not np.array_equal(mixture.sample(9)[0], mixture.sample(9)[0])
    assert mixture.sample(0, seed=1)[0].shape == (0, 4)


def test_a_component_of_weight_zero_is_never_drawn() -> None:
    mixture = Mixture(
        weights=[0.0, 1.0, 0.0], means=np.zeros((3, 1)), covariances=np.ones((3, 1, 1))
    )
    assert set(mixture.sample(1000, seed=0)[1].tolist()) == {1}
    assert np.isfinite(mixture.log_prob(np.zeros((1, 1)))).all()


def test_labels_partition_the_mixture() -> None:
    mixture = random_mixture(
        components=4, labels=np.array([1, 0, 1, 0]), label_values=("cat", "dog")
    )
    assert mixture.component_number.tolist() == [0, 0, 1, 1]
    assert np.allclose(mixture.label_weights.sum(), 1)
    cat, dog = mixture.for_label("cat"), mixture.for_label("dog")
    assert np.array_equal(cat.means, mixture.means[[1, 3]]) and cat.label_values == ("cat",)
    rows = np.random.default_rng(2).normal(size=(50, 4))
    of_both = np.logaddexp(
        np.log(mixture.label_weights[0]) + cat.log_prob(rows),
        np.log(mixture.label_weights[1]) + dog.log_prob(rows),
    )
    assert np.allclose(mixture.log_prob(rows), of_both)
    expected = np.exp(np.log(mixture.label_weights[1]) + dog.log_prob(rows) - of_both)
    assert np.allclose(mixture.label_probabilities(rows)[:, 1], expected)
    with pytest.raises(ValueError, match="'bird' is not one of"):
        mixture.for_label("bird")
    with pytest.raises(ValueError, match="has no labels"):
        random_mixture().for_label(1)


def test_a_label_of_weight_zero_can_still_be_conditioned_on() -> None:
    mixture = Mixture(
        weights=[1.0, 0.0, 0.0],
        means=np.zeros((3, 2)),
        covariances=np.stack([np.eye(2)] * 3),
        labels=np.array([0, 1, 1]),
        label_values=(7, 8),
    )
    assert mixture.for_label(8).weights.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="not one of"):
        mixture.for_label("8")


BAD = {
    "sum to 1": {"weights": [0.5, 0.6]},
    "weights must be at least 0": {"weights": [-0.5, 1.5]},
    "means must be finite": {"means": [[np.nan, 0], [0, 0]]},
    "means must have shape": {"means": [[0.0, 0.0]]},
    "covariances must have shape": {"covariances": np.ones((2, 1, 1))},
    "symmetric": {"covariances": [[[1, 0.5], [0, 1]]] * 2},
    "positive definite": {"covariances": [[[1, 2], [2, 1]]] * 2},
    "indices into": {"labels": np.array([0, 2]), "label_values": (3, 4)},
    "at least one component": {"labels": np.array([0, 0]), "label_values": (3, 4)},
    "all int or all str": {"labels": np.array([0, 1]), "label_values": (3, "4")},
    "distinct": {"labels": np.array([0, 1]), "label_values": (3, 3)},
    "same number": {"component": np.array([1, 1])},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_mixture_is_refused(message: str) -> None:
    good: dict[str, object] = {
        "weights": [0.5, 0.5],
        "means": np.zeros((2, 2)),
        "covariances": np.stack([np.eye(2)] * 2),
    }
    Mixture(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Mixture(**(good | BAD[message]))  # type: ignore[arg-type]


def test_the_callers_arrays_are_copied_and_ours_are_read_only() -> None:
    weights = np.array([1.0])
    mixture = Mixture(weights=weights, means=np.zeros((1, 1)), covariances=np.ones((1, 1, 1)))
    weights[0] = 7
    assert mixture.weights.tolist() == [1.0]
    with pytest.raises(ValueError, match="read-only"):
        mixture.means[0] = 1


def test_rows_of_the_wrong_shape_or_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 4\)"):
        random_mixture().log_prob(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        random_mixture().log_prob(np.full((2, 4), np.nan))


def test_standard_errors_may_be_infinite_but_not_nan_or_negative() -> None:
    good = StandardErrors(np.array([np.inf]), np.zeros((1, 1)), np.zeros((1, 1, 1)))
    assert good.weights[0] == np.inf
    with pytest.raises(ValueError, match="standard errors of means"):
        StandardErrors(np.ones(1), np.array([[-1.0]]), np.ones((1, 1, 1)))


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
values = st.floats(-1e6, 1e6, allow_nan=False)


@settings(deadline=None, max_examples=40)
@given(shapes.flatmap(lambda s: st.tuples(
    hnp.arrays(np.float64, s[:2], elements=values), hnp.arrays(np.float64, s[1:], elements=values)
)))  # fmt: skip
def test_repeatable_products_are_close_and_do_not_depend_on_the_order(
    factors: tuple[np.ndarray, np.ndarray],
) -> None:
    left, right = factors
    product = repeatable_matmul(left, right)
    scale = np.abs(left).max() * np.abs(right).max() * left.shape[1]
    assert np.abs(product - left @ right).max() <= 2**-20 * scale
    order = np.random.default_rng(0).permutation(left.shape[1])
    assert np.array_equal(product, repeatable_matmul(left[:, order], right[order]))
