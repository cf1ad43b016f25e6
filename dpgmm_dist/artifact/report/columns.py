"""Pictures of a table in its own units: each column, and the most strongly related pairs.

They are drawn from rows that are sampled from the release with a fixed seed, so that bounds, whole
numbers and values that many rows have look as they do in sampled rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from dpgmm_dist.artifact.columns import number_type, stored_values
from dpgmm_dist.artifact.load import Release
from dpgmm_dist.artifact.report.page import figure
from dpgmm_dist.artifact.sample import Sampler
from dpgmm_dist.column_kinds import DAY, Kind, kind_of

Floats = NDArray[np.float64]

_ROWS = 4000
_SEED = 0
_MOST_COLUMNS = 24
_MOST_PAIRS = 6
_FEW_VALUES = 12
_BINS = 28
_CELLS = 24
_WIDTH, _HEIGHT, _FOOT = 248, 110, 20
_TAIL = 0.5
"""Percent of the sampled values beyond either end of a picture."""


@dataclass(frozen=True, eq=False)
class SampledColumn:
    """The values of one column in sampled rows."""

    name: str
    kind: Kind
    values: Floats
    """(n,); NaN where a cell is empty. A category is the number of one of ``words``."""
    words: tuple[str, ...] = ()

    @property
    def present(self) -> Floats:
        """The values of the cells that are not empty."""
        return self.values[np.isfinite(self.values)]

    def text(self, value: float) -> str:
        """A value as people write it."""
        return self.words[round(value)] if self.words else text_of(value, self.kind)

    @property
    def span(self) -> tuple[float, float]:
        """The ends of a picture: nearly all values, and more than nothing."""
        low, high = (float(end) for end in np.percentile(self.present, [_TAIL, 100 - _TAIL]))
        return (low, high) if high > low else (low - 0.5, high + 0.5)


def sampled_columns(release: Release) -> list[SampledColumn]:
    """The columns of a table; none where the input is a column of embeddings."""
    schema = release.receipt["input"]
    if schema["kind"] != "columns":
        return []
    sampler = Sampler.of(release, _SEED)
    rows = np.concatenate([rows for rows, _ in sampler.blocks(0, 1, _ROWS)])
    rows = stored_values(rows, sampler.schema, sampler.categories)
    found = []
    for j, column in enumerate(schema["columns"][:_MOST_COLUMNS]):
        name = column["name"]
        if name in sampler.categories:
            words = tuple(str(value) for value in sampler.categories[name])
            found.append(SampledColumn(name, "number", rows[:, j], words))
        else:
            kind = kind_of(number_type(column["type"])) or "number"
            found.append(SampledColumn(name, kind, rows[:, j]))
    return [column for column in found if np.isfinite(column.values).any()]


def marginal_figures(columns: Sequence[SampledColumn]) -> list[str]:
    """One histogram a column."""
    return [figure(_histogram(column), _summary(column), column.name) for column in columns]


def pair_figures(columns: Sequence[SampledColumn]) -> list[str]:
    """One density for each of the pairs with the strongest rank correlation."""
    columns = [column for column in columns if not column.words]
    related = {
        (i, j): _rank_correlation(columns[i].values, columns[j].values)
        for i in range(len(columns))
        for j in range(i)
    }
    strongest = sorted(related, key=lambda pair: -abs(round(related[pair], 6)))
    return [
        figure(
            _density(columns[j], columns[i]),
            f"Right: {columns[j].name}, {_ends(columns[j])}. Up: {columns[i].name}, "
            f"{_ends(columns[i])}. Rank correlation {related[i, j]:.2f}.",
            f"{columns[i].name} by {columns[j].name}",
        )
        for i, j in strongest[:_MOST_PAIRS]
    ]


def _rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's, of the rows in which neither cell is empty; 0 for a constant."""
    present = np.isfinite(a) & np.isfinite(b)
    ranks = [rankdata(values[present]) - (present.sum() + 1) / 2 for values in (a, b)]
    lengths = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / lengths if lengths > 0 else 0.0


def text_of(value: float, kind: Kind) -> str:
    """A number as the value of a column of a kind that it stands for."""
    if kind == "date":
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=round(value))).date().isoformat()
    if kind == "timestamp":
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=round(value))
        return moment.strftime("%Y-%m-%d %H:%M")
    if kind == "time":
        minutes = round(value / 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}"
    if kind == "duration":
        return f"{value / DAY:.3g} d" if abs(value) >= DAY else f"{value:.4g} s"
    if 1e4 <= abs(value) < 1e15 and value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _ends(column: SampledColumn) -> str:
    low, high = column.span
    return f"{column.text(low)} to {column.text(high)}"


def _summary(column: SampledColumn) -> str:
    share = 1 - len(column.present) / len(column.values)
    return _values_in_words(column) + (f" Empty: {share:.1%}." if share > 0 else "")


def _values_in_words(column: SampledColumn) -> str:
    if column.words:
        values, counts = np.unique(column.present, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:3]
        common = ", ".join(
            f"{column.text(float(values[i]))} {counts[i] / counts.sum():.0%}" for i in order
        )
        return f"Commonest: {common}."
    low, middle, high = np.percentile(column.present, [5, 50, 95])
    return (
        f"Median {column.text(float(middle))}; 90% from {column.text(float(low))} to "
        f"{column.text(float(high))}."
    )


def _histogram(column: SampledColumn) -> str:
    distinct = np.unique(column.present)
    if len(distinct) <= _FEW_VALUES:
        counts = (column.values[:, None] == distinct).sum(axis=0)
        ends = (column.text(float(distinct[0])), column.text(float(distinct[-1])))
    else:
        counts = np.histogram(column.present, _edges(column, _BINS))[0]
        low, high = column.span
        ends = (column.text(low), column.text(high))
    pitch, gap = _WIDTH / len(counts), 0.12 if len(distinct) > _FEW_VALUES else 0.4
    parts = [_open(f"Distribution of {column.name}: {_summary(column)}", _HEIGHT + _FOOT)]
    for i, count in enumerate(counts):
        height = _HEIGHT * count / max(counts.max(), 1)
        parts.append(
            f'<rect class="bar" x="{pitch * (i + gap / 2):.1f}" y="{_HEIGHT - height:.1f}" '
            f'width="{pitch * (1 - gap):.1f}" height="{height:.1f}"/>'
        )
    return "".join([*parts, *_axis(*ends, _HEIGHT), "</svg>"])


def _edges(column: SampledColumn, most: int) -> Floats:
    """Edges of at most so many bins; for whole numbers, each bin holds equally many of them."""
    low, high = column.span
    if (column.present != np.round(column.present)).any():
        return np.linspace(low, high, most + 1)
    first, last = math.ceil(low), math.floor(high)
    step = math.ceil((last - first + 1) / most)
    bins = math.ceil((last - first + 1) / step)
    return first - 0.5 + step * np.arange(max(bins, 1) + 1, dtype=np.float64)


def _density(right: SampledColumn, up: SampledColumn) -> str:
    present = np.isfinite(right.values) & np.isfinite(up.values)
    edges = (_edges(right, _CELLS), _edges(up, _CELLS))
    counts = np.histogram2d(right.values[present], up.values[present], edges)[0]
    across, tall = _WIDTH / counts.shape[0], _WIDTH / counts.shape[1]
    top = max(float(counts.max()), 1.0)
    parts = [_open(f"{up.name} by {right.name}", _WIDTH + _FOOT)]
    for i, j in np.argwhere(counts > 0):
        parts.append(
            f'<rect class="heat" x="{across * i:.1f}" y="{_WIDTH - tall * (j + 1):.1f}" '
            f'width="{across:.1f}" height="{tall:.1f}" '
            f'opacity="{max(0.06, float(counts[i, j] / top) ** 0.5):.2f}"/>'
        )
    low, high = right.span
    return "".join([*parts, *_axis(right.text(low), right.text(high), _WIDTH), "</svg>"])


def _axis(low: str, high: str, height: int) -> list[str]:
    return [
        f'<line class="grid" x1="0" x2="{_WIDTH}" y1="{height}" y2="{height}"/>',
        f'<text class="text" x="0" y="{height + 15}">{escape(low)}</text>',
        f'<text class="text" x="{_WIDTH}" y="{height + 15}" text-anchor="end">{escape(high)}'
        "</text>",
    ]


def _open(caption: str, height: int) -> str:
    return (
        f'<svg role="img" aria-label="{escape(caption)}" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">'
    )
