"""How well a label is predicted from a row, with the same budget as the mixtures of density.py.

The label is the component that a row of a known mixture was drawn from, or the origin of a flight.
Each method gives the share of fresh rows that it labels correctly. The linear discriminant, least
squares and logistic regression are those of classify_baselines.py, with the same constants. A
labelled release goes through the same strategy, kernel and privacy gate, and predicts the label
with the highest posterior probability.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import classify
import classify_baselines
import numpy as np
from classify_baselines import Task
from density_baselines import clipped

Floats = np.ndarray
Method = Callable[[Task], float]


def task(
    rows: tuple[Floats, Floats],
    fresh: tuple[Floats, Floats],
    norm: float,
    rho: float,
    seed: int,
    insecure: bool,
) -> Task:
    """A task of rows (n, d) and labels (n,), scaled so that the norm bound is 1.

    Fresh rows (m, d) and their labels (m,) are the test; they are not clipped. With ``insecure``
    the noise is a function of the seed and protects nothing.
    """
    X = clipped(rows[0], norm) / norm
    noise = _noise(seed, insecure)
    ask = classify.Rows(X, rows[1], noise).ask
    return Task(ask, X, rows[1], fresh[0] / norm, fresh[1], rho, seed)


def methods(components: int, insecure: bool) -> dict[str, Method]:
    """The methods by name; a release has ``components`` components for each label."""
    named = classify_baselines.PRIVATE
    return {
        "posterior of a labelled release": partial(
            posterior, components=components, insecure=insecure
        ),
        **{name: named[name] for name in SHARED},
    }


SHARED = ("linear discriminant", "least squares", "logistic regression, noisy gradients")


def posterior(task: Task, components: int, insecure: bool) -> float:
    """Accuracy of the most probable label under a release with a mixture for each label."""
    arguments = argparse.Namespace(rho=task.rho, components=components)
    noise = _noise(task.seed, insecure)
    fitted, _ = classify.release(task.X, task.y, 0.0, noise, arguments)
    mixture = fitted.mixture.regularised(fitted.notes.get("discriminant_share", 1.0))
    probabilities = mixture.label_probabilities(fitted.latent.to_latent(task.test_X))
    return float(np.mean(probabilities.argmax(axis=1) == task.test_y))


def exact(task: Task) -> float:
    """Accuracy of the linear discriminant without privacy."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis().fit(task.X, task.y)
    return float(model.score(task.test_X, task.test_y))


def _noise(seed: int, insecure: bool) -> classify.NoiseSource:
    return classify.noise_of(argparse.Namespace(noise="auto", insecure_seeds=insecure), seed)
