"""Many dimensions: the first mixture is found in the subspace where the rows are not one Gaussian.

The means of K components differ along at most K - 1 directions, however many dimensions there are.
Along all others (as long as covariances do not differ there) a label's rows are the one Gaussian
that its moments describe, and a cells pass adds nothing. So what the first cells pass measured is
compared with what that Gaussian would have given. The directions in which the difference exceeds
the noise are kept. The second cells pass and the initial mixture use these few coordinates, where
second moments of cells are cheap. The rest of each component follows from the one Gaussian by
regression, until the components passes measure it. All but the second pass is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.fitting.measured_moments import MeasuredMoments, statistics
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.pass_plan import Latent
from dpgmm_dist.model.problem import Centre
from dpgmm_dist.model.shrinkage import whitener

Floats = npt.NDArray[np.float64]

FEWEST, MOST = 4, 12
"""Directions kept: a mixture of 16 components along twelve can still be fitted to all answers
(``moment_fit.MOST_PARAMETERS``), and with more the search found worse mixtures."""
_SPARE = 2
"""Directions beyond those of the means, as noise turns all of them. With 5 components in 32
dimensions one release in four lost a component without them, one in six with one, one in eight
with two (docs/method.md)."""
_DRAWS = 30_000
_SEED = 5


@dataclass(frozen=True, eq=False)
class InformativeSubspace:
    """A few directions of latent space, and everything known along them."""

    whole: Centre
    basis: Floats
    """(p, q) orthonormal columns."""
    centre: Centre
    """In the q coordinates."""

    def project(self, mixture: Mixture) -> Mixture:
        """A mixture's marginal along the directions."""
        return replace(
            mixture,
            means=mixture.means @ self.basis,
            covariances=self.basis.T @ mixture.covariances @ self.basis,
        )

    def lift(self, mixture: Mixture) -> Mixture:
        """The mixture of all coordinates with this marginal, by each label's regression."""
        label = mixture.label_index
        gains = self.whole.covariances @ self.basis @ np.linalg.inv(self.centre.covariances)
        shift = mixture.means - self.centre.means[label]
        change = mixture.covariances - self.centre.covariances[label]
        gain = gains[label]
        means = self.whole.means[label] + (gain @ shift[:, :, None])[:, :, 0]
        covariances = self.whole.covariances[label] + gain @ change @ gain.transpose(0, 2, 1)
        covariances = (covariances + covariances.transpose(0, 2, 1)) / 2
        return replace(mixture, means=means, covariances=covariances)


def informative_subspace(
    centre: Centre, measured: Sequence[MeasuredMoments], components: int
) -> InformativeSubspace:
    """The directions in which a cells pass measured other moments than each label's Gaussian has.

    Parameters
    ----------
    measured : of each label, in pooled-whitened coordinates
    components : of a label, at the most: their means differ along one direction less
    """
    white = whitener(centre.pooled)
    apart = np.concatenate(
        [_differences(moments, centre, label, white) for label, moments in enumerate(measured)]
    )
    _, lengths, axes = np.linalg.svd(apart)  # all directions, even of one cell
    # The largest singular value of noise alone (Marchenko and Pastur).
    edge = math.sqrt(len(apart)) + math.sqrt(apart.shape[1])
    most = min(max(len(measured) * (components - 1) + _SPARE, FEWEST), MOST)
    kept = int(np.clip((lengths > edge).sum(), FEWEST, most))
    # Coordinates x @ axes of whitened x = y @ white are y @ (white axes).
    basis, _ = np.linalg.qr(white @ axes[:kept].T)
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(kept)])
    latent = centre.latent
    inner = basis if latent.basis is None else latent.basis @ basis
    return InformativeSubspace(
        centre,
        basis,
        replace(
            centre,
            latent=Latent(latent.width, inner, latent.offset),
            means=centre.means @ basis,
            covariances=basis.T @ centre.covariances @ basis,
            pooled=basis.T @ centre.pooled @ basis,
        ),
    )


def _differences(measured: MeasuredMoments, centre: Centre, label: int, white: Floats) -> Floats:
    """(C, p) first moments of cells less those of the label's Gaussian, in units of their noise."""
    p = len(white)
    mean = centre.means[label] @ white
    rng = np.random.Generator(np.random.Philox([_SEED, label]))
    half = rng.standard_normal((_DRAWS // 2, p), dtype=np.float32)
    root = np.linalg.cholesky(white @ centre.covariances[label] @ white).astype(np.float32)
    x = np.empty((_DRAWS, p), dtype=np.float32)
    np.matmul(half, root.T, out=x[: len(half)])
    middle = mean.astype(np.float32)
    np.subtract(middle, x[: len(half)], out=x[len(half) :])
    x[: len(half)] += middle
    # In float32, which takes two thirds of the time: six digits are more than the draws have.
    metric = measured.metric
    single = replace(
        measured,
        centres=measured.centres.astype(np.float32),
        maps=measured.maps.astype(np.float32),
        metric=None if metric is None else metric.astype(np.float32),
    )
    expected = statistics(single, x, np.full(len(x), 1 / len(x), dtype=np.float32))
    difference = measured.values - expected
    first = difference[:, 1 : 1 + p] + difference[:, :1] * (measured.centres - mean)
    sampling = np.maximum(expected[:, 0], 0.0) * (1 / max(measured.rows, 1.0) + 1 / len(x))
    return np.asarray(first / np.sqrt(measured.sigma[:, 1] ** 2 + sampling)[:, None])
