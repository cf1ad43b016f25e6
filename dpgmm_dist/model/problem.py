"""What is to be released, and what is known of it so far: public numbers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.mixture import LabelValue, Mixture, StandardErrors
from dpgmm_dist.model.pass_plan import Latent, Observed, PassPlan

Floats = npt.NDArray[np.float64]

Ask = Callable[[PassPlan, Latent], Observed]
"""Answers a pass plan: it charges, measures and stores. Everything private is behind it."""


@dataclass(frozen=True)
class Problem:
    """The public specification of a fit, in feature units."""

    width: int
    """Number of features d."""
    norm: float
    """Public bound on the norm of a row in feature units."""
    rho: float
    """zCDP budget of the whole release."""
    label_values: tuple[LabelValue, ...] = ()
    components: int | tuple[int, ...] | str = 10
    """Components per label: a number, candidates to choose from, or "auto"."""
    covariance: str = "auto"
    assignment: str = "soft"
    dimension: int | None = None
    allocation: str = "kl"
    normal_scores: bool = False
    """Whether features are normal scores of a table's columns: each is Gaussian, all together."""

    @property
    def labels(self) -> int:
        """Number of labels L, 1 when unlabelled."""
        return max(1, len(self.label_values))

    @property
    def asked_components(self) -> int:
        """The largest number of components of a label that was asked for; 1 where none was."""
        wanted = self.components
        if isinstance(wanted, str):
            return 1
        return max(wanted) if isinstance(wanted, tuple) else wanted

    @property
    def latent_dimension(self) -> int:
        """Number of latent coordinates p."""
        return self.width if self.dimension is None else min(self.dimension, self.width)


@dataclass(frozen=True, eq=False)
class Centre:
    """The centre of the data: what the moments passes released."""

    latent: Latent
    rows: Floats
    """(L,) noisy numbers of rows, at least 1."""
    rows_sigma: float
    """Standard deviation of the noise on each."""
    means: Floats
    """(L, p) latent."""
    covariances: Floats
    """(L, p, p) latent, positive definite."""
    pooled: Floats
    """(p, p) within-label covariance, positive definite."""
    residual_variance: float
    """Variance of each direction outside the latent space, feature units squared."""

    @property
    def total(self) -> float:
        """Noisy number of rows, at least 1."""
        return max(float(self.rows.sum()), 1.0)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a release publishes."""

    mixture: Mixture
    errors: StandardErrors
    latent: Latent
    residual_variance: float
    rows: float
    """Noisy number of rows."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Public remarks for the receipt: choices made and expected errors."""
