"""DPGaussianMixture: a release behind the interface of a scikit-learn estimator."""

from dpgmm_dist.estimator.errors import ParameterError, RepeatedFitWarning, RowsError
from dpgmm_dist.estimator.mixture import DPGaussianMixture

__all__ = ["DPGaussianMixture", "ParameterError", "RepeatedFitWarning", "RowsError"]
