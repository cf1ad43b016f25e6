"""The released mixture: weights, means and covariances, optionally grouped by a public label.

Everything here is public. Coordinates are latent (``Transform`` maps them to the input's units).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.model.covariances import Covariances, FullCovariances, covariances_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LabelValue = int | str
Seed = int | np.random.SeedSequence | None

# Rows scored at once: bounds the working memory at a few blocks of (rows, p) and (rows, C).
_SCORE_ROWS = 4096
_SCORE_VALUES = 1 << 22
_WEIGHT_SUM_TOLERANCE = 1e-9


class _FullMatrices:
    """``mixture.covariances``: given in any form, read as matrices that are built when needed."""

    def __get__(self, mixture: Mixture | None, owner: type) -> Floats:
        if mixture is None:
            raise AttributeError("covariances")  # so that the dataclass sees no default
        return mixture.form.full()

    def __set__(self, mixture: Mixture, value: ArrayLike | Covariances) -> None:
        object.__setattr__(mixture, "form", value)


@dataclass(frozen=True, eq=False, repr=False)
class Mixture:
    """A Gaussian mixture with C components in p latent dimensions.

    Parameters
    ----------
    weights
        (C,), at least 0, summing to 1 over all labels together.
    means
        (C, p).
    covariances
        (C, p, p), symmetric and positive definite, of which the lower triangle is kept; or
        `SharedCovariances`, from which (C, p, p) matrices are built each time they are read
        (SpecError if they are too large).
    labels
        (C,), the index of each component's label in ``label_values``; all 0 when unlabelled.
    label_values
        The public labels, all int or all str; ``()`` when unlabelled.
    component
        (C,), the number of each component within its label. Counted from 0 in the order given
        when None.

    Raises
    ------
    ValueError
        When shapes disagree, a value is not finite, weights are no distribution, a covariance is
        not symmetric positive definite, or two components of one label have the same number.
    """

    weights: Floats
    means: Floats
    covariances: _FullMatrices = _FullMatrices()
    labels: Integers | None = None
    label_values: tuple[LabelValue, ...] = ()
    component: Integers | None = None
    form: Covariances = field(init=False)
    """The covariances as they are held."""

    def __post_init__(self) -> None:
        weights = _float_array("weights", self.weights, 1)
        count = weights.shape[0]
        means = _float_array("means", self.means, 2)
        if count == 0 or means.shape[0] != count or means.shape[1] == 0:
            raise ValueError(
                f"means must have shape (C, p) with C = {count} >= 1, got {means.shape}"
            )
        form = covariances_of(self.form)
        if form.shape != means.shape:
            p = means.shape[1]
            raise ValueError(
                f"covariances must have shape {(count, p, p)}, got {(*form.shape, form.shape[1])}"
            )
        _check_weights(weights)
        values = tuple(self.label_values)
        labels = _label_indices(self.labels, count, values)
        component = _component_numbers(self.component, labels)
        checked: dict[str, Any] = {
            "weights": weights,
            "means": means,
            "labels": labels,
            "label_values": values,
            "component": component,
            "form": form,
        }
        for name, value in checked.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return (
            f"Mixture({self.n_components} components, {self.dimension} dimensions, "
            f"{len(self.label_values)} labels)"
        )

    @property
    def n_components(self) -> int:
        """C, the number of components over all labels."""
        return int(self.weights.shape[0])

    @property
    def dimension(self) -> int:
        """p, the number of latent coordinates."""
        return int(self.means.shape[1])

    @property
    def cholesky(self) -> Floats:
        """(C, p, p), lower triangular factors of the covariances."""
        if isinstance(self.form, FullCovariances):
            return self.form.roots
        return np.asarray(np.linalg.cholesky(self.covariances))

    @property
    def n_parameters(self) -> int:
        """Free parameters: weights, means, and covariances in the structure that they have."""
        return self.n_components - 1 + self.means.size + self.form.n_parameters

    @property
    def shares_covariance(self) -> bool:
        """Whether all components have one covariance."""
        return self.form.are_equal

    @property
    def label_index(self) -> Integers:
        """(C,), ``labels`` as an array whatever was given; all 0 when unlabelled."""
        return np.asarray(self.labels, dtype=np.int64)

    @property
    def component_number(self) -> Integers:
        """(C,), ``component`` as an array whatever was given."""
        return np.asarray(self.component, dtype=np.int64)

    @property
    def label_weights(self) -> Floats:
        """(G,), the weight of each label, in the order of ``label_values``; (1,) if unlabelled."""
        totals = np.zeros(max(1, len(self.label_values)))
        np.add.at(totals, self.label_index, self.weights)
        return totals

    def for_label(self, label: LabelValue) -> Mixture:
        """The mixture given one label: its components, weights summing to 1.

        A label whose weight is 0 gives its components equal weights.

        Raises
        ------
        ValueError
            When the label is not in ``label_values``.
        """
        chosen = self.label_index == self.label_position(label)
        weights = self.weights[chosen]
        total = float(weights.sum())
        conditional = weights / total if total > 0 else np.full(weights.shape, 1 / weights.size)
        return Mixture(
            weights=conditional,
            means=self.means[chosen],
            covariances=self.form.take(chosen),
            labels=np.zeros(weights.size, dtype=np.int64),
            label_values=(self.label_values[self.label_position(label)],),
            component=self.component_number[chosen],
        )

    def label_position(self, label: LabelValue) -> int:
        """The index of ``label`` in ``label_values`` (ValueError when it is not one of them)."""
        if not self.label_values:
            raise ValueError(f"the mixture has no labels, so label {label!r} cannot be chosen")
        for position, value in enumerate(self.label_values):
            if value == label and isinstance(value, str) == isinstance(label, str):
                return position
        raise ValueError(f"label {label!r} is not one of the labels {list(self.label_values)}")

    def sample(self, n: int, seed: Seed = None) -> tuple[Floats, Integers]:
        """Draw n rows; the same seed gives the same bits on any machine and thread count.

        Parameters
        ----------
        n
            Number of rows, at least 0.
        seed
            An int or a ``SeedSequence``; None takes operating-system entropy.

        Returns
        -------
        (Y, index)
            Y (n, p) in latent units, and the (n,) index of the component each row came from.
        """
        return self.sample_with(np.random.Generator(np.random.Philox(seed)), n)

    def sample_with(self, generator: np.random.Generator, n: int) -> tuple[Floats, Integers]:
        """`sample` with a generator that the caller uses further (for residual noise)."""
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        # Components with weight 0 have an empty interval, so side="right" never picks them.
        edges = np.cumsum(self.weights)
        index = np.searchsorted(edges, generator.random(n) * edges[-1], side="right")
        index = np.minimum(index, int(np.flatnonzero(self.weights)[-1])).astype(np.int64)
        rows = self.form.coloured(generator.standard_normal((n, self.dimension)), index)
        rows += self.means[index]
        return rows, index

    def component_log_prob(self, rows: ArrayLike) -> Floats:
        """Log density of each row (n, p) under each component, without weights: (n, C)."""
        latent = self._checked_rows(rows)
        out = np.empty((latent.shape[0], self.n_components))
        score = self.form.scorer(self.means)
        for block in _blocks(latent):
            out[block] = score(latent[block])
        return out

    def log_prob(self, rows: ArrayLike) -> Floats:
        """Natural log density of the mixture at each row (n, p), labels marginalised: (n,)."""
        latent = self._checked_rows(rows)
        out = np.empty(latent.shape[0])
        score = self.form.scorer(self.means)
        for block in _blocks(latent):
            out[block] = _log_sum_exp(score(latent[block]) + self._log_weights())
        return out

    def responsibilities(self, rows: ArrayLike) -> Floats:
        """Posterior probability of each component given each row (n, p): (n, C), rows sum to 1."""
        joint = self.component_log_prob(rows) + self._log_weights()
        return np.asarray(np.exp(joint - _log_sum_exp(joint)[:, None]))

    def label_probabilities(self, rows: ArrayLike) -> Floats:
        """Posterior probability of each label given each row (n, p): (n, G), rows sum to 1."""
        posterior = self.responsibilities(rows)
        groups = max(1, len(self.label_values))
        membership = self.label_index[:, None] == np.arange(groups)
        return np.asarray(posterior @ membership.astype(np.float64))

    def regularised(self, share: float) -> Mixture:
        """The mixture with covariances between their average (share 0) and their own (share 1).

        Its `label_probabilities` are those of regularised discriminant analysis (Friedman 1989).
        """
        return replace(self, covariances=self.form.regularised(self.weights, share))

    def _log_weights(self) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.weights))

    def _checked_rows(self, rows: ArrayLike) -> Floats:
        latent = np.asarray(rows, dtype=np.float64)
        if latent.ndim != 2 or latent.shape[1] != self.dimension:
            raise ValueError(f"rows must have shape (n, {self.dimension}), got {latent.shape}")
        if not np.isfinite(latent).all():
            raise ValueError("rows must be finite: drop or impute null, NaN and infinite values")
        return latent


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Standard error of every released parameter, in the parameter's own (latent) units.

    At least 0; infinite where the noise leaves a parameter undetermined; never NaN.
    """

    weights: Floats
    """(C,)"""
    means: Floats
    """(C, p)"""
    covariances: Floats
    """(C, p, p); infinity broadcast to that shape where none is known, which takes no memory."""

    def __post_init__(self) -> None:
        for name, ndim in (("weights", 1), ("means", 2), ("covariances", 3)):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if name == "covariances" and not self.knows_covariances:
                continue
            value = value.copy()
            if value.ndim != ndim or np.isnan(value).any() or (value < 0).any():
                raise ValueError(
                    f"standard errors of {name} must be a {ndim}-dimensional array without NaN "
                    f"or negative values, got shape {value.shape}"
                )
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def without_covariances(cls, weights: Floats, means: Floats) -> StandardErrors:
        """The errors of weights (C,) and means (C, p) where those of covariances are not known."""
        count, p = means.shape
        return cls(weights, means, np.broadcast_to(np.inf, (count, p, p)))

    def take(self, chosen: Integers) -> StandardErrors:
        """Those of some components, by index."""
        weights, means = self.weights[chosen], self.means[chosen]
        if not self.knows_covariances:
            return StandardErrors.without_covariances(weights, means)
        return StandardErrors(weights, means, self.covariances[chosen])

    @property
    def knows_covariances(self) -> bool:
        """Whether the errors of covariances are known numbers."""
        return any(np.asarray(self.covariances).strides)


def _float_array(name: str, value: ArrayLike, ndim: int) -> Floats:
    """A float64 copy (the caller's array stays writable), finite and of the given rank."""
    array = np.array(value, dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array


def _check_weights(weights: Floats) -> None:
    if (weights < 0).any():
        raise ValueError(f"weights must be at least 0, got {float(weights.min())}")
    total = float(weights.sum())
    if abs(total - 1) > _WEIGHT_SUM_TOLERANCE:
        raise ValueError(f"weights must sum to 1, got {total!r}")


def _label_indices(labels: Integers | None, count: int, values: tuple[LabelValue, ...]) -> Integers:
    kinds = {type(value) for value in values}
    if not (kinds <= {int} or kinds <= {str}):
        raise ValueError(f"label_values must be all int or all str, got {list(values)}")
    if len(set(values)) != len(values):
        raise ValueError(f"label_values must be distinct, got {list(values)}")
    indices = np.zeros(count, np.int64) if labels is None else np.array(labels, dtype=np.int64)
    groups = max(1, len(values))
    if indices.shape != (count,) or indices.min() < 0 or indices.max() >= groups:
        raise ValueError(
            f"labels must be {count} indices into {groups} label(s), got {indices.tolist()}"
        )
    if not np.bincount(indices, minlength=groups).all():
        raise ValueError("every label must have at least one component")
    return indices


def _component_numbers(component: Integers | None, labels: Integers) -> Integers:
    if component is None:
        last: dict[int, int] = {}
        numbers = np.empty(labels.shape, np.int64)
        for position, label in enumerate(labels.tolist()):
            numbers[position] = last[label] = last.get(label, -1) + 1
        return numbers
    numbers = np.array(component, dtype=np.int64)
    if numbers.shape != labels.shape or (numbers < 0).any():
        raise ValueError(f"component must be {labels.size} numbers from 0, got {numbers.tolist()}")
    if np.unique(np.stack([labels, numbers]), axis=1).shape[1] != labels.size:
        raise ValueError("two components of one label have the same number")
    return numbers


def _blocks(rows: Floats) -> Iterator[slice]:
    size = max(1, min(_SCORE_ROWS, _SCORE_VALUES // rows.shape[1]))
    for start in range(0, len(rows), size):
        yield slice(start, min(start + size, len(rows)))


def _log_sum_exp(values: Floats) -> Floats:
    """Row-wise log of the sum of exponentials of an (n, C) array; -inf where all are -inf."""
    top = values.max(axis=1)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(shift + np.log(np.exp(values - shift[:, None]).sum(axis=1)))
