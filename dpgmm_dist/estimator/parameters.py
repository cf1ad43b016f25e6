"""The conventions of scikit-learn's BaseEstimator, without importing scikit-learn.

``clone``, ``Pipeline`` and the searches need nothing but these methods.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np

from dpgmm_dist.estimator.errors import ParameterError


class Parameters:
    """An estimator whose parameters are the arguments of its constructor, stored as they are."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Name and default of each argument of the constructor."""
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {argument.name: argument.default for argument in arguments}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name. ``deep`` changes nothing: none of them is an estimator."""
        return {name: getattr(self, name) for name in sorted(self._defaults())}

    def set_params(self, **params: Any) -> Self:
        """Change parameters by name; they take effect with the next ``fit``.

        Raises
        ------
        ParameterError
            When there is no such parameter. Nothing is changed then.
        """
        known = self._defaults()
        for name in params:
            if name not in known:
                raise ParameterError(
                    f"{name!r} is not a parameter of {type(self).__name__}: use one of "
                    f"{', '.join(sorted(known))}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The constructor's call with the parameters that are not the defaults."""
        defaults, given = self._defaults(), self.get_params()
        changed = (
            f"{name}={given[name]!r}"
            for name, default in defaults.items()
            if not _same(given[name], default)
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(np.all(value == default))
