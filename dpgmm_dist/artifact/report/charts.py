"""Small charts as SVG text. The same values give the same bytes, and no library is needed.

Colours come from the CSS of the page (classes ``bar``, ``alt``, ``whisker``, ``grid``, ``text``),
so that charts follow its light and dark themes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dpgmm_dist.artifact.report.page import COLOURS

_LEFT, _TOP, _BOTTOM, _HEIGHT = 56, 12, 34, 190


@dataclass(frozen=True)
class Bar:
    """One bar of `column_chart`."""

    value: float
    error: float
    """Half the length of the whisker; infinite for a value that the noise leaves undetermined."""
    group: str
    """Consecutive bars of one group share a shade and a caption."""
    title: str
    """Shown when the pointer is on the bar."""


def column_chart(bars: Sequence[Bar], caption: str) -> str:
    """Vertical bars with whiskers of one standard error, over a labelled axis from 0."""
    top = _axis_top(bars)
    pitch = max(8, min(40, 640 // max(1, len(bars))))
    width = _LEFT + pitch * len(bars) + 16

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (1 - min(max(value / top, 0.0), 1.0))

    parts = [_open(width, _TOP + _HEIGHT + _BOTTOM, caption)]
    for tick in _ticks(top):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{width - 16}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text class="text" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:.3g}</text>'
        )
    shade, previous = 0, None
    for position, bar in enumerate(bars):
        shade, previous = shade + (previous not in (None, bar.group)), bar.group
        x = _LEFT + pitch * position + 0.15 * pitch
        middle = x + 0.35 * pitch
        parts.append(
            f'<g><title>{escape(bar.title)}</title><rect class="{"alt" if shade % 2 else "bar"}" '
            f'x="{x:.1f}" y="{y(bar.value):.1f}" width="{0.7 * pitch:.1f}" '
            f'height="{_TOP + _HEIGHT - y(bar.value):.1f}"/>'
            f'<line class="whisker" x1="{middle:.1f}" x2="{middle:.1f}" '
            f'y1="{y(bar.value - bar.error):.1f}" y2="{y(bar.value + bar.error):.1f}"/></g>'
        )
    parts += _captions(bars, pitch)
    return "".join([*parts, "</svg>"])


def share_bar(shares: Sequence[tuple[str, float]], caption: str) -> str:
    """One horizontal bar divided into shares of a whole, in the classes ``k0``, ``k1`` and on."""
    total = sum(share for _, share in shares) or 1.0
    description = ", ".join(f"{name} {share / total:.0%}" for name, share in shares)
    parts = [
        f'<div class="budget" role="img" aria-label="{escape(caption)}: {escape(description)}">'
    ]
    for position, (name, share) in enumerate(shares):
        parts.append(
            f'<span class="k{position % COLOURS}" style="width:{100 * share / total:.2f}%" '
            f'title="{escape(name)}: {share / total:.1%}"></span>'
        )
    return "".join([*parts, "</div>"])


def _open(width: float, height: float, caption: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(caption)}" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
    )


def _axis_top(bars: Sequence[Bar]) -> float:
    """The upper end of the axis: whiskers fit up to twice the highest bar, longer ones are cut."""
    highest = max((bar.value for bar in bars), default=0.0)
    reach = max((bar.value + min(bar.error, highest) for bar in bars), default=0.0)
    return reach * 1.05 or 1.0


def _ticks(top: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10(top))
    step = next(step * part for part in (1, 0.5, 0.2, 0.1) if top / (step * part) >= 3)
    return [step * i for i in range(int(top / step) + 1)]


def _captions(bars: Sequence[Bar], pitch: int) -> list[str]:
    """The name of each group below its bars, shortened to the room that they have."""
    parts, start = [], 0
    for end in range(1, len(bars) + 1):
        if end < len(bars) and bars[end].group == bars[start].group:
            continue
        middle = _LEFT + pitch * (start + end) / 2
        room = max(1, pitch * (end - start) // 7)
        name = bars[start].group
        name = name if len(name) <= room else name[: room - 1] + "…"
        parts.append(
            f'<text class="text" x="{middle:.1f}" y="{_TOP + _HEIGHT + 18}" '
            f'text-anchor="middle">{escape(name)}</text>'
        )
        start = end
    return parts
