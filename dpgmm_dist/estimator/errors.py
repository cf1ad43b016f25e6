"""Errors of the estimator: they name its arguments and are ValueErrors too.

scikit-learn's tools catch ValueError. The errors of a specification name keys of YAML, which users
of the estimator do not know.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dpgmm_dist.errors import DataError, SpecError


class ParameterError(SpecError, ValueError):
    """A parameter of the estimator, or a use of it, is wrong."""


class RowsError(DataError, ValueError):
    """An array or a frame cannot be used."""


class RepeatedFitWarning(UserWarning):
    """A second release without a ledger: if both are of the same people, their costs add up."""


_ARGUMENTS = {
    "privacy.epsilon": "epsilon",
    "privacy.delta": "delta",
    "privacy.ledger": "ledger",
    "bounds.norm": "norm_bound",
    "bounds.center": "center",
    "bounds.columns": "column_bounds",
    "model.components": "n_components",
    "model.covariance": "covariance_type",
    "model.assignment": "assignment",
    "model.dimension": "dimension",
    "model.marginals": "marginals",
    "dataset.path": "X",
    "dataset.features": "features",
    "dataset.label": "label",
    "dataset.labels": "labels",
    "dataset.width": "width",
    "dataset.categories": "categories",
    "dataset.nulls": "nulls",
}
"""The argument of the estimator for each key of a specification."""
_KEYS = re.compile(r"\b(" + "|".join(map(re.escape, _ARGUMENTS)) + r")\b")


@contextmanager
def by_argument() -> Iterator[None]:
    """Errors of specifications become errors that name the argument."""
    try:
        yield
    except SpecError as error:
        message = _KEYS.sub(lambda key: _ARGUMENTS[key[0]], str(error))
    else:
        return
    raise ParameterError(message)


@contextmanager
def of_rows() -> Iterator[None]:
    """Errors about arrays and frames, which are not those of stored data, become ValueErrors."""
    try:
        yield
    except DataError as error:
        message = str(error)
    else:
        return
    raise RowsError(message)


def not_fitted(name: str) -> SpecError:
    """The error of a method that needs a fit; scikit-learn's own NotFittedError where it is loaded.

    scikit-learn is not imported for it: whoever catches its error has imported it.
    """
    message = f"this {name} is not fitted yet: call fit first"
    exceptions = sys.modules.get("sklearn.exceptions")
    if exceptions is None:
        return ParameterError(message)
    bases = (ParameterError, exceptions.NotFittedError)
    kind: type[ParameterError] = type("NotFittedError", bases, {})
    return kind(message)
