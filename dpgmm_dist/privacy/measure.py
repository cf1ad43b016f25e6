"""The gate: the only function that opens an exact statistic and the only caller of the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.noise import InsecureTestNoise, NoiseSource
from dpgmm_dist.privacy.query import Block, PassQuery, pack, unpack
from dpgmm_dist.privacy.sensitivity import check_fits

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NoisyStatistic:
    """The noisy answer to one query. It is public.

    ``values[i]`` belongs to the query's block i, in lattice units of whole rows: (G,) counts
    and squares, (G, p) sums or (G, p, p) symmetric second moments, for G groups and p coordinates;
    (G, B) counts of the bins of all columns, one column after the other.
    """

    step: str
    values: tuple[Floats, ...]

    def to_bytes(self) -> bytes:
        """Serialise as an npz, without pickles."""
        arrays = {f"block_{i}": value for i, value in enumerate(self.values)}
        return pack({"schema": 1, "step": self.step}, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> NoisyStatistic:
        """Read what :meth:`to_bytes` wrote; raise DataError if it is damaged."""
        return unpack(
            data,
            lambda header, arrays: cls(
                header["step"], tuple(arrays[f"block_{i}"] for i in range(len(arrays)))
            ),
        )


def measure(exact: ExactStatistic, query: PassQuery, noise: NoiseSource) -> NoisyStatistic:
    """Answer a query: every integer of every block gets its own noise, then becomes float64.

    Pre-condition: ``exact`` holds this query's integer sums, and ``query_cost(query)`` has been
    charged. Post-condition: the result is ``query_cost(query)``-zCDP (with Gaussian noise,
    ``sqrt(2 query_cost(query))``-GDP). Proof: docs/privacy.md, section 8.
    """
    check_fits(query)
    if isinstance(noise, InsecureTestNoise):
        noise.restart(query.step)
    values = tuple(
        _answer(exact, index, query, block, noise) for index, block in enumerate(query.blocks)
    )
    return NoisyStatistic(query.step, values)


def _answer(
    exact: ExactStatistic, index: int, query: PassQuery, block: Block, noise: NoiseSource
) -> Floats:
    p, groups, unit = query.dimension_of(block), block.group_count, float(query.weight_unit)
    if block.statistic != "second":
        width = {"sum": p, "bins": sum(block.bin_counts)}.get(block.statistic, 1)
        draws = noise.draw(block.sigma, groups * width)
        noisy = exact._open_for_the_gate(query.step, index, draws) / unit
        return noisy.reshape(groups, width) if block.statistic in ("sum", "bins") else noisy
    rows, columns = np.triu_indices(p)
    draws = np.empty((groups, len(rows)), dtype=np.int64)
    diagonal = rows == columns
    draws[:, diagonal] = noise.draw(block.sigma, groups * p).reshape(groups, p)
    if p > 1:
        size = groups * (len(rows) - p)
        draws[:, ~diagonal] = noise.draw(block.sigma_off or 0.0, size).reshape(groups, -1)
    noisy = exact._open_for_the_gate(query.step, index, draws.reshape(-1)) / unit
    noisy = noisy.reshape(groups, -1)
    full = np.empty((groups, p, p))
    full[:, rows, columns] = noisy
    full[:, columns, rows] = noisy
    return full
