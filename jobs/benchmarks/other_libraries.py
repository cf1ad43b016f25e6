"""One task for other libraries: describe 20,000 rows of three Gaussians in two dimensions.

    python jobs/benchmarks/other_libraries.py NAME

Each library runs in an environment of its own, which needs numpy beside it, and Java 17 for Spark
and Tumult; NAME is that of a function below. Prints what it gives, the largest distance of a centre
from the truth (in standard deviations of the rows, which are 1), and seconds. Private ones get
epsilon 1, and delta 1e-6 if they take one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np

TRUTH = np.array([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
BOUND = 10.0


def rows() -> np.ndarray:
    """(20,000, 2) rows with centres at `TRUTH`."""
    rng = np.random.default_rng(0)
    return TRUTH[rng.choice(3, 20_000, p=[0.5, 0.3, 0.2])] + rng.normal(size=(20_000, 2))


def dpgmm_dist(x: np.ndarray) -> tuple[str, np.ndarray]:
    """This library."""
    from dpgmm_dist import DPGaussianMixture

    found = DPGaussianMixture(3, epsilon=1.0, delta=1e-6, norm_bound=BOUND).fit(x)
    return "private: weights, means, covariances, standard errors, receipt", found.means_


def diffprivlib(x: np.ndarray) -> tuple[str, np.ndarray]:
    """IBM's library: its k-means."""
    from diffprivlib.models import KMeans

    bounds = (np.full(2, -BOUND), np.full(2, BOUND))
    found = KMeans(3, epsilon=1.0, bounds=bounds).fit(x)
    return "private: centres", found.cluster_centers_


def google_clustering(x: np.ndarray) -> tuple[str, np.ndarray]:
    """Google's clustering; the folder ``learning`` of its repository is on the path."""
    from clustering import clustering_algorithm
    from clustering.clustering_params import Data, DifferentialPrivacyParam

    privacy = DifferentialPrivacyParam(epsilon=1.0, delta=1e-6)
    found = clustering_algorithm.private_lsh_clustering(
        3, Data(x, radius=BOUND), privacy_param=privacy
    )
    return "private: centres", found.centers


def opendp(x: np.ndarray) -> tuple[str, None]:
    """OpenDP: counts and sums are there; the nearest model is a principal component analysis."""
    import opendp.prelude as dp
    from opendp.extras.sklearn.decomposition import PCA

    dp.enable_features("contrib", "floating-point", "honest-but-curious")
    found = PCA(epsilon=1.0, row_norm=BOUND, n_samples=len(x), n_features=2).fit(x)
    return f"private: principal axes {found.components_.shape}, no mixture", None


def smartnoise_synth(x: np.ndarray) -> tuple[str, None]:
    """SmartNoise: synthetic rows by MST, of columns that are divided into bins."""
    import pandas as pd
    from snsynth import Synthesizer

    frame = pd.DataFrame(x, columns=["a", "b"])
    found = Synthesizer.create("mst", epsilon=1.0, delta=1e-6)
    found.fit(frame, preprocessor_eps=0.2)
    sampled = found.sample(1000)
    return f"private: synthetic rows {sampled.shape}, no parameters", None


def spark(x: np.ndarray) -> tuple[str, np.ndarray]:
    """Spark's mixture, which is not private."""
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[2]").getOrCreate()
    frame = session.createDataFrame([(Vectors.dense(row),) for row in x], ["features"])
    found = GaussianMixture(k=3, seed=0).fit(frame)
    centres = np.array([row["mean"].toArray() for row in found.gaussiansDF.collect()])
    session.stop()
    return "not private: weights, means, covariances", centres


def dask_ml(x: np.ndarray) -> tuple[str, np.ndarray]:
    """dask-ml: k-means, which is not private; it has no mixture."""
    import dask.array as da
    from dask_ml.cluster import KMeans

    found = KMeans(3, random_state=0).fit(da.from_array(x, chunks=(5000, 2)))
    return "not private: centres", found.cluster_centers_


def tumult(x: np.ndarray) -> tuple[str, None]:
    """Tumult Analytics: counts and averages of tables; a mean for each column."""
    import pandas as pd
    from pyspark.sql import SparkSession
    from tmlt.analytics import AddOneRow, PureDPBudget, QueryBuilder, Session

    frame = SparkSession.builder.getOrCreate().createDataFrame(pd.DataFrame(x, columns=["a", "b"]))
    session = Session.from_dataframe(PureDPBudget(1), "rows", frame, protected_change=AddOneRow())
    query = QueryBuilder("rows").average("a", low=-BOUND, high=BOUND)
    session.evaluate(query, PureDPBudget(1)).collect()
    return "private: counts, sums, quantiles of columns, no mixture", None


LIBRARIES: tuple[Callable[[np.ndarray], tuple[str, np.ndarray | None]], ...] = (
    dpgmm_dist,
    diffprivlib,
    google_clustering,
    opendp,
    smartnoise_synth,
    spark,
    dask_ml,
    tumult,
)


def main(name: str) -> None:
    """Run one library and print what it gives."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else Spark's workers take another
    run = {library.__name__: library for library in LIBRARIES}[name]
    x, start = rows(), time.monotonic()
    gives, centres = run(x)
    line = f"{name}: {gives}"
    if centres is not None:
        apart = np.linalg.norm(TRUTH[:, None] - np.asarray(centres)[None], axis=2).min(axis=1)
        line += f"; largest error of a centre {apart.max():.3f}"
    print(f"{line}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1])
