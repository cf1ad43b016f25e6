"""Exact sums of made-up rows, readable and repeatable; only for an audit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dpgmm_dist.audit.game import Floats, entries_of
from dpgmm_dist.passes.kernel import statistic_sizes
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import InsecureTestNoise
from dpgmm_dist.privacy.query import Block, PassQuery


def opened(exact: ExactStatistic, query: PassQuery) -> list[Floats]:
    """The entries of exact sums of made-up rows: the gate adds test noise, which is subtracted."""
    zeros = ExactStatistic.zeros(query.step, statistic_sizes(query))
    noisy = measure(exact, query, InsecureTestNoise(0)).values
    noise = measure(zeros, query, InsecureTestNoise(0)).values
    return entries_of(query, tuple(a - b for a, b in zip(noisy, noise, strict=True)))


def query_for(query: PassQuery, answers: int) -> PassQuery:
    """The query with its groups repeated: the gate then answers it that many times in one call."""

    def repeated(block: Block) -> Block:
        groups = block.groups.copy()
        groups[0] = answers * block.group_count - 1
        return replace(block, groups=groups)

    return replace(query, blocks=tuple(map(repeated, query.blocks)))


def statistic_of(query: PassQuery, entries: list[Floats], copies: int) -> ExactStatistic:
    """Exact sums of made-up rows, repeated one after the other."""
    sizes = statistic_sizes(query)
    exact = ExactStatistic.zeros(query.step, tuple(copies * size for size in sizes))
    remaining = iter(entries)
    for index, block in enumerate(query.blocks):
        p, groups = query.dimension_of(block), block.group_count
        values = next(remaining).reshape(groups, -1)
        if block.statistic == "second":
            upper, rows_columns = np.empty((groups, p * (p + 1) // 2)), np.triu_indices(p)
            diagonal = rows_columns[0] == rows_columns[1]
            upper[:, diagonal] = values
            if p > 1:
                upper[:, ~diagonal] = next(remaining).reshape(groups, -1)
            values = upper
        whole = np.rint(values * query.weight_unit).astype(np.int64)
        exact.add_integers(index, np.tile(whole.reshape(-1), copies))
    return exact
