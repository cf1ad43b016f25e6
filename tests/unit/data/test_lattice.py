"""The lattice: any floats become integer vectors in the ball, each row alone, bit for bit."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.query import FEATURE_RADIUS, LARGEST_RADIUS, shrink_to_radius

from ...queries import shrunk

DTYPES = (np.float16, np.float32, np.float64, np.uint8)
HARD = (0.0, -0.0, 5e-324, 1e-310, 1e-45, 6e-8, 1.0, 65504.0, 3.4e38, 1e300, 1e308, 1.79e308)
NORMS = st.sampled_from([1e-100, 1e-3, 0.1, 1.0, math.sqrt(2), math.pi, 1e6, 1e100])


def elements(dtype):
    if dtype == np.uint8:
        return st.integers(0, 255)
    top = float(np.finfo(dtype).max)
    special = [min(h, top) for h in HARD]
    special += [-h for h in special] + [math.nan, math.inf, -math.inf]
    special = [float(dtype(h)) for h in special]
    usual = st.floats(-2, 2, width=64).map(lambda v: float(dtype(v)))
    return (
        st.sampled_from(special)
        | usual
        | st.floats(width=8 * np.dtype(dtype).itemsize, allow_nan=True)
    )


@st.composite
def rows_and_map(draw, most_rows=6):
    dtype = draw(st.sampled_from(DTYPES))
    d = draw(st.integers(1, 9))
    n = draw(st.integers(1, most_rows))
    rows = draw(hnp.arrays(dtype, (n, d), elements=elements(dtype)))
    kind = draw(st.sampled_from(["plain", "centre", "table"]))
    norm = draw(NORMS)
    if kind == "plain":
        return rows, FeatureMap(d, norm)
    number = st.sampled_from([0.0, 1.0, -3.5, 1e-30, -1e100, 1e100]) | st.floats(-10, 10)
    if kind == "centre":
        return rows, FeatureMap(d, norm, center=tuple(draw(st.tuples(*[number] * d))))
    low = draw(st.tuples(*[number] * d))
    span = draw(st.tuples(*[st.sampled_from([1e-3, 1.0, 7.0, 1e50])] * d))
    high = tuple(lo + max(s, abs(lo)) for lo, s in zip(low, span, strict=True))
    return rows, FeatureMap(d, draw(st.floats(0.1, 3.0)), lower=low, upper=high)


def quiet_lattice(features, rows, valid=None):
    """Call to_lattice; a warning is a failure, as it would be a log line that depends on data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return features.to_lattice(rows, valid)


def exact_square(row):
    assert all(float(v).is_integer() for v in row)
    return sum(int(v) ** 2 for v in row)


@settings(max_examples=250)
@given(rows_and_map())
def test_every_row_is_an_integer_vector_in_the_ball(case):
    rows, features = case
    u, valid = quiet_lattice(features, rows)
    assert u.dtype == np.float64
    assert u.shape == rows.shape
    assert valid.tolist() == np.isfinite(rows.astype(np.float64)).all(axis=1).tolist()
    for row, ok in zip(u, valid, strict=True):
        assert exact_square(row) <= FEATURE_RADIUS**2
        if not ok:
            assert not row.any()


def placed(features, row):
    """A finite row on the lattice, as the docs define it, in Python floats and integers."""
    z = [float(v) for v in row]
    if features.lower is not None:
        bounds = zip(z, features.lower, features.upper, strict=True)
        z = [(min(max(v, a), b) - (a + b) / 2) / ((b - a) / 2) for v, a, b in bounds]
    elif features.center is not None:
        clipped = [min(max(v, -1e300), 1e300) for v in z]
        z = [v - c for v, c in zip(clipped, features.center, strict=True)]
    scaled = [v * (FEATURE_RADIUS / features.norm) for v in z]
    if all(abs(v) < 2**30 for v in scaled):
        u = [round(v) for v in scaled]
        if sum(v * v for v in u) <= FEATURE_RADIUS**2:
            return u
    excess = math.frexp(max(map(abs, z)))[1] - math.frexp(features.norm)[1] - 1
    near = [math.ldexp(v, -max(excess, 0)) for v in z]
    return shrunk([round(v * (FEATURE_RADIUS / features.norm)) for v in near], FEATURE_RADIUS)


@pytest.mark.parametrize(
    "features",
    [
        FeatureMap(3, 1.0),
        FeatureMap(3, 0.7, center=(0.25, -3.5, 1e-30)),
        FeatureMap(3, 1.3, lower=(-1.0, 0.0, 5.0), upper=(1.0, 7.5, 6.0)),
    ],
    ids=["plain", "centre", "table"],
)
def test_rows_are_put_where_the_docs_say(features):
    rng = np.random.default_rng(4)
    scales = np.repeat([1e-9, 0.01, 0.2, 0.5, 1.0, 3.0, 7.0, 1e5, 1e200, 1e306], 6)[:, None]
    rows = rng.normal(size=(60, 3)) * scales
    rows[::5, 1] = 0.0
    hard = [[0.7, 0.0, 0.0], [0.0, -0.7, 1e-7], [1.79e308, -1.79e308, 0.0], [1.0, 7.5, 6.0]]
    rows = np.concatenate([rows, hard, [[math.inf, 0.0, 0.0], [0.0, math.nan, 1e9]]])
    finite = np.isfinite(rows).all(axis=1)
    want = np.array(
        [placed(features, row) if ok else [0] * 3 for row, ok in zip(rows, finite, strict=True)]
    )
    u, valid = quiet_lattice(features, rows)
    assert np.array_equal(u, want)
    assert np.array_equal(valid, finite)
    mask = np.arange(len(rows)) % 3 > 0
    out = np.empty(rows.shape, np.float32)
    u, valid = features.to_lattice(rows, mask, out)
    assert u is out
    assert np.array_equal(u[mask], want[mask])
    assert np.array_equal(valid, finite & mask)
    zero = placed(features, [0.0] * 3)  # what is not valid counts as the input's zero
    assert all(row == zero for row in u[~mask].tolist())


@settings(max_examples=150)
@given(rows_and_map(), st.data())
def test_a_row_depends_on_itself_alone(case, data):
    rows, features = case
    together, valid = quiet_lattice(features, rows)
    order = data.draw(st.permutations(range(len(rows))))
    shuffled, also = quiet_lattice(features, np.asfortranarray(rows[order]))
    assert shuffled.tobytes() == together[order].tobytes()
    assert also.tolist() == valid[order].tolist()
    again, _ = quiet_lattice(features, np.concatenate([rows[::-1], rows, rows]))
    assert again.tobytes() == np.concatenate([together[::-1], together, together]).tobytes()
    for index in range(len(rows)):
        alone, ok = quiet_lattice(features, rows[index : index + 1])
        assert alone.tobytes() == together[index : index + 1].tobytes()
        assert ok[0] == valid[index]


@settings(max_examples=150)
@given(rows_and_map())
def test_the_type_that_holds_a_row_does_not_matter(case):
    """Blocks of different types are joined in the wider type before they are put on the lattice."""
    rows, features = case
    u, valid = quiet_lattice(features, rows)
    wide, also = quiet_lattice(features, rows.astype(np.float64))
    assert wide.tobytes() == u.tobytes()
    assert also.tolist() == valid.tolist()


@settings(max_examples=100)
@given(rows_and_map(), st.data())
def test_rows_that_are_not_valid_are_zero_whatever_they_hold(case, data):
    rows, features = case
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    u, valid = quiet_lattice(features, rows, mask)
    free, finite = quiet_lattice(features, rows)
    assert valid.tolist() == (finite & mask).tolist()
    assert u[mask].tobytes() == free[mask].tobytes()
    # A row that is not valid is treated as the input's zero, and never counted.
    other = rows.copy()
    other[~mask] = 0
    assert features.to_lattice(other, mask)[0].tobytes() == u.tobytes()


@settings(max_examples=100)
@given(rows_and_map())
def test_the_input_is_left_alone(case):
    rows, features = case
    before = rows.tobytes()
    rows.setflags(write=False)
    quiet_lattice(features, rows, np.arange(len(rows)) % 2 == 0)
    assert rows.tobytes() == before


@settings(max_examples=100)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    st.sampled_from([1e-3, 1.0, 40.0]),
    st.integers(0, 960),
)
def test_a_long_row_keeps_its_direction_and_gets_the_bound(row, norm, power):
    """A row keeps its direction even when its square overflows."""
    length = math.sqrt(sum(v * v for v in row))
    if length < 1e-3:
        return
    far = np.ldexp(np.array([row]), power) * max(norm / length, 1.0) * 1.001
    u, valid = quiet_lattice(FeatureMap(len(row), norm), far)
    assert valid[0]
    want = np.array(row) / length * FEATURE_RADIUS
    # Rounding moves a coordinate by half a step at most, and truncation by one step.
    assert np.abs(u[0] - want).max() <= 2.5
    assert math.sqrt(exact_square(u[0])) >= FEATURE_RADIUS - 2 * math.sqrt(len(row))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.sampled_from([1e-3, 1.0, 1e6]))
def test_a_row_inside_the_bound_is_rounded_to_the_nearest_lattice_point(row, norm):
    z = np.array(row) * (norm * 0.999 / math.sqrt(len(row)))
    features = FeatureMap(len(row), norm)
    u, _ = quiet_lattice(features, z[None])
    for value, integer in zip(z, u[0], strict=True):
        exact = Fraction(float(value)) * FEATURE_RADIUS / Fraction(norm)
        assert abs(exact - int(integer)) <= Fraction(1, 2) + Fraction(1, 10**9)


def test_rounding_is_half_to_even():
    features = FeatureMap(1, float(FEATURE_RADIUS))
    values = np.array([[0.5], [1.5], [2.5], [-0.5], [-1.5], [-2.5]])
    assert features.to_lattice(values)[0].ravel().tolist() == [0, 2, 2, 0, -2, -2]


@settings(max_examples=100)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.integers(-(2**18), 2**18).map(float),
    ),
    st.sampled_from([1, 2, 3, 100, 4096, 65536]),
)
def test_shrinking_ends_in_the_ball_and_does_nothing_twice(v, radius):
    once = shrink_to_radius(v, radius)
    for before, after in zip(v, once, strict=True):
        square = exact_square(after)
        assert square <= radius**2
        if exact_square(before) <= radius**2:
            assert after.tobytes() == before.tobytes()
        else:
            # Truncation costs one step per coordinate, so little is lost.
            assert math.sqrt(square) >= radius - math.sqrt(len(after)) - 1
            assert all(abs(a) <= abs(b) and a * b >= 0 for a, b in zip(after, before, strict=True))
    assert shrink_to_radius(once, radius).tobytes() == once.tobytes()
    alone = np.concatenate([shrink_to_radius(row[None], radius) for row in v])
    assert alone.tobytes() == once.tobytes()


def test_rows_up_to_the_radius_are_left_alone_and_longer_ones_are_cut():
    rows = np.array([[3.0, -4.0], [30.0, 40.0], [600.0, -800.0], [601.0, 800.0], [1.0, 5000.0]])
    cut = shrink_to_radius(rows, 1000)
    assert cut.tolist() == [shrunk([int(v) for v in row], 1000) for row in rows]
    assert cut[:3].tolist() == rows[:3].tolist()
    shrink_to_radius(rows, LARGEST_RADIUS)
    with pytest.raises(ValueError, match="at most"):
        shrink_to_radius(rows, LARGEST_RADIUS + 1)


@given(
    st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.sampled_from([np.float32, np.float64]), st.data()
)
def test_tables_clamp_to_their_bounds(low, span, dtype, data):
    high = low + span
    features = FeatureMap(2, 2.0, lower=(low, 0.0), upper=(high, 1.0))
    outside = data.draw(st.sampled_from([1e3, 1e38]))
    beyond = np.array([[low - outside, -outside], [high + outside, outside]], dtype=dtype)
    at = np.array([[low, 0.0], [high, 1.0]])
    u, valid = quiet_lattice(features, beyond)
    assert valid.all()
    assert u.tobytes() == quiet_lattice(features, at)[0].tobytes()
    assert u.tolist() == [[-FEATURE_RADIUS / 2] * 2, [FEATURE_RADIUS / 2] * 2]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_infinity_in_a_table_is_invalid_and_not_clamped(bad):
    features = FeatureMap(2, 1.5, lower=(0.0, 0.0), upper=(1.0, 1.0))
    u, valid = quiet_lattice(features, np.array([[0.5, bad], [0.5, 0.5]]))
    assert valid.tolist() == [False, True]
    assert not u.any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["plain", "centre", "table"])
def test_a_signalling_nan_is_as_quiet_as_any(dtype, kind):
    bits = {2: np.uint16(0x7D01), 4: np.uint32(0x7FA00001), 8: np.uint64(0x7FF4000000000001)}
    rows = np.ones((3, 2), dtype=dtype)
    rows[1, 0] = np.array([bits[rows.itemsize]]).view(dtype)[0]
    features = {
        "plain": FeatureMap(2, 2.0),
        "centre": FeatureMap(2, 2.0, center=(0.1, 0.2)),
        "table": FeatureMap(2, 2.0, lower=(0.0, 0.0), upper=(2.0, 3.0)),
    }[kind]
    u, valid = quiet_lattice(features, rows)
    assert valid.tolist() == [True, False, True]
    assert not u[1].any()
    assert u[0].tobytes() == u[2].tobytes()


@settings(max_examples=100)
@given(
    hnp.arrays(np.float64, (4, 3), elements=st.floats(-1e3, 1e3)),
    st.tuples(*[st.floats(-1e3, 1e3)] * 3),
)
def test_the_map_back_to_input_units_is_the_inverse_inside_the_bound(rows, center):
    features = FeatureMap(3, 1e4, center=center)
    u, _ = features.to_lattice(rows)
    back = u * features.step * features.half_widths + features.offset
    assert np.abs(back - rows).max() <= features.step
    table = FeatureMap(3, 2.0, lower=(-1e3,) * 3, upper=(1e3, 2e3, 3e3))
    u, _ = table.to_lattice(rows)
    back = u * table.step * table.half_widths + table.offset
    assert np.abs(back - rows).max() <= table.step * table.half_widths.max()


def test_a_huge_number_far_from_a_huge_centre_keeps_what_it_can():
    features = FeatureMap(2, 1.0, center=(-1e100, 1e100))
    u, valid = quiet_lattice(features, np.array([[1.7e308, 0.0], [-1.7e308, 0.0], [0.0, 0.0]]))
    assert valid.all()
    assert u[0].tolist() == [FEATURE_RADIUS, 0]
    assert u[1].tolist() == [-FEATURE_RADIUS, 0]
    assert u[2, 0] > 0 > u[2, 1]


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf, 1e101, 1e-101])
def test_a_norm_that_bounds_nothing_is_refused(norm):
    with pytest.raises(SpecError, match="norm"):
        FeatureMap(2, norm)


def test_bounds_of_another_width_are_refused():
    with pytest.raises(SpecError, match="center has 3 values but rows have 2 features"):
        FeatureMap(2, 1.0, center=(0.0, 0.0, 0.0))
    with pytest.raises(SpecError, match="upper has 1"):
        FeatureMap(2, 1.0, lower=(0.0, 0.0), upper=(1.0,))


@pytest.mark.parametrize("norm", [1.0, 0.999, 1.001, 1e-100, 1e100])
def test_the_widest_rows_are_still_exact(norm):
    """A row of 2**16 equal features scaled out of range has the largest squared norm there is."""
    features = FeatureMap(1 << 16, norm)
    rows = np.full((2, 1 << 16), 1.79e308)
    rows[1] = np.nextafter(norm * 4, 0)
    u, valid = quiet_lattice(features, rows)
    assert valid.all()
    for row in u:
        square = exact_square(row)
        assert (FEATURE_RADIUS - 257) ** 2 <= square <= FEATURE_RADIUS**2


def test_edges_of_one_value_hold_its_lattice_point_alone():
    """Rows are rounded to the lattice, so zero needs the point that it is rounded to."""
    features = FeatureMap(1, 1.0, lower=(-1.0,), upper=(60.0,))
    (edges,) = features.edges_on_lattice((np.array([-0.5, 0.0, 5e-324, 0.5]),), None)
    assert (np.diff(edges) > 0).all()
    u, _ = features.to_lattice(np.array([[0.0], [-0.4], [0.4], [-0.9], [0.9]]))
    assert np.searchsorted(edges, u[:, 0], "right").tolist() == [2, 1, 3, 0, 4]


def test_edges_nearer_than_the_lattice_leave_the_point_of_one_value_alone():
    for lower in np.linspace(-1.3, -0.2, 12):
        features = FeatureMap(1, 1.0, lower=(float(lower),), upper=(60.0,))
        step = 30.0 / FEATURE_RADIUS
        near = np.array([-0.9, -0.6, -0.3, -0.1]) * step
        given = np.concatenate([near, [0.0, 5e-324], -near[::-1]])
        (edges,) = features.edges_on_lattice((given,), None)
        assert (np.diff(edges) >= 0).all()
        u, _ = features.to_lattice(np.zeros((1, 1)))
        assert np.searchsorted(edges, u[:, 0], "right").tolist() == [5]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 5e5), (-3.0, 0.0), (-1.9, 7.3)])
def test_edges_within_a_range_tell_its_ends_apart(low: float, high: float) -> None:
    features = FeatureMap(1, 1.0, lower=(low,), upper=(high,))
    inner = np.array([np.nextafter(low, high), np.nextafter(high, low)])
    (edges,) = features.edges_on_lattice((inner,), None)
    rows = np.array([[low], [(low + high) / 2], [high]])
    u, _ = features.to_lattice(rows)
    assert np.searchsorted(edges, u[:, 0], "right").tolist() == [0, 1, 2]
