"""DPGaussianMixture: the interface of a scikit-learn estimator, with a release behind it."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import DPGaussianMixture
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline import release as story
from dpgmm_dist.privacy.noise import insecure_noise

N, D = 4000, 3
FEW = 60
"""Of so many rows a release is quick: it goes by stages."""
RNG = np.random.default_rng(4)
Y = RNG.integers(0, 2, N)
X = RNG.normal(size=(N, D)) * 0.2 + np.where(Y[:, None] == 1, 0.5, -0.3)


@pytest.fixture
def fixed_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of a seed, where a test compares numbers: no run of it is unlucky."""
    monkeypatch.setattr(story, "noise_for", lambda privacy, _: insecure_noise(privacy.noise, 7))


@pytest.fixture(scope="module")
def fitted() -> DPGaussianMixture:
    """Two components, with noise of a seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "noise_for", lambda privacy, _: insecure_noise(privacy.noise, 7))
        return DPGaussianMixture(2, epsilon=1.0, norm_bound=1.5, random_state=3).fit(X)


def test_the_fitted_attributes_are_those_of_scikit_learn(fitted):
    assert fitted.weights_.shape == (2,)
    assert fitted.weights_.sum() == pytest.approx(1)
    assert fitted.means_.shape == (2, D)
    assert fitted.covariances_.shape == (2, D, D)
    assert np.linalg.eigvalsh(fitted.covariances_).min() > 0
    assert fitted.n_features_in_ == D
    assert not hasattr(fitted, "labels_")


def test_the_fit_is_close_to_what_the_rows_were_drawn_from(fitted):
    order = np.argsort(fitted.means_[:, 0])
    assert fitted.means_[order] == pytest.approx(np.array([[-0.3] * D, [0.5] * D]), abs=0.1)
    assert fitted.weights_ == pytest.approx([0.5, 0.5], abs=0.05)
    assert fitted.covariances_ == pytest.approx(np.stack([np.eye(D) * 0.04] * 2), abs=0.02)


def test_the_receipt_is_an_attribute():
    receipt = DPGaussianMixture(1, epsilon=4.0, norm_bound=1.5).fit(X[:FEW]).receipt_
    assert receipt["privacy"] == "private"
    assert receipt["totals"]["epsilon"] <= 4.0
    assert receipt["budget"]["epsilon"] == 4.0


def test_random_state_fixes_the_samples_but_not_the_noise(fitted):
    x, index = fitted.sample(50)
    assert x.shape == (50, D)
    assert index.shape == (50,)
    again, _ = fitted.sample(50)
    assert (x == again).all()
    first, second = (DPGaussianMixture(1, random_state=3).fit(X[:FEW]) for _ in range(2))
    assert (first.means_ != second.means_).all()


def test_scores_are_log_densities(fitted):
    scores = fitted.score_samples(X[:100])
    assert scores.shape == (100,)
    far = fitted.score_samples(np.full((1, D), 50.0))
    assert scores.min() > far[0]
    assert fitted.score(X[:100]) == pytest.approx(scores.mean())
    # The density of one row, from the formula.
    expected = 0.0
    for weight, mean, covariance in zip(
        fitted.weights_, fitted.means_, fitted.covariances_, strict=True
    ):
        deviation = X[0] - mean
        squared = deviation @ np.linalg.inv(covariance) @ deviation
        expected += weight * np.exp(-squared / 2) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    assert scores[0] == pytest.approx(np.log(expected), abs=1e-6)


def test_each_label_gets_a_mixture(fixed_noise):
    model = DPGaussianMixture(1, epsilon=4.0, norm_bound=1.5, labels=("no", "yes"))
    assert model.fit(X, np.where(Y == 1, "yes", "no")) is model
    assert model.labels_.tolist() == ["no", "yes"]
    assert model.means_ == pytest.approx(np.array([[-0.3] * D, [0.5] * D]), abs=0.1)
    _, labels = model.sample(20)
    assert set(np.asarray(labels).tolist()) <= {"no", "yes"}


def test_a_path_is_read_like_an_array(fixed_noise, tmp_path: Path):
    columns = {"v": pa.array(X.tolist(), pa.list_(pa.float64(), D)), "k": Y}
    pq.write_table(pa.table(columns), tmp_path / "part.parquet")
    options = {"epsilon": 4.0, "norm_bound": 1.5, "features": "v", "label": "k", "labels": (0, 1)}
    model = DPGaussianMixture(1, **options).fit(tmp_path)
    assert model.labels_.tolist() == [0, 1]
    assert model.means_ == pytest.approx(np.array([[-0.3] * D, [0.5] * D]), abs=0.1)
    by_name = DPGaussianMixture(1, **(options | {"epsilon": 0.1})).fit(str(tmp_path))
    assert by_name.labels_.tolist() == [0, 1]


def test_a_projection_is_undone_in_the_attributes(fixed_noise):
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(N, 6)) * np.array([0.3, 0.25, 0.02, 0.02, 0.02, 0.02])
    model = DPGaussianMixture(1, epsilon=6.0, norm_bound=1.5, dimension=2).fit(wide)
    assert model.means_.shape == (1, 6)
    assert model.covariances_.shape == (1, 6, 6)
    assert np.linalg.eigvalsh(model.covariances_[0]).min() > 0
    assert np.diagonal(model.covariances_[0])[:2] == pytest.approx([0.09, 0.0625], rel=0.3)


def test_a_centre_is_public_and_subtracted(fixed_noise):
    model = DPGaussianMixture(1, epsilon=4.0, norm_bound=1.5, center=[100.0, -50.0, 7.0])
    model.fit(X + np.array([100.0, -50.0, 7.0]))
    assert model.means_[0] == pytest.approx(X.mean(0) + np.array([100.0, -50.0, 7.0]), abs=0.2)


def test_rows_that_are_not_finite_are_ignored(fixed_noise):
    broken = X.copy()
    broken[::2] = np.nan
    model = DPGaussianMixture(1, epsilon=4.0, norm_bound=1.5).fit(broken)
    assert np.isfinite(model.means_).all()
    assert model.means_[0] == pytest.approx(X[1::2].mean(0), abs=0.2)


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.zeros((1, 2)), np.full((9, 2), np.nan)])
def test_few_rows_or_none_can_be_fitted(rows):
    model = DPGaussianMixture(2, epsilon=0.5).fit(rows)
    assert np.isfinite(model.means_).all()
    assert np.linalg.norm(model.means_, axis=1).max() < 3


def test_the_constructor_only_stores():
    parameters = {
        "epsilon": -1,
        "delta": "no",
        "norm_bound": None,
        "center": "left",
        "covariance_type": 3,
        "assignment": 4,
        "dimension": -5,
        "labels": "xy",
        "features": 6,
        "label": 7,
        "column_bounds": "none",
        "width": "wide",
        "random_state": "eight",
        "marginals": 9,
        "categories": "none",
        "nulls": 11,
        "ledger": 10,
    }
    model = DPGaussianMixture("many", **parameters)
    assert vars(model) == {"n_components": "many"} | parameters
    names = list(inspect.signature(DPGaussianMixture).parameters)
    assert names == ["n_components", *parameters]
    kinds = {p.kind for p in list(inspect.signature(DPGaussianMixture).parameters.values())[1:]}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0}, "^epsilon: "),
        ({"delta": 2}, "^delta: "),
        ({"norm_bound": float("nan")}, "^norm_bound: "),
        ({"n_components": 0}, "^n_components: "),
        ({"covariance_type": "round"}, "^covariance_type: "),
        ({"assignment": "firm"}, "^assignment: "),
        ({"dimension": 9}, "^dimension is 9 but rows have 3"),
        ({"center": [1.0]}, "center has 1 values"),
        ({"labels": (0, 1)}, "y"),
    ],
)
def test_impossible_parameters_are_refused_by_fit(options, message):
    with pytest.raises(SpecError, match=message):
        DPGaussianMixture(**({"n_components": 1} | options)).fit(X)


def test_labels_that_do_not_fit_the_rows_are_refused():
    with pytest.raises(DataError, match="same number of rows"):
        DPGaussianMixture(1, labels=(0, 1)).fit(X, Y[:-1])
    with pytest.raises(SpecError, match="without labels"):
        DPGaussianMixture(1).fit(X, Y)
    with pytest.raises(SpecError, match="y is for arrays"):
        DPGaussianMixture(1).fit("somewhere", Y)


@pytest.mark.parametrize("array", [[["a", "b"]], np.zeros(5), np.zeros((2, 2, 2))])
def test_arrays_that_are_not_a_matrix_of_numbers_are_refused(array):
    with pytest.raises(DataError, match="X"):
        DPGaussianMixture(1).fit(array)


@pytest.mark.parametrize("call", ["sample", "score_samples", "score"])
def test_methods_that_need_a_fit_say_so(call):
    with pytest.raises(SpecError, match="not fitted yet: call fit"):
        getattr(DPGaussianMixture(1), call)(*([] if call == "sample" else [X]))


def test_the_number_of_components_can_be_chosen_from_a_tuple():
    model = DPGaussianMixture((1, 2), epsilon=8.0, norm_bound=1.5).fit(X[:FEW])
    assert len(model.weights_) in (1, 2)
