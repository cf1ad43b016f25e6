"""How the budget of a pass is split: the least expected KL divergence of the released mixture.

Expected KL of a component measured in coordinates where it is white (P = I, p dimensions), with
noise of scale s on each statistic and n_k = n pi_k rows, to second order in the noise:

* count: ``s^2 (1/2 + p/4) / (n^2 pi_k)`` (the weight, and the covariance through division);
* mean: ``s^2 (p/2) / (n^2 pi_k)``;
* covariance (isotropic in Frobenius norm): ``s^2 (p + p^2)/8 / (n^2 pi_k)``.

Summed over components every type has the same factor ``sum_k 1/(n^2 pi_k)``, so the best split
does not depend on the weights. Derivation: docs/privacy.md and arXiv 2506.03467.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def kl_curvatures(p: int) -> tuple[float, float, float]:
    """Expected KL per squared noise scale for (count, sum, second), per ``1/(n^2 pi_k)``."""
    return 0.5 + p / 4, p / 2, (p + p * p) / 8


def split(
    rho: float, sensitivities: Sequence[float], curvatures: Sequence[float], allocation: str
) -> list[float]:
    """Shares of rho that minimise ``sum_i a_i D_i^2 / (2 rho_i)``, or equal shares.

    With ``s_i^2 = D_i^2 / (2 rho_i)`` the minimum under ``sum rho_i = rho`` is at
    ``rho_i`` proportional to ``D_i sqrt(a_i)``.

    Parameters
    ----------
    rho : zCDP budget of the pass
    sensitivities : D_i of each statistic
    curvatures : a_i of each statistic, expected KL per squared noise scale
    allocation : "kl", or "even" for comparison
    """
    weights = [
        1.0 if allocation == "even" else d * math.sqrt(a)
        for d, a in zip(sensitivities, curvatures, strict=True)
    ]
    return [rho * weight / sum(weights) for weight in weights]


def expected_kl(p: int, rows: float, weights: Floats, variances: Sequence[float]) -> list[float]:
    """Expected KL in nats from each of (count, sum, second) at these noise variances."""
    spread = float((1.0 / np.maximum(weights, 1e-12)).sum()) / rows**2
    return [a * v * spread for a, v in zip(kl_curvatures(p), variances, strict=True)]


def whitened_radius(p: int) -> float:
    """Clipping radius in units where a component is white. Few Gaussian rows are longer."""
    return math.sqrt(p) + 2.0


CLIPPED = 0.05
"""Share of a component's rows that may be clipped where the fit corrects for clipping."""


def component_radius(p: int) -> float:
    """Clipping radius where a mixture is fitted by its own clipped moments.

    Noise grows with the radius (squared, for second moments), and what clipping removes is known
    under the component's own model: the expected KL of the noise is least at about ``sqrt(p)``,
    where it clips half of the rows, and is there a third or a quarter of what it is at
    :func:`whitened_radius`. But rows that are not Gaussian are then judged by their central part
    alone. So no more than :data:`CLIPPED` of a Gaussian's rows are clipped: docs/method.md, section
    3.4.
    """
    low, high = 0.0, whitened_radius(p) ** 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_beyond(p, middle) > CLIPPED else (low, middle)
    return math.sqrt(high)


def clipped_share(p: int, radius: float) -> float:
    """``E min(|w|, t)^2 / p`` for white Gaussian rows: what clipping leaves of the variance."""
    square = radius**2
    return 1 - _share_beyond(p + 2, square) + square / p * _share_beyond(p, square)


def _share_beyond(p: int, square: float) -> float:
    """Share of white Gaussian rows (p,) of a squared norm beyond ``square``.

    The upper tail of chi-squared, a finite sum for whole degrees of freedom (Abramowitz and
    Stegun, 26.4.4 and 26.4.5): scipy.special has it, but takes half a pass to import.
    """
    if square <= 0:
        return 1.0
    half = square / 2
    powers = (i + p % 2 / 2 for i in range(p // 2))
    terms = [math.exp(k * math.log(half) - half - math.lgamma(k + 1)) for k in powers]
    return math.fsum([math.erfc(math.sqrt(half)) if p % 2 else 0.0, *terms])


def rows_per_component(p: int, rho: float, allocation: str = "kl") -> float:
    """Rows a component needs for a covariance of its own: the rule of thumb of docs/method.md.

    With at least this many rows, noise has at most half the energy of a white covariance, if the
    last pass costs ``rho``. With fewer, covariances consist mostly of their shrinkage target.
    """
    radius = whitened_radius(p)
    share = split(rho, [1.0, radius, radius**2], kl_curvatures(p), allocation)[2]
    return radius**2 * math.sqrt((p + 1) / (2 * share))
