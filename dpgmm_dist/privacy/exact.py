"""Exact sums of private rows, in a type that shows nothing of its content.

Integers are kept in two int64 limbs, ``hi * 2**32 + lo`` with ``0 <= lo < 2**32``, so that totals
over the public capacity do not wrap. The type is pickled to move between workers. Its repr shows
nothing, it cannot be compared, hashed or converted, and only
:func:`dpgmm_dist.privacy.measure.measure` opens it.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LIMB = 32
_MASK = (1 << _LIMB) - 1


class ExactStatistic:
    """PRIVATE. Exact integer sums for the blocks of one query, one flat vector per block."""

    __slots__ = ("_hi", "_lo", "_step")

    def __init__(self, step: str, hi: tuple[Ints, ...], lo: tuple[Ints, ...]) -> None:
        self._step = step
        self._hi = hi
        self._lo = lo

    @classmethod
    def zeros(cls, step: str, sizes: tuple[int, ...]) -> ExactStatistic:
        """Return the sum over no rows, with a vector of the given length for each block."""
        return cls(
            step,
            tuple(np.zeros(n, dtype=np.int64) for n in sizes),
            tuple(np.zeros(n, dtype=np.int64) for n in sizes),
        )

    def add_integers(self, block: int, values: Ints) -> None:
        """Add a vector of int64 integers to one block, in place."""
        lo = self._lo[block] + (values & _MASK)
        self._hi[block][:] += (values >> _LIMB) + (lo >> _LIMB)
        self._lo[block][:] = lo & _MASK

    def merge(self, other: ExactStatistic) -> ExactStatistic:
        """Return the sum of two partial sums of the same query.

        Associative and commutative to the bit. Raises ValueError for sums of different queries.
        """
        if self._step != other._step or len(self._hi) != len(other._hi):
            raise ValueError("partial sums of different queries cannot be added")
        his, los = [], []
        for hi_a, lo_a, hi_b, lo_b in zip(self._hi, self._lo, other._hi, other._lo, strict=True):
            lo = lo_a + lo_b
            his.append(hi_a + hi_b + (lo >> _LIMB))
            los.append(lo & _MASK)
        return ExactStatistic(self._step, tuple(his), tuple(los))

    def _open_for_the_gate(self, step: str, block: int, noise: Ints) -> Floats:
        """Add noise to one block, then round the sum to float64.

        Raises ValueError unless there is one noise value for every integer, drawn for this query.
        """
        if step != self._step or noise.shape != self._lo[block].shape:
            raise ValueError("exact sums can only be opened with noise drawn for their own query")
        lo = self._lo[block] + noise
        hi = self._hi[block] + (lo >> _LIMB)
        return hi.astype(np.float64) * float(1 << _LIMB) + (lo & _MASK)

    def __repr__(self) -> str:
        return "ExactStatistic(private)"

    def __sizeof__(self) -> int:
        return 16 * sum(len(hi) for hi in self._hi) + 200

    def __reduce__(self) -> tuple[type[ExactStatistic], tuple[object, ...]]:
        return ExactStatistic, (self._step, self._hi, self._lo)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("exact private sums cannot be compared, hashed, indexed or converted")

    __eq__ = _refuse
    __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = _refuse
    __bool__ = __int__ = __float__ = __len__ = __iter__ = _refuse
    __getitem__ = __array__ = _refuse
