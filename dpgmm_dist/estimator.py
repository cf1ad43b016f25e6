"""DPGaussianMixture: a release behind the interface of a scikit-learn estimator."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError

if TYPE_CHECKING:
    from dpgmm_dist.artifact.load import Release
    from dpgmm_dist.data.parquet_schema import Columns
    from dpgmm_dist.data.source import ArraySource, DaskArraySource, FrameSource

Floats = npt.NDArray[np.float64]

_MEMORY = "memory"
"""Takes the place of a path where rows are in memory."""


@dataclass(frozen=True)
class _ReadFrame:
    """What was read of a frame."""

    example: Any
    """The frame without its rows."""
    columns: Columns
    labels_in_frame: bool

    @property
    def names(self) -> list[str]:
        """The columns that were read, in the order of the features, the label last."""
        label = self.columns.label if self.labels_in_frame else None
        return [*self.columns.features, *([] if label is None else [label])]


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
    column_bounds : public (low, high) of each column of a table, by name, in place of
        ``norm_bound``. The features are these columns. Bounds are numbers, or dates and times.
    center : public centre (d,) that is subtracted from the rows; the origin by default. For rows
        far from the origin, "auto" finds it privately.
    covariance_type : "auto", "full", "tied", "diag" or "spherical"
    assignment : "soft" or "hard" responsibilities
    dimension : number of latent dimensions that DP-PCA projects to; no projection by default
    labels : the public label set. If it is given, ``fit`` needs ``y`` and releases a mixture for
        each label.
    features, label : column names, if ``fit`` is given a frame or the path of a dataset
    width : length of the embeddings, where the type of their column does not fix it
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
        features: str | Sequence[str] = "embedding",
        label: str = "label",
        column_bounds: Mapping[str, Sequence[Any]] | None = None,
        width: int | None = None,
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
        self.column_bounds = column_bounds
        self.width = width
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> DPGaussianMixture:
        """Release the mixture of the rows of ``X``.

        Parameters
        ----------
        X : rows (n, d) as a numpy array or a dask array, or the path or URL of a Parquet dataset.
            Or a pandas or polars frame, or a pyarrow table: the columns of ``column_bounds``, or
            the column of embeddings ``features``. Without either, a row is all its columns, or
            those of a list ``features``, but for the label, bounded by ``norm_bound``.
            The rows of a dask array stay on the workers of the current Dask client; without a
            client, threads of this process compute them.
        y : labels (n,), an array of the same kind as ``X``; required with ``labels``, unless the
            frame has a column ``label``

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
        from dpgmm_dist.data.frames import is_frame, no_rows_of, refuse_lazy_frame
        from dpgmm_dist.data.source import AnySource
        from dpgmm_dist.pipeline.release import release

        refuse_lazy_frame(X, "X")
        is_path = isinstance(X, (str, Path))
        if is_path and y is not None:
            raise SpecError("y is for arrays: a dataset has its labels in a column")
        spec = self._spec(str(X) if is_path else _MEMORY)
        source: AnySource | None = None
        read = None
        if is_frame(X):
            source = self._frame_source(X, y, spec.dataset.labels or ())
            read = _ReadFrame(no_rows_of(X), source.columns, labels_in_frame=y is None)
        elif not is_path:
            source = self._array_source(X, y)
        with tempfile.TemporaryDirectory() as folder:
            target = str(Path(folder) / "release")
            release(spec, output=target, source=source)
            self._set_attributes(load_release(target))
        self._read = read
        return self

    def _array_source(self, X: Any, y: Any) -> ArraySource | DaskArraySource:
        from dpgmm_dist.data.dask_arrays import is_dask_array
        from dpgmm_dist.data.source import ArraySource, DaskArraySource

        labels: Any = tuple(self.labels)
        if self.column_bounds is not None:
            raise SpecError(
                "column_bounds are by the names of columns: give X as a pandas or polars frame, a "
                "pyarrow table, or the path of a dataset"
            )
        if labels and y is None:
            raise SpecError("labels are given, but y is not: pass y to fit")
        if is_dask_array(X) or is_dask_array(y):
            return DaskArraySource(X, y, labels)
        return ArraySource(np.asarray(X), None if y is None else np.asarray(y), labels)

    def _frame_source(
        self, X: Any, y: Any, labels: tuple[int, ...] | tuple[str, ...]
    ) -> FrameSource:
        from dpgmm_dist.data.column_types import find_fields
        from dpgmm_dist.data.frames import FrameSource, table_of, with_labels
        from dpgmm_dist.data.parquet_schema import Columns

        if y is not None and not labels:
            raise SpecError("y is given without labels: list the public labels it may hold")
        features = self._feature_columns(X)
        names = (*features, self.label) if labels and y is None else features
        table = table_of(X, names, "X")
        if labels and y is None and not find_fields(table.schema, self.label):
            raise SpecError(
                f"labels are given, but X has no column {self.label!r}: name it (label=...) or "
                "pass y to fit"
            )
        if y is not None:
            table = with_labels(table, self.label, y)
        embeddings = self.column_bounds is None and features == (self.features,)
        columns = Columns(
            features=features,
            table=not embeddings,
            label=self.label if labels else None,
            labels=labels,
        )
        return FrameSource.open(
            table, columns, width=self.width if embeddings else None, argument="X"
        )

    def _feature_columns(self, X: Any) -> tuple[str, ...]:
        """The columns of a frame that are features."""
        from dpgmm_dist.data.frames import column_names

        if self.column_bounds is not None:
            return tuple(self.column_bounds)
        if not isinstance(self.features, str):
            return tuple(self.features)
        names = column_names(X)
        if self.features != "embedding" or "embedding" in names:
            return (self.features,)
        return tuple(name for name in names if name != self.label or not len(self.labels))

    def sample(self, n_samples: int = 1) -> tuple[Any, npt.NDArray[Any]]:
        """Draw rows (n, d) in input units, and the label of each (n,).

        Without labels, the second array has the component index of each row. After a fit to a
        frame, the rows are a frame of the same kind, with the columns that were read, in their
        types and within ``column_bounds``.
        """
        self._require_fitted()
        if self._read is None:
            return self._release.sample(n_samples, seed=self.random_state)
        from dpgmm_dist.artifact.sample import Sampler
        from dpgmm_dist.data.frames import frame_like

        seed = secrets.randbits(63) if self.random_state is None else self.random_state
        table, y = Sampler.of(self._release, seed).table(n_samples)
        mixture = self._release.mixture
        if mixture.label_values:
            y = np.array(mixture.label_values)[mixture.label_index[y]]
        return frame_like(self._read.example, table.select(self._read.names)), y

    def score_samples(self, X: Any) -> Floats:
        """Natural log density (n,) of rows (n, d) in input units, marginal over labels.

        After a fit to a frame, ``X`` may be a frame with the same feature columns.
        """
        self._require_fitted()
        from dpgmm_dist.data.frames import FrameSource, is_frame, numbers_of, table_of

        if self._read is not None and is_frame(X):
            features = replace(self._read.columns, label=None, labels=())
            table = table_of(X, features.features, "X")
            X = numbers_of(
                FrameSource.open(table, features, width=self.n_features_in_, argument="X")
            )
        return self._release.score_samples(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`; ``y`` is ignored."""
        return float(self.score_samples(X).mean())

    def _spec(self, path: str) -> Any:
        from dpgmm_dist.spec.release_spec import ReleaseSpec

        center = self.center
        if center is not None and not isinstance(center, str):
            center = [float(value) for value in center]
        components = self.n_components
        features: Any = self.features
        bounds: dict[str, Any] = {"norm": self.norm_bound, "center": center}
        if self.column_bounds is not None:
            features = list(self.column_bounds)
            bounds = {"columns": dict(self.column_bounds), "center": center}
        elif path == _MEMORY and not isinstance(features, str):
            features = "embedding"  # a row of these columns is one vector with a norm bound
        labels = {"label": self.label, "labels": list(self.labels)} if len(self.labels) else {}
        return ReleaseSpec.from_dict(
            {
                "dataset": {"path": path, "features": features, "width": self.width, **labels},
                "bounds": bounds,
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
        self._covariances: Floats | None = None
        self.weights_ = np.array(mixture.weights)
        self.means_ = transform.to_input(mixture.means)
        if mixture.label_values:
            self.labels_ = np.asarray(mixture.label_values)[mixture.label_index]
        self.receipt_ = release.receipt
        self.n_features_in_ = transform.input_dimension

    @property
    def covariances_(self) -> Floats:
        """(C, d, d) in input units, built when it is first read; SpecError above 2 GiB."""
        if not hasattr(self, "_release"):
            raise AttributeError("covariances_")  # as of any estimator that is not fitted
        if self._covariances is None:
            self._covariances = _in_input_units(self._release)
        return self._covariances

    def _require_fitted(self) -> None:
        if not hasattr(self, "_release"):
            raise SpecError("this DPGaussianMixture is not fitted yet: call fit first")


def _in_input_units(release: Release) -> Floats:
    """Covariances (C, d, d) of rows in input units, with the residual variance."""
    from dpgmm_dist.model.covariances import require_buildable

    mixture, transform = release.mixture, release.transform
    width = transform.input_dimension
    require_buildable(mixture.n_components, width)
    basis = np.eye(width) if transform.basis is None else transform.basis
    scaled = transform.half_width[:, None] * basis
    outside = np.eye(width) - basis @ basis.T
    residual = (
        transform.residual_variance * transform.half_width[:, None] * outside * transform.half_width
    )
    return np.asarray(scaled @ mixture.covariances @ scaled.T + residual)
