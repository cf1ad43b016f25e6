"""What passes measured of one label, and what they would have measured of another mixture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.allocation import clipped_share
from dpgmm_dist.model.fitting.em import Fit, log_components, pairs, triangle
from dpgmm_dist.model.fitting.seeding import Reals, nearest
from dpgmm_dist.model.pass_plan import Observed

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_SHARE = 1e-4
"""Of a row in a cell, below which it is left out: the kernel's table ends there too."""


@dataclass(frozen=True, eq=False)
class MeasuredMoments:
    """What one pass measured of one label, in shares of its rows."""

    centres: Floats
    """(C, p)"""
    maps: Floats
    """(C, p, p): a cell sees a row as ``map @ (x - centre)``, clipped to the radius."""
    radius: float
    values: Floats
    """(C, M) count, sum and, where measured, the upper triangle of the second moment."""
    sigma: Floats
    """(C, M) standard deviation of the noise on each."""
    rows: float
    """Rows that shares are of, which says how large their sampling error is."""
    asked: Fit | None = None
    """The mixture whose responsibilities assign rows; None for the nearest cell."""
    metric: Floats | None = None
    """(p, p) map in which the nearest cell is sought; None for the coordinates themselves."""

    @property
    def second(self) -> bool:
        """Whether second moments were measured."""
        return bool(self.values.shape[1] > 1 + self.centres.shape[1])

    def shares(self, x: Reals) -> Floats | Ints:
        """Responsibilities (n, C), or the index (n,) of each row's cell."""
        if self.asked is not None:
            return responsibilities(self.asked, x)
        if self.metric is None:
            return nearest(x, self.centres)
        return nearest(x @ self.metric.T, self.centres @ self.metric.T)

    def inside(self, x: Reals, cell: int) -> Reals:
        """Rows (n, p) as a cell sees them: mapped and clipped."""
        v = (x - self.centres[cell]) @ self.maps[cell].T
        length = np.sqrt(np.einsum("ij,ij->i", v, v))
        v *= np.minimum(1.0, self.radius / np.maximum(length, 1e-30))[:, None]
        return np.asarray(v)

    def features(self, x: Reals, cell: int, kind: npt.DTypeLike = np.float64) -> Any:
        """What rows (n, p) add to a cell's statistics (n, M), as floats of a kind."""
        v = self.inside(x, cell).astype(kind, copy=False)
        p = v.shape[1]
        out = np.empty((len(v), self.values.shape[1]), dtype=kind)
        out[:, 0], out[:, 1 : 1 + p] = 1.0, v
        if self.second:
            pairs(v, out[:, 1 + p :])
        return out

    def total(self, x: Reals, weight: Reals, cell: int) -> Reals:
        """(M,) weighted sum of :meth:`features`."""
        v = self.inside(x, cell)
        parts = [np.atleast_1d(weight.sum()), weight @ v]
        if self.second:
            parts.append(((v * weight[:, None]).T @ v)[triangle(v.shape[1])])
        return np.concatenate(parts)


def moments_of_label(
    answer: Observed,
    label: int,
    white: Floats,
    rows: float,
    asked: Fit | None = None,
    metric: Floats | None = None,
) -> MeasuredMoments:
    """What a pass measured of a label, in coordinates ``x = y @ white`` of latent ``y``.

    Parameters
    ----------
    rows : noisy number of the label's rows, which shares are of
    asked : the label's mixture (in the same coordinates) if the pass took its responsibilities
    metric : (p, p) latent map of the distances that assign rows; None for ``white`` itself
    """
    cells = np.flatnonzero(answer.cell_label == label)
    p = answer.centres.shape[1]
    names: tuple[tuple[str, int], ...] = (("count", 1), ("sum", p), ("second", p * (p + 1) // 2))
    rows_of, columns_of = triangle(p)
    values, sigmas = [], []
    for block in answer.blocks:
        width = dict(names)[block.statistic]
        measured = block.values[cells]
        sigma = np.full(width, block.sigma)
        if block.statistic == "second":
            measured = measured[:, rows_of, columns_of]
            sigma[rows_of != columns_of] /= np.sqrt(2)
        values.append(measured.reshape(len(cells), width))
        sigmas.append(np.broadcast_to(sigma, (len(cells), width)))
    back = np.linalg.inv(white)
    return MeasuredMoments(
        centres=answer.centres[cells] @ white,
        maps=np.linalg.inv(answer.unwhiten[cells]) @ back,
        radius=answer.radius,
        values=np.hstack(values) / rows,
        sigma=np.hstack(sigmas) / rows,
        rows=rows,
        asked=asked,
        metric=None if metric is None else metric @ back,
    )


def responsibilities(fit: Fit, x: Reals) -> Floats:
    """Posterior probabilities (n, K) of components; weights need not sum to one."""
    joint = log_components(x, fit.means, fit.covariances) + np.log(fit.weights)
    share = np.exp(joint - joint.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def exact_statistics(measured: MeasuredMoments) -> Floats:
    """(C, M) exact answers of the mixture that a soft pass was asked with: what clipping leaves."""
    if measured.asked is None:
        raise ValueError("only a pass with responsibilities has exact statistics")
    p = measured.centres.shape[1]
    out = np.zeros(measured.values.shape)
    out[:, 0] = measured.asked.weights
    if measured.second:
        rows, columns = triangle(p)
        diagonal = 1 + p + np.flatnonzero(rows == columns)
        out[:, diagonal] = measured.asked.weights[:, None] * clipped_share(p, measured.radius)
    return out


def statistics(measured: MeasuredMoments, x: Reals, mass: Reals) -> Floats:
    """(C, M) what a pass would measure of weighted draws."""
    out = np.empty(measured.values.shape)
    for members, weight, cell in members_by_cell(measured, x):
        out[cell] = measured.total(x.take(members, axis=0), mass[members] * weight, cell)
    return out


def squares(measured: MeasuredMoments, x: Floats, mass: Floats) -> Floats:
    """(C, M) mean square of what weighted draws add to each statistic."""
    out = np.empty(measured.values.shape)
    for members, weight, cell in members_by_cell(measured, x):
        features = measured.features(x.take(members, axis=0), cell)
        out[cell] = (mass[members] * weight**2) @ features**2
    return out


def members_by_cell(measured: MeasuredMoments, x: Reals) -> Iterator[tuple[Ints, Reals, int]]:
    """Of every cell: the rows that have a share in it, their shares, and its index."""
    share = measured.shares(x)
    cells = len(measured.centres)
    if share.ndim == 1:
        order = np.argsort(share, kind="stable")
        edges = np.searchsorted(share[order], np.arange(cells + 1))
        for cell in range(cells):
            members = order[edges[cell] : edges[cell + 1]]
            yield members, np.ones(len(members), dtype=x.dtype), cell
        return
    for cell in range(cells):
        members = np.flatnonzero(share[:, cell] > _LEAST_SHARE)
        yield members, np.asarray(share[members, cell], dtype=np.float64), cell
