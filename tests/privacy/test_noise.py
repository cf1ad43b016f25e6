"""The discrete Gaussian has the requested scale, and no noise is drawn twice.

Draws use the operating system's randomness. So tests of their distribution have a level: one false
alarm in a million. The power of the tests is computed as well.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from dpgmm_dist.errors import SpecError
from dpgmm_dist.privacy.noise import DiscreteGaussian, InsecureTestNoise, noise_source
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian

LEVEL = 1e-6
SAMPLES = 12_000
SCALES = (0.5, 1.0, 3.3, 40.0, 1e6, 2.0**40)


def edges(sigma: float) -> np.ndarray:
    """Upper ends of bins, whole numbers a third of sigma apart, out to two and a half sigma."""
    step = max(1, round(sigma / 3))
    reach = max(1, int(2.5 * sigma / step)) * step
    return np.arange(-reach, reach, step)


def probabilities(sigma: float, ends: np.ndarray) -> np.ndarray:
    """Chance of each bin (-inf, e0], (e0, e1], ..., (en, inf) under the discrete Gaussian."""
    if sigma < 100:
        k = np.arange(-int(12 * sigma) - 12, int(12 * sigma) + 13)
        mass = np.exp(-(k**2) / (2 * sigma**2))
        below = np.concatenate([[0.0], np.cumsum(mass)])[np.searchsorted(k, ends, "right")]
        below /= mass.sum()
    else:  # by Poisson summation the rest is below exp(-2 pi^2 sigma^2)
        below = special.ndtr((ends + 0.5) / sigma)
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def chi_square(samples: np.ndarray, sigma: float) -> tuple[float, float]:
    """The statistic, and the probability of reaching it by chance."""
    ends = edges(sigma)
    expected = probabilities(sigma, ends) * len(samples)
    assert expected.min() > 5  # otherwise the chi-square law does not hold
    counts = np.bincount(np.searchsorted(ends, samples, "left"), minlength=len(ends) + 1)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, float(special.chdtrc(len(ends), statistic))


def power(sigma: float, declared: float) -> float:
    """Probability that draws of scale ``sigma`` are rejected as draws of scale ``declared``."""
    ends = edges(declared)
    p, q = probabilities(declared, ends), probabilities(sigma, ends)
    critical = special.chdtri(len(ends), LEVEL)
    return float(1 - special.chndtr(critical, len(ends), SAMPLES * ((q - p) ** 2 / p).sum()))


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", SCALES)
def test_the_declared_scale_is_the_one_drawn(sigma):
    samples = DiscreteGaussian().draw(sigma, SAMPLES)
    assert samples.dtype == np.int64
    assert samples.shape == (SAMPLES,)
    assert chi_square(samples, sigma)[1] > LEVEL


@pytest.mark.statistical
@pytest.mark.parametrize("factor", [0.7, 1.3])
@pytest.mark.parametrize("sigma", SCALES)
def test_other_scales_are_noticed(sigma, factor):
    assert power(sigma * factor, sigma) > 1 - 1e-9
    samples = DiscreteGaussian().draw(sigma * factor, SAMPLES)
    assert chi_square(samples, sigma)[1] < LEVEL


@pytest.mark.statistical
def test_draws_are_independent_of_each_other():
    """Correlation of neighbours, and between the two halves of one draw, at five sigma."""
    samples = DiscreteGaussian().draw(1e5, SAMPLES).astype(np.float64)
    for a, b in ((samples[1:], samples[:-1]), (samples[: SAMPLES // 2], samples[SAMPLES // 2 :])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))


@pytest.mark.statistical
def test_the_largest_scale_a_query_may_have_does_not_saturate():
    """check_fits admits scales below 2**55, of which 256 fit into int64."""
    samples = DiscreteGaussian().draw(float(np.nextafter(2.0**55, 0)), 2000).astype(np.float64)
    assert np.abs(samples).max() < 2.0**55 * 8
    assert abs(samples.std() / 2.0**55 - 1) < 6 / np.sqrt(2 * len(samples))


def test_no_draw_repeats():
    source = DiscreteGaussian()
    draws = [tuple(source.draw(1e12, 4).tolist()) for _ in range(20)]
    draws += [tuple(DiscreteGaussian().draw(1e12, 4).tolist()) for _ in range(20)]
    assert len({value for draw in draws for value in draw}) == 160


CHILDREN = """
import multiprocessing, sys, numpy as np
from dpgmm_dist.privacy.noise import DiscreteGaussian

SOURCE = DiscreteGaussian()

def draw(_):
    np.random.seed(0)
    return [int(v) for v in SOURCE.draw(1e12, 4)]

if __name__ == "__main__":
    how = sys.argv[1]
    SOURCE.draw(1e12, 4)  # whatever state there is exists before the fork
    context = multiprocessing.get_context(how)
    pools = [context.Pool(1) for _ in range(3)]
    for pool in pools:
        print(*pool.apply(draw, (0,)))
    print(*draw(0))
    for pool in pools:
        pool.terminate()
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_children_of_a_process_draw_their_own_noise(how, tmp_path):
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    done = subprocess.run(
        [sys.executable, str(script), how], capture_output=True, text=True, timeout=300, check=True
    )
    drawn = done.stdout.split()
    assert len(drawn) == 16
    assert len(set(drawn)) == 16


def test_two_runs_of_one_program_draw_their_own_noise():
    """No seed, hash seed or environment makes noise repeat."""
    code = (
        "import random, numpy as np; random.seed(1); np.random.seed(1)\n"
        "from dpgmm_dist.privacy.noise import DiscreteGaussian\n"
        "print(*DiscreteGaussian().draw(1e12, 8))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            env={"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"},
        ).stdout.split()
        for _ in range(2)
    ]
    assert len(set(runs[0] + runs[1])) == 16


def test_test_noise_repeats_by_seed_query_and_position_and_says_it_is_not_private():
    def draws(seed: int, step: str) -> list[list[int]]:
        source = InsecureTestNoise(seed)
        source.restart(step)
        return [source.draw(1e9, 3).tolist() for _ in range(2)]

    assert draws(7, "cells.1") == draws(7, "cells.1")
    other = [draws(7, "cells.1"), draws(8, "cells.1"), draws(7, "cells.2")]
    assert len({value for run in other for draw in run for value in draw}) == 18
    assert not InsecureTestNoise(7).private
    assert DiscreteGaussian().private


def test_no_specification_gives_test_noise():
    assert isinstance(noise_source("auto"), RoundedGaussian)
    assert isinstance(noise_source("gaussian"), RoundedGaussian)
    assert isinstance(noise_source("discrete_gaussian"), DiscreteGaussian)
    for name in ("insecure_test_noise", "laplace", ""):
        with pytest.raises(SpecError, match="privacy\\.noise"):
            noise_source(name)
