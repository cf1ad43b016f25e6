"""A square drawing area with the same scale along both axes."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """A square of ``size`` pixels that shows ``reach`` around a centre."""

    size: int
    centre: Floats
    """(2,)"""
    reach: float
    """Half the width of what is shown."""

    @property
    def scale(self) -> float:
        """Pixels of one unit."""
        return self.size / (2 * self.reach)

    def place(self, point: Floats) -> tuple[float, float]:
        """Pixels of a point (2,); up is positive."""
        x, y = (point - self.centre) * self.scale + self.size / 2
        return float(x), float(self.size - y)

    def open(self, caption: str) -> str:
        """The opening tag, with the text that a screen reader says."""
        return (
            f'<svg role="img" aria-label="{escape(caption)}" width="{self.size}" '
            f'height="{self.size}" viewBox="0 0 {self.size} {self.size}">'
        )

    def axes(self) -> str:
        """Lines through zero, where zero is shown."""
        x, y = self.place(np.zeros(2))
        parts = []
        if 0 < x < self.size:
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{self.size}"/>')
        if 0 < y < self.size:
            parts.append(f'<line class="grid" x1="0" x2="{self.size}" y1="{y:.1f}" y2="{y:.1f}"/>')
        return "".join(parts)
