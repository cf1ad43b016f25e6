"""Queries and bytes: all that is asked is read back, and what versions before wrote stays the same.

A resumed release compares the query it would ask with the one it stored, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import fields, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.errors import DataError
from dpgmm_dist.privacy.query import Block, IntMap, PassQuery, pack, unpack

from ..queries import bins_queries, queries


def plain_query() -> PassQuery:
    """One of all fields that the first queries had; blocks see all axes, to the query's radius."""
    cells = np.arange(3)
    label = np.array([0, 0, 1])
    return PassQuery(
        step="components.2",
        width=2,
        cell_label=label,
        centres=np.array([[0, 1], [-5, 70_000], [12, -3]]),
        radius=4096,
        blocks=(
            Block("count", cells, 1.5),
            Block("sum", label, 1e6 / 3),
            Block("second", np.zeros(3, dtype=np.int64), 2.0**40, 2.0**39.5),
        ),
        maps=(IntMap(np.array([[1 << 30, 3], [-7, 1 << 29]]), 28),),
        cell_map=np.array([0, 0, 0]),
        rule="full",
        slopes=np.array([[1, 2], [3, 4], [-5, 6]]),
        offsets=np.array([0, 17, 1 << 24]),
        soft=True,
        unit_bits=12,
        table=np.array([1 << 20, 1 << 10, 0]),
        table_shift=9,
        unit_rows=3,
        notes={"radius": 1.25},
    )


def test_a_query_without_radii_and_axes_of_blocks_is_stored_as_it_always_was():
    """The digest is of the bytes that the version without them wrote."""
    digest = hashlib.sha256(plain_query().to_bytes()).hexdigest()
    assert digest == "92ca7101739de052a739a3887386ae03c99fdeb693c66cc4803d176a5b397376"


def test_only_blocks_that_differ_say_their_radius_and_axes():
    query = plain_query()
    narrow = replace(query.blocks[1], radius=99, axes=(0, 1))
    data = replace(query, blocks=(query.blocks[0], narrow)).to_bytes()
    stored = unpack(data, lambda header, _: header)["blocks"]
    assert set(stored[0]) == {"statistic", "sigma", "sigma_off"}
    assert stored[1]["radius"] == 99
    assert stored[1]["axes"] == [0, 1]


def assert_alike(a: object, b: object) -> None:
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name in ("blocks", "maps"):
            for part, of_other in zip(x, y, strict=True):
                assert_alike(part, of_other)
        elif isinstance(x, tuple) and x and isinstance(x[0], np.ndarray):
            for part, of_other in zip(x, y, strict=True):
                assert part.dtype == of_other.dtype and (part == of_other).all(), field.name
        elif isinstance(x, np.ndarray):
            assert x.dtype == y.dtype and (x == y).all(), field.name
        else:
            assert (x, type(x)) == (y, type(y)), field.name


@settings(max_examples=60)
@given(bins_queries())
def test_a_stored_query_of_bins_is_read_back_whole(query):
    query = replace(query, about=np.ones(3) if query.width == 1 else None)
    again = PassQuery.from_bytes(query.to_bytes())
    assert_alike(query, again)
    assert again.to_bytes() == query.to_bytes()


@settings(max_examples=100)
@given(queries(), st.integers(1, 5), st.booleans())
def test_a_stored_query_is_read_back_whole(query, most, weighted):
    query = replace(query, unit_rows=1 if weighted else most, weighted=weighted)
    again = PassQuery.from_bytes(query.to_bytes())
    assert_alike(query, again)
    assert again.to_bytes() == query.to_bytes()


@pytest.mark.parametrize(
    ("radius", "axes"), [(None, None), (1, None), (1 << 20, (0, 1)), (None, (1, 2))]
)
@pytest.mark.parametrize("statistic", ["count", "sum", "second", "square"])
def test_blocks_are_read_back_with_their_radius_and_axes(statistic, radius, axes):
    query = plain_query()
    block = Block(statistic, np.arange(3), 2.5, 1.75, radius=radius, axes=axes)
    stored = PassQuery.from_bytes(replace(query, blocks=(block,)).to_bytes())
    assert_alike(block, stored.blocks[0])
    assert stored.radius_of(stored.blocks[0]) == (radius or query.radius)
    assert stored.axes_of(stored.blocks[0]) == (axes or (0, 2))
    assert stored.dimension_of(stored.blocks[0]) == (1 if axes else 2)


def test_a_query_stored_before_there_were_units_is_of_one_row():
    """Versions without privacy units did not store how many rows a unit has."""
    query = replace(plain_query(), unit_rows=1)
    header, arrays = unpack(query.to_bytes(), lambda *parts: parts)
    for name in ("unit_rows", "weighted"):
        del header[name]
    assert_alike(PassQuery.from_bytes(pack(header, arrays)), query)


class Harm:
    """What a pickle can do: it calls a function when it is read."""

    done: ClassVar[list[str]] = []

    def __reduce__(self):
        return Harm.done.append, ("harm",)


def test_a_stored_query_with_a_pickle_is_damaged():
    buffer = io.BytesIO()
    header = np.frombuffer(b"{}", dtype=np.uint8)
    np.savez(buffer, allow_pickle=True, header=header, cell_label=np.array([Harm()], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        unpack(buffer.getvalue(), lambda header, arrays: None)
    assert not Harm.done
