"""A pass over a dask array or DataFrame: one task for each plan unit is added to its own graph.

Chunks are computed and read where Dask puts them, and only sums leave the workers. The scheduler
keeps the graph. So on a cluster, arrays and frames that the graph holds (``from_array`` and
``from_pandas`` of rows in memory) are first sent from the driver to the workers, and no row is in
the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpgmm_dist.data.blocks import ChunkRange, PlanUnit
from dpgmm_dist.data.dask_arrays import ChunkSource, DaskArraySource
from dpgmm_dist.data.dask_frames import DaskFrameSource, PartitionSource
from dpgmm_dist.data.frames import is_pandas_frame
from dpgmm_dist.engine.base import Fraction
from dpgmm_dist.engine.failures import GivenUpError, cluster_failure
from dpgmm_dist.errors import DataError, DpgmmError
from dpgmm_dist.opaque import Opaque
from dpgmm_dist.passes.run import PassContext, guarded, run_unit
from dpgmm_dist.privacy.exact import ExactStatistic

_FAN_IN = 8
_DIGEST_BITS = 256
_INLINE_BYTES = 1 << 16
"""Arguments in a graph up to this size count as parameters; larger ones may be rows."""


@dataclass(frozen=True, repr=False, eq=False)
class Summed(Opaque):
    """PRIVATE. The sums over some plan units, and a digest of the rows that were read for them."""

    statistic: ExactStatistic
    digest: int

    def merge(self, other: Summed) -> Summed:
        """Add both sums and both digests; associative and commutative."""
        digest = (self.digest + other.digest) % (1 << _DIGEST_BITS)
        return Summed(self.statistic.merge(other.statistic), digest)


def add_chunks(context: PassContext, unit: PlanUnit, chunks: Sequence[Any]) -> Summed:
    """Return the exact sums over the computed chunks of one plan unit."""
    source = context.source
    if not isinstance(source, ChunkSource | PartitionSource):
        raise TypeError("chunks are read by a ChunkSource or a PartitionSource")
    reading = source.of(chunks)
    total = run_unit(replace(context, source=reading), unit)
    return Summed(total, guarded(f"unit {unit.index}", lambda: reading.digest(unit)))


def merge(first: Summed, *others: Summed) -> Summed:
    """Merge any number of partial sums."""
    for other in others:
        first = first.merge(other)
    return first


def require_lazy_source(context: PassContext) -> DaskArraySource | DaskFrameSource:
    """Return the source of a pass; TypeError if Dask does not compute its rows."""
    if not isinstance(context.source, DaskArraySource | DaskFrameSource):
        raise TypeError("this pass is not over a dask array or DataFrame")
    return context.source


@dataclass(frozen=True, repr=False, eq=False)
class LazyChunks(Opaque):
    """The chunks of a source, not computed."""

    chunks: list[Any]
    held: Any = None
    """The futures that keep the rows sent to the workers for these chunks."""


def lazy_chunks(source: DaskArraySource | DaskFrameSource, client: Any = None) -> LazyChunks:
    """The chunks of a source. With a client, no row is in their graph.

    Raises
    ------
    DataError
        If the graph holds rows that cannot be removed from it.
    """
    if isinstance(source, DaskFrameSource):
        return LazyChunks(_partitions(source.frame, client))
    arrays = [source.X] if source.y is None else [source.X, source.y]
    if client is not None:
        arrays = [scattered(client, array) for array in arrays]
    # Optimised together, so that tasks on which both depend run once.
    x, *labels = _dask().optimize(*arrays)
    features = x.to_delayed(optimize_graph=False)
    if not labels:
        return LazyChunks([(list(parts), None) for parts in features], arrays)
    y = labels[0].to_delayed(optimize_graph=False)
    pairs = zip(features, y, strict=True)
    return LazyChunks([(list(parts), of_rows) for parts, of_rows in pairs], arrays)


def _partitions(frame: Any, client: Any) -> list[Any]:
    from dask.delayed import Delayed

    partition: Any = Delayed  # untyped
    frame = frame.optimize()
    if client is None:
        return list(frame.to_delayed(optimize_graph=False))
    graph = without_rows(client, dict(frame.__dask_graph__()))
    return [partition(key, graph) for key in frame.__dask_keys__()]


def leaves(context: PassContext, units: Sequence[PlanUnit], of: LazyChunks) -> list[Any]:
    """A lazy :class:`Summed` for each plan unit."""
    lazy = _dask()
    reading = require_lazy_source(context).chunk_source()
    shared = lazy.delayed(_same, pure=False)(replace(context, source=reading))
    call = lazy.delayed(add_chunks, pure=False)
    return [call(shared, unit, [of.chunks[i] for i in _chunks_of(unit)]) for unit in units]


def run_on_threads(
    context: PassContext, units: Sequence[PlanUnit], threads: int, report: Fraction
) -> ExactStatistic:
    """Return the sum over ``units``, computed on Dask's threaded scheduler."""
    lazy = _dask()
    nodes = leaves(context, units, lazy_chunks(require_lazy_source(context)))
    keys = {node.key for node in nodes}
    together = lazy.delayed(merge, pure=False)
    while len(nodes) > 1:
        nodes = [together(*nodes[i : i + _FAN_IN]) for i in range(0, len(nodes), _FAN_IN)]
    done = 0

    def count(key: Any, *_: Any) -> None:
        nonlocal done
        if key in keys:
            done += 1
            report(done / len(units))

    def compute() -> Summed:
        with lazy.callbacks.Callback(posttask=count):
            # Optimisation would fuse tasks, which hides which of them are done.
            total: Summed = nodes[0].compute(
                scheduler="threads", num_workers=threads, optimize_graph=False
            )
        return total

    return noted(context, computed(context, compute))


def noted(context: PassContext, total: Summed) -> ExactStatistic:
    """Return the sums of a pass, and keep its digest for comparison with the next pass."""
    require_lazy_source(context).note(total.digest.to_bytes(_DIGEST_BITS // 8, "big"))
    return total.statistic


def computed(context: PassContext, work: Callable[[], Summed]) -> Summed:
    """Return the result of ``work``; exceptions of the collection's own tasks become DataError."""
    try:
        return work()
    except DpgmmError:
        raise
    except Exception as error:  # from the collection's own tasks, or from the cluster
        failure = failure_of(error, require_lazy_source(context).collection)
    raise failure


def failure_of(error: Exception, collection: str = DaskArraySource.collection) -> DpgmmError:
    """Describe an exception without its message, which could quote rows."""
    kind = type(error)
    of_cluster = kind.__module__.partition(".")[0] in ("distributed", "concurrent", "asyncio")
    if of_cluster or isinstance(error, GivenUpError):
        return cluster_failure(f"while the {collection} was computed", error)
    return DataError(
        f"the {collection} cannot be computed ({kind.__name__}): try X.compute() where its errors "
        "may be seen"
    )


def scattered(client: Any, array: Any) -> Any:
    """Return an equal dask array whose graph holds no rows."""
    held = dict(array.__dask_graph__())
    graph = without_rows(client, held)
    if graph is held:
        return array
    name = array.name
    plain = _dask().highlevelgraph.HighLevelGraph.from_collections(name, graph)
    return _dask().array.Array(plain, name, array.chunks, meta=array._meta, dtype=array.dtype)


def without_rows(client: Any, graph: dict[Any, Any]) -> dict[Any, Any]:
    """Return an equal graph that holds no rows: those in it are sent to the workers.

    Raises
    ------
    DataError
        If the graph holds rows that cannot be removed from it.
    """
    rows = {key: node for key, node in graph.items() if _is_rows(_constant(node))}
    if any(_inline_bytes(node) > _INLINE_BYTES for node in graph.values()):
        raise DataError(
            "the graph of X holds large arguments, which would be sent through the scheduler: read "
            "rows inside tasks, or call X.persist()"
        )
    if not rows:
        return graph
    values = [_constant(node) for node in rows.values()]
    futures = client.scatter(values, direct=True, hash=False)
    return {**graph, **dict(zip(rows, futures, strict=True))}


def _is_rows(value: object) -> bool:
    import numpy as np

    return isinstance(value, np.ndarray) or is_pandas_frame(value)


def _constant(node: Any) -> Any:
    from dask._task_spec import DataNode

    return node.value if isinstance(node, DataNode) else node


def _inline_bytes(node: Any) -> int:
    """Bytes of the largest argument of a task that is not the result of another task."""
    from dask._task_spec import DataNode, GraphNode
    from dask.sizeof import sizeof

    if not isinstance(node, GraphNode) or isinstance(node, DataNode):
        return 0
    arguments = [*getattr(node, "args", ()), *(getattr(node, "kwargs", None) or {}).values()]
    sizes = [
        _inline_bytes(argument) if isinstance(argument, GraphNode) else sizeof(_constant(argument))
        for argument in arguments
    ]
    return max(sizes, default=0)


def _chunks_of(unit: PlanUnit) -> list[int]:
    indices: list[int] = []
    for piece in unit.pieces:
        if not isinstance(piece, ChunkRange):
            raise TypeError("this unit was planned by another source")
        indices += range(piece.start, piece.stop)
    return indices


def _same(context: PassContext) -> PassContext:
    return context


def _dask() -> Any:
    import dask.array
    import dask.callbacks
    import dask.highlevelgraph  # untyped, all of them

    return dask
