"""Codes of rows: exact comparisons with edges, a function of each row alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.data.codes import ColumnCodes, KeptCodes

EDGES = (np.array([-2.5, 0.0, 5e-324, 0.1, 1e300]), np.array([]), np.array([7.0]))
VALUES = [
    *(-math.inf, -1e308, -2.5, -2.4, -0.0, 0.0, 5e-324, 1e-300, 0.1, math.nextafter(0.1, 0.0)),
    *(7.0, math.nextafter(7.0, 0), 1e300, 1e308, math.inf, math.nan),
]
rows_of_values = st.lists(
    st.lists(st.sampled_from(VALUES) | st.floats(), min_size=3, max_size=3), max_size=9
)


def expected(row: list[float]) -> list[int]:
    if not all(map(math.isfinite, row)):
        return [0, 0, 0]
    return [sum(e <= v for e in edges.tolist()) for v, edges in zip(row, EDGES, strict=True)]


@settings(max_examples=200)
@given(rows_of_values)
def test_a_code_is_the_number_of_edges_at_most_the_value(rows):
    features = np.array(rows, dtype=np.float64).reshape(-1, 3)
    codes, valid = ColumnCodes(EDGES).to_lattice(features)
    assert codes.tolist() == [expected(row) for row in rows]
    assert valid.tolist() == [all(map(math.isfinite, row)) for row in rows]


@settings(max_examples=200)
@given(rows_of_values)
def test_a_value_that_is_missing_has_the_code_after_the_last(rows):
    features = np.array(rows, dtype=np.float64).reshape(-1, 3)
    codes, valid = ColumnCodes(EDGES, missing=True).to_lattice(features)
    for row, found in zip(rows, codes.tolist(), strict=True):
        for value, code, edges in zip(row, found, EDGES, strict=True):
            known = sum(edge <= value for edge in edges.tolist())
            assert code == (known if math.isfinite(value) else len(edges) + 1)
    assert valid.all()
    # What is not valid for another reason has codes zero all the same.
    none = np.zeros(len(features), dtype=bool)
    codes, valid = ColumnCodes(EDGES, missing=True).to_lattice(features, none)
    assert not codes.any() and not valid.any()


@settings(max_examples=50)
@given(rows_of_values, st.data())
def test_a_row_depends_on_itself_alone(rows, data):
    features = np.array(rows, dtype=np.float64).reshape(-1, 3)
    good = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    codes, valid = ColumnCodes(EDGES).to_lattice(features, good.astype(bool))
    for index in range(len(rows)):
        alone, ok = ColumnCodes(EDGES).to_lattice(
            np.asfortranarray(features[index : index + 1]), good[index : index + 1].astype(bool)
        )
        assert alone[0].tolist() == codes[index].tolist() and ok[0] == valid[index]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8])
def test_the_type_that_holds_a_row_does_not_matter(kind):
    features = np.arange(30, dtype=kind).reshape(10, 3)
    codes, _ = ColumnCodes(EDGES).to_lattice(features, None, np.empty((10, 3), np.float32))
    assert codes.tolist() == [expected(row) for row in features.astype(float).tolist()]


def test_some_columns_alone_but_every_feature_decides_what_is_valid():
    codes = ColumnCodes((EDGES[2], EDGES[0]), np.array([2, 0]))
    found, valid = codes.to_lattice(np.array([[0.2, 0.0, 8.0], [0.2, math.nan, 8.0]]))
    assert found.tolist() == [[1, 4], [0, 0]]
    assert valid.tolist() == [True, False]


@pytest.mark.parametrize("missing", [False, True])
def test_rows_that_are_not_valid_stay_so_and_have_codes_zero(missing):
    features = np.array([[0.2, 0.0, 8.0], [0.2, math.nan, 8.0], [0.2, 0.0, 8.0]])
    codes, valid = ColumnCodes(EDGES, missing=missing).to_lattice(
        features, np.array([True, True, False])
    )
    assert valid.tolist() == [True, missing, False]
    assert codes.tolist() == [[4, 0, 1], [4, 1, 1] if missing else [0] * 3, [0] * 3]


def test_a_distance_is_from_the_point():
    edges, about = np.array([4.5, 5.0, 5.5]), np.array([3.0, -4.0])
    rows = np.array([[0.0, 0.0], [3.0, -4.0], [6.0, 0.0], [-3.0, 4.0]])
    codes, _ = ColumnCodes((edges,), about=about).to_lattice(rows)
    assert codes[:, 0].tolist() == [2, 0, 2, 3]


def test_distances_have_the_same_bits_in_any_layout():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(200, 37)) * 10.0 ** rng.integers(-30, 30, (200, 37))).astype(
        np.float32
    )
    about = rng.normal(size=37)
    exact = [math.sqrt(math.fsum((x - c) ** 2 for x, c in zip(row, about, strict=True)))
             for row in rows.astype(float).tolist()]  # fmt: skip
    edges = np.sort(np.array(exact))[::3]
    codes, _ = ColumnCodes((edges,), about=about).to_lattice(rows)
    for start in (1, 7, 100):
        part, _ = ColumnCodes((edges,), about=about).to_lattice(np.asfortranarray(rows[start:]))
        assert part.tolist() == codes[start:].tolist()
    close = np.searchsorted(edges, np.array(exact), "right")
    assert (np.abs(codes[:, 0] - close) <= 1).all()


def test_distances_beyond_every_float_are_in_the_last_bin():
    rows = np.array([[1e308, 1e308], [0.0, 0.0], [math.nan, 0.0]])
    codes, valid = ColumnCodes((np.array([1.0, 1e12]),), about=np.zeros(2)).to_lattice(rows)
    assert codes[:, 0].tolist() == [2, 0, 0]
    assert valid.tolist() == [True, True, False]


def test_nothing_of_a_row_or_an_edge_is_in_the_repr():
    assert repr(ColumnCodes(EDGES)) == "ColumnCodes(3 columns)"


@settings(max_examples=100)
@given(rows_of_values, st.booleans(), st.sampled_from([None, [2, 0], [0, 0, 1, 2]]))
def test_rows_that_are_kept_as_codes_have_those_of_a_query(rows, missing, columns):
    """A query of some columns, and of whether a column that was asked for before has a value."""
    features = np.array(rows, dtype=np.float64).reshape(-1, 3)
    which = [0, 1, 2] if columns is None else columns
    seen: set[int] = set()
    edges = []
    for column in which:
        edges.append(EDGES[column] if column not in seen else np.array([]))
        seen.add(column)
    numbers = None if columns is None else np.array(columns)
    kept, valid = ColumnCodes(EDGES, missing=missing).to_lattice(features)
    wanted, good = ColumnCodes(tuple(edges), numbers, missing=missing).to_lattice(features)
    asked = tuple(map(len, edges))
    found, again = KeptCodes(tuple(map(len, EDGES)), asked, numbers).to_lattice(kept, valid)
    assert found.tolist() == wanted.tolist() and again.tolist() == good.tolist()


def test_codes_that_rows_were_not_kept_with_are_refused():
    with pytest.raises(ValueError, match="other codes"):
        KeptCodes((3, 4), (3, 5))
