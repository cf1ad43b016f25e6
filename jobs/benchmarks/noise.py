"""Time to draw privacy noise: the discrete Gaussian of OpenDP and our rounded Gaussian, in one run.

    python jobs/benchmarks/noise.py [--samples 2000000] [--repeats 3]

Prints microseconds per sample for each scale (the median of the repeats, one thread), the time of
small queries, and the time that the rounded Gaussian needs once in each process. Absolute times
depend on the machine and drift; compare the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time

from dpgmm_dist.privacy.noise import DiscreteGaussian, NoiseSource
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

LOG2_SCALES = (0, 10, 20, 30, 40, 50)
OPENDP_SHARE = 200
"""OpenDP draws this many times fewer samples, to keep the run short."""


def microseconds(source: NoiseSource, sigma: float, size: int, repeats: int) -> float:
    """Median over the repeats of the time of ``size`` samples, in microseconds per sample."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        source.draw(sigma, size)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / size * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=2_000_000, help="samples in a draw")
    parser.add_argument("--repeats", type=int, default=3, help="draws for each scale")
    options = parser.parse_args()

    discrete, rounded = DiscreteGaussian(), RoundedGaussian()
    discrete.draw(1.0, 10)  # for the imports
    start = time.perf_counter()
    rounded.draw(1.0, 10)
    table_seconds = time.perf_counter() - start

    discrete_samples = max(1, options.samples // OPENDP_SHARE)
    print("microseconds per sample")
    print(f"{'sigma':>6}  {'OpenDP':>8}  {'rounded':>8}  {'ratio':>6}")
    for log2 in LOG2_SCALES:
        discrete_time = microseconds(discrete, 2.0**log2, discrete_samples, options.repeats)
        rounded_time = microseconds(rounded, 2.0**log2, options.samples, options.repeats)
        ratio = discrete_time / rounded_time
        print(f"{f'2^{log2}':>6}  {discrete_time:8.3f}  {rounded_time:8.4f}  {ratio:6.0f}")

    print("\nmicroseconds per query with few samples, sigma 2^20")
    print(f"{'size':>6}  {'OpenDP':>8}  {'rounded':>8}")
    for size in (1, 10, 100, 1000):
        discrete_time = microseconds(discrete, 2.0**20, size, 20) * size
        rounded_time = microseconds(rounded, 2.0**20, size, 20) * size
        print(f"{size:>6}  {discrete_time:8.0f}  {rounded_time:8.0f}")
    print(f"\ncertified quantile table, once in each process: {table_seconds * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
