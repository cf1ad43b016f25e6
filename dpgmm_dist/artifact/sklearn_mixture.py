"""A released mixture as an estimator of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.affine import Transform
from dpgmm_dist.model.mixture import Mixture


def to_sklearn(mixture: Mixture, transform: Transform | None) -> Any:
    """A fitted GaussianMixture in latent units or, with a transform, in the units of the input.

    Raises
    ------
    SpecError
        When scikit-learn is not installed.
    """
    if transform is not None and transform.columns:
        raise SpecError(
            "the mixture is of normal scores of the columns, and none in input units: use "
            "to_sklearn(space='latent'), or release with model.marginals: none"
        )
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise SpecError(
            "to_sklearn needs scikit-learn: pip install 'dpgmm-dist[sklearn]'"
        ) from None
    means, covariances = mixture.means, mixture.covariances
    if transform is not None:
        means, covariances = transform.to_input(means), _in_input_units(covariances, transform)
    precisions = np.linalg.inv(covariances)
    precisions = (precisions + precisions.transpose(0, 2, 1)) / 2
    model = GaussianMixture(
        mixture.n_components,
        covariance_type="full",
        weights_init=mixture.weights,
        means_init=means,
        precisions_init=precisions,
    )
    model.weights_, model.means_, model.covariances_ = mixture.weights.copy(), means, covariances
    # scikit-learn stores the upper triangular U with precision = U U^T.
    factors = np.linalg.cholesky(covariances)
    inverse = np.linalg.solve(factors, np.broadcast_to(np.eye(means.shape[1]), factors.shape))
    model.precisions_cholesky_ = np.triu(inverse.transpose(0, 2, 1))
    model.precisions_ = precisions
    model.converged_, model.n_iter_, model.lower_bound_ = True, 0, -np.inf
    model.n_features_in_ = means.shape[1]
    return model


def _in_input_units(covariances: Any, transform: Transform) -> Any:
    """Covariances (C, d, d) of rows in input units, including the residual variance."""
    full = covariances
    if transform.basis is not None:
        basis = transform.basis
        outside = np.eye(basis.shape[0]) - basis @ basis.T
        full = basis @ covariances @ basis.T + transform.residual_variance * outside
    scaled = full * np.outer(transform.half_width, transform.half_width)
    return (scaled + scaled.transpose(0, 2, 1)) / 2
