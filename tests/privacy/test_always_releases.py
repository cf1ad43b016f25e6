"""No noise and no data make a fit fail: whether a job succeeds does not depend on rows.

A failure after the first answer would reveal something that was not paid for, and it would come
after the charge. So every kind of problem is fitted to no rows, to one row, to equal rows and to
rows at the ends of the bounds, under budgets that leave nothing but noise.
"""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.model.problem import Fitted, Problem
from dpgmm_dist.model.strategy import fit
from dpgmm_dist.pipeline.compile import compile_pass, observe
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.noise import InsecureTestNoise
from dpgmm_dist.privacy.sensitivity import query_cost

from ..queries import accumulated
from ..variants import variant

PROBLEMS: dict[str, dict[str, Any]] = {
    "soft": {"width": 2, "components": 3},
    "one dimension": {"width": 1, "components": 2},
    "hard": {"width": 7, "components": 2, "assignment": "hard"},
    "labelled": {"width": 3, "components": 2, "label_values": (1, 2)},
    "labelled, many": {"width": 2, "components": 1, "label_values": tuple(range(12))},
    "projected": {"width": 6, "components": 2, "dimension": 2, "label_values": ("a", "b")},
    "to one dimension": {"width": 5, "components": 1, "dimension": 1},
    "tied": {"width": 6, "components": 2, "covariance": "tied"},
    "diagonal": {"width": 3, "components": (1, 3), "covariance": "diag"},
    "spherical, even": {
        "width": 3,
        "components": 2,
        "covariance": "spherical",
        "allocation": "even",
    },
    "wide": {"width": 40, "components": 2},
    "wide, labelled": {"width": 24, "components": 2, "label_values": (1, 2)},
    "small bound": {"width": 3, "components": 2, "norm": 1e-30},
    "large bound": {"width": 3, "components": 2, "norm": 1e30},
}


def rows_of(kind: str, width: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in units of the norm bound, and their labels."""
    rng = np.random.default_rng(1)
    n = {"nothing": 0, "one row": 1}.get(kind, 3000)
    x = np.full((n, width), 0.3)
    if kind == "ends":
        x = np.eye(width)[rng.integers(0, width, n)] * rng.choice([-9.0, 9.0], n)[:, None]
    return x, np.zeros(n, dtype=np.int64) if kind == "alike" else rng.integers(0, labels, n)


# Each problem is tried with one or two of these, and each of these with some problem.
CASES = [
    (name, kind, rho)
    for index, name in enumerate(PROBLEMS)
    for kind, rho in [
        ("nothing", 1e-7 if index % 2 else 0.02),
        [("one row", 0.5), ("alike", 0.02), ("ends", 5.0)][index % 3],
    ][: 1 + (index % 2 == 0)]
]
SLOWEST = [("diagonal", "ends", 5.0), ("hard", "ends", 5.0)]
assert all(case in CASES for case in SLOWEST)


@pytest.mark.parametrize(
    ("name", "kind", "rho"),
    [variant(*case) if case in SLOWEST else case for case in CASES],
)
def test_every_problem_is_fitted_to_any_rows_under_any_budget(name, kind, rho):
    options = {"norm": 1.0} | PROBLEMS[name]
    problem = Problem(rho=rho, **options)
    x, labels = rows_of(kind, problem.width, problem.labels)
    check(problem, x * problem.norm, labels, 5)


def check(problem: Problem, x: np.ndarray, labels: np.ndarray, seed: int) -> Fitted:
    """A fit through the gate: within its budget, without a warning, valid and within the bound."""
    features = FeatureMap(problem.width, problem.norm)
    u, _ = features.to_lattice(x)
    spent: list[Fraction] = []
    noise = InsecureTestNoise(seed)

    def ask(plan: Any, latent: Any) -> Any:
        query = compile_pass(plan, latent, features.step)
        spent.append(query_cost(query))
        return observe(
            query, measure(accumulated(query, u, labels), query, noise), latent, features.step
        )

    with warnings.catch_warnings(), np.errstate(all="ignore"):  # as a release runs it
        warnings.simplefilter("error")  # a warning would be a line that depends on the data
        fitted = fit(problem, ask)
    assert sum(spent) <= Fraction(problem.rho) * (1 + Fraction(1, 1 << 40))
    mixture = fitted.mixture
    assert np.isfinite(mixture.means).all()
    assert mixture.weights.min() > 0
    assert mixture.weights.sum() == pytest.approx(1)
    for covariance in mixture.covariances:
        np.linalg.cholesky(covariance / np.trace(covariance))
    for error in (fitted.errors.weights, fitted.errors.means, fitted.errors.covariances):
        # Covariances have errors or none, which infinity stands for.
        assert np.isfinite(error).all() or (error.ndim == 3 and np.isposinf(error).all())
        assert (error >= 0).all()
    z = fitted.latent.to_features(mixture.means)
    assert np.linalg.norm(z, axis=1).max() <= 3 * problem.norm
    if isinstance(problem.components, int):
        counts = np.bincount(mixture.label_index, minlength=problem.labels)
        assert (counts == problem.components).all() or problem.latent_dimension >= 20
    return fitted


def hostile(kind: str, problem: Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in feature units that a fit might stumble over, and their labels."""
    rng = np.random.default_rng(seed)
    n, d = {"nothing": 0, "one row": 1}.get(kind, 400), problem.width
    x = np.tile(np.array([1.0, 0.5, -1.0])[np.arange(d) % 3] / np.sqrt(d), (n, 1))
    if kind == "bound":
        x = np.eye(d)[rng.integers(0, d, n)] * rng.choice([-9.0, 9.0], n)[:, None]
    labels = rng.integers(0, problem.labels, n)
    return x * problem.norm, np.zeros_like(labels) if kind == "one label" else labels


STAGED: list[dict[str, Any]] = [
    {"width": d, "components": components, "label_values": labels, "covariance": covariance}
    for d, labels, components, covariance in [
        (1, (), 1, "auto"),
        (1, (1, 2), 10, "full"),
        (3, (), (1, 3), "tied"),
        (3, tuple(range(12)), "auto", "spherical"),
        (8, (1, 2), 10, "diag"),
        (30, (1, 2, 3), "auto", "full"),
        (30, (), 10, "auto"),
    ]
] + [
    {"width": 8, "components": 1, "label_values": (1, 2), "dimension": 3},
    {"width": 30, "components": (1, 3), "dimension": 1},
]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        # Each kind of rows with every third problem, each problem with a kind or two.
        (options, kind) if (i + j) % 3 == 0 else variant(options, kind)
        for i, options in enumerate(STAGED)
        for j, kind in enumerate(["nothing", "one row", "alike", "bound", "one label"])
    ],
    ids=str,
)
def test_stages_finish_whatever_the_rows_and_the_noise(options: dict[str, Any], kind: str) -> None:
    """Down to the least budget that a specification may ask for, with noise of many seeds.

    Wide problems, which are dear, take every second budget.
    """
    stride = 2 if options["width"] > 20 else 1
    for seed, rho in [*enumerate([1e-8, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4])][::stride]:
        problem = Problem(norm=1.5, rho=rho, **options)
        check(problem, *hostile(kind, problem, seed), seed)


@pytest.mark.parametrize("kind", ["nothing", "alike"])
def test_two_labels_of_many_features(kind: str) -> None:
    problem = Problem(norm=1.0, rho=0.02, width=300, components="auto", label_values=(0, 1))
    check(problem, *hostile(kind, problem, 1), 1)


def test_rows_that_are_all_alike_do_not_shrink_a_joint_fit_to_nothing() -> None:
    """Its covariance gets smaller with every step; once it could not be factorised any more."""
    problem = Problem(width=3, norm=1.5, rho=0.7397633310569123, components=1)
    x = np.tile([1.0, 0.5, -1.0], (4000, 1))
    check(problem, x, np.zeros(4000, dtype=np.int64), 16)
