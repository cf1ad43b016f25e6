"""The covariances of a mixture, in full or with shared axes, and densities and samples from them.

A full covariance takes p x p numbers a component. Where components share most of it, it is stored
once: ``axes @ diag(block, identity) @ axes.T`` with one matrix of axes, and a small block for each
component along the first q of them. A component then takes q x q numbers, and its density, its
samples and its image under a linear map are computed without a p x p matrix of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.numerics.repeatable import Grid, repeatable_matmul

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Scorer = Callable[[Floats], Floats]
"""Log densities (n, C) of rows (n, p)."""

_SYMMETRY_TOLERANCE = 1e-9
_MOST_FULL_BYTES = 1 << 31
"""Most bytes of full matrices that are built from a shared form."""


@dataclass(frozen=True, eq=False)
class FullCovariances:
    """One matrix for each component.

    Parameters
    ----------
    matrices
        (C, p, p), symmetric and positive definite. The lower triangle is what is kept.

    Raises
    ------
    ValueError
        When a matrix is not symmetric positive definite.
    """

    matrices: Floats
    are_equal: bool = field(init=False)
    """Whether all matrices are equal: then factoring and mapping rows is done once."""
    roots: Floats = field(init=False, repr=False)
    """(C, p, p), lower triangular factors."""

    def __post_init__(self) -> None:
        matrices = _mirror_lower(self.matrices)
        are_equal = bool((matrices[1:] == matrices[:1]).all())
        roots = _factor(matrices[:1]) if are_equal else _factor(matrices)
        matrices.setflags(write=False)
        object.__setattr__(self, "matrices", matrices)
        object.__setattr__(self, "are_equal", are_equal)
        object.__setattr__(self, "roots", np.broadcast_to(roots, matrices.shape))

    @property
    def shape(self) -> tuple[int, int]:
        """C and p."""
        return self.matrices.shape[0], self.matrices.shape[1]

    @property
    def n_parameters(self) -> int:
        """Number of free parameters: one matrix where all are equal, diagonals where all are."""
        distinct = self.matrices[:1] if self.are_equal else self.matrices
        count, p = len(distinct), self.shape[1]
        diagonals = np.diagonal(distinct, axis1=1, axis2=2)
        if np.count_nonzero(distinct) > np.count_nonzero(diagonals):
            return count * p * (p + 1) // 2
        return count if (diagonals == diagonals[:, :1]).all() else count * p

    def full(self) -> Floats:
        """(C, p, p)."""
        return self.matrices

    def traces(self) -> Floats:
        """(C,)."""
        return np.asarray(np.trace(self.matrices, axis1=1, axis2=2))

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> FullCovariances:
        """Those of some components, by index or mask."""
        return FullCovariances(self.matrices[chosen])

    def scaled(self, factor: float) -> FullCovariances:
        """All of them times a positive number."""
        return FullCovariances(factor * self.matrices)

    def regularised(self, weights: Floats, share: float) -> FullCovariances:
        """Each with this share of what it differs by from their average by weights (C,)."""
        average = np.einsum("c,cij->ij", weights, self.matrices)
        return FullCovariances(average + share * (self.matrices - average))

    def scorer(self, means: Floats) -> Scorer:
        """The log densities of components with these means (C, p), by forward substitution."""
        from scipy.linalg import solve_triangular

        p = self.shape[1]
        half_log_dets = [float(np.log(np.diagonal(root)).sum()) for root in self.roots]
        if self.are_equal:
            places = solve_triangular(self.roots[0], means.T, lower=True)

        def score(rows: Floats) -> Floats:
            out = np.empty((len(rows), len(means)))
            if self.are_equal:
                shared = solve_triangular(self.roots[0], rows.T, lower=True)
            for k, root in enumerate(self.roots):
                if self.are_equal:
                    white = shared - places[:, k, None]
                else:
                    white = solve_triangular(root, (rows - means[k]).T, lower=True)
                with np.errstate(over="ignore"):
                    energy = np.einsum("ij,ij->j", white, white)
                out[:, k] = -0.5 * (energy + p * np.log(2 * np.pi)) - half_log_dets[k]
            return out

        return score

    def coloured(self, white: Floats, index: Integers) -> Floats:
        """Standard normal rows (n, p), given the covariance of their components (n,); in place."""
        for k, members in _members(index):
            rows = np.take(white, members, axis=0)
            white[members] = repeatable_matmul(rows, self.roots[k].T)
        return white


@dataclass(frozen=True, eq=False)
class SharedCovariances:
    """One matrix of axes for all components, and a block for each along the first of them.

    Parameters
    ----------
    axes
        (p, p), invertible. Not copied.
    blocks
        (C, q, q) with q from 0 to p, symmetric and positive definite. The lower triangle is what
        is kept.

    Raises
    ------
    ValueError
        When shapes disagree, a number is not finite, or a block is not positive definite.
    """

    axes: Floats
    blocks: Floats
    roots: Floats = field(init=False, repr=False)
    """(C, q, q), lower triangular factors of the blocks."""

    def __post_init__(self) -> None:
        axes, blocks = np.asarray(self.axes).view(), np.array(self.blocks, dtype=np.float64)
        if axes.ndim != 2 or axes.shape[0] != axes.shape[1] or not np.isfinite(axes).all():
            raise ValueError(f"axes must be finite and of shape (p, p), got {axes.shape}")
        q = blocks.shape[-1]
        if blocks.ndim != 3 or blocks.shape[1] != q or q > len(axes):
            raise ValueError(
                f"blocks must have shape (C, q, q) with q up to {len(axes)}, got {blocks.shape}"
            )
        if not np.isfinite(blocks).all():
            raise ValueError("blocks must be finite, got NaN or infinity")
        if q:
            blocks = _mirror_lower(blocks)
        roots = _factor(blocks) if q else blocks
        for name, value in (("axes", axes), ("blocks", blocks), ("roots", roots)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """C and p."""
        return self.blocks.shape[0], self.axes.shape[0]

    @property
    def n_parameters(self) -> int:
        """Free parameters: of one full matrix, and of the blocks of all but one component."""
        (count, p), q = self.shape, self.own_axes
        return p * (p + 1) // 2 + (count - 1) * q * (q + 1) // 2

    @property
    def own_axes(self) -> int:
        """q, the number of axes along which components have a block of their own."""
        return int(self.blocks.shape[1])

    @property
    def are_equal(self) -> bool:
        """Whether all components have the same covariance."""
        return bool((self.blocks[1:] == self.blocks[:1]).all())

    def full(self) -> Floats:
        """(C, p, p).

        Raises
        ------
        SpecError
            When they would take more than 2 GiB.
        """
        count, p = self.shape
        require_buildable(count, p)
        leading, rest = self._divided()
        out = np.empty((count, p, p))
        shared = rest @ rest.T
        for k, root in enumerate(self.roots):
            half = leading @ root
            whole = shared + half @ half.T
            out[k] = (whole + whole.T) / 2
        return out

    def traces(self) -> Floats:
        """(C,)."""
        leading, rest = self._divided()
        inner = leading.T @ leading
        return np.asarray(np.einsum("cij,ij->c", self.blocks, inner) + float((rest**2).sum()))

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> SharedCovariances:
        """Those of some components, by index or mask."""
        taken = copy(self)  # with what has been computed of the axes
        object.__setattr__(taken, "blocks", self.blocks[chosen])
        object.__setattr__(taken, "roots", self.roots[chosen])
        return taken

    def scaled(self, factor: float) -> SharedCovariances:
        """All of them times a positive number."""
        return SharedCovariances(np.sqrt(factor) * self.axes, self.blocks)

    def regularised(self, weights: Floats, share: float) -> SharedCovariances:
        """Each with this share of what it differs by from their average by weights (C,)."""
        average = np.einsum("c,cij->ij", weights, self.blocks)
        return SharedCovariances(self.axes, average + share * (self.blocks - average))

    def mapped(self, columns: Floats) -> SharedCovariances:
        """The covariances of ``columns @ x`` (m, p), for m up to p, in the same form."""
        return from_columns(columns @ self.axes, self.blocks)

    @cached_property
    def log_determinant(self) -> float:
        """log |det axes|, the common part of the log determinants of all components.

        Raises
        ------
        ValueError
            When the axes are not invertible.
        """
        pivots = np.abs(np.diagonal(self._decomposed[0]))
        if not pivots.min() > 0:
            raise ValueError("axes must be invertible")
        return float(np.log(pivots).sum())

    def scorer(self, means: Floats) -> Scorer:
        """The log densities of components with these means (C, p): O(p + q^2) each a row."""
        from scipy.linalg import lu_solve, solve_triangular

        p, q = self.shape[1], self.own_axes
        log_norm = p * np.log(2 * np.pi) + 2 * self.log_determinant
        log_norms = [log_norm + 2 * float(np.log(np.diagonal(root)).sum()) for root in self.roots]
        # About their middle, so that squares cancel as little as possible.
        middle = means.mean(axis=0)
        places = lu_solve(self._decomposed, (means - middle).T).T
        lengths = np.einsum("ij,ij->i", places[:, q:], places[:, q:])

        def score(rows: Floats) -> Floats:
            with np.errstate(over="ignore", invalid="ignore"):
                white = lu_solve(self._decomposed, (rows - middle).T, check_finite=False).T
                rest = white[:, q:]
                energy = np.einsum("ij,ij->i", rest, rest)[:, None] + lengths
                energy -= 2 * rest @ places[:, q:].T
                # A row so far away that its square overflows has no density.
                np.copyto(energy, np.inf, where=~np.isfinite(energy))
                np.maximum(energy, 0.0, out=energy)
                for k, root in enumerate(self.roots if q else ()):
                    apart = (white[:, :q] - places[k, :q]).T
                    whitened = solve_triangular(root, apart, lower=True, check_finite=False)
                    energy[:, k] += np.einsum("ij,ij->j", whitened, whitened)
            return np.asarray(-0.5 * (energy + log_norms))

        return score

    def coloured(self, white: Floats, index: Integers) -> Floats:
        """Standard normal rows (n, p), given the covariance of their components (n,)."""
        q = self.own_axes
        if q:
            for k, members in _members(index):
                white[members, :q] = repeatable_matmul(white[members, :q], self.roots[k].T)
        return repeatable_matmul(white, self._grid)

    @cached_property
    def _grid(self) -> Grid:
        return Grid.of(np.ascontiguousarray(self.axes.T))

    def _divided(self) -> tuple[Floats, Floats]:
        """The axes (p, q) of the blocks, and the other ones (p, p - q)."""
        return self.axes[:, : self.own_axes], self.axes[:, self.own_axes :]

    @cached_property
    def _decomposed(self) -> tuple[Floats, NDArray[np.int32]]:
        import warnings

        from scipy.linalg import LinAlgWarning, lu_factor

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinAlgWarning)  # `log_determinant` refuses it
            found: tuple[Floats, NDArray[np.int32]] = lu_factor(self.axes)
        return found


Covariances = FullCovariances | SharedCovariances


def covariances_of(value: ArrayLike | Covariances) -> Covariances:
    """The form as it is, or a matrix for each component; ValueError if they are not finite."""
    if isinstance(value, FullCovariances | SharedCovariances):
        return value
    # A copy: the caller's array stays writable.
    matrices = np.array(value, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not matrices.size:
        raise ValueError(f"covariances must have shape (C, p, p), got {matrices.shape}")
    if not np.isfinite(matrices).all():
        raise ValueError("covariances must be finite, got NaN or infinity")
    return FullCovariances(matrices)


def require_buildable(count: int, p: int) -> None:
    """Refuse to build matrices (p, p) from a shared form if together they would be too large.

    Raises
    ------
    SpecError
        When they would take more than 2 GiB.
    """
    needed = 8 * count * p * p
    if needed > _MOST_FULL_BYTES:
        raise SpecError(
            f"{count:,} full covariances of {p:,} x {p:,} numbers would take "
            f"{needed / 2**30:.3g} GiB. They share their axes: samples and densities are computed "
            "without them, and mixture.form has the axes and a block for each component"
        )


def from_columns(columns: Floats, blocks: Floats) -> SharedCovariances:
    """``columns @ diag(block, identity) @ columns.T`` of each block, with square axes.

    Parameters
    ----------
    columns
        (p, d) of rank p, p at most d.
    blocks
        (C, q, q).
    """
    p, q = len(columns), blocks.shape[1]
    if columns.shape[1] == p:
        # Signs of eigenvectors are arbitrary: the largest entry of each axis is positive.
        signs = np.sign(columns[np.abs(columns).argmax(axis=0), np.arange(p)])
        return SharedCovariances(columns * signs, blocks * np.outer(signs[:q], signs[:q]))
    root = np.asarray(np.linalg.cholesky(columns @ columns.T))
    if not q:
        return SharedCovariances(root, blocks)
    # root @ (I + lead (block - I) lead.T) @ root.T; along an orthonormal basis that begins with
    # the span of lead, all but a small block is the identity.
    lead = np.linalg.solve(root, columns[:, :q])
    turn, small = np.linalg.qr(lead, mode="complete")
    small = small[: min(p, q)]
    inner = np.eye(len(small)) + small @ (blocks - np.eye(q)) @ small.T
    return SharedCovariances(root @ turn, (inner + inner.transpose(0, 2, 1)) / 2)


def _members(index: Integers) -> list[tuple[int, NDArray[np.intp]]]:
    """Each component that occurs, and the positions where it does, in their order."""
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index)
    stops = np.cumsum(counts)
    return [(k, order[stops[k] - counts[k] : stops[k]]) for k in np.flatnonzero(counts).tolist()]


def _mirror_lower(matrices: Floats) -> Floats:
    """Symmetric copies of the lower triangles, refusing what was not symmetric to begin with."""
    scale = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    asymmetry = np.abs(matrices - matrices.transpose(0, 2, 1))
    if (asymmetry > _SYMMETRY_TOLERANCE * scale).any():
        raise ValueError("covariances must be symmetric")
    lower = np.tril(matrices)
    return np.asarray(lower + np.tril(matrices, -1).transpose(0, 2, 1))


def _factor(matrices: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.cholesky(matrices))
    except np.linalg.LinAlgError:
        raise ValueError("covariances must be positive definite") from None
