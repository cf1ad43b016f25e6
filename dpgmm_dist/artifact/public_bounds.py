"""The public bounds of a row, and how sampled rows are moved inside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpgmm_dist.column_kinds import kind_of, range_of
from dpgmm_dist.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from dpgmm_dist.artifact.receipt import InputSchema

Floats = NDArray[np.float64]

_SHRINK = 1 - 2.0**-10
_SHRINKS = 64


def default_bounds(specification: Mapping[str, Any]) -> Literal["clip", "none"]:
    """What becomes of sampled rows outside the bounds: those of a table are moved inside."""
    bounds = specification.get("bounds")
    return "clip" if isinstance(bounds, Mapping) and bounds.get("columns") else "none"


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
    lower: Floats | None = None
    """(d,), the least value of each column of a table; None for embeddings."""
    upper: Floats | None = None
    """(d,), the largest value of each column of a table; None for embeddings."""

    @classmethod
    def of(
        cls, receipt: Mapping[str, Any], input_schema: InputSchema, schema: pa.Schema
    ) -> PublicBounds:
        """The bounds in a receipt: those of the specification, and those that were found.

        Parameters
        ----------
        receipt
            The contents of receipt.json.
        input_schema
            The names of the feature columns in the receipt, in feature order, and their number d.
        schema
            The types that these columns are written with.

        Raises
        ------
        DataError
            When the receipt has no valid bounds.
        """
        width = input_schema.width
        try:
            bounds = _bounds_in_use(receipt)
            columns, norm, center = (bounds.get(key) for key in ("columns", "norm", "center"))
            if columns is None:
                middle = np.zeros(width) if center is None else np.array(center, dtype=float)
                if middle.shape != (width,):
                    raise ValueError(f"center has {middle.shape}")
                return cls(middle, np.ones(width), float(norm))
            ranges = []
            for column in input_schema.columns:
                name, values = column.name, column.values
                if values is not None:
                    ranges.append((0.0, max(len(values) - 1.0, 1.0)))
                    continue
                least, most = columns[name]
                kind = kind_of(schema.field(name).type)
                # What was missing in every row is written as a number, whatever its bounds.
                ranges.append(range_of(least, most, None if kind == "number" else kind))
            low, high = np.array(ranges, dtype=float).T
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(
                "the receipt does not state the bounds of the rows, so rows cannot be kept within "
                "them"
            ) from None
        radius = math.inf if norm is None else float(norm)
        return cls((low + high) / 2, (high - low) / 2, radius, low, high)

    def contains(self, rows: Floats) -> NDArray[np.bool_]:
        """Whether each of the rows (n, d) is within the bounds, as (n,)."""
        return np.asarray(~np.any(self._beyond(rows), axis=1))

    def _beyond(self, rows: Floats) -> NDArray[np.bool_]:
        """The values (n, d) that are outside: of a column's range, or all of a row too long."""
        unit = (rows - self.center) / self.half_width
        unit = np.where(np.isnan(unit), 0.0, unit)  # what is missing is within all bounds
        # The square of the norm overflows for extreme rows, which are outside.
        with np.errstate(over="ignore"):
            inside = np.sqrt(np.einsum("ij,ij->i", unit, unit)) <= self.norm
        beyond = np.repeat(~inside[:, None], rows.shape[1], axis=1)
        if self.lower is not None and self.upper is not None:
            beyond |= (rows < self.lower) | (rows > self.upper)
        return beyond

    def moved_inside(self, rows: Floats, stored: Any) -> Floats:
        """Rows (n, d) moved to the bounds; ``stored`` rounds rows as their columns do.

        Each column is clipped to its range. What is still outside after rounding moves toward the
        centre until it is not.
        """
        if self.lower is not None and self.upper is not None:
            rows = np.clip(rows, self.lower, self.upper)
        unit = (rows - self.center) / self.half_width
        with np.errstate(over="ignore"):
            known = np.where(np.isnan(unit), 0.0, unit)
            length = np.sqrt(np.einsum("ij,ij->i", known, known))
        unit *= np.minimum(1.0, self.norm / np.maximum(length, 1e-300))[:, None]
        out = stored(rows)
        beyond = self._beyond(out)
        for _ in range(_SHRINKS):
            if not beyond.any():
                break
            moved = stored(self.center + self.half_width * unit)
            out = np.where(np.any(beyond, axis=1, keepdims=True), moved, out)
            unit = np.where(beyond, unit * _SHRINK, unit)
            beyond = self._beyond(out)
        return np.asarray(out)


def _bounds_in_use(receipt: Mapping[str, Any]) -> Any:
    """The keys of ``bounds``, with what was found privately in place of "auto"."""
    given, found = receipt["specification"]["bounds"], receipt.get("bounds_found", {})
    bounds = {key: found.get(key) if value == "auto" else value for key, value in given.items()}
    if isinstance(given.get("columns"), Mapping):
        bounds["columns"] = {**given["columns"], **found.get("columns", {})}
    return bounds
