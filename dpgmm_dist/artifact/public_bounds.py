"""The public bounds of a row, and how sampled rows are moved inside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.errors import DataError

Floats = NDArray[np.float64]

_SHRINK = 1 - 2.0**-10
_SHRINKS = 64


@dataclass(frozen=True, eq=False)
class PublicBounds:
    """The set of rows that the bounds of a release allow, in input units.

    These are the rows x with ``|(x - center) / half_width| <= norm``. In a table each column is
    also within its own bounds.
    """

    center: Floats
    """(d,)"""
    half_width: Floats
    """(d,), 1 for embeddings."""
    norm: float
    """Bound on the Euclidean norm; infinite if only columns are bounded."""
    box: bool = False
    """Whether each column is bounded too: ``|(x - center) / half_width| <= 1`` in each."""

    @classmethod
    def of(cls, receipt: Mapping[str, Any], names: list[str], width: int) -> PublicBounds:
        """The bounds in a receipt: those of the specification, and those that were found.

        Parameters
        ----------
        receipt
            The contents of receipt.json.
        names
            Names of the feature columns, in feature order.
        width
            Number of features d.

        Raises
        ------
        DataError
            When the receipt has no valid bounds.
        """
        try:
            bounds = _bounds_in_use(receipt)
            columns, norm, center = (bounds.get(key) for key in ("columns", "norm", "center"))
            if columns is None:
                middle = np.zeros(width) if center is None else np.array(center, dtype=float)
                if middle.shape != (width,):
                    raise ValueError(f"center has {middle.shape}")
                return cls(middle, np.ones(width), float(norm))
            low, high = np.array([columns[name] for name in names], dtype=float).T
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(
                "the receipt does not state the bounds of the rows, so rows cannot be kept within "
                "them"
            ) from None
        radius = math.inf if norm is None else float(norm)
        return cls((low + high) / 2, (high - low) / 2, radius, box=True)

    def contains(self, rows: Floats) -> NDArray[np.bool_]:
        """Whether each of the rows (n, d) is within the bounds, as (n,)."""
        unit = (rows - self.center) / self.half_width
        # The square of the norm overflows for extreme rows, which are outside.
        with np.errstate(over="ignore"):
            inside = np.sqrt(np.einsum("ij,ij->i", unit, unit)) <= self.norm
        if self.box:
            inside &= (np.abs(unit) <= 1).all(axis=1)
        return np.asarray(inside)

    def moved_inside(self, rows: Floats, stored: Any) -> Floats:
        """Rows (n, d) moved to the bounds; ``stored`` rounds rows as their columns do.

        Each row moves toward the centre until it is within the bounds after rounding.
        """
        unit = (rows - self.center) / self.half_width
        if self.box:
            unit = np.clip(unit, -1, 1)
        with np.errstate(over="ignore"):
            length = np.sqrt(np.einsum("ij,ij->i", unit, unit))
        unit *= np.minimum(1.0, self.norm / np.maximum(length, 1e-300))[:, None]
        out = stored(self.center + self.half_width * unit)
        for _ in range(_SHRINKS):
            outside = ~self.contains(out)
            if not outside.any():
                break
            unit[outside] *= _SHRINK
            out[outside] = stored(self.center + self.half_width * unit[outside])
        return np.asarray(out)


def _bounds_in_use(receipt: Mapping[str, Any]) -> Any:
    """The keys of ``bounds``, with what was found privately in place of "auto"."""
    given, found = receipt["specification"]["bounds"], receipt.get("bounds_found", {})
    bounds = {key: found.get(key) if value == "auto" else value for key, value in given.items()}
    if isinstance(given.get("columns"), Mapping):
        bounds["columns"] = {**given["columns"], **found.get("columns", {})}
    return bounds
