"""The query and the answer of a pass in floating point: the model's side.

Latent coordinates ``y`` (p,) are defined by :class:`Latent`. In a cell a row has the coordinates
``w = whiten @ (y - centre)``, in standard deviations if ``whiten`` whitens.
:mod:`dpgmm_dist.pipeline.compile` turns a :class:`PassPlan` into exact integers and the noisy
integers back into an :class:`Observed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Statistic = Literal["count", "sum", "second", "square"]

POWERS: Mapping[str, int] = {"count": 0, "sum": 1, "second": 2, "square": 2, "bins": 0}
"""The power of a row's length with which each statistic grows."""


@dataclass(frozen=True, eq=False)
class Latent:
    """The working coordinates: ``y = basis.T @ (z - offset)`` of feature space z (d,)."""

    width: int
    basis: Floats | None = None
    """(d, p) orthonormal columns; None for all of feature space."""
    offset: Floats | None = None
    """(d,) feature units; None for the origin."""

    @property
    def dimension(self) -> int:
        """Number of latent coordinates p."""
        return self.width if self.basis is None else self.basis.shape[1]

    def to_features(self, y: Floats) -> Floats:
        """Feature coordinates (n, d) of latent points (n, p), on the modelled subspace."""
        z = y if self.basis is None else y @ self.basis.T
        return z if self.offset is None else z + self.offset

    def to_latent(self, z: Floats) -> Floats:
        """Latent coordinates (n, p) of feature points (n, d)."""
        centred = z if self.offset is None else z - self.offset
        return centred if self.basis is None else centred @ self.basis


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """One statistic to measure, over groups of cells, at a cost of rho."""

    statistic: Statistic
    groups: Ints
    """(C,) group of each cell, from 0."""
    rho: float
    radius: float | None = None
    """Clipping radius of this block alone; None for the radius of the pass."""
    axes: tuple[int, int] | None = None
    """The coordinates, from start to stop, that the block sees; None for all."""


@dataclass(frozen=True, eq=False)
class PassPlan:
    """One pass over C cells, in latent floating-point coordinates."""

    step: str
    cell_label: Ints
    """(C,) label index, not decreasing."""
    centres: Floats
    """(C, p) latent."""
    radius: float
    """Clipping radius in cell coordinates (feature units without maps)."""
    blocks: tuple[BlockPlan, ...]
    whiten: tuple[Floats, ...] = ()
    """(p, p) each, or (p,) where only the diagonal is not 0; empty for unmapped coordinates."""
    cell_map: Ints | None = None
    """(C,) index into ``whiten``."""
    rule: Literal["label", "nearest", "full"] = "label"
    metric: Floats | None = None
    """(p, p) for rule "nearest": distances are taken after this map."""
    offsets: Floats | None = None
    """(C,) added to squared distances: -2 log weight - 2 log |det whiten|."""
    soft: bool = False

    @property
    def rho(self) -> float:
        """zCDP cost of the pass."""
        return sum(block.rho for block in self.blocks)


@dataclass(frozen=True, eq=False)
class BinsBlock:
    """Counts of bins of every column, at a cost of rho."""

    rho: float
    bins: tuple[Ints, ...] | None = None
    """For each column the bin of each code; None where every code is a bin."""
    by_label: bool = False
    """Whether the rows of each label are counted separately."""


@dataclass(frozen=True, eq=False)
class BinsPlan:
    """One pass that counts, for each column, the rows in each bin of its values, in input units."""

    step: str
    edges: tuple[Floats, ...]
    """For each column, increasing; a value's code is the number of edges that are at most it."""
    blocks: tuple[BinsBlock, ...]
    columns: Ints | None = None
    """(c,) which features are counted; None for all of them."""
    about: Floats | None = None
    """(d,): the only column is then the distance of the row from this point."""
    missing: bool = False
    """Whether values that are missing have a code of their own, the last."""

    @property
    def rho(self) -> float:
        """zCDP cost of the pass."""
        return sum(block.rho for block in self.blocks)


@dataclass(frozen=True, eq=False)
class ObservedBins:
    """Noisy counts of bins."""

    counts: tuple[Floats, ...]
    """(B_j,) of each column j; (L, B_j) where labels are counted separately."""
    sigma: float
    """Standard deviation of the noise on each count."""


@dataclass(frozen=True, eq=False)
class ObservedBlock:
    """A noisy statistic in cell coordinates, with the scale of its noise."""

    statistic: Statistic
    groups: Ints
    values: Floats
    """(G,) for counts and squares, (G, p) or (G, p, p)."""
    sigma: float
    """Standard deviation of the noise on each number (diagonal ones, for second moments;
    off-diagonal ones have variance half of that)."""


@dataclass(frozen=True, eq=False)
class Observed:
    """The noisy answer to a pass, with the cells it was asked about."""

    step: str
    cell_label: Ints
    centres: Floats
    """(C, p) latent, exactly as asked (on the lattice)."""
    inverses: Callable[[], Floats]
    """Computes `unwhiten`; called when it is first read."""
    radius: float
    blocks: tuple[ObservedBlock, ...]
    rho: float

    @cached_property
    def unwhiten(self) -> Floats:
        """(C, p, p): ``y - centre = unwhiten @ w``."""
        return self.inverses()

    def block(self, statistic: Statistic, groups: int | None = None) -> ObservedBlock:
        """The block of this statistic (with this number of groups, where there are several)."""
        for block in self.blocks:
            if block.statistic == statistic and groups in (None, len(block.values)):
                return block
        raise KeyError(f"pass {self.step} has no {statistic} over {groups} groups")

    def has(self, statistic: Statistic) -> bool:
        """Whether the pass measured this statistic at all."""
        return any(block.statistic == statistic for block in self.blocks)


def inverses_of(maps: Sequence[Floats], cell_map: Ints) -> Floats:
    """(C, p, p) inverse maps of the cells; one map that all cells share is inverted once."""
    found = [np.diag(1 / given) if given.ndim == 1 else np.linalg.inv(given) for given in maps]
    if len(found) == 1:
        return np.broadcast_to(found[0], (len(cell_map), *found[0].shape))
    return np.stack([found[index] for index in cell_map])
