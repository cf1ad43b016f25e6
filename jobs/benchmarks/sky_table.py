"""A table like that of a sky survey, where no column holds whole numbers: how close samples are.

    python jobs/benchmarks/sky_table.py [--rows 30000] [--epsilon 1] [--seeds 1] [--components auto]
        [--bounds auto,tight]

The rows are drawn from a known mixture of stars, galaxies and quasars: brightness in three colours,
redshift, proper motion (heavy tails), two angles and the time of the observation. As many other
rows are compared with sampled ones, as in `tables.py`: the total variation of single columns (50
bins between public limits, and one on either side) and of pairs (10 x 10 bins), and the worst error
of a correlation of ranks. "real" compares real rows with real ones. `--bounds tight` gives the
public limits of the columns, `--bounds auto` none.
"""

from __future__ import annotations

import argparse
from itertools import combinations, product
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from tables import variation

from dpgmm_dist.artifact.load import load_release
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.spec.release_spec import ReleaseSpec

Floats = npt.NDArray[np.float64]

LIMITS = {
    "green": (10.0, 26.0),
    "red": (10.0, 26.0),
    "infrared": (10.0, 26.0),
    "redshift": (-0.01, 7.0),
    "motion": (0.0, 200.0),
    "right_ascension": (0.0, 360.0),
    "declination": (-90.0, 90.0),
    "time": (59_000.0, 60_000.0),
}
"""Public limits of the columns."""
DELTA = 1e-6


def sky(rows: int, seed: int) -> Floats:
    """Rows (n, 8) of stars, galaxies and quasars."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, rows, p=[0.35, 0.55, 0.10])
    # Ever more faint objects, up to where the survey loses them.
    faint = np.array([20.5, 22.0, 21.5])[kind] - rng.gamma(2.0, np.array([1.4, 0.9, 0.6])[kind])
    red = faint + 0.15 * rng.normal(size=rows)
    distance = np.select(
        [kind == 0, kind == 1],
        [1e-4 * rng.standard_t(3, rows), rng.gamma(3.0, 0.05 * (1 + np.exp((red - 20) / 2)))],
        rng.gamma(6.0, 0.28, rows),
    )
    colour = np.select(
        [kind == 0, kind == 1],
        [0.5 + 0.4 * rng.gamma(2.0, 0.5, rows), 0.6 + 0.9 * np.tanh(2 * distance)],
        0.15,
    )
    green = red + colour + 0.12 * rng.normal(size=rows)
    infrared = red - 0.6 * colour + 0.1 * rng.normal(size=rows)
    motion = np.abs(rng.standard_t(2, rows)) * np.where(kind == 0, 6.0, 0.4)
    field = rng.choice(6, rows)
    ascension = (60 * field + 25 + 9 * rng.normal(size=rows)) % 360
    height = np.degrees(
        np.arcsin(np.clip(0.4 * np.sin(field) + 0.2 * rng.normal(size=rows), -1, 1))
    )
    time = 59_000 + 1000 * rng.beta(2.0, 1.2, rows) * (0.6 + 0.06 * field)
    X = np.column_stack([green, red, infrared, distance, motion, ascension, height, time])
    return np.clip(X, *np.array(list(LIMITS.values())).T)


def sampled(X: Floats, epsilon: float, components: str, bounds: str, seed: int) -> Floats:
    """As many rows, sampled from a new private release."""
    spec = ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": list(LIMITS)},
            "bounds": {"columns": "auto" if bounds == "auto" else dict(LIMITS)},
            "privacy": {"epsilon": epsilon, "delta": DELTA},
            "model": {
                "components": components if components == "auto" else int(components),
                "marginals": "auto",
            },
        }
    )
    with TemporaryDirectory() as folder:
        release(spec, output=f"{folder}/release", source=ArraySource(X))
        return load_release(f"{folder}/release").sample(len(X), seed=seed)[0]


def compared(S: Floats, T: Floats) -> tuple[float, float, float]:
    """Single columns, pairs and correlations of ranks of rows S beside other rows T."""
    columns = range(len(LIMITS))

    def edges(column: int, count: int) -> Floats:
        inside = np.linspace(*list(LIMITS.values())[column], count + 1)
        return np.concatenate([[-np.inf], inside, [np.inf]])

    single = [
        variation(*(np.histogram(A[:, j], edges(j, 50))[0].astype(float) for A in (S, T)))
        for j in columns
    ]
    pairs = [
        variation(
            *(np.histogram2d(A[:, i], A[:, j], [edges(i, 10), edges(j, 10)])[0] for A in (S, T))
        )
        for i, j in combinations(columns, 2)
    ]
    ranks = [np.corrcoef(rankdata(A, axis=0).T) for A in (S, T)]
    worst = float(np.abs(ranks[0] - ranks[1]).max())
    return float(np.mean(single)), float(np.mean(pairs)), worst


def main() -> None:
    """Run the comparison and print a line for each release."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--components", default="auto")
    parser.add_argument("--bounds", default="auto,tight")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    X, T = sky(args.rows, 1), sky(args.rows, 2)
    print(f"{'':36} {'1-way':>7} {'2-way':>7} {'ranks':>7}")

    def say(name: str, S: Floats) -> None:
        print(f"{name:36} " + " ".join(f"{value:7.4f}" for value in compared(S, T)), flush=True)

    say("real", X)
    for seed, bounds in product(range(args.seeds), args.bounds.split(",")):
        say(f"release, bounds {bounds}", sampled(X, args.epsilon, args.components, bounds, seed))


if __name__ == "__main__":
    main()
