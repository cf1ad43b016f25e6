"""Divided units hold the same row groups and rows, each once and in the same order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data.blocks import FilePiece, PlanUnit, RowRange
from dpgmm_dist.engine.dividing import divided

files = st.builds(
    FilePiece,
    st.sampled_from(["a", "b"]),
    st.lists(st.integers(0, 20), max_size=9).map(tuple),
    st.sampled_from([(), (("label", "3"),)]),
)
ranges = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda t: RowRange(t[0], sum(t)))
plans = st.lists(
    st.lists(files | ranges, min_size=1, max_size=4).map(tuple), min_size=1, max_size=5
).map(lambda all_: [PlanUnit(i, pieces, 1000) for i, pieces in enumerate(all_)])


def content(units):
    """Yield what is read, one row group or row at a time."""
    for unit in units:
        for piece in unit.pieces:
            if isinstance(piece, FilePiece):
                yield from ((piece.path, piece.constants, group) for group in piece.row_groups)
            else:
                yield from range(piece.start, piece.stop)


@given(plans, st.integers(1, 30))
def test_nothing_is_lost_or_read_twice(units, wanted):
    parts = divided(units, wanted)
    assert list(content(parts)) == list(content(units))
    assert [part.index for part in parts] == list(range(len(parts)))
    assert len(parts) >= len(units)
    assert all(part.pieces for part in parts)
    assert sum(part.bytes for part in parts) <= sum(unit.bytes for unit in units)
    assert divided(units, wanted) == parts  # the cache finds rows by their unit


def test_a_large_unit_keeps_every_thread_busy():
    whole = PlanUnit(0, (FilePiece("a", tuple(range(16))), FilePiece("b", (0, 1))), 1800)
    parts = divided([whole], 8)
    assert [sum(len(p.row_groups) for p in part.pieces) for part in parts] == [3] * 6
    assert [len(part.pieces) for part in parts] == [1, 1, 1, 1, 1, 2]
    assert [len(part.pieces) for part in divided([PlanUnit(0, (RowRange(0, 10),), 9)], 4)] == [
        1
    ] * 4


def test_enough_units_stay_as_they_are():
    units = [PlanUnit(i, (FilePiece("a", (0, 1)),), 10) for i in range(8)]
    assert divided(units, 8) == units
