"""Standard errors mean what they say: coverage over repeated releases, at the nominal rate."""

from __future__ import annotations

import numpy as np
import pytest

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model.allocation import component_radius
from dpgmm_dist.model.fitting import components
from dpgmm_dist.model.mixture import Mixture
from dpgmm_dist.model.pass_plan import Latent, Observed
from dpgmm_dist.model.problem import Problem
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.pipeline.compile import compile_pass, observe
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import InsecureTestNoise

P, NORM, REPEATS = 3, 6.0, 60


def mixture() -> Mixture:
    return Mixture(
        np.array([0.4, 0.6]),
        np.array([[-1.5, 0.0, 0.0], [1.5, 0.5, 0.0]]),
        np.stack([np.eye(P) * 0.5, np.diag([0.3, 0.6, 0.9])]),
    )


@pytest.fixture(scope="module")
def answers() -> tuple[Observed, list[Observed]]:
    """One components pass about fixed public parameters: without noise, and many times with."""
    truth = mixture()
    X, _ = truth.sample(20_000, 1)
    features = FeatureMap(P, NORM)
    u, _ = features.to_lattice(X)
    problem = Problem(P, NORM, 0.03, components=2)
    radius = component_radius(P)
    plan = components._plan(problem, truth, "components.2", 0.015, "component", True, radius)
    query = compile_pass(plan, Latent(P), features.step)

    class Silence(InsecureTestNoise):
        def draw(self, sigma: float, size: int) -> np.ndarray:
            return np.zeros(size, dtype=np.int64)

    def answer(noise: InsecureTestNoise) -> Observed:
        kernel = Kernel(query)
        total = kernel.start()
        kernel.accumulate(total, u, np.zeros(len(u), dtype=np.int64))
        return observe(query, measure(total.finish(), query, noise), Latent(P), features.step)

    return answer(Silence(0)), [answer(InsecureTestNoise(seed)) for seed in range(REPEATS)]


@pytest.mark.statistical
@pytest.mark.parametrize("statistic", ["count", "sum", "second"])
@pytest.mark.parametrize("scale", [1.0, 0.8, 1.25])
def test_unshrunk_clipped_moments_are_covered_at_the_nominal_rate(answers, statistic, scale):
    exact, noisy = answers
    block = exact.block(statistic)
    sigma = np.full(block.values.shape, block.sigma * scale)
    if statistic == "second":
        off = ~np.eye(P, dtype=bool)
        sigma[:, off] /= np.sqrt(2)
    errors = np.stack([(answer.block(statistic).values - block.values) / sigma for answer in noisy])
    if statistic == "second":
        errors = errors[:, :, *np.triu_indices(P)]
    # 120 to 720 normal numbers: their variance has relative error sqrt(2 / N), tested at 4.5 of it.
    within = abs(errors.var() - 1) < 4.5 * np.sqrt(2 / errors.size)
    if scale == 1.0:
        assert within
        for width, nominal in ((1.0, 0.6827), (1.96, 0.95)):
            found = float((np.abs(errors) < width).mean())
            assert abs(found - nominal) < 4.5 * np.sqrt(nominal * (1 - nominal) / errors.size)
    elif errors.size > 300:
        assert not within  # a fifth too wide or too narrow would be seen
