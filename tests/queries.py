"""Queries to test with: drawn by hypothesis, and captured from the plans of real fits.

Also the slow way to answer one: whole rows as Python integers, one after the other, following the
words of :class:`PassQuery` and of design section 4 rather than the kernel's code.
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
import shutil
import tempfile
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.errors import SpecError
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import InsecureTestNoise
from dpgmm_dist.privacy.query import FEATURE_RADIUS, LARGEST_SCORE, Block, IntMap, PassQuery
from dpgmm_dist.privacy.sensitivity import check_fits, off_diagonal, saturation

Vector = list[int]


# ---------------------------------------------------------------- the integers, seen by a test


def integers(exact: ExactStatistic) -> list[Vector]:
    """The exact sums as Python integers. Tests only: the package itself never looks."""
    return [
        [(h << 32) + low for h, low in zip(hi.tolist(), lo.tolist(), strict=True)]
        for hi, lo in zip(exact._hi, exact._lo, strict=True)
    ]


def accumulated(
    query: PassQuery,
    u: np.ndarray,
    labels: np.ndarray,
    *cuts: int,
    kept: np.ndarray | None = None,
) -> ExactStatistic:
    """The kernel's sums over rows, fed in blocks that end at ``cuts``."""
    kernel = Kernel(query)
    total = kernel.start()
    for start, stop in zip([0, *cuts], [*cuts, len(u)], strict=True):
        of = None if kept is None else kept[start:stop]
        kernel.accumulate(total, u[start:stop], labels[start:stop], of)
    return total.finish()


# ---------------------------------------------------------------- the reference


def reference(
    query: PassQuery, rows: list[Vector], labels: list[int], kept: list[int] | None = None
) -> list[Vector]:
    """What a query's exact sums are, in Python integers; second moments as upper triangles."""
    totals = [
        [[0] * size_of(query, block) for _ in range(block.group_count)] for block in query.blocks
    ]
    for row, label, of in zip(rows, labels, kept or [1] * len(rows), strict=True):
        if query.scores:
            row = on_lattice(query, row)
        for cell, weight in shares(query, row, label, of).items():
            if query.counts_bins:
                count_bins(query, totals, row, cell, weight)
                continue
            v = saturated(coordinates(query, row, cell))
            for block, total in zip(query.blocks, totals, strict=True):
                group = total[int(block.groups[cell])]
                for index, value in enumerate(added(query, block, v)):
                    group[index] += weight * value
    return [[value for group in total for value in group] for total in totals]


def on_lattice(query: PassQuery, codes: Vector) -> Vector:
    """The row that a query of scores sees in place of its codes."""
    scores = [int(table[code]) for code, table in zip(codes, query.scores, strict=True)]
    return shrunk(scores, FEATURE_RADIUS)


def size_of(query: PassQuery, block: Block) -> int:
    """How many integers a block has for each group."""
    if block.statistic == "bins":
        return sum(int(bins.max()) + 1 for bins in block.bins)
    return len(added(query, block, [0] * query.dimension))


def count_bins(
    query: PassQuery, totals: list[list[Vector]], codes: Vector, cell: int, weight: int
) -> None:
    """Add a row, given by its codes, to one bin of each column in each block."""
    for block, total in zip(query.blocks, totals, strict=True):
        start = 0
        for code, bins in zip(codes, block.bins, strict=True):
            total[int(block.groups[cell])][start + int(bins[code])] += weight
            start += int(bins.max()) + 1


def added(query: PassQuery, block: Block, v: Vector) -> Vector:
    """What a whole row adds to a block, from its saturated coordinates in a cell."""
    radius = query.radius if block.radius is None else block.radius
    if block.axes is not None:
        v = v[block.axes[0] : block.axes[1]]
    if block.statistic == "count":
        return [1]
    if block.statistic == "square":
        return [min(sum(x * x for x in v), radius**2)]
    v = shrunk(v, radius)
    if block.statistic == "sum":
        return v
    return [v[i] * v[j] for i in range(len(v)) for j in range(i, len(v))]


def shares(query: PassQuery, row: Vector, label: int, kept: int = 1) -> dict[int, int]:
    """Cells of a row and its weight in each, in units of 1/weight_unit of a row."""
    cells = [k for k, of in enumerate(query.cell_label.tolist()) if of == label]
    weight = query.weight_unit // kept if query.weighted or query.soft else 1
    if label < 0:
        return {}
    if query.rule == "label":
        return {cells[0]: weight}
    distance = {k: squared_distance(query, row, k) for k in cells}
    least = min(distance.values())
    if not query.soft:
        return {next(k for k in cells if distance[k] == least): weight}
    table = query.table.tolist()
    share = {
        k: table[min((distance[k] - least) >> query.table_shift, len(table) - 1)] for k in cells
    }
    whole = sum(share.values())
    return {k: s * weight // whole for k, s in share.items() if s}


def squared_distance(query: PassQuery, row: Vector, cell: int) -> int:
    offset = 0 if query.offsets is None else int(query.offsets[cell])
    if query.rule == "full":
        return sum(v * v for v in saturated(coordinates(query, row, cell))) + offset
    return offset - sum(s * u for s, u in zip(query.slopes[cell].tolist(), row, strict=True))


def coordinates(query: PassQuery, row: Vector, cell: int) -> Vector:
    centred = [u - c for u, c in zip(row, query.centres[cell].tolist(), strict=True)]
    if query.cell_map is None or query.cell_map[cell] < 0:
        return centred
    return mapped(query.maps[int(query.cell_map[cell])], centred)


def mapped(linear: IntMap, row: Vector) -> Vector:
    lines = linear.matrix.tolist()
    products = [sum(m * u for m, u in zip(line, row, strict=True)) for line in lines]
    return [round(Fraction(v) / Fraction(2) ** linear.shift) for v in products]  # half to even


def saturated(v: Vector) -> Vector:
    limit = saturation(len(v))
    return [max(-limit, min(limit, x)) for x in v]


def shrunk(v: Vector, radius: int) -> Vector:
    """The rule that all clipping follows: IEEE doubles, truncation, and integers to decide."""
    square = sum(x * x for x in v)
    if square <= radius**2:
        return v
    factor = float(radius) / math.sqrt(float(square))
    while True:
        short = [math.trunc(float(x) * factor) for x in v]
        if sum(x * x for x in short) <= radius**2:
            return short
        factor *= 1 - 2.0**-30


# ---------------------------------------------------------------- drawn queries


@st.composite
def bins_queries(draw: Any) -> PassQuery:
    """A small query of bins: some columns, labels, blocks of finer and coarser bins."""
    labels = draw(st.integers(1, 3))
    number = st.integers(-3, 3).map(float) | st.floats(allow_nan=False, allow_infinity=False)
    columns = draw(st.lists(st.sets(number, max_size=6), min_size=1, max_size=4))
    edges = tuple(np.array(sorted(values), dtype=np.float64) for values in columns)
    groups = [np.zeros(labels, dtype=np.int64), np.arange(labels)]
    missing = draw(st.booleans())
    codes = [len(values) + 1 + missing for values in edges]
    found = []
    for _ in range(draw(st.integers(1, 3))):
        bins = [
            np.array([draw(st.integers(0, count - 1)) for _ in range(count)]) for count in codes
        ]
        sigma = draw(st.floats(0.25, 1e9))
        found.append(Block("bins", draw(st.sampled_from(groups)), sigma, bins=tuple(bins)))
    weighted = draw(st.booleans())
    query = PassQuery(
        step="bounds.columns",
        width=len(edges),
        cell_label=np.arange(labels),
        centres=np.zeros((labels, len(edges)), dtype=np.int64),
        radius=1,
        blocks=tuple(found),
        unit_bits=draw(st.integers(1, 18)) if weighted else 0,
        unit_rows=1 if weighted else draw(st.integers(1, 3)),
        weighted=weighted,
        edges=edges,
        missing=missing,
    )
    check_fits(query)
    return query


@st.composite
def scored_queries(draw: Any) -> PassQuery:
    """A query of any kind, of rows that are given by scores; some of these are far too long."""
    query = draw(queries())
    score = st.integers(-LARGEST_SCORE, LARGEST_SCORE) | st.integers(-3, 3)
    edges = tuple(np.arange(draw(st.integers(0, 4)), dtype=np.float64) for _ in range(query.width))
    missing = draw(st.booleans())
    scores = tuple(
        np.array([draw(score) for _ in range(len(ends) + 1 + missing)]) for ends in edges
    )
    columns = np.array([draw(st.integers(0, query.width - 1)) for _ in edges])
    columns = columns if draw(st.booleans()) else None
    coded = replace(query, edges=edges, scores=scores, columns=columns, missing=missing)
    check_fits(coded)
    return coded


RADII = st.sampled_from([1, 2, 7, 1000, 4096, 1 << 15, 1 << 16, (1 << 16) + 90_000])


@st.composite
def queries(draw: Any, rule: str | None = None, soft: bool | None = None) -> PassQuery:
    """A small query of any kind that fits, with many ties and with centres out of reach."""
    d = draw(st.integers(1, 4))
    rule = rule or draw(st.sampled_from(["label", "nearest", "full"]))
    # Sums that labels of one cell each have in common go a way of their own.
    pooled = rule == "label" and draw(st.booleans())
    per_label = draw(st.lists(st.integers(1, 1 if pooled else 4), min_size=1, max_size=3))
    if pooled:
        per_label += [1]
    cell_label = np.repeat(np.arange(len(per_label)), per_label)
    cells = len(cell_label)
    soft = rule == "full" and (draw(st.booleans()) if soft is None else soft)
    coordinate = (
        st.integers(-8, 8) | st.integers(-FEATURE_RADIUS, FEATURE_RADIUS) | st.just(1 << 20)
    )
    maps, cell_map, p = (), None, d
    if draw(st.booleans()):
        p = draw(st.integers(1, d))
        maps = tuple(draw(int_map(p, d)) for _ in range(draw(st.integers(1, cells))))
        # -1 stands for the identity, which needs as many coordinates as features.
        lowest, highest = -1 if p == d else 0, len(maps) - 1
        if pooled and draw(st.booleans()):
            lowest = highest = 0
        cell_map = np.array([draw(st.integers(lowest, highest)) for _ in range(cells)])
    slopes = offsets = table = None
    if rule == "nearest":
        slope = coordinate | st.integers(-(1 << 35), 1 << 35)
        slopes = np.array([[draw(slope) for _ in range(d)] for _ in range(cells)])
    if rule == "full" or draw(st.booleans()):
        offset = st.just(0) | st.integers(0, 10) | st.integers(-(1 << 24), 1 << 24)
        offsets = np.array([draw(offset) for _ in range(cells)])
    if soft:
        entry = st.integers(0, 3) | st.integers(0, 1 << 20)
        later = draw(st.lists(entry, max_size=20))
        table = np.array([draw(st.integers(1, 1 << 20)), *sorted(later, reverse=True)])
    query = PassQuery(
        step=draw(st.sampled_from(["cells.1", "components.2"])),
        width=d,
        cell_label=cell_label,
        centres=np.array([[draw(coordinate) for _ in range(d)] for _ in range(cells)]),
        radius=draw(RADII),
        blocks=(),
        maps=maps,
        cell_map=cell_map,
        rule=rule,
        slopes=slopes,
        offsets=offsets,
        soft=soft,
        unit_bits=draw(st.integers(1, 14)) if soft else 0,
        table=table,
        table_shift=draw(st.integers(0, 30)) if soft else 0,
        notes={"radius": 1.0},
    )
    query = replace(query, blocks=draw(blocks(cell_label, p, pooled)))
    try:
        check_fits(query)
    except SpecError:
        assume(False)
    return query


@st.composite
def int_map(draw: Any, p: int, d: int) -> IntMap:
    """Small odd entries and shifts give ties in rounding; large ones saturate."""
    size = draw(st.sampled_from([1, 3, 1 << 10, 1 << 24, 1 << 34]))
    entries = st.integers(-size, size)
    matrix = np.array([[draw(entries) for _ in range(d)] for _ in range(p)])
    return IntMap(matrix, draw(st.sampled_from([-2, 0, 1, 2, 5, 10, 20, 30])))


@st.composite
def blocks(draw: Any, cell_label: np.ndarray, p: int, pooled: bool = False) -> tuple[Block, ...]:
    """One to five statistics, each by cell, by label, or over all; any scales.

    In half of the queries all blocks see rows alike; in the others each may have a radius and axes
    of its own. ``pooled`` is for sums over all alone.
    """
    everything = np.zeros(len(cell_label), dtype=np.int64)
    levels = [everything] if pooled else [np.arange(len(cell_label)), cell_label, everything]
    scale = st.floats(0.25, 1e9)
    alike = draw(st.booleans())
    statistics = ["count", "sum", "second", "square"]
    found = []
    for statistic in draw(st.lists(st.sampled_from(statistics), min_size=1, max_size=5)):
        sigma = draw(scale)
        off = draw(st.sampled_from([off_diagonal(sigma), sigma, sigma / 3, sigma * 3]))
        groups = draw(st.sampled_from(levels))
        radius = axes = None
        if not alike:
            radius, axes = draw(st.none() | RADII), draw(st.none() | axes_within(p))
        off = off if statistic == "second" else None
        found.append(Block(statistic, groups, sigma, off, radius, axes))
    return tuple(found)


@st.composite
def axes_within(draw: Any, p: int) -> tuple[int, int]:
    """At least one of ``p`` coordinates."""
    start = draw(st.integers(0, p - 1))
    return start, draw(st.integers(start + 1, p))


@st.composite
def rows_for(draw: Any, query: PassQuery, most: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Lattice rows meant to hurt a query: on the sphere, on centres, between them, at zero."""
    u = [draw(row_for(query)) for _ in range(draw(st.integers(1, most)))]
    last = int(query.cell_label[-1])
    labels = [draw(st.integers(-1, last)) for _ in u]
    return np.array(u, dtype=np.float64), np.array(labels, dtype=np.int64)


@st.composite
def row_for(draw: Any, query: PassQuery) -> Vector:
    """One row in the ball of the feature lattice."""
    d = query.width
    kind = draw(st.sampled_from(["any", "axis", "centre", "between", "small"]))
    near = st.integers(-2, 2)
    centres = query.centres.tolist()
    if kind == "axis":
        row = [0] * d
        row[draw(st.integers(0, d - 1))] = draw(st.sampled_from([-FEATURE_RADIUS, FEATURE_RADIUS]))
    elif kind == "centre":
        row = [c + draw(near) for c in draw(st.sampled_from(centres))]
    elif kind == "between":
        pair = draw(st.sampled_from(centres)), draw(st.sampled_from(centres))
        row = [(a + b) // 2 for a, b in zip(*pair, strict=True)]
    elif kind == "small":
        row = [draw(near) for _ in range(d)]
    else:
        row = [draw(st.integers(-FEATURE_RADIUS, FEATURE_RADIUS)) for _ in range(d)]
    return shrunk(row, FEATURE_RADIUS)


# ---------------------------------------------------------------- queries of real fits


PROBLEMS: dict[str, dict[str, Any]] = {
    "soft": {"width": 2, "components": 3, "rho": 0.02},
    "hard": {"width": 7, "components": 2, "assignment": "hard"},
    "labelled": {"width": 4, "components": 2, "label_values": (4, 5, 6), "rho": 0.1},
    "staged": {"width": 6, "components": 2, "label_values": (4, 5, 6)},
    "projected": {"width": 7, "components": 1, "dimension": 3, "label_values": ("a", "b")},
    "tied": {"width": 6, "components": 2, "covariance": "tied", "allocation": "even"},
}

WIDE: dict[str, dict[str, Any]] = {
    "pooled": {"width": 26, "components": 1, "label_values": (0, 1)},
    "few rows": {"width": 26, "components": 1, "label_values": (0, 1), "rho": 0.001},
    "few rows, more labels": {
        "width": 26,
        "components": 1,
        "label_values": (0, 1, 2),
        "rho": 0.001,
    },
    "narrowed": {"width": 18, "components": 2, "rho": 0.5},
}
"""Dearer ones, of the paths for many dimensions: pooled covariances; signed sums and tails, where
little budget drowns second moments; cells along few directions."""


@cache
def real_queries(name: str) -> tuple[PassQuery, ...]:
    """Every query of one fit, as the release would compile it, on a few thousand rows."""
    file = shared_file(f"queries-{name}")
    if file is not None and file.exists():
        return tuple(PassQuery.from_bytes(data) for data in pickle.loads(file.read_bytes()))
    found = _asked(name)
    if file is not None:
        put_whole(file, pickle.dumps([query.to_bytes() for query in found]))
    return found


def shared_file(name: str) -> Path | None:
    """A file that the processes of one parallel run of the tests share; None when run alone."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return None
    folder = Path(tempfile.gettempdir()) / f"dpgmm-tests-{run}"
    folder.mkdir(exist_ok=True)
    # Whoever ends first removes it: what the others still want they make again.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / name


def put_whole(file: Path, data: bytes) -> None:
    """Write a file that others may be about to read."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(data)
    part.replace(file)


def _asked(name: str) -> tuple[PassQuery, ...]:
    from dpgmm_dist.model.strategy import fit
    from dpgmm_dist.pipeline.compile import compile_pass, observe

    problem = Problem(norm=1.0, **({"rho": 0.05} | (PROBLEMS | WIDE)[name]))
    u, labels = real_rows(name, 3000)
    step = FeatureMap(problem.width, problem.norm).step
    found: list[PassQuery] = []

    def ask(plan: Any, latent: Any) -> Any:
        query = compile_pass(plan, latent, step)
        found.append(query)
        noisy = measure(accumulated(query, u, labels), query, InsecureTestNoise(7))
        return observe(query, noisy, latent, step)

    fit(problem, ask)
    return tuple(found)


def real_rows(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) on the lattice around a few centres, a tenth of them too long, and labels."""
    options = (PROBLEMS | WIDE)[name]
    d, label_count = options["width"], len(options.get("label_values", "x"))
    rng = np.random.default_rng(5)
    labels = rng.integers(0, label_count, n)
    centres = rng.normal(size=(label_count, d)) * 0.2
    rows = centres[labels] + rng.normal(size=(n, d)) * 0.15
    rows[rng.random(n) < 0.1] *= 100.0
    u, _ = FeatureMap(d, 1.0).to_lattice(rows)
    return u, labels
