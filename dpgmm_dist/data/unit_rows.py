"""Which rows of a privacy unit are kept: the least ones, in an order that depends on content alone.

Rows are on the lattice. Their order is that of (keyed hash of the content, content) and never that
of their positions. So the rows kept are the same for every partitioning. The least rows of several
parts are the least among the least rows of each part, so memory stays bounded. Proofs:
docs/privacy.md, section 6.2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.opaque import Opaque
from dpgmm_dist.privacy.query import FEATURE_RADIUS, shrink_to_radius

Small = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, repr=False, eq=False)
class UnitRows(Opaque):
    """PRIVATE. Valid rows on the lattice, each with the digest of its privacy unit and a hash."""

    rows: Small
    """(n, d) integers of at most FEATURE_RADIUS."""
    labels: Small
    """(n,) label indices, none negative."""
    units: npt.NDArray[np.uint8]
    """(n, 32) digests."""
    hashes: Words
    """(n,) keyed hash of each row and its label."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bytes(self) -> int:
        """Bytes of memory that the rows take."""
        return self.rows.nbytes + self.labels.nbytes + self.units.nbytes + self.hashes.nbytes

    def at(self, index: Index) -> UnitRows:
        """The rows at these positions."""
        return UnitRows(self.rows[index], self.labels[index], self.units[index], self.hashes[index])

    @classmethod
    def joined(cls, parts: list[UnitRows]) -> UnitRows:
        """The rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.units for part in parts]),
            np.concatenate([part.hashes for part in parts]),
        )


@dataclass(frozen=True, repr=False, eq=False)
class KeptRows(Opaque):
    """PRIVATE. What some privacy units contribute to the sums."""

    rows: Small
    """(n, d) integers of at most FEATURE_RADIUS."""
    labels: Small
    """(n,) label indices, none negative."""
    kept: Small
    """(n,) how many rows of the row's unit were kept."""


def coefficients(key: bytes, width: int) -> Words:
    """Odd 64-bit factors (width + 1,) derived from a key: one for each feature and the label."""
    data = hashlib.shake_256(b"dpgmm rows of a unit" + key).digest(8 * (width + 1))
    return np.frombuffer(data, dtype="<u8").astype(np.uint64) | np.uint64(1)


def content_hashes(rows: Small, labels: Small, factors: Words) -> Words:
    """A hash (n,) of each row and label, modulo 2**64. It only orders rows."""
    with np.errstate(over="ignore"):
        hashes = rows.astype(np.int64).view(np.uint64) @ factors[:-1]
        hashes += labels.astype(np.int64).view(np.uint64) * factors[-1]
        return _mixed(hashes)


def _mixed(words: Words) -> Words:
    """MurmurHash3's finaliser: a bijection whose high bits depend on all bits of the word."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        words = words ^ (words >> np.uint64(33))
        words = words * np.uint64(factor)
    return np.asarray(words ^ (words >> np.uint64(33)), dtype=np.uint64)


def buckets_of(units: npt.NDArray[np.uint8], salt: int, count: int) -> npt.NDArray[np.int64]:
    """Bucket (n,) of each unit, from 0 to ``count`` - 1.

    The bucket decides only where a unit is worked on. The salt is secret, so that nobody can make
    one bucket larger than the others on purpose.
    """
    with np.errstate(over="ignore"):
        mixed = _mixed(_words(units)[:, 0] ^ np.uint64(salt))
    return np.asarray((mixed >> np.uint64(32)) * np.uint64(count) >> np.uint64(32), dtype=np.int64)


def _words(units: npt.NDArray[np.uint8]) -> Words:
    """View digests as (n, 4) words."""
    return np.ascontiguousarray(units).view(">u8").astype(np.uint64)


def smallest(rows: UnitRows, most: int) -> UnitRows:
    """The least ``most`` rows of each unit by (hash, content), sorted by unit."""
    if not len(rows):
        return rows
    words = _words(rows.units)
    order = np.lexsort((rows.hashes, words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
    new_unit = _changes(words[order])
    rank = _ranks(new_unit)
    if int(rank.max()) < most:
        return rows.at(order)
    _settle_ties(rows, order, new_unit, rank, most)
    return rows.at(order[rank < most])


def _changes(sorted_words: Words) -> npt.NDArray[np.bool_]:
    """Where a row differs from the one before it (n,)."""
    first = np.ones(len(sorted_words), dtype=np.bool_)
    if sorted_words.ndim == 1:
        first[1:] = sorted_words[1:] != sorted_words[:-1]
    else:
        first[1:] = (sorted_words[1:] != sorted_words[:-1]).any(axis=1)
    return first


def _ranks(first: npt.NDArray[np.bool_]) -> Index:
    """Rank of each row in its run, from 0; ``first`` marks where a run begins."""
    starts = np.flatnonzero(first)
    lengths = np.diff(np.append(starts, len(first)))
    return np.arange(len(first)) - np.repeat(starts, lengths)


def _settle_ties(
    rows: UnitRows, order: Index, new_unit: npt.NDArray[np.bool_], rank: Index, most: int
) -> None:
    """Order rows of equal hash by content, in place, where a unit's last kept row is among them.

    Rows of equal content are interchangeable, so there is work only where contents differ. That
    hardly ever happens by chance. Where somebody makes it happen, it costs a sort.
    """
    new_run = new_unit | _changes(rows.hashes[order])
    starts = np.flatnonzero(new_run)
    stops = np.append(starts[1:], len(order))
    split = np.flatnonzero((rank[starts] < most) & (rank[stops - 1] >= most))
    for start, stop in zip(starts[split].tolist(), stops[split].tolist(), strict=True):
        part = order[start:stop]
        if (rows.rows[part] != rows.rows[part[0]]).any() or (
            rows.labels[part] != rows.labels[part[0]]
        ).any():
            order[start:stop] = part[np.argsort(_canonical(rows, part), kind="stable")]


def _canonical(rows: UnitRows, index: Index) -> npt.NDArray[np.void]:
    """The content of rows as bytes, the same on every machine."""
    whole = np.column_stack([rows.rows[index], rows.labels[index]]).astype("<i4")
    return np.ascontiguousarray(whole).view(np.dtype((np.void, 4 * whole.shape[1])))[:, 0]


def kept_of(rows: UnitRows, most: int) -> KeptRows:
    """The rows that are kept of complete units, with the number of rows kept of each unit."""
    rows = smallest(rows, most)
    if not len(rows):
        return KeptRows(rows.rows, rows.labels, np.zeros(0, dtype=np.int32))
    starts = np.flatnonzero(_changes(_words(rows.units)))
    lengths = np.diff(np.append(starts, len(rows)))
    return KeptRows(rows.rows, rows.labels, np.repeat(lengths, lengths).astype(np.int32))


def means_of(rows: UnitRows, most: int) -> KeptRows:
    """One row for each complete unit: the mean of its kept rows that have its commonest label.

    If several labels are equally common, the one of lowest index is used. The sum is exact. The
    quotient is rounded once by the division and once to the lattice, and clipped to the norm bound.
    """
    rows = smallest(rows, most)
    if not len(rows):
        return KeptRows(rows.rows, rows.labels, np.zeros(0, dtype=np.int32))
    unit = np.cumsum(_changes(_words(rows.units))) - 1
    order = np.lexsort((rows.labels, unit))
    unit, labels = unit[order], rows.labels[order]
    starts = np.flatnonzero(_changes(np.column_stack([unit, labels]).astype(np.uint64)))
    counts = np.diff(np.append(starts, len(order)))
    sums = np.add.reduceat(rows.rows[order].astype(np.int64), starts, axis=0)
    # Order runs by unit, falling count and label: the first run of each unit gives its row.
    best = np.lexsort((labels[starts], -counts, unit[starts]))
    best = best[_changes(unit[starts][best].astype(np.uint64))]
    means = np.rint(sums[best].astype(np.float64) / counts[best, None])
    u = shrink_to_radius(means, FEATURE_RADIUS).astype(np.int32)
    return KeptRows(u, labels[starts][best], np.ones(len(best), dtype=np.int32))
