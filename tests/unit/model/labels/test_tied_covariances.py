"""Labelled releases in high dimension, on data made to break them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model.labels import tied_covariances as tied
from dpgmm_dist.model.pass_plan import Latent, Observed, PassPlan
from dpgmm_dist.model.problem import Ask, Problem
from dpgmm_dist.model.strategy import fit, schedule
from dpgmm_dist.passes.kernel import Kernel
from dpgmm_dist.pipeline.compile import compile_pass, observe
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import InsecureTestNoise
from dpgmm_dist.privacy.sensitivity import query_cost

D = 26


def ask_of(
    X: npt.NDArray[np.float64], y: npt.NDArray[np.int64], costs: list[float], norm: float = 1.0
) -> Ask:
    features = FeatureMap(X.shape[1], norm)
    u, _ = features.to_lattice(X)
    noise = InsecureTestNoise(1)

    def ask(plan: PassPlan, latent: Latent) -> Observed:
        query = compile_pass(plan, latent, features.step)
        costs.append(float(query_cost(query)))
        kernel = Kernel(query)
        total = kernel.start()
        kernel.accumulate(total, u, y)
        return observe(query, measure(total.finish(), query, noise), latent, features.step)

    return ask


def rows(n: int, labels: int, seed: int = 0) -> tuple[npt.NDArray, npt.NDArray]:
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(0, labels, n))
    scale = 0.3 / (1 + np.arange(D))
    centres = rng.standard_normal((labels, D)) * 0.1
    X = centres[y] + rng.standard_normal((n, D)) * scale * np.where(y == 0, 0.5, 1.0)[:, None]
    return X, y


@pytest.mark.parametrize("n", [0, 1, 3, 2000])
@pytest.mark.parametrize("rho", [1e-3, 50.0])
def test_releases_whatever_the_data(n: int, rho: float) -> None:
    X, y = rows(n, 2)
    costs: list[float] = []
    problem = Problem(D, 1.0, rho, label_values=(0, 1, 2), components="auto")
    fitted = fit(problem, ask_of(X, y, costs))
    assert sum(costs) <= rho
    mixture = fitted.mixture
    assert set(mixture.label_index.tolist()) == {0, 1, 2}
    assert np.isfinite(mixture.covariances).all()
    assert np.linalg.eigvalsh(mixture.covariances).min() > 0
    assert np.isfinite(fitted.latent.to_features(mixture.means)).all()
    assert np.linalg.norm(fitted.latent.to_features(mixture.means), axis=1).max() <= 1 + 1e-9


# Each kind of rows with each budget, in very small or very large units by turns.
UNITS = [
    (kind, rho, (1e-30, 1e30)[(first + second) % 2])
    for first, kind in enumerate(["none", "alike", "two", "spread"])
    for second, rho in enumerate([1e-3, 0.02, 1e5])
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "rho", "norm"), UNITS)
def test_units_do_not_matter(kind: str, rho: float, norm: float) -> None:
    n = {"none": 0, "alike": 300, "two": 2, "spread": 2000}[kind]
    X, y = rows(n, 2)
    if kind == "alike":
        X, y = np.full_like(X, 0.1), np.zeros_like(y)
    problem = Problem(D, norm, rho, label_values=(0, 1, 2), components="auto")
    costs: list[float] = []
    mixture = fit(problem, ask_of(X * norm, y, costs, norm)).mixture
    assert np.isfinite(mixture.means).all()
    assert np.linalg.eigvalsh(mixture.covariances / norm**2).min() > 0


def test_all_rows_the_same() -> None:
    X = np.full((500, D), 0.9 / np.sqrt(D))
    fitted = fit(Problem(D, 1.0, 1.0, (0, 1)), ask_of(X, np.zeros(500, np.int64), []))
    assert np.linalg.eigvalsh(fitted.mixture.covariances).min() > 0


def test_a_number_of_components_is_kept() -> None:
    X, y = rows(2000, 2)
    fitted = fit(Problem(D, 1.0, 1.0, (0, 1), components=3), ask_of(X, y, []))
    assert np.bincount(fitted.mixture.label_index).tolist() == [3, 3]


def test_candidates_are_kept() -> None:
    X, y = rows(2000, 2)
    problem = Problem(D, 1.0, 0.5, (0, 1), components=(2, 7))
    fitted = fit(problem, ask_of(X, y, []))
    assert set(np.bincount(fitted.mixture.label_index).tolist()) <= {2, 7}


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_covariance_structure(kind: str) -> None:
    X, y = rows(2000, 2)
    problem = Problem(D, 1.0, 1.0, (0, 1), components=2, covariance=kind)
    covariances = fit(problem, ask_of(X, y, [])).mixture.covariances
    if kind == "tied":
        assert np.allclose(covariances, covariances[0])
    else:
        off = covariances - np.stack(
            [np.diag(np.diagonal(covariance)) for covariance in covariances]
        )
        assert np.allclose(off, 0)
    if kind == "spherical":
        assert np.allclose(np.ptp(np.diagonal(covariances, axis1=1, axis2=2), axis=1), 0)


def test_with_a_projection() -> None:
    X, y = rows(3000, 2)
    problem = Problem(D + 0, 1.0, 1.0, (0, 1), components=2, dimension=tied.LEAST_DIMENSION)
    fitted = fit(problem, ask_of(X, y, []))
    assert fitted.mixture.dimension == tied.LEAST_DIMENSION
    assert fitted.residual_variance > 0


def test_with_many_rows_it_is_the_truth() -> None:
    X, y = rows(40_000, 2, seed=3)
    problem = Problem(D, 2.0, 1e4, (0, 1), components=1)
    mixture = fit(problem, ask_of(X, y, [])).mixture
    for label in (0, 1):
        of_label = X[y == label]
        assert np.allclose(mixture.means[label], of_label.mean(axis=0), atol=2e-3)
        truth = np.cov(of_label.T)
        error = np.linalg.norm(mixture.covariances[label] - truth) / np.linalg.norm(truth)
        assert error < 0.1


def test_shares_sum_to_one() -> None:
    assert sum(schedule(Problem(D, 1.0, 1.0, (0, 1))).values()) == pytest.approx(1.0)
