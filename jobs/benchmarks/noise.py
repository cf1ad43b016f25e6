"""Cost of privacy noise: OpenDP's discrete Gaussian and our rounded Gaussian, in one run.

    python jobs/benchmarks/noise.py [--samples 2000000] [--repeats 3]

Prints microseconds a sample for each scale (the median of the repeats, one thread), the cost of a
small query, and what the rounded Gaussian needs once a process. Absolute times drift with the
machine; the ratio is what to compare.
"""

from __future__ import annotations

import argparse
import statistics
import time

from dpgmm_dist.privacy.noise import DiscreteGaussian, NoiseSource
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

LOG2_SCALES = (0, 10, 20, 30, 40, 50)
OPENDP_SHARE = 200
"""OpenDP draws this many times fewer samples, so that the run stays short."""


def microseconds(source: NoiseSource, sigma: float, size: int, repeats: int) -> float:
    """Median time of a draw, per sample."""
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
    parser.add_argument("--samples", type=int, default=2_000_000, help="samples a draw (ours)")
    parser.add_argument("--repeats", type=int, default=3, help="draws per scale")
    options = parser.parse_args()

    opendp, ours = DiscreteGaussian(), RoundedGaussian()
    opendp.draw(1.0, 10)  # imports
    start = time.perf_counter()
    ours.draw(1.0, 10)
    once = time.perf_counter() - start

    few = max(1, options.samples // OPENDP_SHARE)
    print("microseconds a sample")
    print(f"{'sigma':>6}  {'OpenDP':>8}  {'rounded':>8}  {'ratio':>6}")
    for log2 in LOG2_SCALES:
        theirs = microseconds(opendp, 2.0**log2, few, options.repeats)
        mine = microseconds(ours, 2.0**log2, options.samples, options.repeats)
        print(f"{f'2^{log2}':>6}  {theirs:8.3f}  {mine:8.4f}  {theirs / mine:6.0f}")

    print("\nmicroseconds a query of few samples, sigma 2^20")
    print(f"{'size':>6}  {'OpenDP':>8}  {'rounded':>8}")
    for size in (1, 10, 100, 1000):
        theirs = microseconds(opendp, 2.0**20, size, 20) * size
        mine = microseconds(ours, 2.0**20, size, 20) * size
        print(f"{size:>6}  {theirs:8.0f}  {mine:8.0f}")
    print(f"\nonce a process, the certified quantile table: {once * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
