"""Answers to the plans of stages: true sums of rows with the noise of the gate, as floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dpgmm_dist.model.pass_plan import (
    POWERS,
    BlockPlan,
    Latent,
    Observed,
    ObservedBlock,
    PassPlan,
    inverses_of,
)
from dpgmm_dist.model.problem import Ask

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Change = Callable[[PassPlan, ObservedBlock], Floats]


def ask_of(
    X: Floats,
    y: Ints,
    seed: int = 0,
    noise: float = 1.0,
    change: Change | None = None,
    costs: list[float] | None = None,
) -> Ask:
    """Answers about rows X (n, d) of labels y (n,), for plans with one cell a label.

    Parameters
    ----------
    noise : times what the budget of each block calls for
    change : what to answer in place of the noisy values
    costs : gets the rho of each plan
    """
    rng = np.random.default_rng(seed)

    def ask(plan: PassPlan, latent: Latent) -> Observed:
        assert plan.rule == "label"
        if costs is not None:
            costs.append(plan.rho)
        v = latent.to_latent(X) - plan.centres[y]
        unwhiten = np.broadcast_to(np.eye(v.shape[1]), (len(plan.centres), *[v.shape[1]] * 2))
        if plan.cell_map is not None:
            assert not plan.cell_map.any()
            v = v * plan.whiten[0]
            unwhiten = inverses_of(plan.whiten, plan.cell_map)
        blocks = []
        for block in plan.blocks:
            radius = block.radius or plan.radius
            sigma = max(noise * radius ** POWERS[block.statistic] / np.sqrt(2 * block.rho), 1e-12)
            values = _sums(block, v, y, radius)
            values = values + sigma * _noise(values, rng)
            found = ObservedBlock(block.statistic, block.groups, values, sigma)
            if change is not None:
                found = ObservedBlock(block.statistic, block.groups, change(plan, found), sigma)
            blocks.append(found)
        return Observed(
            plan.step,
            plan.cell_label,
            plan.centres,
            lambda: unwhiten,
            plan.radius,
            tuple(blocks),
            plan.rho,
        )

    return ask


def _sums(block: BlockPlan, v: Floats, y: Ints, radius: float) -> Floats:
    start, stop = block.axes or (0, v.shape[1])
    v = v[:, start:stop]
    length = np.linalg.norm(v, axis=1)
    clipped = v * np.minimum(1.0, radius / np.maximum(length, 1e-300))[:, None]
    of_row = {
        "count": np.ones(len(v)),
        "sum": clipped,
        "square": np.minimum(length, radius) ** 2,
        "second": clipped[:, :, None] * clipped[:, None, :],
    }[block.statistic]
    out = np.zeros((int(block.groups.max()) + 1, *of_row.shape[1:]))
    np.add.at(out, block.groups[y], of_row)
    return out


def _noise(values: Floats, rng: np.random.Generator) -> Floats:
    drawn = rng.standard_normal(values.shape)
    if values.ndim < 3:
        return drawn
    upper = np.triu(drawn, 1) / np.sqrt(2)
    return upper + upper.transpose(0, 2, 1) + drawn * np.eye(values.shape[1])


def rows(n: int, labels: int, d: int, seed: int = 0) -> tuple[Floats, Ints]:
    """Rows of norm mostly below 1, about a mean of each label, wide along few directions."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, labels, n)
    scale = 0.25 / (1 + np.arange(d)) ** 0.7
    centres = 0.15 * rng.standard_normal((labels, d)) / np.sqrt(d)
    centres[:, 0] += 0.3
    X = centres[y] + rng.standard_normal((n, d)) * scale * 0.8
    return X / np.maximum(np.linalg.norm(X, axis=1), 1.0)[:, None], y


def zeros(_: PassPlan, block: ObservedBlock) -> Floats:
    """Nothing at all."""
    return np.zeros_like(block.values)


def negative(_: PassPlan, block: ObservedBlock) -> Floats:
    """Counts and squares below zero, second moments without a positive direction."""
    return -np.abs(block.values) - 50 * block.sigma


def huge(_: PassPlan, block: ObservedBlock) -> Floats:
    """Far more than any rows could sum to."""
    return 1e9 * (np.abs(block.values) + block.sigma)


HOSTILE: dict[str, Change] = {"zeros": zeros, "negative": negative, "huge": huge}
