"""scikit-learn's own checks of estimators, and its tools on ours.

``ACCEPTED`` lists the checks that cannot hold for a private method, with the reason. A check that
is listed and holds fails the test, so that the list stays true.
"""

from __future__ import annotations

import os
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from dpgmm_dist import DPGaussianMixture
from dpgmm_dist.estimator import ParameterError, RepeatedFitWarning, RowsError
from dpgmm_dist.estimator import mixture as module

X = np.random.default_rng(1).normal(size=(60, 2)) * 0.3
Y = (X[:, 0] > 0).astype(int)

PRIVATE = "whether there is any row, or any valid one, is private: such data are released"
ACCEPTED = {
    "check_estimators_nan_inf": PRIVATE,
    "check_estimators_empty_data_messages": PRIVATE,
    "check_dtype_object": "numpy's own error quotes the value, so ours is one of the type alone",
    "check_fit_idempotent": "two fits draw two noises, and no seed fixes them",
    "check_pipeline_consistency": "two fits draw two noises, and no seed fixes them",
    "check_array_api_input": "skipped: the array API has to be switched on before scipy is loaded",
}
"""Checks that do not hold or are skipped, with the reason."""
MAY_HOLD = {"check_fit_idempotent"}
"""Accepted checks that hold by chance where predictions agree, or because the tags skip them."""


class Unlabelled(DPGaussianMixture):
    """Fitted without the y that most checks give: y without public labels is an error."""

    def fit(self, X, y=None):
        return super().fit(X)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept of these fits, so nothing waits for the disk; the warning is due once."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(module, "_unlisted_fits", 0)


def failures_of(estimator):
    """The checks that fail or are skipped, with the error."""
    found = {}
    for model, check in estimator_checks_generator(estimator):
        try:
            check(model)
        except Exception as error:  # a skip is one, too
            found[check.func.__name__] = error
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator",
    [
        Unlabelled(1, norm_bound=3.0),
        pytest.param(
            DPGaussianMixture(1, norm_bound=3.0, labels=(0, 1, 2)), marks=pytest.mark.slow
        ),
    ],
    ids=["without labels", "with labels"],
)
def test_the_checks_of_scikit_learn_hold_but_for_the_accepted_ones(estimator):
    failed = failures_of(estimator)
    unexpected = {name: error for name, error in failed.items() if name not in ACCEPTED}
    assert not unexpected
    assert set(ACCEPTED) - set(failed) <= MAY_HOLD


def test_the_checks_find_a_parameter_that_the_constructor_does_not_know():
    class Broken(Unlabelled):
        def get_params(self, deep=True):
            return super().get_params() | {"warm_start": True}

    checks = estimator_checks_generator(Unlabelled(1))
    check = next(c for _, c in checks if c.func.__name__ == "check_estimator_cloneable")
    with pytest.raises(AssertionError):
        check(Broken(1))


@pytest.mark.parametrize("name", ["warm_start", "init_params", "max_iter", "means_init"])
def test_parameters_that_do_not_apply_are_not_accepted(name):
    with pytest.raises(TypeError, match=name):
        DPGaussianMixture(**{name: 1})
    with pytest.raises(ParameterError, match=f"'{name}' is not a parameter .*n_components"):
        DPGaussianMixture().set_params(**{name: 1})


def test_parameters_are_read_and_set_by_name():
    model = DPGaussianMixture((1, 2), epsilon=2.0, center=np.zeros(2))
    assert (
        repr(model) == "DPGaussianMixture(n_components=(1, 2), epsilon=2.0, center=array([0., 0.]))"
    )
    assert repr(DPGaussianMixture()) == "DPGaussianMixture()"
    copy = clone(model).set_params(epsilon=3.0)
    assert copy.get_params() | {"epsilon": 2.0, "center": None} == model.get_params() | {
        "center": None
    }
    assert (model.epsilon, copy.epsilon) == (2.0, 3.0)
    assert not is_classifier(model)
    assert not is_regressor(model)


def test_predictions_are_posterior_probabilities():
    model = DPGaussianMixture(1, norm_bound=1.5, labels=("low", "high"))
    y = np.where(X[:, 0] > 0, "high", "low")
    assert model.fit_predict(X, y).shape == (60,)
    proba = model.predict_proba(X)
    assert proba.sum(axis=1) == pytest.approx(1.0)
    assert (model.predict(X) == model.classes_[proba.argmax(axis=1)]).all()
    # Bayes' rule from the attributes, with what covariances differ by taken in part.
    share = model.release_.receipt["plan"].get("discriminant_share", 1.0)
    average = np.einsum("k,kij->ij", model.weights_, model.covariances_)
    covariances = average + share * (model.covariances_ - average)
    joint = []
    for weight, mean, covariance in zip(model.weights_, model.means_, covariances, strict=True):
        off = X - mean
        energy = np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
        joint.append(weight * np.exp(-energy / 2) / np.sqrt(np.linalg.det(covariance)))
    order = [model.labels_.tolist().index(label) for label in model.classes_]
    assert proba == pytest.approx((np.array(joint) / np.sum(joint, 0)).T[:, order], abs=1e-6)


def test_information_criteria_count_the_parameters():
    model = DPGaussianMixture(1, norm_bound=1.5, covariance_type="full").fit(X)
    total = model.score_samples(X).sum()
    assert model.aic(X) == pytest.approx(2 * (2 + 3) - 2 * total)
    assert model.bic(X) == pytest.approx((2 + 3) * np.log(60) - 2 * total)
    round_one = DPGaussianMixture(1, norm_bound=1.5, covariance_type="spherical").fit(X)
    assert round_one.aic(X) == pytest.approx(2 * (2 + 1) - 2 * round_one.score_samples(X).sum())


def test_a_fitted_estimator_is_stored_and_loaded(tmp_path):
    model = DPGaussianMixture(1, norm_bound=1.5, labels=(0, 1), random_state=3).fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model")):
        assert (copy.score_samples(X) == model.score_samples(X)).all()
        assert (copy.sample(9)[0] == model.sample(9)[0]).all()
    assert X.tobytes() not in pickle.dumps(model)  # no row is in it


def test_it_is_the_last_step_of_a_pipeline():
    pipe = make_pipeline(FunctionTransformer(lambda x: x / 2), DPGaussianMixture(1, norm_bound=1.5))
    pipe.set_params(dpgaussianmixture__epsilon=4.0)
    assert pipe.fit(X).predict(X).tolist() == [0] * 60
    assert pipe.score(X) == pytest.approx(pipe[-1].score(X / 2))


def test_a_search_fits_often_and_says_once_that_it_spends():
    search = GridSearchCV(DPGaussianMixture(1, norm_bound=1.5), {"epsilon": [0.5, 1.0]}, cv=2)
    with pytest.warns(RepeatedFitWarning, match="the costs add up") as caught:
        search.fit(X)
    assert sum(w.category is RepeatedFitWarning for w in caught) == 1
    assert search.best_params_["epsilon"] in (0.5, 1.0)


def test_a_ledger_is_charged_in_place_of_the_warning(tmp_path, recwarn):
    from dpgmm_dist.budget.ledger import Ledger
    from dpgmm_dist.errors import LedgerRefused

    url = str(tmp_path / "ledger")
    Ledger.init(url, epsilon=1.0, delta=1e-6)
    model = DPGaussianMixture(1, epsilon=1.0, norm_bound=1.5, ledger=url).fit(X)
    assert model.receipt_["ledger"]
    with pytest.raises(LedgerRefused):
        model.fit(X)
    assert not [w for w in recwarn if w.category is RepeatedFitWarning]


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (X[:, :1], RowsError, "X has 1 features, but DPGaussianMixture is expecting 2 features"),
        (X[0], RowsError, r"Expected 2D array .* Reshape your data"),
        ([["secret", 1]], RowsError, "X has dtype <U"),
        (np.array([[{"secret": 1}, 2]], dtype=object), RowsError, "X has dtype object"),
        (X + 1j, RowsError, "Complex data not supported"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_argument(rows, error, words):
    model = DPGaussianMixture(1, norm_bound=1.5)
    if words.startswith("X has dtype"):
        with pytest.raises(error, match=words) as caught:
            model.fit(rows)
        assert "secret" not in str(caught.value)
        return
    with pytest.raises(error, match=words):
        model.fit(X).predict(rows)


def test_methods_before_a_fit_raise_the_error_that_scikit_learn_knows():
    with pytest.raises(NotFittedError, match="not fitted yet: call fit"):
        DPGaussianMixture().predict(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(DPGaussianMixture())
    with pytest.raises(ParameterError, match="X is a path"):
        DPGaussianMixture().fit_predict("somewhere")
