"""The feature lattice: rows of floating-point numbers become integer vectors of bounded norm.

Clipping in floating point leaves some rows slightly outside their bound, and floating-point sums
depend on their order. So every row becomes an integer vector ``u`` (held in float64) whose exact
squared norm is at most ``FEATURE_RADIUS**2``. What a row becomes depends on that row and on public
numbers alone, bit for bit. Only IEEE elementwise operations touch a row, and every comparison that
decides something is between exact integers. Proof: docs/privacy.md, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.query import FEATURE_RADIUS, shrink_to_radius

Floats = npt.NDArray[np.float64]
Reals = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_CACHED_BYTES = 1 << 19
"""Bytes of rows (as float64) handled at once: well within the cache of one core."""


class RowMap(Protocol):
    """A map from rows in input units to rows of integers: a lattice, or codes."""

    def to_lattice(
        self, features: npt.NDArray[Any], valid: Bools | None = None, out: Reals | None = None
    ) -> tuple[Reals, Bools]:
        """Integers of rows (n, d), zero where a row is not valid, and which rows are valid."""


@dataclass(frozen=True)
class FeatureMap:
    """The public affine map from input rows to the feature lattice.

    Feature space is ``z = x - center`` for embeddings and ``z = (clip(x, lo, hi) - mid) / half``
    for tables; the lattice has spacing ``norm / FEATURE_RADIUS`` in feature space.
    """

    width: int
    """Number of features d."""
    norm: float
    """Public bound on the Euclidean norm of z; longer rows are scaled down to it."""
    center: tuple[float, ...] | None = None
    """Public centre (d,) in input units (embeddings); None for the origin."""
    lower: tuple[float, ...] | None = None
    """Lower column bounds (d,) in input units (tables)."""
    upper: tuple[float, ...] | None = None
    """Upper column bounds (d,) in input units (tables)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.norm) and 1e-100 <= self.norm <= 1e100):
            raise SpecError(
                f"bounds.norm must be between 1e-100 and 1e100, got {self.norm!r}: "
                "give a bound on the length of a row"
            )
        for name in ("center", "lower", "upper"):
            values = getattr(self, name)
            if values is not None and len(values) != self.width:
                raise SpecError(
                    f"bounds: {name} has {len(values)} values but rows have {self.width} features"
                )

    @property
    def step(self) -> float:
        """Spacing of the lattice in feature space: ``z`` is about ``u * step``."""
        return self.norm / FEATURE_RADIUS

    @cached_property
    def offset(self) -> Floats:
        """What is subtracted from input rows (d,): the centre, or the middle of each column."""
        if self.lower is not None and self.upper is not None:
            return np.asarray((np.asarray(self.lower) + np.asarray(self.upper)) / 2)
        return np.zeros(self.width) if self.center is None else np.asarray(self.center, float)

    @cached_property
    def half_widths(self) -> Floats:
        """Input units per feature unit (d,): half of each column's range for tables, else ones."""
        if self.lower is not None and self.upper is not None:
            return np.asarray((np.asarray(self.upper) - np.asarray(self.lower)) / 2)
        return np.ones(self.width)

    @cached_property
    def _limits(self) -> tuple[Floats, Floats]:
        return np.asarray(self.lower, float), np.asarray(self.upper, float)

    def edges_on_lattice(
        self, edges: tuple[Floats, ...], columns: npt.NDArray[np.int64] | None
    ) -> tuple[Floats, ...]:
        """Edges of columns (those numbered, or all) in the units of lattice coordinates."""
        which = range(self.width) if columns is None else columns.tolist()
        mapped = []
        for given, j in zip(edges, which, strict=True):
            scaled = (given - self.offset[j]) / self.half_widths[j] / self.step
            # Between two edges that round to the same point lies one value, which has that lattice
            # point.
            for pair in np.flatnonzero(np.diff(scaled) == 0).tolist():
                point = np.rint(scaled[pair])
                scaled[: pair + 1] = np.minimum(scaled[: pair + 1], point - 0.5)
                scaled[pair + 1 :] = np.maximum(scaled[pair + 1 :], point + 0.5)
            if self.lower is not None and self.upper is not None:
                # Edges within the range tell its ends apart from all values between them.
                ends = (np.array([self.lower[j], self.upper[j]]) - self.offset[j]) / self.step
                least, most = np.rint(ends / self.half_widths[j])
                scaled[given > self.lower[j]] = np.maximum(
                    scaled[given > self.lower[j]], least + 0.5
                )
                scaled[given < self.upper[j]] = np.minimum(
                    scaled[given < self.upper[j]], most - 0.5
                )
            mapped.append(scaled)
        return tuple(mapped)

    def to_lattice(
        self,
        features: npt.NDArray[Any],
        valid: Bools | None = None,
        out: Reals | None = None,
    ) -> tuple[Reals, Bools]:
        """Put rows on the lattice; rows that are not finite become zero vectors and invalid.

        Parameters
        ----------
        features : array (n, d) of any real dtype, input units; arbitrary where not valid
        valid : bool array (n,), or None when every row is structurally valid
        out : float32 or float64 array (n, d) to write to; by default a new float64 array

        Returns
        -------
        u : array (n, d) of integers with exact squared norm <= FEATURE_RADIUS**2. They are below
            2**24, so float32 holds them exactly, in half the space.
        valid : bool array (n,)
        """
        u: Reals = np.empty(features.shape) if out is None else out
        good: Bools = np.ones(len(u), dtype=np.bool_)
        if valid is not None:
            np.logical_and(good, valid, out=good)
        norms = np.empty(len(u))
        # Some hundred rows at a time: they stay in the cache from one step to the next.
        rows = max(1, _CACHED_BYTES // (8 * self.width))
        scratch = np.empty((min(rows, len(u)), self.width))
        with np.errstate(all="ignore"):  # a warning would depend on the data
            for start in range(0, len(u), rows):
                part = slice(start, start + rows)
                z = scratch[: len(u[part])]
                self._to_features(z, features[part], good[part])
                z *= FEATURE_RADIUS / self.norm
                np.rint(z, out=z)
                np.vecdot(z, z, out=norms[part])
                u[part] = z
            # This comparison is exact: squared norms up to FEATURE_RADIUS**2 are exact sums, and
            # larger ones cannot round down past it. NaN compares false.
            outside = np.flatnonzero(~(norms <= float(FEATURE_RADIUS) ** 2))
            if outside.size:
                z = np.empty((len(outside), self.width))
                self._to_features(z, features[outside], good[outside])
                u[outside], finite = self._bring_in(z)
                good[outside] &= finite
        return u, good

    def _to_features(self, z: Floats, features: npt.NDArray[Any], valid: Bools) -> None:
        """Write the feature coordinates of rows to ``z``; rows that are not valid count as zero."""
        np.copyto(z, features)
        if not valid.all():
            z[~valid] = 0.0
        if self.lower is not None and self.upper is not None:
            np.copyto(z, np.nan, where=np.isinf(z))  # clipping would make infinities valid
            np.clip(z, *self._limits, out=z)
            z -= self.offset
            z /= self.half_widths
        elif self.center is not None:
            # Far beyond any bound only the direction is kept, so clipping first avoids overflow.
            finite = np.isfinite(z)
            np.clip(z, -1e300, 1e300, out=z, where=finite)
            z -= self.offset

    def _bring_in(self, z: Floats) -> tuple[Floats, Bools]:
        """Scale rows that are too long by an exact power of two, round, then shrink exactly."""
        finite: Bools = np.logical_and.reduce(np.isfinite(z), axis=1)
        z = np.where(finite[:, None], z, 0.0)
        _, exponent = np.frexp(np.abs(z).max(axis=1, initial=0.0))
        _, bound = math.frexp(self.norm)
        # One power above that of the bound: still too long, but exact for up to 2**16 features.
        z = np.ldexp(z, -np.maximum(exponent - bound - 1, 0)[:, None])
        u = np.rint(z * (FEATURE_RADIUS / self.norm))
        return shrink_to_radius(u, FEATURE_RADIUS), finite
