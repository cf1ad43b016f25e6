"""A fit of one library to Parquet rows, run by `peers.py` in an environment of that library.

    python peer_fits.py NAME FOLDER COMPONENTS NORM

The column `x` of the files in FOLDER has the rows. Prints a line of what was fitted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CORES = len(os.sched_getaffinity(0))
SEED = 0


def in_memory(folder: str, dtype: str) -> Any:
    """All rows (n, d)."""
    import pyarrow.parquet as pq

    parts = []
    for path in sorted(Path(folder).glob("*.parquet")):
        column = pq.read_table(path)["x"].combine_chunks()
        parts.append(column.flatten().to_numpy().reshape(len(column), -1).astype(dtype))
    return np.concatenate(parts)


def scikit_learn(folder: str, components: int, norm: float) -> str:
    """EM with full covariances, to convergence by the library's own tolerance."""
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(components, random_state=SEED).fit(in_memory(folder, "float64"))
    return f"{model.n_iter_} iterations, {'converged' if model.converged_ else 'not converged'}"


def dask_ml(folder: str, components: int, norm: float) -> str:
    """K-means on chunks of rows that are in memory."""
    import dask.array as da
    from dask_ml.cluster import KMeans

    x = da.from_array(in_memory(folder, "float32"), chunks=(100_000, -1))
    model = KMeans(components, random_state=SEED).fit(x)
    return f"{model.n_iter_} iterations"


def spark(folder: str, components: int, norm: float) -> str:
    """EM with full covariances, at most as many iterations as the library does by itself."""
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{CORES}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "8g")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    frame = session.read.parquet(folder)
    frame = frame.select(array_to_vector("x").alias("features")).cache()
    model = GaussianMixture(k=components, seed=SEED).fit(frame)
    iterations = model.summary.numIter
    session.stop()
    return f"{iterations} iterations"


def google(folder: str, components: int, norm: float) -> str:
    """Private centres of k-means, at epsilon 1."""
    from clustering import clustering_algorithm
    from clustering.clustering_params import Data, DifferentialPrivacyParam

    data = Data(in_memory(folder, "float64"), radius=norm)
    privacy = DifferentialPrivacyParam(epsilon=1.0, delta=1e-6)
    found = clustering_algorithm.private_lsh_clustering(components, data, privacy_param=privacy)
    return f"{len(found.centers)} centres"


FITS: dict[str, Callable[[str, int, float], str]] = {
    "scikit-learn": scikit_learn,
    "dask-ml": dask_ml,
    "spark": spark,
    "google": google,
}

if __name__ == "__main__":
    name, folder, components, norm = sys.argv[1:]
    print(FITS[name](folder, int(components), float(norm)))
