"""Codes: the interval of each column that a row is in, from exact comparisons of floats.

A value's code is the number of edges that are at most it. Edges are public or functions of noisy
answers. Comparing two floats is exact, so the codes of a row depend on that row and the edges
alone, bit for bit. A missing value may have a code of its own, one more than the number of edges.
Proof: docs/privacy.md, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.data.lattice import Bools, Floats, Reals

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class ColumnCodes:
    """The map from input rows to their codes, in place of the feature lattice."""

    edges: tuple[Floats, ...]
    """For each column its edges in input units, finite and increasing; fewer than 2**16."""
    columns: Ints | None = None
    """(c,) which features the columns are; None for all of them."""
    about: Floats | None = None
    """(d,): the only column is the distance of the row from this point; None for features."""
    missing: bool = False
    """Whether values that are not finite have a code of their own. Otherwise a row with such a
    value is not valid."""

    def __repr__(self) -> str:
        return f"ColumnCodes({len(self.edges)} columns)"

    def to_lattice(
        self,
        features: npt.NDArray[Any],
        valid: Bools | None = None,
        out: Reals | None = None,
    ) -> tuple[Reals, Bools]:
        """Codes of rows; rows that are not valid have codes zero.

        Those are the rows that are not finite in every feature, unless missing values have codes.

        Parameters
        ----------
        features : array (n, d) of any real dtype, input units; arbitrary where not valid
        valid : bool array (n,), or None when every row is structurally valid
        out : float32 or float64 array (n, c) to write to; by default a new float64 array

        Returns
        -------
        codes : array (n, c) of integers from 0 to the number of edges of the column, and one more
            where values are missing
        valid : bool array (n,)
        """
        codes: Reals = np.empty((len(features), len(self.edges))) if out is None else out
        with np.errstate(all="ignore"):  # a warning would depend on the data
            good: Bools = np.ones(len(features), dtype=np.bool_)
            if not self.missing:
                good &= np.logical_and.reduce(np.isfinite(features), axis=1)
            if valid is not None:
                good &= valid
            for index, edges in enumerate(self.edges):
                values = self._values(features, index)
                found = np.searchsorted(edges, values, "right")
                if self.missing:
                    found[~np.isfinite(values)] = len(edges) + 1
                codes[:, index] = found
        codes[~good] = 0
        return codes, good

    def _values(self, features: npt.NDArray[Any], index: int) -> Floats:
        if self.about is not None:
            return self._distances(features, self.about)
        column = index if self.columns is None else int(self.columns[index])
        return np.ascontiguousarray(features[:, column], dtype=np.float64)

    @staticmethod
    def _distances(features: npt.NDArray[Any], about: Floats) -> Floats:
        """Euclidean distances (n,), summed in the order of the features: the same bits anywhere."""
        total = np.zeros(len(features))
        for column, middle in enumerate(about.tolist()):
            total += np.square(features[:, column].astype(np.float64) - middle)
        return np.sqrt(total)


@dataclass(frozen=True, eq=False, repr=False)
class KeptCodes:
    """The map of rows that are codes already, to those that a query asks for.

    A query may ask for some of the columns, and for a column without edges, whose code says
    whether there is a value.
    """

    kept: tuple[int, ...]
    """Number of edges of each column of the rows."""
    asked: tuple[int, ...]
    """Number of edges of each column of the query: that of the rows' column, or 0."""
    columns: Ints | None = None
    """(c,) which columns of the rows those of the query are; None for all in order."""

    def __post_init__(self) -> None:
        for asked, column in zip(self.asked, self._columns, strict=True):
            if asked not in (0, self.kept[column]):
                raise ValueError("a query asks for other codes than rows were kept with")

    def __repr__(self) -> str:
        return f"KeptCodes({len(self.asked)} columns)"

    @property
    def _columns(self) -> list[int]:
        return list(range(len(self.kept))) if self.columns is None else self.columns.tolist()

    def to_lattice(
        self,
        features: npt.NDArray[Any],
        valid: Bools | None = None,
        out: Reals | None = None,
    ) -> tuple[Reals, Bools]:
        """Codes (n, c) of the query for rows of codes; see `ColumnCodes.to_lattice`."""
        codes: Reals = np.empty((len(features), len(self.asked))) if out is None else out
        good: Bools = np.ones(len(features), dtype=np.bool_)
        if valid is not None:
            good &= valid
        for index, (asked, column) in enumerate(zip(self.asked, self._columns, strict=True)):
            code = features[:, column]
            codes[:, index] = code if asked else code > self.kept[column]
        codes[~good] = 0
        return codes, good
