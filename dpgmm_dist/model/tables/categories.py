"""Columns of categories, from one noisy count of each value: public numbers only.

A category becomes a coordinate of the mixture as a number does: its values are put in an order, and
each has an interval of the normal scores. With labels, values are counted for each label, and the
order is the one along which the labels change most. So a mixture of scores, which only represents
linear relations, can distinguish labels by them. Without labels it is the public order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import BinsBlock, BinsPlan, ObservedBins
from dpgmm_dist.model.tables.marginals import FineBins, Marginal, share_missing

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STEP = "categories"
SHARE = 0.08
"""Of the budget."""
_FLOOR = 1e-4
"""Mass that is spread over all values, so that each has an interval of scores."""


def categories_plan(values: Ints, features: Ints, rho: float, missing: bool) -> BinsPlan:
    """The counts to ask for.

    Parameters
    ----------
    values : (c,) number of values of each column
    features : (c,) which features the columns are
    rho : the budget of the whole release
    missing : whether values that are missing are counted, in a last bin of each column
    """
    edges = tuple(edges_of(count) for count in values.tolist())
    return BinsPlan(
        STEP, edges, (BinsBlock(rho * SHARE, by_label=True),), features, missing=missing
    )


def edges_of(values: int) -> Floats:
    """The edges between the numbers of the values of a column, which count from 0."""
    return np.arange(1, values, dtype=np.float64) - 0.5


def estimate(values: Ints, observed: ObservedBins) -> tuple[Marginal, ...]:
    """The distribution of each column, over its values in the order of their scores.

    Parameters
    ----------
    values : (c,) number of values of each column
    observed : counts (L, B) of each column, with a last bin for missing values where asked
    """
    return tuple(
        _marginal(np.atleast_2d(counts), count, observed.sigma)
        for counts, count in zip(observed.counts, values.tolist(), strict=True)
    )


def _marginal(counts: Floats, values: int, sigma: float) -> Marginal:
    """The distribution of one column from counts (L, B) of its values, and of what is missing."""
    pooled, noise = counts.sum(axis=0), sigma * np.sqrt(len(counts))
    present = max(float(pooled[:values].sum()), noise)
    mass = on_simplex(pooled[:values], present) / present
    mass = mass * (1 - _FLOOR) + _FLOOR / values
    order = association_order(counts[:, :values], sigma)
    bins = FineBins(
        0.0,
        max(values - 1.0, 1.0),
        edges_of(values),
        order.astype(np.float64),
        np.ones(values, dtype=np.bool_),
    )
    missing = 0.0
    if counts.shape[1] > values:
        missing = share_missing(float(pooled[-1]), present, noise)
    return Marginal(bins, mass[order], np.ones(values, dtype=np.bool_), missing)


def on_simplex(values: Floats, total: float) -> Floats:
    """The nearest numbers (n,) to the values that are not negative and add up to ``total``."""
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    kept = int(np.flatnonzero(falling > excess)[-1])
    return np.asarray(np.maximum(values - excess[kept], 0.0))


def association_order(counts: Floats, sigma: float) -> Ints:
    """The values (B,) in the order in which the labels change most along it.

    That is the order of the first axis of a correspondence analysis of counts (L, B), in which
    what a value says of the labels is shrunk by the noise of its counts. The order in which
    values are listed decides where there is one label alone.
    """
    labels, values = counts.shape
    if labels == 1 or values == 1:
        return np.arange(values)
    rows, columns = np.maximum(counts.sum(axis=1), sigma), np.maximum(counts.sum(axis=0), 0.0)
    expected = np.outer(rows, columns) / rows.sum()
    apart = (counts - expected) / (columns + 2 * sigma * np.sqrt(labels))
    axes, _, _ = np.linalg.svd(apart * np.sqrt(columns) / np.sqrt(rows)[:, None])
    axis = axes[:, 0] / np.sqrt(rows)
    axis *= np.sign(axis[np.abs(axis).argmax()])
    return np.argsort(axis @ apart, kind="stable")
