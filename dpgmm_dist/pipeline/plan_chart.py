"""A plan as a picture: the expected loss by epsilon, for several numbers of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline.outlook import Setting
from dpgmm_dist.pipeline.plan import ASSUMED_ROWS, Plan

FORMATS = ("svg", "png", "pdf")
_POINTS = 17
_TIMES = (0.1, 1, 10)
"""Numbers of rows that are drawn, as multiples of the guess."""


def draw(planned: Plan, file: Path) -> None:
    """Write the chart as SVG, PNG or PDF, by the ending of the file.

    Raises
    ------
    SpecError
        When the ending is another one.
    DataError
        When the file cannot be written.
    """
    if file.suffix.lstrip(".") not in FORMATS:
        raise SpecError(
            f"--plot {file}: the file must end in {', '.join('.' + f for f in FORMATS)}"
        )
    figure = _figure(planned)
    try:
        figure.savefig(file, bbox_inches="tight", dpi=150)
    except OSError as error:
        raise DataError(f"--plot {file}: cannot be written ({error.strerror})") from None


def curve(setting: Setting, rows: int) -> tuple[list[float], list[float]]:
    """Settings of epsilon, and the expected loss of each; infinite where not afforded."""
    epsilons = [float(e) for e in setting.epsilon * np.geomspace(1 / 16, 16, _POINTS)]
    return epsilons, [setting.loss(setting.at(epsilon), rows) for epsilon in epsilons]


def _figure(planned: Plan) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    guess = planned.rows or ASSUMED_ROWS
    figure = Figure(figsize=(6.4, 4.2))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for times in _TIMES:
        rows = max(1, round(guess * times))
        axes.plot(
            *curve(planned.setting, rows), label=f"{rows:,} rows", lw=2 if times == 1 else 1.2
        )
    axes.axvline(planned.epsilon, color="gray", lw=0.8, ls=":", label="as specified")
    if planned.want is not None:
        axes.axhline(planned.want.loss, color="gray", lw=0.8, ls="--", label="wanted")
    axes.set(xscale="log", yscale="log", xlabel="epsilon", ylabel="expected loss, nats a row")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    return figure
