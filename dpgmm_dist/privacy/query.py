"""What one pass asks of the data: integers only, the same on every worker and every driver.

A :class:`PassQuery` says how a row finds its cell, in which coordinates it is seen there, how it
is clipped, and which moments are summed and measured. It holds only public or already-noisy
numbers, so it can be stored and shown. The kernel executes it, :mod:`.sensitivity` prices it,
:func:`.measure.measure` answers it.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dpgmm_dist.errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FEATURE_RADIUS = 1 << 16
"""Integer norm bound of a row on the feature lattice."""
EXACT = 1 << 53
"""float64 holds every integer up to here, so GEMM on integers bounded by it is exact."""
CAPACITY = 1 << 40
"""Public number of rows that no total may overflow for."""

MOST_CODES = 1 << 16
"""Codes of a column: they are kept with rows, in float32, and index tables."""
LARGEST_SCORE = 1 << 18
"""Bound on the lattice coordinate of a code: 2**16 of them square and sum below 2**53."""

Statistic = Literal["count", "sum", "second", "square", "bins"]
Rule = Literal["label", "nearest", "full"]


@dataclass(frozen=True, eq=False)
class IntMap:
    """A linear map on lattice vectors: ``v = rint(matrix @ u / 2**shift)``."""

    matrix: Ints
    """(p, d) integers."""
    shift: int


@dataclass(frozen=True, eq=False)
class Block:
    """One statistic, summed over groups of cells and measured with one noise scale."""

    statistic: Statistic
    groups: Ints
    """(C,) the group in which each cell's rows are summed."""
    sigma: float
    """Scale of the noise on each integer (on the diagonal, for second moments)."""
    sigma_off: float | None = None
    """Scale on off-diagonal entries of second moments (isotropy asks for sigma / sqrt 2)."""
    radius: int | None = None
    """Norm to which the block scales rows down; None for the radius of the query."""
    axes: tuple[int, int] | None = None
    """The coordinates, from start to stop, that the block sees; None for all."""
    bins: tuple[Ints, ...] | None = None
    """Of statistic "bins": for each column the bin (a number from 0) of each code."""

    @property
    def bin_counts(self) -> tuple[int, ...]:
        """Number of bins of each column; empty for other statistics."""
        return () if self.bins is None else tuple(int(bins.max()) + 1 for bins in self.bins)

    @property
    def group_count(self) -> int:
        """Number of groups G."""
        return int(self.groups.max()) + 1


@dataclass(frozen=True, eq=False)
class Codes:
    """How the values of columns become coordinates on the lattice, by tables of integers."""

    edges: tuple[Floats, ...]
    """For each column its edges in input units, increasing."""
    scores: tuple[Ints, ...]
    """For each column the lattice coordinate of each code."""
    columns: Ints | None = None
    """(c,) which features the columns are, some of them more than once; None for all in order."""
    missing: bool = False
    """Whether values that are missing have a code of their own, the last."""


@dataclass(frozen=True)
class UnitShare:
    """How the rows of one privacy unit enter a query; by default the unit is one row."""

    rows: int = 1
    """The most whole rows m that a unit has in the sums."""
    weighted: bool = False
    """Whether rows are weighted so that all rows of a unit together weigh at most one."""


@dataclass(frozen=True, eq=False)
class PassQuery:
    """One map-reduce over the rows. C cells; cells of one label are consecutive.

    A block sums its rows' weights ("count"), coordinates ("sum"), products of coordinates
    ("second") or squared lengths, each at most the squared radius ("square"), or the weights of the
    rows in each bin of each column ("bins").
    A row with label l belongs to the cells with ``cell_label == l``: to its only one (rule
    "label"), to the one of least ``offset - slope . u`` (rule "nearest": the squared distance in
    one metric, less what all cells share), or by the least ``|v|^2 + offset`` in each cell's own
    coordinates (rule "full"), where ``soft`` shares the row out in units of ``2**-unit_bits``. Its
    coordinates in a cell are
    ``v = map(u - centre)``, scaled down to norm ``radius``.

    With ``edges`` a row is read as its codes: for each column, how many edges are at most its
    value; with ``missing``, one more than the number of edges where it has no finite value. A query
    of "bins" counts, for each column, the rows in each bin of codes. In other queries the
    ``scores`` of the codes are the row's coordinates on the lattice.
    """

    step: str
    width: int
    cell_label: Ints
    centres: Ints
    """(C, d) on the feature lattice."""
    radius: int
    blocks: tuple[Block, ...]
    maps: tuple[IntMap, ...] = ()
    cell_map: Ints | None = None
    """(C,) index into ``maps``; None for the identity map."""
    rule: Rule = "label"
    slopes: Ints | None = None
    """(C, d) of rule "nearest": twice the centre under the square of the metric."""
    offsets: Ints | None = None
    """(C,) of rule "nearest": the squared length of the centre in the metric; of rule "full":
    -2 log weight + log determinant, in squared units."""
    soft: bool = False
    unit_bits: int = 0
    table: Ints | None = None
    """Responsibility before normalisation by excess squared distance, in steps of 2**shift."""
    table_shift: int = 0
    unit_rows: int = 1
    """The most whole rows that one privacy unit has in the sums."""
    weighted: bool = False
    """Whether a row weighs ``floor(2**unit_bits / rows kept of its unit)`` in place of one."""
    edges: tuple[Floats, ...] = ()
    """For each column its edges in input units, increasing; empty for rows on the lattice."""
    columns: Ints | None = None
    """(c,) which features the columns of codes are; None for all of them."""
    about: Floats | None = None
    """(d,) in input units: the only column is the distance of the row from here."""
    scores: tuple[Ints, ...] = ()
    """For each column the lattice coordinate of each code; empty for queries of bins."""
    missing: bool = False
    """Whether values that are missing have a code of their own, the last; without it a row that
    lacks one is not valid."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Public remarks for plan and receipt; not part of what is computed."""

    def __repr__(self) -> str:
        return f"PassQuery({self.step!r}, cells={len(self.cell_label)})"

    @property
    def dimension(self) -> int:
        """Number of coordinates p in a cell."""
        return self.width if self.cell_map is None else int(self.maps[0].matrix.shape[0])

    def radius_of(self, block: Block) -> int:
        """Norm to which rows are scaled down before they enter a block."""
        return self.radius if block.radius is None else block.radius

    def axes_of(self, block: Block) -> tuple[int, int]:
        """The coordinates that a block sees, from start to stop."""
        return (0, self.dimension) if block.axes is None else block.axes

    def dimension_of(self, block: Block) -> int:
        """Number of coordinates that a block sees."""
        start, stop = self.axes_of(block)
        return stop - start

    @property
    def widest_radius(self) -> int:
        """The largest radius of any block: it bounds every sum."""
        return max((self.radius_of(block) for block in self.blocks), default=self.radius)

    @property
    def code_counts(self) -> tuple[int, ...]:
        """Number of codes of each column; empty for rows on the lattice."""
        return tuple(len(edges) + 1 + self.missing for edges in self.edges)

    @property
    def counts_bins(self) -> bool:
        """Whether this is a query of bins: such a query asks for nothing else."""
        return any(block.statistic == "bins" for block in self.blocks)

    @property
    def weight_unit(self) -> int:
        """What a whole row weighs: 1, or 2**unit_bits for soft or weighted rows."""
        return 1 << self.unit_bits if self.soft or self.weighted else 1

    def to_bytes(self) -> bytes:
        """Serialise without pickles (an uncompressed npz with a JSON header)."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        header: dict[str, Any] = {
            "schema": 1,
            "step": self.step,
            "width": self.width,
            "radius": self.radius,
            "rule": self.rule,
            "soft": self.soft,
            "unit_bits": self.unit_bits,
            "table_shift": self.table_shift,
            "map_shifts": [m.shift for m in self.maps],
            "unit_rows": self.unit_rows,
            "weighted": self.weighted,
            "notes": self.notes,
            "blocks": [_block_header(block) for block in self.blocks],
        }
        # Left out where there are none, as versions that did not have them wrote it.
        if self.edges:
            header["coded_columns"] = len(self.edges)
            header["scored"] = bool(self.scores)
        if self.missing:
            header["missing"] = True
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is not None:
                arrays[name] = value
        for index, block in enumerate(self.blocks):
            arrays[f"groups_{index}"] = block.groups
            for column, bins in enumerate(block.bins or ()):
                arrays[f"bins_{index}_{column}"] = bins
        for column, edges in enumerate(self.edges):
            arrays[f"edges_{column}"] = edges
        for column, scores in enumerate(self.scores):
            arrays[f"scores_{column}"] = scores
        for index, int_map in enumerate(self.maps):
            arrays[f"map_{index}"] = int_map.matrix
        return pack(header, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> PassQuery:
        """Read what :meth:`to_bytes` wrote."""
        header, arrays = unpack(data)
        if header.get("schema") != 1:
            raise DataError(
                f"stored query has schema {header.get('schema')!r}; this version reads 1: "
                "resume with the version of dpgmm_dist that began the release"
            )
        columns = range(header.get("coded_columns", 0))
        scored = columns if header.get("scored") else ()
        return cls(
            step=header["step"],
            width=header["width"],
            radius=header["radius"],
            rule=header["rule"],
            soft=header["soft"],
            unit_bits=header["unit_bits"],
            table_shift=header["table_shift"],
            # Queries of versions without privacy units do not have these.
            unit_rows=header.get("unit_rows", 1),
            weighted=header.get("weighted", False),
            notes=header["notes"],
            edges=tuple(arrays[f"edges_{column}"] for column in columns),
            scores=tuple(arrays[f"scores_{column}"] for column in scored),
            missing=header.get("missing", False),
            blocks=tuple(
                _block_of(block, arrays, i, len(columns))
                for i, block in enumerate(header["blocks"])
            ),
            maps=tuple(
                IntMap(arrays[f"map_{i}"], shift) for i, shift in enumerate(header["map_shifts"])
            ),
            **{name: arrays.get(name) for name in _ARRAYS},  # type: ignore[arg-type]
        )


def _block_header(block: Block) -> dict[str, Any]:
    header: dict[str, Any] = {
        "statistic": block.statistic,
        "sigma": block.sigma,
        "sigma_off": block.sigma_off,
    }
    # Left out where they say nothing, as versions that did not have them wrote it.
    if block.radius is not None:
        header["radius"] = block.radius
    if block.axes is not None:
        header["axes"] = list(block.axes)
    return header


def _block_of(
    header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], index: int, columns: int
) -> Block:
    axes = header.get("axes")
    counted = header["statistic"] == "bins"
    return Block(
        header["statistic"],
        arrays[f"groups_{index}"],
        header["sigma"],
        header["sigma_off"],
        radius=header.get("radius"),
        axes=None if axes is None else (axes[0], axes[1]),
        bins=tuple(arrays[f"bins_{index}_{j}"] for j in range(columns)) if counted else None,
    )


_ARRAYS = ("cell_label", "centres", "cell_map", "slopes", "offsets", "table", "columns", "about")


def pack(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """Write a JSON header and named arrays as one npz."""
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, header=text, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read what :func:`pack` wrote; DataError when it is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return json.loads(arrays.pop("header").tobytes()), arrays
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"a stored query or answer is damaged ({type(error).__name__}): "
            "restore the journal from a copy; nothing is drawn again"
        ) from None


def shrink_to_radius(v: Floats, radius: int) -> Floats:
    """Scale integer rows down, truncating toward zero, until ``|v|^2 <= radius**2`` exactly.

    Parameters
    ----------
    v : float64 array (n, p) of integers with squared norms below 2**53
    radius : the integer bound

    Returns
    -------
    array (n, p) of integers; rows within the bound are unchanged.
    """
    bound = float(radius) ** 2
    norms = np.einsum("ij,ij->i", v, v)
    long = np.flatnonzero(norms > bound)
    factor = radius / np.sqrt(norms[long])
    out = v.copy()
    while long.size:
        scaled = np.trunc(v[long] * factor[:, None])
        out[long] = scaled
        again = np.einsum("ij,ij->i", scaled, scaled) > bound
        long, factor = long[again], factor[again] * (1 - 2.0**-30)
    return out
