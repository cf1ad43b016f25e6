"""What the speed benchmarks share: rows, bare numpy passes over them, and prepared dpgmm passes."""

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
from dpgmm_dist.model.pass_plan import BlockPlan, Latent, PassPlan
from dpgmm_dist.model.shrinkage import whitener
from dpgmm_dist.passes.run import PassContext
from dpgmm_dist.pipeline.compile import compile_pass
from dpgmm_dist.pipeline.resolve import open_dataset
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.spec.release_spec import ReleaseSpec

FILES = 4
GROUP_ROWS = 65_536
BARE_ROWS = 16_384
"""Rows that a bare pass handles at once; whole row groups do not fit the cache and are slower."""
LEAST_RESPONSIBILITY = 1e-4
"""Smaller responsibilities are left out, as in the kernel of the package."""
SEED = 2026
HARD, SOFT = "hard, a map each", "soft, a map each"
"""Names of the component passes with hard and soft responsibilities."""


@dataclass(frozen=True)
class Workload:
    """Rows on disk, the mixture that they are from, and a norm that one row in 1,000 exceeds."""

    folder: Path
    truth: Mixture
    norm: float

    @property
    def rows(self) -> int:
        """Number of rows, from the footers."""
        return sum(pq.read_metadata(path).num_rows for path in self.folder.glob("*.parquet"))


@contextmanager
def workload(rows: int, dimension: int, components: int, scratch: str | None) -> Iterator[Workload]:
    """Write ``rows`` rows of a mixture as Parquet below ``scratch``, and delete them at the end."""
    truth = mixture_of(components, dimension)
    with TemporaryDirectory(dir=scratch) as temporary:
        folder = Path(temporary) / "rows"
        yield Workload(folder, truth, write_rows(folder, truth, rows))


def mixture_of(components: int, dimension: int) -> Mixture:
    """A mixture whose components overlap a little and have different covariances."""
    rng = np.random.default_rng(SEED)
    means = rng.standard_normal((components, dimension)) * 0.7
    covariances = []
    for _ in range(components):
        axes = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        covariance = axes * np.exp(rng.uniform(-1.5, 0.5, dimension)) @ axes.T
        covariances.append((covariance + covariance.T) / 2)
    weights = rng.dirichlet(np.full(components, 8.0))
    return Mixture(weights, means, np.stack(covariances))


def write_rows(folder: Path, truth: Mixture, rows: int) -> float:
    """Write Parquet files of float32 lists; returns a norm that one row in 1,000 exceeds."""
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


# Bare passes --------------------------------------------------------------------------------


def bare_pass(load: Workload, threads: int) -> list[np.ndarray]:
    """X^T X of the rows nearest to each centre, over all row groups, on ``threads`` threads.

    Returns an array (K, d, d) for each thread.
    """
    centres = load.truth.means
    transposed = np.ascontiguousarray(centres.T)
    offsets = (centres**2).sum(axis=1)
    return _over_rows(load, threads, lambda total, x: add_nearest(total, x, transposed, offsets))


def bare_soft_pass(load: Workload, threads: int) -> list[np.ndarray]:
    """X^T X of each component, weighted by responsibilities: the sums of an EM step.

    Returns an array (K, d, d) for each thread.
    """
    truth = load.truth
    whiteners = [whitener(covariance) for covariance in truth.covariances]
    log_scales = np.log(truth.weights) + [np.linalg.slogdet(white)[1] for white in whiteners]
    return _over_rows(
        load, threads, lambda total, x: add_weighted(total, x, truth.means, whiteners, log_scales)
    )


def _over_rows(
    load: Workload, threads: int, add: Callable[[np.ndarray, np.ndarray], None]
) -> list[np.ndarray]:
    """Call ``add`` on a sum for each thread, with blocks of float64 rows."""
    components, d = load.truth.means.shape
    jobs = [
        (path, group)
        for path in sorted(load.folder.glob("*.parquet"))
        for group in range(pq.read_metadata(path).num_row_groups)
    ]

    def sum_over(groups: list[tuple[Path, int]]) -> np.ndarray:
        total = np.zeros((components, d, d))
        opened: dict[Path, pq.ParquetFile] = {}
        for path, group in groups:
            if path not in opened:
                opened[path] = pq.ParquetFile(path, memory_map=True)
            column = opened[path].read_row_group(group, use_threads=False).column(0)
            for chunk in column.chunks:
                x = chunk.flatten().to_numpy().reshape(-1, d)
                for start in range(0, len(x), BARE_ROWS):
                    add(total, x[start : start + BARE_ROWS].astype(np.float64))
        return total

    # More BLAS threads in each thread would compete for the same cores.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(sum_over, [jobs[i::threads] for i in range(threads)]))


def add_nearest(
    total: np.ndarray, x: np.ndarray, transposed: np.ndarray, offsets: np.ndarray
) -> None:
    """Add a block of rows: distances, a stable sort by component, X^T X of each slice."""
    nearest = (offsets - 2 * (x @ transposed)).argmin(axis=1).astype(np.int16)
    x = x[np.argsort(nearest, kind="stable")]
    stop = 0
    for k, count in enumerate(np.bincount(nearest, minlength=len(total)).tolist()):
        start, stop = stop, stop + count
        total[k] += x[start:stop].T @ x[start:stop]


def add_weighted(
    total: np.ndarray,
    x: np.ndarray,
    means: np.ndarray,
    whiteners: list[np.ndarray],
    log_scales: np.ndarray,
) -> None:
    """Add a block of rows: log densities, responsibilities, weighted X^T X.

    Each component leaves out rows whose responsibility is below `LEAST_RESPONSIBILITY`.
    """
    joint = np.empty((len(means), len(x)))
    for k, white in enumerate(whiteners):
        v = (x - means[k]) @ white
        joint[k] = log_scales[k] - np.vecdot(v, v) / 2
    responsibilities = np.exp(joint - joint.max(axis=0))
    responsibilities /= responsibilities.sum(axis=0)
    for k, weight in enumerate(responsibilities):
        chosen = np.flatnonzero(weight > LEAST_RESPONSIBILITY)
        total[k] += (x[chosen] * weight[chosen, None]).T @ x[chosen]


# Passes of the package ----------------------------------------------------------------------


def plans(truth: Mixture, norm: float) -> dict[str, PassPlan]:
    """The passes to time, by name. Their centres and maps are those of the true mixture."""
    components, p = truth.n_components, truth.dimension
    each, shared = np.arange(components), np.zeros(components, dtype=np.int64)
    pooled = whitener(np.einsum("c,cij->ij", truth.weights, truth.covariances))
    whiteners = tuple(whitener(covariance) for covariance in truth.covariances)
    log_det = np.array([-2 * np.linalg.slogdet(white)[1] for white in whiteners])

    def moments(step: str, statistic: Any) -> PassPlan:
        return PassPlan(
            step, shared[:1], np.zeros((1, p)), norm, (BlockPlan(statistic, shared[:1], 0.1),)
        )

    def component_pass(step: str, groups: np.ndarray, **how: Any) -> PassPlan:
        blocks = (
            BlockPlan("count", each, 0.1),
            BlockPlan("sum", each, 0.1),
            BlockPlan("second", groups, 0.1),
        )
        return PassPlan(step, shared, truth.means, whitened_radius(p), blocks, **how)

    nearest: dict[str, Any] = {"rule": "nearest", "metric": pooled}
    soft: dict[str, Any] = {
        "rule": "full",
        "soft": True,
        "offsets": log_det - 2 * np.log(truth.weights),
    }
    return {
        "moments.sum": moments("moments.sum", "sum"),
        "moments.second": moments("moments.second", "second"),
        "hard, one map": component_pass(
            "hard", shared, whiten=(pooled,), cell_map=shared, **nearest
        ),
        HARD: component_pass("hard", each, whiten=whiteners, cell_map=each, **nearest),
        SOFT: component_pass("soft", each, whiten=whiteners, cell_map=each, **soft),
    }


@dataclass(frozen=True)
class PreparedPasses:
    """The passes of `plans` over a workload: compiled queries, the source and its plan."""

    contexts: dict[str, PassContext]
    """By name of the pass."""
    units: list[Any]

    @classmethod
    def over(cls, load: Workload) -> PreparedPasses:
        """The passes over the rows of a workload, prepared as the pipeline prepares them."""
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
        """Run the pass with this name."""
        return engine.run(self.contexts[name], self.units, lambda _: None)
