"""Rows, a bare numpy loop over them, and our passes made ready: what the speed benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.model.allocation import whitened_radius
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.shrinkage import whitener
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.pipeline.compile import compile_pass
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.spec.release_spec import ReleaseSpec

FILES = 4
GROUP_ROWS = 65_536
BARE_ROWS = 16_384
"""Rows that the bare loop handles at once: faster than whole row groups, which leave the cache."""
SOFT_SHARE = 1e-4
"""Responsibilities below it are left out, as by our kernel's table."""
SEED = 2026
HARD, SOFT = "hard, a map each", "soft, a map each"


@dataclass(frozen=True)
class Workload:
    """Rows on disk, the mixture they are from, and a norm that one row in 1,000 exceeds."""

    folder: Path
    truth: Mixture
    norm: float

    @property
    def rows(self) -> int:
        """Number of rows, from the footers."""
        return sum(pq.read_metadata(path).num_rows for path in self.folder.glob("*.parquet"))


@contextmanager
def workload(rows: int, dimension: int, components: int, scratch: str | None) -> Iterator[Workload]:
    """Write ``rows`` rows of a mixture as Parquet below ``scratch``, for as long as needed."""
    truth = mixture_of(components, dimension)
    with TemporaryDirectory(dir=scratch) as place:
        folder = Path(place) / "rows"
        yield Workload(folder, truth, write_rows(folder, truth, rows))


def mixture_of(components: int, dimension: int) -> Mixture:
    """A mixture whose components overlap somewhat and have covariances of their own."""
    rng = np.random.default_rng(SEED)
    means = rng.standard_normal((components, dimension)) * 0.7
    covariances = []
    for _ in range(components):
        turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        covariances.append(turn * np.exp(rng.uniform(-1.5, 0.5, dimension)) @ turn.T)
    weights = rng.dirichlet(np.full(components, 8.0))
    return Mixture(weights, means, np.stack([(one + one.T) / 2 for one in covariances]))


def write_rows(folder: Path, truth: Mixture, rows: int) -> float:
    """Write Parquet files of float32 lists; returns a norm bound that a row in 1,000 exceeds."""
    folder.mkdir(parents=True)
    norms = []
    for file, part in enumerate(np.array_split(np.arange(rows), FILES)):
        path, schema = folder / f"part-{file}.parquet", pa.schema([("x", pa.list_(pa.float32()))])
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for start in range(0, len(part), GROUP_ROWS):
                size = min(GROUP_ROWS, len(part) - start)
                x, _ = truth.sample(size, np.random.SeedSequence([SEED, file, start]))
                norms.append(np.linalg.norm(x, axis=1))
                values = pa.array(x.astype(np.float32).reshape(-1))
                ends = pa.array(np.arange(size + 1, dtype=np.int32) * truth.dimension)
                column = pa.ListArray.from_arrays(ends, values)
                writer.write_table(pa.table([column], schema=schema))
    return float(np.quantile(np.concatenate(norms), 0.999))


# The bare loop ------------------------------------------------------------------------------


def bare_pass(load: Workload, threads: int) -> list[np.ndarray]:
    """X^T X per nearest centre, over every row group, on ``threads`` Python threads."""
    centres = load.truth.means
    turned = np.ascontiguousarray(centres.T)
    offsets = (centres**2).sum(axis=1)
    return _over_rows(load, threads, lambda total, x: add_nearest(total, x, turned, offsets))


def bare_soft_pass(load: Workload, threads: int) -> list[np.ndarray]:
    """X^T X per component, weighted by responsibilities: an EM step's sums."""
    truth = load.truth
    whites = [whitener(covariance) for covariance in truth.covariances]
    levels = np.log(truth.weights) + [np.linalg.slogdet(white)[1] for white in whites]
    return _over_rows(
        load, threads, lambda total, x: add_shared(total, x, truth.means, whites, levels)
    )


def _over_rows(
    load: Workload, threads: int, add: Callable[[np.ndarray, np.ndarray], None]
) -> list[np.ndarray]:
    """``add`` to a sum for each thread, block by block of float64 rows."""
    components, d = load.truth.means.shape
    jobs = [
        (path, group)
        for path in sorted(load.folder.glob("*.parquet"))
        for group in range(pq.read_metadata(path).num_row_groups)
    ]

    def one(mine: list[tuple[Path, int]]) -> np.ndarray:
        total = np.zeros((components, d, d))
        opened: dict[Path, pq.ParquetFile] = {}
        for path, group in mine:
            if path not in opened:
                opened[path] = pq.ParquetFile(path, memory_map=True)
            column = opened[path].read_row_group(group, use_threads=False).column(0)
            for chunk in column.chunks:
                x = chunk.flatten().to_numpy().reshape(-1, d)
                for start in range(0, len(x), BARE_ROWS):
                    add(total, x[start : start + BARE_ROWS].astype(np.float64))
        return total

    # Two BLAS threads inside each would only get in each other's way.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, [jobs[i::threads] for i in range(threads)]))


def add_nearest(total: np.ndarray, x: np.ndarray, turned: np.ndarray, offsets: np.ndarray) -> None:
    """One block: distances, stable sort by component, X^T X of each slice."""
    nearest = (offsets - 2 * (x @ turned)).argmin(axis=1).astype(np.int16)
    x = x[np.argsort(nearest, kind="stable")]
    stop = 0
    for k, count in enumerate(np.bincount(nearest, minlength=len(total)).tolist()):
        start, stop = stop, stop + count
        total[k] += x[start:stop].T @ x[start:stop]


def add_shared(
    total: np.ndarray, x: np.ndarray, means: np.ndarray, whites: list[np.ndarray], levels: Any
) -> None:
    """One block: log densities, responsibilities, weighted X^T X of rows that have any share."""
    joint = np.empty((len(means), len(x)))
    for k, white in enumerate(whites):
        v = (x - means[k]) @ white
        joint[k] = levels[k] - np.vecdot(v, v) / 2
    share = np.exp(joint - joint.max(axis=0))
    share /= share.sum(axis=0)
    for k, own in enumerate(share):
        some = np.flatnonzero(own > SOFT_SHARE)
        total[k] += (x[some] * own[some, None]).T @ x[some]


# Our passes ---------------------------------------------------------------------------------


def plans(truth: Mixture, norm: float) -> dict[str, PassPlan]:
    """The passes to time, at the mixture that the rows are from."""
    components, p = truth.n_components, truth.dimension
    each, one = np.arange(components), np.zeros(components, dtype=np.int64)
    pooled = whitener(np.einsum("c,cij->ij", truth.weights, truth.covariances))
    own = tuple(whitener(covariance) for covariance in truth.covariances)
    log_det = np.array([-2 * np.linalg.slogdet(white)[1] for white in own])

    def moments(step: str, statistic: Any) -> PassPlan:
        return PassPlan(
            step, one[:1], np.zeros((1, p)), norm, (BlockPlan(statistic, one[:1], 0.1),)
        )

    def component_pass(step: str, groups: np.ndarray, **how: Any) -> PassPlan:
        blocks = (
            BlockPlan("count", each, 0.1),
            BlockPlan("sum", each, 0.1),
            BlockPlan("second", groups, 0.1),
        )
        return PassPlan(step, one, truth.means, whitened_radius(p), blocks, **how)

    nearest: dict[str, Any] = {"rule": "nearest", "metric": pooled}
    soft: dict[str, Any] = {
        "rule": "full",
        "soft": True,
        "offsets": log_det - 2 * np.log(truth.weights),
    }
    return {
        "moments.sum": moments("moments.sum", "sum"),
        "moments.second": moments("moments.second", "second"),
        "hard, one map": component_pass("hard", one, whiten=(pooled,), cell_map=one, **nearest),
        HARD: component_pass("hard", each, whiten=own, cell_map=each, **nearest),
        SOFT: component_pass("soft", each, whiten=own, cell_map=each, **soft),
    }


@dataclass(frozen=True)
class Ours:
    """What our passes need: the source, its plan and the compiled queries."""

    contexts: dict[str, PassContext]
    units: list[Any]

    @classmethod
    def over(cls, load: Workload) -> Ours:
        """Everything a pass over the rows needs, made as the pipeline makes it."""
        spec = ReleaseSpec.from_dict(
            {
                "dataset": {
                    "path": str(load.folder),
                    "features": "x",
                    "width": load.truth.dimension,
                },
                "bounds": {"norm": load.norm},
                "privacy": {"epsilon": 1.0, "delta": 1e-6},
            }
        )
        source = open_dataset(spec.dataset)
        features = FeatureMap(load.truth.dimension, load.norm)
        latent = Latent(load.truth.dimension)
        contexts = {
            name: PassContext(source, features, compile_pass(plan, latent, features.step))
            for name, plan in plans(load.truth, load.norm).items()
        }
        return cls(contexts, source.plan())

    def run(self, name: str, engine: LocalEngine) -> ExactStatistic:
        """One pass."""
        return engine.run(self.contexts[name], self.units, lambda _: None)
