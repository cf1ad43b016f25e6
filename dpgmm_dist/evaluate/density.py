"""Log-likelihood of held-out rows, and of a mixture fitted to real rows. NOT PRIVATE."""

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
"""A reference component needs so many rows for each latent dimension."""
_MOST_DIMENSIONS = 512


def log_likelihood(
    release: Release, held_out: LabelledRows, training: LabelledRows | None, seed: int = 0
) -> dict[str, Any]:
    """Mean log density of rows under the release, in nats a row, and of the reference.

    The reference is scikit-learn's GaussianMixture on the training rows, one for each label, in
    the release's own latent space: what fitting without privacy would give. Its components are
    those of the release, or as many as the rows can bear. ``gap`` is reference less release.
    """
    scores = release.score_samples(held_out.X)
    found: dict[str, Any] = {
        "held_out": float(scores.mean()),
        "standard_error": float(scores.std() / np.sqrt(len(scores))),
        "training": None,
        "training_less_held_out": None,
        "reference": None,
        "reference_components": None,
        "gap": None,
    }
    if training is None:
        return found
    found["training"] = float(release.score_samples(training.X).mean())
    found["training_less_held_out"] = found["training"] - found["held_out"]
    if release.mixture.dimension > _MOST_DIMENSIONS:
        return found
    reference = reference_release(release, training, seed)
    found["reference"] = float(reference.score_samples(held_out.X).mean())
    found["reference_components"] = reference.mixture.n_components
    found["gap"] = found["reference"] - found["held_out"]
    return found


def reference_release(release: Release, training: LabelledRows, seed: int = 0) -> Release:
    """The release with its mixture and residual fitted to real rows instead. NOT PRIVATE."""
    latent = release.transform.to_latent(training.X)
    parts = []
    labels = max(1, len(release.label_values))
    for label in range(labels):
        rows = latent[training.y == label]
        wanted = int((release.mixture.label_index == label).sum())
        parts.append(_fitted(rows, wanted, latent, seed))
    shares = (np.bincount(training.y, minlength=labels) + 1e-9) / (len(training) + labels * 1e-9)
    mixture = Mixture(
        weights=_normal(
            np.concatenate([s * w for s, (w, _, _) in zip(shares, parts, strict=True)])
        ),
        means=np.concatenate([means for _, means, _ in parts]),
        covariances=np.concatenate([covariances for _, _, covariances in parts]),
        labels=np.repeat(np.arange(labels), [len(w) for w, _, _ in parts]),
        label_values=release.label_values,
    )
    transform = release.transform
    if transform.residual_dimension:
        energy = transform.residual_energy(training.X).mean() / transform.residual_dimension
        transform = replace(transform, residual_variance=max(float(energy), 1e-12))
    return replace(release, mixture=mixture, transform=transform)


def _fitted(
    rows: Floats, wanted: int, everything: Floats, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Weights, means and covariances of a mixture of the rows; of all rows where there are few."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise SpecError(
            "the reference mixture needs scikit-learn: pip install 'dpgmm-dist[sklearn]'"
        ) from None
    import warnings

    p = everything.shape[1]
    # Half-way to the pooled covariance would be another estimator: only the floor is shared.
    floor = 1e-4 * float(everything.var(axis=0).mean()) + 1e-12
    if len(rows) < 2:
        rows = everything
    components = max(1, min(wanted, len(rows) // (_ROWS_PER_DIMENSION * p)))
    model = GaussianMixture(
        components, n_init=_STARTS, max_iter=_ITERATIONS, reg_covar=floor, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged in so many steps: near enough
        model.fit(rows)
    covariances = (model.covariances_ + model.covariances_.transpose(0, 2, 1)) / 2
    return model.weights_, model.means_, covariances


def _normal(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum())
