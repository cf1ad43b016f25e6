"""A data set of Parquet files that do not exist, and a pass over it.

Only the footers of the files are made up. They are enough for the planner and the scheduler, and
the light workers (light_workers.py) answer with what tasks on such files would return.
"""

from __future__ import annotations

from workload import SOFT, mixture_of, plans

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.data.parquet_schema import Columns, Footer, ReadTypes
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.model.pass_plan import Latent
from dpgmm_dist.passes.kernel import statistic_sizes
from dpgmm_dist.pipeline.compile import compile_pass
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.query import PassQuery
from dpgmm_dist.storage.parquet_files import FoundFile, Place

DIMENSION, COMPONENTS = 64, 10
"""Shape (d, K) of the pass on the simulated cluster."""
ROW_GROUPS = 8
"""Row groups of a file."""
FILE_ROWS = 130_000
FILES_PER_TASK = 200
"""Footers that the package reads in one task."""
FLOAT32_BYTES = 4


def source_of(files: int, dimension: int = DIMENSION) -> ParquetSource:
    """A source of ``files`` files of `FILE_ROWS` rows of ``dimension`` numbers."""
    columns = Columns(("x",), False, None, ())
    footers = footers_of(0, files, dimension)
    return ParquetSource(Place("s3://bucket/data", {}), columns, dimension, _footers=footers)


def footers_of(first: int, count: int, dimension: int = DIMENSION) -> tuple[Footer, ...]:
    """Footers of ``count`` files, numbered from ``first``."""
    groups = tuple((FILE_ROWS // ROW_GROUPS, 0) for _ in range(ROW_GROUPS))
    return tuple(
        Footer(
            FoundFile(f"bucket/data/part-{i:06d}.parquet", 1, f"etag:{i:032x}", ()),
            ReadTypes(dimension, FLOAT32_BYTES),
            groups,
        )
        for i in range(first, first + count)
    )


def query_of(dimension: int = DIMENSION, components: int = COMPONENTS) -> PassQuery:
    """The query of a pass with soft responsibilities."""
    plan = plans(mixture_of(components, dimension), 1.0)[SOFT]
    return compile_pass(plan, Latent(dimension), FeatureMap(dimension, 1.0).step)


def empty_statistic(dimension: int = DIMENSION) -> ExactStatistic:
    """What a task of that pass returns for no rows."""
    query = query_of(dimension)
    return ExactStatistic.zeros(query.step, statistic_sizes(query))
