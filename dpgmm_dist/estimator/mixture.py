"""DPGaussianMixture: a release behind the interface of a scikit-learn estimator."""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError
from dpgmm_dist.estimator.errors import (
    ParameterError,
    RepeatedFitWarning,
    by_argument,
    not_fitted,
    of_rows,
)
from dpgmm_dist.estimator.parameters import Parameters
from dpgmm_dist.estimator.rows import (
    Floats,
    ReadFrame,
    array_source,
    frame_source,
    matrix_of,
    reads_table,
    require_width,
    table_columns,
)

if TYPE_CHECKING:
    from dpgmm_dist.artifact.load import Release
    from dpgmm_dist.spec.release_spec import ReleaseSpec
    from dpgmm_dist.spec.sections import DatasetSpec

_MEMORY = "memory"
"""Stands for a path where rows are in memory."""
_REPEATED = (
    "DPGaussianMixture is fitted again in this process, and no ledger counts the fits: if their "
    "rows are of the same people, the costs add up, and the guarantee of all fits together is "
    "weaker than that of each. ledger=URL (made by dpgmm ledger init) charges every fit and "
    "refuses beyond a limit"
)

_unlisted_fits = 0
"""Number of fits of this process that no ledger was charged for."""


class DPGaussianMixture(Parameters):
    """A Gaussian mixture released with (epsilon, delta)-differential privacy.

    Parameters
    ----------
    n_components : number of components (per label if there are labels), a tuple of numbers to
        choose from, or "auto"
    epsilon, delta : the guarantee, for adding or removing one row
    norm_bound : public bound on the Euclidean norm of a row, after ``center`` is subtracted. Longer
        rows are scaled down to it. Choose it without looking at the data. By default "auto": it is
        found privately, for a twentieth of the budget, because no single number suits all data.
    column_bounds : public (low, high) of each column of a table, by name, in place of
        ``norm_bound``. The features are these columns. Bounds are numbers, or dates and times, or
        "auto" for a range that is found privately. "auto" in place of the mapping finds all: the
        features are those of a list ``features``, or all columns of a frame.
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
    marginals : for tables: "auto" measures each column by itself and fits the mixture to normal
        scores, "none" fits it to the columns as they are. By default "none" where all bounds are
        given.
    categories : for tables: the public values of columns of texts, whole numbers, booleans or
        dates, by name. Any other value counts as missing. Values that have an order are best
        listed in it.
    nulls : for tables: "drop" leaves out rows that lack a value, "model" makes missing a state of
        each column. By default "drop".
        Without ``column_bounds``, both find the ranges of the other columns privately.
    ledger : directory or URL of a ledger, which each ``fit`` is charged to

    Attributes
    ----------
    weights_ : (C,), sum to one over all components
    means_ : (C, d) in input units
    covariances_ : (C, d, d) in input units, positive definite; with ``marginals`` there are none,
        because the mixture is one of scores
    labels_ : (C,) label of each component, if fitted with labels
    classes_ : (G,) the public labels, if fitted with labels
    release_ : the :class:`dpgmm_dist.Release`: standard errors, samples, a copy for scikit-learn
    receipt_ : the privacy receipt: queries, noise, cost and guarantee
    n_features_in_ : number of features d
    feature_names_in_ : (d,) names of the features, if fitted to a frame with names of text

    Notes
    -----
    Each ``fit`` spends (epsilon, delta) again: the costs of two fits of the same rows add up. With
    ``ledger`` they are charged; without it, the second fit of a process warns, once.

    What the methods compute from rows that are given to them is not private: ``score``, ``bic``,
    ``aic`` and predictions of private rows are for the trusted side. This includes choosing
    parameters by them, as a grid search does, which also fits, and spends, many times. Let the
    fit choose by noisy answers instead: ``n_components=(1, 2, 4)`` and "auto" cost nothing more.
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
        column_bounds: Mapping[str, Sequence[Any] | str] | str | None = None,
        width: int | None = None,
        random_state: int | None = None,
        marginals: str | None = None,
        categories: Mapping[str, Sequence[Any]] | None = None,
        nulls: str | None = None,
        ledger: str | None = None,
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
        self.marginals = marginals
        self.categories = categories
        self.nulls = nulls
        self.ledger = ledger

    def fit(self, X: Any, y: Any = None) -> Self:
        """Release the mixture of the rows of ``X``.

        Parameters
        ----------
        X : rows (n, d) as a numpy array or a dask array, or the path or URL of a Parquet dataset.
            Or a pandas or polars frame, or a pyarrow table: the columns of ``column_bounds`` and
            ``categories``, or the column of embeddings ``features``. Without any of them, a row is
            all columns but the label, or those of a list ``features``, bounded by ``norm_bound``.
            A dask DataFrame has the columns of a frame. The rows of a dask array or DataFrame stay
            on the workers of the current Dask client; without a client, threads of this process
            compute them.
        y : labels (n,), an array of the same kind as ``X``; required with ``labels``, unless the
            frame has a column ``label``

        Returns
        -------
        DPGaussianMixture
            This estimator.

        Raises
        ------
        ParameterError
            When a parameter is not valid. It is a SpecError and a ValueError. Nothing is spent.
        RowsError, DataError
            When the rows cannot be read, or do not fit the parameters. For arrays and frames it
            is a ValueError too.
        LedgerRefused
            When the ledger does not allow the charge.

        Warns
        -----
        RepeatedFitWarning
            Once, when a second fit of this process has no ledger, before anything is spent.
        """
        from dpgmm_dist.artifact.load import load_release
        from dpgmm_dist.data.frames import refuse_lazy_frame
        from dpgmm_dist.pipeline.release import release

        refuse_lazy_frame(X, "X")
        with by_argument(), tempfile.TemporaryDirectory() as folder:
            spec = self._spec(X)
            source, read = self._open(X, y, spec.dataset)
            if self.ledger is None:
                _warn_of_repeated_fits()
            target = str(Path(folder) / "release")
            release(spec, output=target, source=source)
            self._set_attributes(load_release(target))
        self._read = read
        self._set_names(X)
        return self

    def _open(self, X: Any, y: Any, dataset: DatasetSpec) -> tuple[Any, ReadFrame | None]:
        """The source of the rows (None for a path), and the columns read from a frame."""
        from dpgmm_dist.data.dask_frames import is_dask_frame
        from dpgmm_dist.data.frames import is_frame, no_rows_of

        if isinstance(X, str | Path):
            if y is not None:
                raise SpecError("y is for arrays: a dataset has its labels in a column")
            return None, None
        with of_rows():
            is_lazy = is_dask_frame(X)
            if not is_lazy and not is_frame(X):
                return array_source(self, X, y), None
            source = frame_source(self, X, y, dataset.labels or (), dataset.categories or {})
        example = no_rows_of(X._meta if is_lazy else X)
        return source, ReadFrame(example, source.columns, labels_in_frame=y is None)

    def fit_predict(self, X: Any, y: Any = None) -> npt.NDArray[Any]:
        """:meth:`fit`, then :meth:`predict` of the same rows, which is not private."""
        if isinstance(X, str | Path):
            raise ParameterError("X is a path, and rows of files are not predicted: use fit")
        return self.fit(X, y).predict(X)

    def sample(self, n_samples: int = 1) -> tuple[Any, npt.NDArray[Any]]:
        """Draw rows (n, d) in input units, and the label of each (n,).

        Without labels, the second array has the component index of each row. After a fit to a
        frame, the rows are a frame of the same kind, with the columns that were read, in their
        types and within ``column_bounds``. It has the names of categories, and with
        ``nulls="model"`` empty cells; an array has the number of a category, and NaN.
        """
        self._require_fitted()
        if n_samples < 0:
            raise ParameterError(f"n_samples must be at least 0, got {n_samples}")
        if self._read is None:
            return self.release_.sample(n_samples, seed=self.random_state)
        from dpgmm_dist.artifact.sample import Sampler
        from dpgmm_dist.data.frames import frame_like

        seed = secrets.randbits(63) if self.random_state is None else self.random_state
        table, y = Sampler.of(self.release_, seed).table(n_samples)
        mixture = self.release_.mixture
        if mixture.label_values:
            y = np.array(mixture.label_values)[mixture.label_index[y]]
        columns = self._read.columns
        table = table.select(self._read.names)
        return frame_like(self._read.example, table, columns.categories), y

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable label (n,) of each row; without labels, its component (n,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best] if hasattr(self, "classes_") else best)

    def predict_proba(self, X: Any) -> Floats:
        """Probability (n, G) of each label of ``classes_``, given the row.

        By regularised discriminant analysis, as `Release.label_probabilities`. Without labels, the
        posterior probability of each component (n, C). Rows sum to 1.
        """
        rows = self._rows(X)
        if hasattr(self, "classes_"):
            return self.release_.label_probabilities(rows)
        return self.release_.responsibilities(rows)

    def score_samples(self, X: Any) -> Floats:
        """Natural log density (n,) of rows (n, d) in input units, marginal over labels.

        After a fit to a frame, ``X`` may be a frame with the same feature columns.
        """
        rows = self._rows(X)
        return self.release_.score_samples(rows)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`; ``y`` is ignored."""
        return float(self.score_samples(X).mean())

    def bic(self, X: Any) -> float:
        """Bayesian information criterion of rows (n, d); lower is better. See Notes."""
        scores = self.score_samples(X)
        return float(self.release_.mixture.n_parameters * np.log(len(scores)) - 2 * scores.sum())

    def aic(self, X: Any) -> float:
        """Akaike information criterion of rows (n, d); lower is better. See Notes."""
        scores = self.score_samples(X)
        return float(2 * self.release_.mixture.n_parameters - 2 * scores.sum())

    def _rows(self, X: Any) -> Floats:
        """Rows (n, d) of an array, or of a frame with the columns that were fitted."""
        self._require_fitted()
        from dpgmm_dist.data.dask_frames import is_dask_frame
        from dpgmm_dist.data.frames import is_frame

        if is_dask_frame(X):
            raise ParameterError(
                "X is a dask DataFrame, which would be computed here: call the method for each "
                "partition, for instance X.map_partitions(model.score_samples, meta=(None, float))"
            )
        with by_argument(), of_rows():
            if self._read is not None and is_frame(X):
                return self._read.numbers(X, self.n_features_in_)
            rows = matrix_of(X)
        require_width(rows, self.n_features_in_, type(self).__name__)
        return rows

    def _spec(self, X: Any) -> ReleaseSpec:
        from dpgmm_dist.spec.release_spec import ReleaseSpec

        path = str(X) if isinstance(X, str | Path) else _MEMORY
        center = self.center
        if center is not None and not isinstance(center, str):
            center = [float(value) for value in center]
        components = self.n_components
        features: Any = self.features
        bounds: dict[str, Any] = {"norm": self.norm_bound, "center": center}
        if reads_table(self):
            features = list(table_columns(self, X))
            columns = self.column_bounds
            bounds = {"columns": "auto" if columns is None else columns, "center": center}
        elif path == _MEMORY and not isinstance(features, str):
            features = "embedding"  # a row of these columns is one vector with a norm bound
        dataset: dict[str, Any] = {"path": path, "features": features, "width": self.width}
        dataset |= {"categories": _as_lists(self.categories), "nulls": self.nulls}
        if len(self.labels):
            dataset |= {"label": self.label, "labels": list(self.labels)}
        return ReleaseSpec.from_dict(
            {
                "dataset": dataset,
                "bounds": bounds,
                "privacy": {
                    "epsilon": self.epsilon,
                    "delta": self.delta,
                    "ledger": self.ledger if self.ledger is None else str(self.ledger),
                },
                "model": {
                    "components": list(components) if isinstance(components, tuple) else components,
                    "covariance": self.covariance_type,
                    "assignment": self.assignment,
                    "dimension": self.dimension,
                    "marginals": self.marginals,
                },
            }
        )

    def _set_attributes(self, release: Release) -> None:
        mixture, transform = release.mixture, release.transform
        self.release_ = release
        self._covariances: Floats | None = None
        self.weights_ = np.array(mixture.weights)
        self.means_ = transform.to_input(mixture.means)
        for name in ("labels_", "classes_", "feature_names_in_"):  # of an earlier fit
            vars(self).pop(name, None)
        if mixture.label_values:
            self.classes_ = np.asarray(mixture.label_values)
            self.labels_ = self.classes_[mixture.label_index]
        self.receipt_ = release.receipt
        self.n_features_in_ = transform.input_dimension

    def _set_names(self, X: Any) -> None:
        """Names of the features, where a frame names them all by text, as scikit-learn has it."""
        if self._read is None or not self._read.columns.table:
            return
        given = getattr(X, "column_names", None) or X.columns
        if all(isinstance(name, str) for name in given):
            self.feature_names_in_ = np.array(self._read.columns.features, dtype=object)

    @property
    def covariances_(self) -> Floats:
        """(C, d, d) in input units, built when it is first read; SpecError above 2 GiB."""
        if not hasattr(self, "release_"):
            raise AttributeError("covariances_")  # as of any estimator that is not fitted
        if self.release_.transform.columns:
            raise AttributeError(
                "covariances_: the mixture is of normal scores of the columns, and has none in "
                "input units: use release_.mixture, or fit with marginals='none'"
            )
        if self._covariances is None:
            self._covariances = _in_input_units(self.release_)
        return self._covariances

    def _require_fitted(self) -> None:
        if not hasattr(self, "release_"):
            raise not_fitted(type(self).__name__)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether ``fit`` has been called, for ``check_is_fitted``."""
        return hasattr(self, "release_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools ask about an estimator; only they call it."""
        from sklearn.utils import Tags, TargetTags

        return Tags(
            estimator_type="density_estimator",
            target_tags=TargetTags(required=len(self.labels) > 0),
            non_deterministic=True,
        )


def _as_lists(categories: Any) -> Any:
    """The values of each column as a list; anything but a mapping is left for the check."""
    if not isinstance(categories, Mapping):
        return categories
    return {
        name: values if isinstance(values, str) else list(values)
        for name, values in categories.items()
    }


def _warn_of_repeated_fits() -> None:
    """Warn once, at the second fit of this process that has no ledger."""
    global _unlisted_fits
    _unlisted_fits += 1
    if _unlisted_fits == 2:
        warnings.warn(_REPEATED, RepeatedFitWarning, stacklevel=3)


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
