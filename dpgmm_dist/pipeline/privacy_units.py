"""Privacy units of several rows: the rows of each unit are brought together before the first pass.

This happens once per run, and only if a pass is to be measured: a restarted job that replays stored
answers needs no rows. Where bounds are found privately, rows are selected by their bins before
there is a lattice, and once more when there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from secrets import randbits

from dpgmm_dist.data.blocks import PlanUnit, Source
from dpgmm_dist.data.codes import ColumnCodes, KeptCodes
from dpgmm_dist.data.lattice import FeatureMap, RowMap
from dpgmm_dist.data.lazy import LazySource
from dpgmm_dist.data.source import AnySource, ArraySource
from dpgmm_dist.data.unit_files import kept_files, spread_files
from dpgmm_dist.data.unit_values import DIGEST_BYTES
from dpgmm_dist.engine.base import Engine
from dpgmm_dist.engine.tasks import for_each_on
from dpgmm_dist.errors import SpecError
from dpgmm_dist.passes.unit_tasks import BUFFER_BYTES, Gather, KeptSource, Spread, UnitRule
from dpgmm_dist.privacy.query import FEATURE_RADIUS, PassQuery
from dpgmm_dist.spec.sections import DatasetSpec, PrivacyUnitSpec
from dpgmm_dist.storage.parquet_files import Place

Report = Callable[[float], None]

_BUCKET_BYTES = 64 << 20
_LEAST_BUCKETS = 8
_MOST_BUCKETS = 4096
_STEPS = 2


@dataclass(frozen=True)
class PassInput:
    """What the passes read: a source and its plan units."""

    source: Source
    units: Sequence[PlanUnit]
    require_unchanged: Callable[[], None]
    """Raises DataError when the input may have changed during a pass."""
    kept_by: FeatureMap | ColumnCodes | None = None
    """The map that these rows have been through already; None for rows in input units."""

    def row_map(self, features: FeatureMap | None, query: PassQuery) -> RowMap:
        """The map from these rows to those of the query: on the lattice, or codes."""
        if self.kept_by is None:
            return row_map_of(features, query)
        if isinstance(self.kept_by, ColumnCodes):
            kept, asked = (tuple(map(len, edges)) for edges in (self.kept_by.edges, query.edges))
            # Codes of a bounds query are of the columns that it asks for, and of no others.
            return KeptCodes(kept, asked, None if features is None else query.columns)
        if query.edges:
            edges = self.kept_by.edges_on_lattice(query.edges, query.columns)
            return ColumnCodes(edges, query.columns)
        # The map leaves these rows as they are and checks their norms again.
        return FeatureMap(self.source.width, float(FEATURE_RADIUS))


def row_map_of(features: FeatureMap | None, query: PassQuery) -> RowMap:
    """The map from rows in input units to those of a query."""
    if query.edges:
        return ColumnCodes(query.edges, query.columns, query.about, query.missing)
    if features is None:
        raise ValueError("the map of rows to the lattice is not known yet")
    return features


Prepare = Callable[[FeatureMap | ColumnCodes | None, PassQuery, Report], PassInput]
"""Makes the input of a pass when it is first needed, and reports its progress. Rows of privacy
units are kept in the form that the map gives them, and without a map as their codes in the
query."""


@contextmanager
def input_of_passes(
    dataset: DatasetSpec,
    rows: AnySource,
    *,
    engine: Engine,
    release_id: str,
    scratch: str | None,
) -> Iterator[Prepare]:
    """What the passes read: the rows themselves, or the kept rows of each privacy unit.

    The latter are in scratch storage, which is removed at the end.
    """
    unit = dataset.privacy_unit
    if unit is None:
        plain = PassInput(rows, rows.plan(), rows.require_unchanged)
        yield lambda *_: plain
        return
    from dpgmm_dist.storage.scratch import folder_in, open_scratch

    options = dataset.storage_options if _same_store(dataset.path, scratch) else None
    with open_scratch(scratch, release_id, options) as place:
        prepared: list[tuple[FeatureMap | ColumnCodes, PassInput]] = []

        def prepare(
            kept_by: FeatureMap | ColumnCodes | None, query: PassQuery, report: Report
        ) -> PassInput:
            if kept_by is None:
                kept_by = ColumnCodes(query.edges, query.columns, query.about, query.missing)
            if not prepared or prepared[-1][0] is not kept_by:
                plan = rows.plan()
                rule = _rule(unit, plan)
                folder = folder_in(place, f"{len(prepared):02d}")
                found = _prepared(rows, kept_by, plan, rule, folder, engine, report)
                prepared.append((kept_by, found))
            return prepared[-1][1]

        yield prepare


def check_units(
    dataset: DatasetSpec,
    rows: AnySource,
    engine: Engine | None,
    scratch: str | None,
) -> None:
    """Refuse privacy units that cannot be enforced, before anything is spent."""
    unit = dataset.privacy_unit
    if unit is not None and isinstance(rows, LazySource):
        raise SpecError(
            f"dataset.privacy_unit: units of a {rows.collection} are not brought together; write "
            "the rows as Parquet with a column of units, or remove the key where one row is the "
            "unit"
        )
    if unit is None:
        if isinstance(rows, ArraySource) and rows.units is not None:
            raise SpecError(
                "the source has privacy units but the specification names none: set "
                "dataset.privacy_unit, or leave units out where one row is the unit"
            )
        return
    if isinstance(rows, ArraySource) and rows.units is None:
        raise SpecError(
            "dataset.privacy_unit: rows in memory need units, the privacy unit of each row; give "
            "ArraySource(..., units=...) or remove the key"
        )
    row_bytes = 4 * rows.width + DIGEST_BYTES + 12
    if unit.aggregate != "weight" and unit.max_rows * row_bytes > BUFFER_BYTES * 8:
        raise SpecError(
            f"dataset.privacy_unit.max_rows is {unit.max_rows}: that many rows of {rows.width} "
            f"features are more than {BUFFER_BYTES * 8 >> 20} MB, which a worker holds for one "
            f"unit; use at most {BUFFER_BYTES * 8 // row_bytes}"
        )
    if scratch is None and engine is not None and not getattr(engine, "same_machine", False):
        raise SpecError(
            "dataset.privacy_unit on a cluster needs --scratch: private storage that the driver "
            "and all workers reach (a shared directory, or a URL such as s3://bucket/scratch)"
        )


def _same_store(path: str, scratch: str | None) -> bool:
    return scratch is not None and scratch.partition("://")[0] == path.partition("://")[0]


def _rule(unit: PrivacyUnitSpec, plan: Sequence[PlanUnit]) -> UnitRule:
    size = sum(part.bytes for part in plan)
    buckets = max(_LEAST_BUCKETS, min(_MOST_BUCKETS, -(-size // _BUCKET_BYTES)))
    # The key is public, and does not depend on how rows are stored: docs/privacy.md, section 6.2.
    key = hashlib.blake2b(unit.column.encode(), digest_size=32, person=b"dpgmm key").digest()
    return UnitRule(unit.max_rows, unit.aggregate, key, randbits(64), buckets)


def _prepared(
    rows: AnySource,
    kept_by: FeatureMap | ColumnCodes,
    plan: Sequence[PlanUnit],
    rule: UnitRule,
    scratch: Place,
    engine: Engine,
    report: Report,
) -> PassInput:
    for_each = for_each_on(engine)
    width = len(kept_by.edges) if isinstance(kept_by, ColumnCodes) else rows.width
    for_each(Spread(rows, kept_by, width, rule, scratch), plan, partial(_part, report, 0))
    rows.require_unchanged()
    gather = Gather(spread_files(scratch), width, rule, scratch)
    for_each(gather, range(rule.buckets), partial(_part, report, 1))
    source = KeptSource(scratch, width, rows.labels, kept_files(scratch, width))
    # Changes of the input do not matter any more.
    return PassInput(source, source.plan(), lambda: None, kept_by)


def _part(report: Report, step: int, fraction: float) -> None:
    report((step + fraction) / _STEPS)


def describe_unit(unit: PrivacyUnitSpec | None) -> str:
    """What one privacy unit is, and which of its rows count; for the receipt."""
    if unit is None:
        return "one row"
    rows = f"all rows that share a value of {unit.column!r}; at most {unit.max_rows} of them count"
    return {
        "rows": f"{rows}, each as a whole row",
        "weight": f"{rows}, together as one row",
        "mean": f"{rows}, as one row: their mean",
    }[unit.aggregate]


def describe_estimand(unit: PrivacyUnitSpec | None) -> str:
    """The distribution that the release estimates; for the receipt."""
    if unit is None:
        return "the density of rows"
    kept = f"of the at most {unit.max_rows} rows kept of a unit"
    return {
        "rows": f"the density of rows, {kept}: units weigh by their number of rows, up to that",
        "weight": f"the density of a random row {kept}, every unit weighing the same",
        "mean": f"the density of unit means: of the mean {kept} that have its commonest label",
    }[unit.aggregate]
