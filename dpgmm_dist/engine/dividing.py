"""Division of plan units, so that a few large ones still keep every thread busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from dpgmm_dist.data.blocks import ChunkRange, FilePiece, PlanUnit, RowRange

Piece = FilePiece | RowRange | ChunkRange


def divided(units: Sequence[PlanUnit], wanted: int) -> list[PlanUnit]:
    """The same rows in about ``wanted`` units or more, as far as row groups and chunks allow."""
    if len(units) >= wanted:
        return list(units)
    count = -(-wanted // len(units))
    parts = [part for unit in units for part in _divided(unit, count)]
    return [replace(part, index=index) for index, part in enumerate(parts)]


def _divided(unit: PlanUnit, count: int) -> list[PlanUnit]:
    """Divide a unit into at most ``count`` runs of its smallest pieces."""
    atoms = [atom for piece in unit.pieces for atom in _atoms(piece, count)]
    size = -(-len(atoms) // count)
    runs = [atoms[start : start + size] for start in range(0, len(atoms), size)]
    return [PlanUnit(unit.index, _joined(run), unit.bytes * len(run) // len(atoms)) for run in runs]


def _atoms(piece: Piece, count: int) -> list[Piece]:
    if not isinstance(piece, FilePiece):
        step = max(1, -(-(piece.stop - piece.start) // count))
        starts = range(piece.start, max(piece.stop, piece.start + 1), step)
        return [replace(piece, start=at, stop=min(at + step, piece.stop)) for at in starts]
    if len(piece.row_groups) < 2:
        return [piece]
    return [replace(piece, row_groups=(group,)) for group in piece.row_groups]


def _joined(run: Sequence[Piece]) -> tuple[Piece, ...]:
    """Join the row groups of one file to one piece, because each piece opens its file again."""
    pieces: list[Piece] = []
    for piece, atoms in groupby(run, lambda atom: _without_groups(atom)):
        if isinstance(piece, FilePiece):
            groups = [g for atom in atoms if isinstance(atom, FilePiece) for g in atom.row_groups]
            pieces.append(replace(piece, row_groups=tuple(groups)))
        else:
            pieces.append(piece)
    return tuple(pieces)


def _without_groups(atom: Piece) -> Piece:
    return replace(atom, row_groups=()) if isinstance(atom, FilePiece) else atom
