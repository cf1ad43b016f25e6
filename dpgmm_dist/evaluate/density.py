"""Log-likelihood of held-out rows under a release and under a non-private fit. NOT PRIVATE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.artifact.load import Release
from dpgmm_dist.errors import SpecError
from dpgmm_dist.evaluate.real_rows import LabelledRows
from dpgmm_dist.model.mixture import Mixture

Floats = NDArray[np.float64]

_STARTS = 2
_ITERATIONS = 60
_ROWS_PER_DIMENSION = 5
"""Rows for each latent dimension that a component of the reference needs."""
_MOST_DIMENSIONS = 512


def log_likelihood(
    release: Release, held_out: LabelledRows, training: LabelledRows | None, seed: int = 0
) -> dict[str, Any]:
    """Mean log density of rows under the release and under a reference, in nats per row.

    The reference shows what fitting without privacy would give: scikit-learn's GaussianMixture on
    the training rows, one for each label, in the latent space of the release. It has as many
    components as the release, or fewer if there are too few rows. ``gap`` is the log density of
    the reference minus that of the release. Without training rows there is no reference.

    Raises
    ------
    SpecError
        When scikit-learn is not installed and there are training rows.
    """
    scores = release.score_samples(held_out.X)
    values: dict[str, Any] = {
        "held_out": float(scores.mean()),
        "standard_error": float(scores.std() / np.sqrt(len(scores))),
        "training": None,
        "training_less_held_out": None,
        "reference": None,
        "reference_components": None,
        "gap": None,
    }
    if training is None:
        return values
    values["training"] = float(release.score_samples(training.X).mean())
    values["training_less_held_out"] = values["training"] - values["held_out"]
    if release.mixture.dimension > _MOST_DIMENSIONS:
        return values
    reference = reference_release(release, training, seed)
    values["reference"] = float(reference.score_samples(held_out.X).mean())
    values["reference_components"] = reference.mixture.n_components
    values["gap"] = values["reference"] - values["held_out"]
    return values


def reference_release(release: Release, training: LabelledRows, seed: int = 0) -> Release:
    """The release with a mixture and a residual variance fitted to real rows. NOT PRIVATE."""
    latent = release.transform.to_latent(training.X)
    parts = []
    labels = max(1, len(release.label_values))
    for label in range(labels):
        rows = latent[training.y == label]
        wanted = int((release.mixture.label_index == label).sum())
        parts.append(_fitted(rows, wanted, latent, seed))
    shares = (np.bincount(training.y, minlength=labels) + 1e-9) / (len(training) + labels * 1e-9)
    weights = np.concatenate(
        [share * within for share, (within, _, _) in zip(shares, parts, strict=True)]
    )
    mixture = Mixture(
        weights=weights / weights.sum(),
        means=np.concatenate([means for _, means, _ in parts]),
        covariances=np.concatenate([covariances for _, _, covariances in parts]),
        labels=np.repeat(np.arange(labels), [len(within) for within, _, _ in parts]),
        label_values=release.label_values,
    )
    transform = release.transform
    if transform.residual_dimension:
        energy = transform.residual_energy(training.X).mean() / transform.residual_dimension
        transform = replace(transform, residual_variance=max(float(energy), 1e-12))
    return replace(release, mixture=mixture, transform=transform)


def _fitted(
    rows: Floats, wanted: int, all_rows: Floats, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Weights, means and covariances of a mixture fitted to the rows of a label (n, p).

    It has ``wanted`` components, or fewer if there are too few rows. A label with less than two
    rows gets a fit to all rows.
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise SpecError(
            "the reference mixture needs scikit-learn: pip install 'dpgmm-dist[sklearn]'"
        ) from None
    import warnings

    p = all_rows.shape[1]
    # Labels share only the floor: shrinking toward the pooled covariance is another estimator.
    floor = 1e-4 * float(all_rows.var(axis=0).mean()) + 1e-12
    if len(rows) < 2:
        rows = all_rows
    components = max(1, min(wanted, len(rows) // (_ROWS_PER_DIMENSION * p)))
    model = GaussianMixture(
        components, n_init=_STARTS, max_iter=_ITERATIONS, reg_covar=floor, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not quite converged is good enough
        model.fit(rows)
    covariances = (model.covariances_ + model.covariances_.transpose(0, 2, 1)) / 2
    return model.weights_, model.means_, covariances
