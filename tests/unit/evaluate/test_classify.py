from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from dpgmm_dist.errors import SpecError
from dpgmm_dist.evaluate.classify import classifier_accuracy, majority_accuracy


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two classes that no line separates."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 2))
    return points, (points[:, 0] * points[:, 1] > 0).astype(int)


def test_a_network_learns_what_no_line_separates_and_is_repeatable() -> None:
    pytest.importorskip("sklearn")
    train, test = rows(3000, 0), rows(1000, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = classifier_accuracy(*train, *test, hidden=64, epochs=10)
    assert first > 0.88  # a linear classifier gets half right
    assert classifier_accuracy(*train, *test, hidden=64, epochs=10) == first
    shuffled = np.random.default_rng(2).permutation(train[1])
    assert classifier_accuracy(train[0], shuffled, *test, hidden=64, epochs=3) < 0.65


def test_few_rows_text_labels_and_one_class() -> None:
    pytest.importorskip("sklearn")
    features = np.array([[0.0], [1.0]])
    labels = np.array(["a", "b"])
    assert 0 <= classifier_accuracy(features, labels, features, labels, epochs=2) <= 1
    assert classifier_accuracy(features, ["a", "a"], features, labels) == 0.5


def test_majority_accuracy_takes_the_most_frequent_training_label() -> None:
    assert majority_accuracy([1, 1, 2], [1, 2, 2, 2]) == 0.25
    assert majority_accuracy([2, 1], [1, 1, 2, 2]) == 0.5
    with pytest.raises(SpecError, match="no labels"):
        majority_accuracy([], [1])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpecError, match="train_X must have shape"):
        classifier_accuracy(np.zeros((3, 2)), [1, 2], np.zeros((3, 2)), [1, 2, 3])
    with pytest.raises(SpecError, match="3 columns, but test_X has 2"):
        classifier_accuracy(np.zeros((2, 3)), [1, 2], np.zeros((2, 2)), [1, 2])
    with pytest.raises(SpecError, match="at least 1"):
        classifier_accuracy(np.eye(2), [1, 2], np.eye(2), [1, 2], epochs=0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    with pytest.raises(SpecError, match=r"dpgmm-dist\[sklearn\]"):
        classifier_accuracy(np.eye(2), [1, 2], np.eye(2), [1, 2])
