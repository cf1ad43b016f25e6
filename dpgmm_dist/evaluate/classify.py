"""Accuracy of classifiers on test rows. TRUSTED side: NOT PRIVATE.

The accuracy of a classifier that is trained on synthetic rows and tested on real ones measures how
useful a release is. Training on real rows gives the accuracy to compare it with. Accuracy on real
test rows is a private fact.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.errors import SpecError

BATCH = 256
_RATES = (1e-3, 1e-4)
_LAST = 0.3
"""Share of the epochs, at the end, with the lower rate, which averages over batches."""
Kind = Literal["network", "logistic", "lda"]
KINDS: tuple[Kind, ...] = ("network", "logistic", "lda")


def classifier_accuracy(
    train_X: ArrayLike,
    train_y: ArrayLike,
    test_X: ArrayLike,
    test_y: ArrayLike,
    hidden: int = 256,
    epochs: int = 20,
    seed: int = 0,
) -> float:
    """Share of test rows whose label a two-layer network predicts correctly.

    The features are centred by the mean of the training rows and divided by one common scale. The
    network has ``hidden`` rectified units and is trained with Adam on batches of 256 rows; the
    last 30% of the epochs have a tenth of the learning rate. The number of epochs is fixed, so
    nothing is tuned on the test rows.

    Parameters
    ----------
    train_X, test_X
        Features of the training rows (n, d) and of the test rows (m, d).
    train_y, test_y
        Their labels (n,) and (m,), all int or all str.
    hidden
        Units of the hidden layer.
    epochs
        Passes over the training rows.
    seed
        Seed of the initial weights and of the order of rows.

    Returns
    -------
    float
        From 0 to 1. NOT PRIVATE if either set of rows is real.

    Raises
    ------
    SpecError
        When scikit-learn is not installed, or the shapes do not agree.
    """
    test_features, test_labels = _checked("test", test_X, test_y)
    predicted = predicted_labels(
        "network", train_X, train_y, test_features, hidden=hidden, epochs=epochs, seed=seed
    )
    return float(np.mean(predicted == test_labels))


def predicted_labels(
    kind: Kind,
    train_X: ArrayLike,
    train_y: ArrayLike,
    test_X: ArrayLike,
    *,
    hidden: int = 256,
    epochs: int = 20,
    seed: int = 0,
) -> NDArray[Any]:
    """Labels (m,) that a classifier predicts for the test rows (m, d). NOT PRIVATE on real rows.

    Parameters
    ----------
    kind
        "network" is the network of `classifier_accuracy`. "logistic" is multinomial logistic
        regression with an L2 penalty of 1. "lda" is the linear discriminant with Ledoit-Wolf
        shrinkage.
    train_X, train_y, test_X
        Features (n, d) and labels (n,) of the training rows, and features (m, d) of the test rows.
    hidden, epochs, seed
        Of the network, as in `classifier_accuracy`.

    Raises
    ------
    SpecError
        When scikit-learn is not installed, or the shapes do not agree.
    """
    features, labels = _checked("train", train_X, train_y)
    test_features = np.asarray(test_X, dtype=np.float32)
    if test_features.ndim != 2 or test_features.shape[1] != features.shape[1]:
        raise SpecError(
            f"train_X has {features.shape[1]} columns, but test_X has {test_features.shape[-1]}: "
            "they must agree"
        )
    if np.unique(labels).size == 1:
        return np.full(len(test_features), labels[0])
    model = _classifier(kind, hidden, min(BATCH, len(labels)), epochs, seed)
    mean = features.mean(axis=0)
    # One scale for all columns: a scale for each would enlarge directions that are only noise.
    scale = np.float32(features.std() or 1.0)
    import warnings

    with warnings.catch_warnings():
        # The number of epochs or steps is fixed on purpose, and a column may be constant.
        warnings.simplefilter("ignore")
        model.fit((features - mean) / scale, labels)
        if kind == "network" and epochs > 1:
            last = max(1, round(_LAST * epochs))
            model.set_params(max_iter=last, learning_rate_init=_RATES[1])
            model.fit((features - mean) / scale, labels)
    return np.asarray(model.predict((test_features - mean) / scale))


def majority_accuracy(train_y: ArrayLike, test_y: ArrayLike) -> float:
    """Share of test rows that have the most frequent label of the training rows. NOT PRIVATE.

    If several labels are most frequent, the smallest of them counts.
    """
    values, counts = np.unique(np.asarray(train_y), return_counts=True)
    if not values.size or not np.asarray(test_y).size:
        raise SpecError(
            "there are no labels to compare: give at least one training row and one test row"
        )
    return float(np.mean(np.asarray(test_y) == values[np.argmax(counts)]))


def _checked(name: str, rows: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    features, values = np.asarray(rows, dtype=np.float32), np.asarray(labels)
    if features.ndim != 2 or values.shape != features.shape[:1] or not values.size:
        raise SpecError(
            f"{name}_X must have shape (n, d) and {name}_y shape (n,) with n at least 1, got "
            f"{features.shape} and {values.shape}"
        )
    return features, values


def _classifier(kind: Kind, hidden: int, batch: int, epochs: int, seed: int) -> Any:
    if hidden < 1 or epochs < 1:
        raise SpecError(f"hidden and epochs must be at least 1, got {hidden} and {epochs}")
    try:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        raise SpecError(
            "classifiers need scikit-learn: pip install 'dpgmm-dist[sklearn]'"
        ) from None
    if kind == "logistic":
        return LogisticRegression(C=1.0, max_iter=100)
    if kind == "lda":
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return MLPClassifier(
        hidden_layer_sizes=(hidden,),
        batch_size=batch,
        max_iter=epochs - max(1, round(_LAST * epochs)) if epochs > 1 else 1,
        learning_rate_init=_RATES[0],
        warm_start=True,
        random_state=seed,
        # No early stopping: every comparison trains for the same number of epochs.
        n_iter_no_change=epochs + 1,
        tol=0.0,
    )
