"""How much a classifier learns from some rows, measured on others. TRUSTED side: NOT PRIVATE.

Trained on synthetic rows and tested on real ones this says how useful a release is; trained on
real rows it says how much there was to learn. Accuracy on real test rows is a private fact.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.errors import SpecError

BATCH = 256
_RATES = (1e-3, 1e-4)
_LAST = 0.3
"""Share of the epochs, the last, at the lower rate: it averages out what single batches did."""
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
    """Share of test rows that a two-layer network trained on the training rows gets right.

    Features are standardised by the training rows' own mean and one common scale; the network
    (``hidden`` rectified units, batches of 256, Adam, at a tenth of the rate in the last third
    of the epochs) trains for a fixed number of epochs, so that nothing is tuned on test rows.

    Parameters
    ----------
    train_X, test_X
        (n, d) and (m, d), numbers.
    train_y, test_y
        (n,) and (m,), labels of one kind, int or str.
    hidden
        Units of the hidden layer.
    epochs
        Passes over the training rows.
    seed
        Of the initial weights and the order of rows.

    Returns
    -------
    float
        From 0 to 1. NOT PRIVATE when either set of rows is real.

    Raises
    ------
    SpecError
        When scikit-learn is not installed, or shapes do not fit.
    """
    tests, truth = _checked("test", test_X, test_y)
    guess = predicted_labels(
        "network", train_X, train_y, tests, hidden=hidden, epochs=epochs, seed=seed
    )
    return float(np.mean(guess == truth))


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
    """Labels (m,) that a classifier trained on the training rows gives the test rows (m, d).

    "network" is that of `classifier_accuracy`; "logistic" (multinomial, L2 penalty 1) and "lda"
    (linear discriminant with Ledoit-Wolf shrinkage) are linear. NOT PRIVATE when rows are real.
    """
    features, labels = _checked("train", train_X, train_y)
    tests = np.asarray(test_X, dtype=np.float32)
    if tests.ndim != 2 or tests.shape[1] != features.shape[1]:
        raise SpecError(
            f"train_X has {features.shape[1]} columns, test_X {tests.shape[-1]}: they must agree"
        )
    if np.unique(labels).size == 1:
        return np.full(len(tests), labels[0])
    model = _classifier(kind, hidden, min(BATCH, len(labels)), epochs, seed)
    mean = features.mean(axis=0)
    # One scale for all columns: scaling each alone would blow up directions that are only noise.
    scale = np.float32(features.std() or 1.0)
    import warnings

    with warnings.catch_warnings():
        # The number of epochs or steps is fixed on purpose, and a pixel may be constant.
        warnings.simplefilter("ignore")
        model.fit((features - mean) / scale, labels)
        if kind == "network" and epochs > 1:
            last = max(1, round(_LAST * epochs))
            model.set_params(max_iter=last, learning_rate_init=_RATES[1])
            model.fit((features - mean) / scale, labels)
    return np.asarray(model.predict((tests - mean) / scale))


def majority_accuracy(train_y: ArrayLike, test_y: ArrayLike) -> float:
    """Share of test rows that have the training rows' most frequent label. NOT PRIVATE.

    Of equally frequent labels the least is taken.
    """
    values, counts = np.unique(np.asarray(train_y), return_counts=True)
    if not values.size or not np.asarray(test_y).size:
        raise SpecError("there are no labels to compare: give at least one training and test row")
    return float(np.mean(np.asarray(test_y) == values[np.argmax(counts)]))


def _checked(name: str, rows: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    features, values = np.asarray(rows, dtype=np.float32), np.asarray(labels)
    if features.ndim != 2 or values.shape != features.shape[:1] or not values.size:
        raise SpecError(
            f"{name}_X must have shape (n, d) and {name}_y (n,) with n of at least 1, got "
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
        # Never stop early: every comparison trains for the same number of epochs.
        n_iter_no_change=epochs + 1,
        tol=0.0,
    )
