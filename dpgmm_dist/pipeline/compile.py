"""Between the model's floating-point plans and the gate's exact integer queries.

Maps, centres, log-weights and tables are rounded to integers here, on the driver, once; the
integers are what is stored and what every worker uses, and the answers are read back with them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import (
    POWERS,
    BinsPlan,
    BlockPlan,
    Latent,
    Observed,
    ObservedBins,
    ObservedBlock,
    PassPlan,
    Statistic,
    inverses_of,
)
from dpgmm_dist.privacy.measure import NoisyStatistic
from dpgmm_dist.privacy.query import (
    EXACT,
    FEATURE_RADIUS,
    Block,
    Codes,
    IntMap,
    PassQuery,
    UnitShare,
)
from dpgmm_dist.privacy.sensitivity import (
    check_fits,
    off_diagonal,
    query_cost,
    sigma_for,
    squared_sensitivity,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAP_RADIUS = 1 << 12
"""Integer clipping radius of mapped coordinates: 300 lattice steps a standard deviation at 128
dimensions, and room for soft second moments of 2**17 rows in a block."""
UNIT_BITS = 12
"""Responsibilities lie on the grid of 2**-12."""
_WEIGHT_BITS = 18
"""Weights of rows lie on the grid of 2**-18, or a coarser one where sums or noise need room."""
_WEIGHTED_ROWS = 128
"""Least number of weighted rows that are summed at once."""
_ONE_ROW = UnitShare()
_TABLE = 4096
_TABLE_TOP = 1 << 20
_TABLE_NATS = 14.0
"""Beyond this excess a responsibility is zero (it would be below 2**-20)."""
_MAP_BITS = 51
"""Products of mapped rows, and squared distances, stay below 2**52."""


def compile_pass(
    plan: PassPlan, latent: Latent, step: float, unit: UnitShare = _ONE_ROW
) -> PassQuery:
    """The integer query of a plan.

    Parameters
    ----------
    plan : what to ask
    latent : the plan's coordinates
    step : spacing of the feature lattice in feature units
    unit : how rows of one privacy unit enter; the plan's rho is that of one row, the query's cost
        that of a unit: with m whole rows m^2 times as much for the same noise

    Raises
    ------
    SpecError
        When the query would not be exact (see ``check_fits``).
    """
    # However noisy a centre is, the query stays within the bounds that keep it exact.
    z = latent.to_features(plan.centres) / step
    length = np.sqrt((z**2).sum(axis=1))
    centres = _snap(z * np.minimum(1.0, FEATURE_RADIUS / np.maximum(length, 1.0))[:, None])
    maps: tuple[IntMap, ...] = ()
    slopes = offsets = None
    radius = max(1, math.ceil(plan.radius / step))
    scale = 1.0
    if plan.cell_map is not None:
        radius, scale = MAP_RADIUS, MAP_RADIUS / plan.radius
        reach = FEATURE_RADIUS + float(np.sqrt((centres.astype(float) ** 2).sum(1)).max())
        maps = tuple(_int_map(w * (scale * step), latent, reach) for w in plan.whiten)
    if plan.rule == "nearest":
        slopes, offsets = _distances(plan.metric, latent, centres)
    elif plan.offsets is not None:
        offsets = _snap((plan.offsets - plan.offsets.min()) * scale**2)
    table, shift = _table(scale) if plan.soft else (None, 0)
    unit_length = step if plan.cell_map is None else 1 / scale
    bare = PassQuery(
        step=plan.step,
        width=latent.width,
        cell_label=plan.cell_label.astype(np.int64),
        centres=centres,
        radius=radius,
        blocks=(),
        maps=maps,
        cell_map=plan.cell_map,
        rule=plan.rule,
        slopes=slopes,
        offsets=offsets,
        soft=plan.soft,
        unit_bits=_unit_bits(plan, radius, unit_length, unit),
        table=table,
        table_shift=shift,
        unit_rows=unit.rows,
        weighted=unit.weighted,
        notes={"radius": plan.radius},
    )
    query = _with_noise(bare, plan.blocks, unit_length)
    check_fits(query)
    return query


def compile_bins(plan: BinsPlan, labels: int, unit: UnitShare = _ONE_ROW) -> PassQuery:
    """The integer query of a plan that counts bins of rows of ``labels`` labels.

    Raises
    ------
    SpecError
        When the query would not be exact (see ``check_fits``).
    """
    together, apart = np.zeros(labels, dtype=np.int64), np.arange(labels)
    bits = _WEIGHT_BITS if unit.weighted else 0
    codes = tuple(np.arange(len(edges) + 1 + plan.missing) for edges in plan.edges)
    blocks = tuple(
        Block("bins", apart if block.by_label else together, 1.0, bins=block.bins or codes)
        for block in plan.blocks
    )
    bare = PassQuery(
        step=plan.step,
        width=len(plan.edges),
        cell_label=np.arange(labels),
        centres=np.zeros((labels, len(plan.edges)), dtype=np.int64),
        radius=1,
        blocks=blocks,
        unit_bits=bits,
        unit_rows=unit.rows,
        weighted=unit.weighted,
        edges=plan.edges,
        columns=plan.columns,
        about=plan.about,
        missing=plan.missing,
    )
    scales = (
        sigma_for(squared_sensitivity(bare, block), planned.rho * unit.rows**2)
        for block, planned in zip(blocks, plan.blocks, strict=True)
    )
    query = replace(
        bare, blocks=tuple(replace(b, sigma=s) for b, s in zip(blocks, scales, strict=True))
    )
    check_fits(query)
    return query


def with_codes(query: PassQuery, codes: Codes) -> PassQuery:
    """The same query of rows that are given by scores of their codes."""
    coded = replace(
        query,
        edges=codes.edges,
        scores=codes.scores,
        columns=codes.columns,
        missing=codes.missing,
    )
    check_fits(coded)
    return coded


def observe_bins(query: PassQuery, noisy: NoisyStatistic) -> tuple[ObservedBins, ...]:
    """The counts of each block of a stored query of bins, by column."""
    return tuple(
        ObservedBins(
            tuple(
                np.split(
                    values[0] if block.group_count == 1 else values,
                    np.cumsum(block.bin_counts)[:-1],
                    axis=-1,
                )
            ),
            block.sigma / query.weight_unit,
        )
        for block, values in zip(query.blocks, noisy.values, strict=True)
    )


def _own_radius(planned: BlockPlan, unit_length: float) -> int | None:
    """A block's own radius in integer units of ``unit_length``, rounded up; None without one."""
    return None if planned.radius is None else max(1, math.ceil(planned.radius / unit_length))


def _unit_bits(plan: PassPlan, radius: int, unit_length: float, unit: UnitShare) -> int:
    """Grid of responsibilities, and of weights: as fine as exact sums and noise scales allow."""
    if not unit.weighted:
        return UNIT_BITS if plan.soft else 0
    radii = [_own_radius(block, unit_length) or radius for block in plan.blocks]
    widest = max(
        block_radius ** POWERS[block.statistic] / math.sqrt(2 * block.rho)
        for block_radius, block in zip(radii, plan.blocks, strict=True)
    )
    sums = math.floor(math.log2(EXACT / (_WEIGHTED_ROWS * max(radii) ** 2)))
    noise = math.floor(54 - math.log2(max(widest, 1.0)))
    return max(0, min(_WEIGHT_BITS, sums, noise))


def _with_noise(bare: PassQuery, plans: tuple[BlockPlan, ...], unit_length: float) -> PassQuery:
    """The query with its blocks; their own radii are counted in ``unit_length``."""
    blocks = []
    for planned in plans:
        block = Block(
            planned.statistic,
            planned.groups.astype(np.int64),
            1.0,
            radius=_own_radius(planned, unit_length),
            axes=planned.axes,
        )
        sigma = sigma_for(squared_sensitivity(bare, block), planned.rho * bare.unit_rows**2)
        off = off_diagonal(sigma) if planned.statistic == "second" else None
        blocks.append(replace(block, sigma=sigma, sigma_off=off))
    return replace(bare, blocks=tuple(blocks))


def observe(query: PassQuery, noisy: NoisyStatistic, latent: Latent, step: float) -> Observed:
    """The answer to a stored query, in the latent coordinates of its cells."""
    whole = float(query.notes["radius"])
    unit = step if query.cell_map is None else whole / query.radius
    z = query.centres.astype(float) * step
    # Without maps, cell coordinates are feature coordinates.
    centres = z if query.cell_map is None else latent.to_latent(z)
    blocks = tuple(
        ObservedBlock(
            cast(Statistic, block.statistic),
            block.groups,
            values * unit ** POWERS[block.statistic],
            block.sigma / query.weight_unit * unit ** POWERS[block.statistic],
        )
        for block, values in zip(query.blocks, noisy.values, strict=True)
    )
    return Observed(
        query.step,
        query.cell_label,
        centres,
        partial(_inverses, query, latent, unit / step),
        whole,
        blocks,
        float(query_cost(query)),
    )


def _inverses(query: PassQuery, latent: Latent, unit: float) -> Floats:
    """(C, p, p) from the coordinates of each cell to latent ones; ``unit`` in lattice steps."""
    p = query.dimension
    if query.cell_map is None:
        return np.broadcast_to(np.eye(p), (len(query.cell_label), p, p))
    basis = np.eye(p) if latent.basis is None else latent.basis
    maps = [
        int_map.matrix.astype(float) @ basis * (2.0**-int_map.shift * unit)
        for int_map in query.maps
    ]
    return inverses_of(maps, query.cell_map)


def _snap(values: Floats) -> Ints:
    return np.rint(values).astype(np.int64)


def _int_map(real: Floats, latent: Latent, reach: float) -> IntMap:
    """Round a real map (p, p), or its diagonal (p,), of latent lattice units to exact products."""
    if real.ndim == 1:
        matrix = np.diag(real) if latent.basis is None else real[:, None] * latent.basis.T
    else:
        matrix = real if latent.basis is None else real @ latent.basis.T
    longest = float(np.sqrt((matrix**2).sum(axis=1)).max())
    shift = math.floor(_MAP_BITS - math.log2(longest * (reach + 2) + 2.0**-40)) - 1
    return IntMap(_snap(np.ldexp(matrix, shift)), shift)


def _distances(metric: Floats | None, latent: Latent, centres: Ints) -> tuple[Ints, Ints]:
    """Slopes (C, d) and offsets (C,): squared distances less the row's own length in the metric.

    ``|A(u - c)|^2 = |Au|^2 + |Ac|^2 - 2 (A^T A c) . u``, and the first term is the same for all
    cells: one product finds the nearest, in units as fine as exact products allow.
    """
    c = centres.astype(np.float64)
    basis = np.eye(latent.width) if latent.basis is None else latent.basis
    map_ = basis.T if metric is None else metric @ basis.T
    mapped = c @ map_.T
    slopes, offsets = 2 * mapped @ map_, (mapped**2).sum(axis=1)
    reach = float(np.sqrt((slopes**2).sum(axis=1)).max()) * FEATURE_RADIUS + float(offsets.max())
    shift = math.floor(_MAP_BITS - math.log2(reach + 2.0**-40)) - 1
    return _snap(np.ldexp(slopes, shift)), _snap(np.ldexp(offsets, shift))


def _table(scale: float) -> tuple[Ints, int]:
    """Exponentials by excess squared distance (in lattice units squared), and their spacing."""
    span = 2 * _TABLE_NATS * scale**2
    shift = max(0, math.ceil(math.log2(span / _TABLE)))
    excess = np.arange(_TABLE) * 2.0**shift
    table = np.rint(_TABLE_TOP * np.exp(-excess / (2 * scale**2)))
    table[excess > span] = 0
    table[-1] = 0
    return table.astype(np.int64), shift
