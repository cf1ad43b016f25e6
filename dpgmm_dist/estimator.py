"""DPGaussianMixture: a release behind the interface of a scikit-learn estimator."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError

if TYPE_CHECKING:
    from dpgmm_dist.artifact.load import Release

Floats = npt.NDArray[np.float64]


class DPGaussianMixture:
    """A Gaussian mixture released with (epsilon, delta)-differential privacy.

    Parameters
    ----------
    n_components : number of components (per label if there are labels), a tuple of numbers to
        choose from, or "auto"
    epsilon, delta : the guarantee, for adding or removing one row
    norm_bound : public bound on the Euclidean norm of a row, after ``center`` is subtracted. Longer
        rows are scaled down to it. Choose it without looking at the data. By default "auto": it is
        found privately, at a twentieth of the budget, because no one number suits all data.
    center : public centre (d,) that is subtracted from the rows; the origin by default. For rows
        far from the origin, "auto" finds it privately.
    covariance_type : "auto", "full", "tied", "diag" or "spherical"
    assignment : "soft" or "hard" responsibilities
    dimension : number of latent dimensions that DP-PCA projects to; no projection by default
    labels : the public label set. If it is given, ``fit`` needs ``y`` and releases a mixture for
        each label.
    features, label : column names, if ``fit`` is given the path of a dataset
    random_state : seed of :meth:`sample`. The noise of the release does not depend on it.

    Attributes
    ----------
    weights_ : (C,), sum to one over all components
    means_ : (C, d) in input units
    covariances_ : (C, d, d) in input units, positive definite
    labels_ : (C,) label of each component, if fitted with labels
    receipt_ : the privacy receipt: queries, noise, cost and guarantee
    n_features_in_ : number of features d

    Notes
    -----
    Each ``fit`` spends (epsilon, delta) again: the costs of two fits of the same rows add up. A
    ledger keeps account of them; see ``dpgmm ledger`` and :func:`dpgmm_dist.release`.
    """

    def __init__(
        self,
        n_components: int | tuple[int, ...] | str = 5,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        norm_bound: float | str = "auto",
        center: Sequence[float] | str | None = None,
        covariance_type: str = "auto",
        assignment: str = "soft",
        dimension: int | None = None,
        labels: Sequence[int] | Sequence[str] = (),
        features: str = "embedding",
        label: str = "label",
        random_state: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.epsilon = epsilon
        self.delta = delta
        self.norm_bound = norm_bound
        self.center = center
        self.covariance_type = covariance_type
        self.assignment = assignment
        self.dimension = dimension
        self.labels = labels
        self.features = features
        self.label = label
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> DPGaussianMixture:
        """Release the mixture of the rows of ``X``.

        Parameters
        ----------
        X : rows (n, d) as a numpy array or a dask array, or the path or URL of a Parquet dataset.
            The rows of a dask array stay on the workers of the current Dask client; without a
            client, threads of this process compute them.
        y : labels (n,), an array of the same kind as ``X``; required with ``labels``

        Returns
        -------
        DPGaussianMixture
            This estimator.

        Raises
        ------
        SpecError
            When a parameter is not valid. Nothing is spent.
        DataError
            When the rows cannot be read, or do not fit the parameters.
        """
        from dpgmm_dist.artifact.load import load_release
        from dpgmm_dist.data.dask_arrays import is_dask_array
        from dpgmm_dist.data.source import AnySource, ArraySource, DaskArraySource
        from dpgmm_dist.pipeline.release import release

        source: AnySource | None = None
        path = "memory"
        if isinstance(X, (str, Path)):
            path = str(X)
            if y is not None:
                raise SpecError("y is for arrays: a dataset has its labels in a column")
        else:
            labels: Any = tuple(self.labels)
            if labels and y is None:
                raise SpecError("labels are given, but y is not: pass y to fit")
            if is_dask_array(X) or is_dask_array(y):
                source = DaskArraySource(X, y, labels)
            else:
                source = ArraySource(np.asarray(X), None if y is None else np.asarray(y), labels)
        spec = self._spec(path)
        with tempfile.TemporaryDirectory() as folder:
            target = str(Path(folder) / "release")
            release(spec, output=target, source=source)
            self._set_attributes(load_release(target))
        return self

    def sample(self, n_samples: int = 1) -> tuple[Floats, npt.NDArray[Any]]:
        """Draw rows (n, d) in input units, and the label of each (n,).

        Without labels, the second array has the component index of each row.
        """
        self._require_fitted()
        return self._release.sample(n_samples, seed=self.random_state)

    def score_samples(self, X: npt.ArrayLike) -> Floats:
        """Natural log density (n,) of rows (n, d) in input units, marginal over labels."""
        self._require_fitted()
        return self._release.score_samples(X)

    def score(self, X: npt.ArrayLike, y: Any = None) -> float:
        """Mean of :meth:`score_samples`; ``y`` is ignored."""
        return float(self.score_samples(X).mean())

    def _spec(self, path: str) -> Any:
        from dpgmm_dist.spec.release_spec import ReleaseSpec

        center = self.center
        if center is not None and not isinstance(center, str):
            center = [float(value) for value in center]
        components = self.n_components
        labels = {"label": self.label, "labels": list(self.labels)} if len(self.labels) else {}
        return ReleaseSpec.from_dict(
            {
                "dataset": {"path": path, "features": self.features, **labels},
                "bounds": {"norm": self.norm_bound, "center": center},
                "privacy": {"epsilon": self.epsilon, "delta": self.delta},
                "model": {
                    "components": list(components) if isinstance(components, tuple) else components,
                    "covariance": self.covariance_type,
                    "assignment": self.assignment,
                    "dimension": self.dimension,
                },
            }
        )

    def _set_attributes(self, release: Release) -> None:
        mixture, transform = release.mixture, release.transform
        self._release = release
        self.weights_ = np.array(mixture.weights)
        self.means_ = transform.to_input(mixture.means)
        basis = np.eye(transform.input_dimension) if transform.basis is None else transform.basis
        scaled = transform.half_width[:, None] * basis
        outside = np.eye(transform.input_dimension) - basis @ basis.T
        residual = (
            transform.residual_variance
            * transform.half_width[:, None]
            * outside
            * transform.half_width
        )
        self.covariances_ = scaled @ mixture.covariances @ scaled.T + residual
        if mixture.label_values:
            self.labels_ = np.asarray(mixture.label_values)[mixture.label_index]
        self.receipt_ = release.receipt
        self.n_features_in_ = transform.input_dimension

    def _require_fitted(self) -> None:
        if not hasattr(self, "_release"):
            raise SpecError("this DPGaussianMixture is not fitted yet: call fit first")
