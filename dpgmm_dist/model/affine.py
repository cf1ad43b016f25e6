"""The affine map between a user's units (x), feature units (z) and latent coordinates (y).

z_j = (x_j - center_j) / half_width_j;  y = Q^T (z - m);  z = m + Q y + residual, where the
residual has covariance residual_variance * (I - Q Q^T). Without a projection Q is the identity.
Every value here is public: bounds from the specification, Q and m from noisy answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.numerics.repeatable import repeatable_matmul
from dpgmm_dist.model.tables.column_map import ColumnMap
from dpgmm_dist.model.tables.column_map import log_prob as log_prob_of_columns

Floats = NDArray[np.float64]

# Projections may have been rounded to a lattice, which leaves them this close to orthonormal.
_ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Transform:
    """Map of d input columns to p <= d latent coordinates, and back.

    Parameters
    ----------
    center
        (d,), in input units: the public centre of an embedding, the middle of a column's bounds.
    half_width
        (d,), positive, in input units per feature unit: 1 for embeddings, half the width of a
        column's bounds for tables.
    basis
        Q, (d, p) with orthonormal columns, or None without a projection (p = d).
    offset
        m, (d,) in feature units; zeros when None.
    residual_variance
        Variance of the d - p directions outside the basis, each, in feature units squared.
        Positive with a projection to p < d, 0 otherwise.
    columns
        Maps of single columns instead of the affine ones: z_j is then the score of x_j. They cannot
        be combined with a projection. ``center`` and ``half_width`` still describe the bounds of
        the columns. After the scores of the d columns come the presence scores of the columns that
        lack values (NaN).

    Raises
    ------
    ValueError
        When shapes disagree or a value is not finite, not positive or not orthonormal.
    """

    center: Floats
    half_width: Floats
    basis: Floats | None = None
    offset: Floats | None = None
    residual_variance: float = 0.0
    columns: tuple[ColumnMap, ...] = ()

    def __post_init__(self) -> None:
        center = _finite_array("center", self.center, 1)
        width = center.shape[0]
        half_width = _finite_array("half_width", self.half_width, 1)
        scores = width + len(self.lacking)
        given = np.zeros(scores) if self.offset is None else self.offset
        offset = _finite_array("offset", given, 1)
        if width == 0 or half_width.shape != (width,) or offset.shape != (scores,):
            raise ValueError(
                f"center, half_width and offset must have the same length of at least 1, got "
                f"{center.shape}, {half_width.shape} and {offset.shape}"
            )
        if self.columns and (len(self.columns) != width or self.basis is not None):
            raise ValueError(
                f"maps of columns must be one for each of {width} columns, and have no basis"
            )
        if (half_width <= 0).any():
            raise ValueError(f"half_width must be positive, got {float(half_width.min())}")
        basis = None if self.basis is None else _orthonormal(self.basis, width)
        _check_residual(float(self.residual_variance), projected=_latent(basis, width) < width)
        object.__setattr__(self, "residual_variance", float(self.residual_variance))
        for name, value in (
            ("center", center),
            ("half_width", half_width),
            ("basis", basis),
            ("offset", offset),
        ):
            if value is not None:
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def identity(cls, width: int) -> Transform:
        """The transform that changes nothing, for rows of ``width`` columns."""
        return cls(center=np.zeros(width), half_width=np.ones(width))

    @property
    def input_dimension(self) -> int:
        """d, the number of input columns."""
        return int(self.center.shape[0])

    @property
    def latent_dimension(self) -> int:
        """p, the number of latent coordinates."""
        return _latent(self.basis, self.input_dimension) + len(self.lacking)

    @property
    def lacking(self) -> tuple[int, ...]:
        """The columns that lack values in some rows, in the order of their presence scores."""
        return tuple(j for j, c in enumerate(self.columns) if c.absent_below is not None)

    @property
    def residual_dimension(self) -> int:
        """d - p, the number of directions the mixture does not model."""
        return self.input_dimension - _latent(self.basis, self.input_dimension)

    @property
    def is_identity(self) -> bool:
        """Whether latent coordinates are the input columns themselves."""
        return bool(
            self.basis is None
            and not self.columns
            and not self.center.any()
            and not self._offset.any()
            and (self.half_width == 1).all()
        )

    @property
    def _offset(self) -> Floats:
        width = self.input_dimension + len(self.lacking)
        return np.zeros(width) if self.offset is None else self.offset

    def to_latent(self, rows: ArrayLike) -> Floats:
        """Latent coordinates (n, p) of rows (n, d) in input units."""
        return self._project(self._centred(rows))

    def residual_energy(self, rows: ArrayLike) -> Floats:
        """Squared feature-unit distance (n,) of rows (n, d) to the modelled subspace."""
        centred = self._centred(rows)
        if self.basis is None:
            return np.zeros(centred.shape[0])
        # The residual vector first: ||z||^2 - ||y||^2 would cancel for rows near the subspace.
        residual = centred - self._project(centred) @ self.basis.T
        return np.asarray(np.einsum("ij,ij->i", residual, residual))

    def residual_log_prob(self, rows: ArrayLike) -> Floats:
        """Natural log density (n,) of the residual of rows (n, d), in feature units; 0 if p = d."""
        energy = self.residual_energy(rows)
        if self.residual_dimension == 0:
            return np.zeros(energy.shape[0])
        variance = self.residual_variance
        log_norm = self.residual_dimension * math.log(2 * math.pi * variance)
        return np.asarray(-0.5 * (energy / variance + log_norm))

    @property
    def log_jacobian(self) -> float:
        """log |dz/dx|: added to a log density in feature units, it gives that in input units.

        Where columns have their own maps, `log_prob` includes it instead.
        """
        if self.columns:
            raise ValueError("maps of columns have no one Jacobian")
        return -float(np.log(self.half_width).sum())

    def log_prob(self, mixture: Mixture, rows: ArrayLike) -> Floats:
        """Natural log density (n,) of rows (n, d) in input units under a latent mixture.

        It includes the residual where there is a projection. Rows that are not finite are refused.
        Where a column may lack values, NaN stands for a missing value.
        """
        if self.columns:
            checked = _rows("rows", rows, self.input_dimension)
            known = np.isfinite(checked)
            known[:, list(self.lacking)] |= np.isnan(checked[:, list(self.lacking)])
            if not known.all():
                raise ValueError("rows must be finite")
            moved = replace(mixture, means=mixture.means + self._offset)
            return log_prob_of_columns(moved, self.columns, checked)
        density = mixture.log_prob(self.to_latent(rows)) + self.residual_log_prob(rows)
        return np.asarray(density)

    def to_input(self, latent: ArrayLike, residual_noise: ArrayLike | None = None) -> Floats:
        """Rows (n, d) in input units of latent coordinates (n, p).

        Parameters
        ----------
        latent
            (n, p).
        residual_noise
            (n, d) standard normal draws, which become the residual; None leaves it out, as does
            p = d.

        Returns
        -------
        ndarray, shape (n, d)
            The same bits on every machine for the same arguments (see ``repeatable``).
        """
        rows = _rows("latent", latent, self.latent_dimension)
        if self.basis is not None:
            rows = repeatable_matmul(rows, self.basis.T)
            if residual_noise is not None and self.residual_dimension > 0:
                noise = _rows("residual_noise", residual_noise, self.input_dimension)
                inside = repeatable_matmul(repeatable_matmul(noise, self.basis), self.basis.T)
                rows += math.sqrt(self.residual_variance) * (noise - inside)
        if self.columns:
            scores = self._offset + rows
            values = np.stack(
                [column.to_values(scores[:, j]) for j, column in enumerate(self.columns)], axis=1
            )
            for index, j in enumerate(self.lacking, start=self.input_dimension):
                below = self.columns[j].absent_below
                if below is not None:
                    values[scores[:, index] < below, j] = np.nan
            return values
        return np.asarray(self.center + self.half_width * (self._offset + rows))

    def _centred(self, rows: ArrayLike) -> Floats:
        """z - m for rows (n, d) in input units."""
        checked = _rows("rows", rows, self.input_dimension)
        if self.columns:
            missing = np.isnan(checked)
            scores = [
                np.where(missing[:, j], 0.0, column.to_scores(checked[:, j]))
                for j, column in enumerate(self.columns)
            ]
            for j in self.lacking:
                below = float(self.columns[j].absent_below or 0.0)
                scores.append(np.where(missing[:, j], below - 1.0, below + 1.0))
            return np.asarray(np.stack(scores, axis=1) - self._offset)
        return np.asarray((checked - self.center) / self.half_width - self._offset)

    def _project(self, centred: Floats) -> Floats:
        return centred if self.basis is None else np.asarray(centred @ self.basis)


def _latent(basis: Floats | None, width: int) -> int:
    return width if basis is None else int(basis.shape[1])


def _finite_array(name: str, value: ArrayLike, ndim: int) -> Floats:
    array = np.array(value, dtype=np.float64)
    if array.ndim != ndim or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite with {ndim} dimension(s), got {array.shape}")
    return array


def _rows(name: str, value: ArrayLike, width: int) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name} must have shape (n, {width}), got {array.shape}")
    return array


def _orthonormal(value: ArrayLike, width: int) -> Floats:
    basis = _finite_array("basis", value, 2)
    if basis.shape[0] != width or not 1 <= basis.shape[1] <= width:
        raise ValueError(f"basis must have shape ({width}, p), 1 <= p <= {width}: {basis.shape}")
    error = float(np.abs(basis.T @ basis - np.eye(basis.shape[1])).max())
    if error > _ORTHONORMAL_TOLERANCE:
        raise ValueError(f"the columns of basis must be orthonormal, they are off by {error:.3g}")
    return basis


def _check_residual(variance: float, *, projected: bool) -> None:
    if not math.isfinite(variance) or variance < 0 or (projected and variance == 0):
        raise ValueError(
            "residual_variance must be positive with a projection to fewer dimensions and at "
            f"least 0 otherwise, got {variance}"
        )
