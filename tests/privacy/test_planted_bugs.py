"""Bugs that would break the guarantee, planted one at a time: the audit or a test notices each.

Those that the audit is to notice are planted below the code that it runs. For the others the test
that notices is called with the bug in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.audit.run import audit
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.data import unit_rows
from dpgmm_dist.data.lattice import FeatureMap
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import DataError
from dpgmm_dist.passes import kernel, unit_tasks
from dpgmm_dist.pipeline import compile as compiling
from dpgmm_dist.pipeline import session as sessions
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.privacy import query as queries
from dpgmm_dist.privacy import sensitivity
from dpgmm_dist.privacy.noise import InsecureTestNoise
from dpgmm_dist.privacy.query import Block, PassQuery
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..draws import recording
from . import test_gate
from .test_sensitivity import breaches, sigma_for

Patch = pytest.MonkeyPatch
NOTICED = (AssertionError, pytest.fail.Exception)


def job(features: Any = "x", **dataset: Any) -> ReleaseSpec:
    bounds: dict[str, Any] = {"norm": 1.0}
    if not isinstance(features, str):
        bounds = {"columns": dict.fromkeys(features, "auto")}
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "nowhere", "features": features, **dataset},
            "bounds": bounds,
            "privacy": {"epsilon": 0.5, "delta": 1e-6},
            "model": {"components": 1},
        }
    )


EMBEDDINGS = job(width=3)
PERSONS = job(width=3, privacy_unit={"column": "user", "max_rows": 3})
TABLE = job(features=["a"])
DRAWS = 200
"""Enough for all but a scale that is little off: what a unit moves is known without a draw."""


# ---------------------------------------------------------------- the noise


def scaled(factor: float) -> Callable[[Patch], None]:
    def plant(patch: Patch) -> None:
        draw = RoundedGaussian.draw
        patch.setattr(RoundedGaussian, "draw", lambda s, sigma, n: draw(s, factor * sigma, n))

    return plant


def averaged(patch: Patch) -> None:
    """Two draws of one answer, averaged."""
    draw = RoundedGaussian.draw

    def mean(self: RoundedGaussian, sigma: float, size: int) -> np.ndarray:
        return np.rint((draw(self, sigma, size) + draw(self, sigma, size)) / 2).astype(np.int64)

    patch.setattr(RoundedGaussian, "draw", mean)


def repeated(patch: Patch) -> None:
    """Noise of one seed: the same in every answer."""

    def same(self: RoundedGaussian, sigma: float, size: int) -> np.ndarray:
        return np.rint(np.random.default_rng(1).normal(size=size) * sigma).astype(np.int64)

    patch.setattr(RoundedGaussian, "draw", same)


def halved_off_diagonal(patch: Patch) -> None:
    """Off-diagonal noise too small by sqrt 2, and a price that looks at the diagonal alone."""
    patch.setattr(compiling, "off_diagonal", lambda sigma: sigma / 2)

    def price(query: PassQuery, block: Block) -> Fraction:
        return Fraction(sensitivity.squared_sensitivity(query, block)) / (
            2 * Fraction(block.sigma) ** 2
        )

    for module in (sensitivity, sessions):
        patch.setattr(module, "block_cost", price)


# ---------------------------------------------------------------- what a unit adds


def one_row_more(patch: Patch) -> None:
    smallest = unit_rows.smallest
    for module in (unit_rows, unit_tasks):
        patch.setattr(module, "smallest", lambda rows, most: smallest(rows, most + 1))


def clipped_once(patch: Patch) -> None:
    """Rows are brought into the bounds, and not clipped again after the map of a query."""
    patch.setattr(kernel, "clip_rows", lambda v, radius, limit: v)


def invalid_counted(patch: Patch) -> None:
    """NaN and infinity become numbers, and their rows count."""
    to_lattice = FeatureMap.to_lattice

    def counted(self: FeatureMap, rows: np.ndarray, valid: Any = None, out: Any = None) -> Any:
        return to_lattice(self, np.nan_to_num(rows), None, out)

    patch.setattr(FeatureMap, "to_lattice", counted)


def bins_twice(patch: Patch) -> None:
    bincount = np.bincount
    add = kernel.Accumulator.add_codes

    def twice(self: Any, codes: Any, labels: Any, weight: Any) -> None:
        patch.setattr(np, "bincount", lambda *a, **k: 2 * bincount(*a, **k))
        try:
            add(self, codes, labels, weight)
        finally:
            patch.setattr(np, "bincount", bincount)

    patch.setattr(kernel.Accumulator, "add_codes", twice)


BUGS: dict[str, tuple[Callable[[Patch], None], ReleaseSpec, str]] = {
    "noise at 0.97 of its scale": (scaled(0.97), EMBEDDINGS, "of its declared scale"),
    "noise at 0.7 of its scale": (scaled(0.7), EMBEDDINGS, "of its declared scale"),
    "two draws averaged": (averaged, EMBEDDINGS, "of its declared scale"),
    "the same noise again": (repeated, EMBEDDINGS, "share some"),
    "off-diagonal noise": (halved_off_diagonal, EMBEDDINGS, "moved 1."),
    "a unit of one row more": (one_row_more, PERSONS, "moved 1.333"),
    "clipped once and not again": (clipped_once, EMBEDDINGS, "moved "),
    "NaN or infinity counted": (invalid_counted, EMBEDDINGS, "null or an infinity"),
    "bins counted twice": (bins_twice, TABLE, "moved 2 "),
}


@pytest.mark.parametrize("spec", [EMBEDDINGS, PERSONS, TABLE], ids=["list", "persons", "table"])
def test_without_a_bug_the_audit_finds_none(spec):
    found = audit(spec, draws=DRAWS)
    assert found.refuted == []


@pytest.mark.parametrize("bug", BUGS)
def test_the_audit_notices(bug, monkeypatch):
    plant, spec, words = BUGS[bug]
    plant(monkeypatch)
    found = audit(spec, draws=2000 if "0.97" in bug else DRAWS)
    assert any(words in line for line in found.refuted), found.refuted


def test_responsibilities_that_are_rounded_up_are_noticed(monkeypatch):
    """A row wholly in one cell of two then has one unit of the grid in the other as well."""
    zero = np.zeros(2, dtype=np.int64)
    query = PassQuery(
        "components.1",
        2,
        zero,
        np.array([[0, 0], [1 << 14, 0]]),
        4096,
        (Block("count", np.arange(2), 1.0),),
        rule="full",
        soft=True,
        unit_bits=6,
        table=np.array([1 << 10, 1]),
        table_shift=4,
    )
    sigma = sigma_for(sensitivity.squared_sensitivity(query, query.blocks[0]), 0.01)
    query = replace(query, blocks=(replace(query.blocks[0], sigma=sigma),))
    assert breaches(query, query) == 0
    exact = kernel.Kernel._responsibilities

    def rounded_up(self: Any, distance: Any, weight: Any) -> Any:
        return np.minimum(exact(self, distance, weight) + 1, 1 << 6)

    monkeypatch.setattr(kernel.Kernel, "_responsibilities", rounded_up)
    assert breaches(query, query) > 0


# ---------------------------------------------------------------- rows cut to a radius


def tight_rows(radius: int) -> np.ndarray:
    """Long rows whose multiple in the ball is an integer vector right on its sphere."""
    m = np.arange(2, 60)
    n, k = np.meshgrid(m, m)
    a, b, c = (k * k - n * n).ravel(), (2 * k * n).ravel(), (k * k + n * n).ravel()
    fits = (a > 0) & (radius % c == 0)
    on_sphere = np.stack([a, b], axis=1)[fits] * (radius // c[fits])[:, None]
    most = int((2.0**26) // radius)
    factors = np.unique(np.geomspace(2, most, 40).astype(int))
    return np.concatenate([on_sphere * factor for factor in factors]).astype(np.float64)


def outside(rows: np.ndarray, radius: int) -> int:
    return sum(sum(int(x) ** 2 for x in row) > radius**2 for row in rows.tolist())


RADII = (5 * 13 * 17 * 29, 65_000, 25 * 13 * 17 * 37, 5 * 13 * 17 * 29 * 37)


@pytest.mark.parametrize("radius", RADII)
def test_one_look_is_enough_where_a_row_comes_out_on_the_sphere(radius):
    rows = tight_rows(radius)
    assert len(rows) > 100
    cut = queries.shrink_to_radius(rows, radius)
    assert outside(cut, radius) == 0
    on_sphere = sum(sum(int(x) ** 2 for x in row) == radius**2 for row in cut.tolist())
    assert on_sphere > 0  # so that a factor the least bit too large would be seen


@pytest.mark.parametrize("radius", RADII)
def test_a_factor_that_is_too_large_is_noticed(radius, monkeypatch):
    """Rounding to the nearest in place of truncating leaves rows outside their radius."""
    monkeypatch.setattr(queries.np, "trunc", np.rint)
    rows = np.rint(np.random.default_rng(0).normal(size=(300, 3)) * radius)
    assert outside(queries.shrink_to_radius(rows, radius), radius) > 0


def test_a_radius_for_which_one_look_is_not_enough_is_refused():
    queries.shrink_to_radius(np.ones((1, 2)), queries.LARGEST_RADIUS)
    with pytest.raises(ValueError, match="radius"):
        queries.shrink_to_radius(np.ones((1, 2)), queries.LARGEST_RADIUS + 1)


# ---------------------------------------------------------------- when noise is drawn, and of what


def test_noise_in_each_task_is_noticed(tmp_path, monkeypatch):
    run = LocalEngine.run

    def noisy(self: Any, context: Any, units: Any, report: Any) -> Any:
        RoundedGaussian().draw(8.0, 1)
        return run(self, context, units, report)

    monkeypatch.setattr(LocalEngine, "run", noisy)
    notices = test_gate.test_noise_is_drawn_by_the_driver_alone_and_after_the_sum_is_there
    with pytest.raises(NOTICED, match="while the engine runs"):
        notices(tmp_path, recording(monkeypatch), monkeypatch)


def test_a_charge_after_the_draw_is_noticed(tmp_path, monkeypatch):
    def late(self: Any, index: int, query: PassQuery) -> bytes:
        exact = self._sum(self._rows, query, lambda *_: None)
        noisy = sessions.measure(exact, query, self._noise)
        self._budget.charge()
        return self._budget.journal.put_answer(index, query.step, noisy.to_bytes())

    monkeypatch.setattr(sessions.Session, "_measure", late)
    notices = test_gate.test_the_whole_release_is_charged_before_the_first_draw_and_once
    with pytest.raises(NOTICED):
        notices(tmp_path, recording(monkeypatch))


def test_a_stored_answer_that_is_ignored_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(Journal, "answer", lambda self, step: None)
    notices = test_gate.test_a_job_stopped_between_draws_draws_no_answer_twice
    with pytest.raises((*NOTICED, DataError)):  # the release says itself that an answer is lost
        notices(tmp_path, recording(monkeypatch), 5)


FILES = ("mixture.parquet", "transform.parquet", "receipt.json", "release.json")


def same_answers_same_files(folder: Any) -> None:
    """A release of other rows under the same stored answers is the same, byte for byte."""
    spec = test_gate.spec()
    out = folder / "out"
    release(spec, output=str(out), source=test_gate.rows(), release_id="week-1")
    first = [(out / name).read_bytes() for name in FILES]
    for path in out.iterdir():
        if path.is_file():
            path.unlink()
    release(spec, output=str(out), source=test_gate.rows(n=77), release_id="week-1")
    assert [(out / name).read_bytes() for name in FILES] == first


def test_a_release_is_a_function_of_its_stored_answers(tmp_path):
    same_answers_same_files(tmp_path)


def test_a_floor_from_an_exact_trace_is_noticed(tmp_path, monkeypatch):
    """Whatever the model knows beside the stored answers makes another release of other rows."""
    traces: list[float] = []

    def watched(self: Any, *call: Any) -> Any:
        exact = original(self, *call)
        query = call[1]
        noisy = sessions.measure(exact, query, InsecureTestNoise(0))
        traces.append(float(abs(noisy.values[-1]).sum()))
        return exact

    def with_floor(*call: Any, **keys: Any) -> Any:
        found = measure_model(*call, **keys)
        mixture = found.fitted.mixture
        floor = (1 + math.log1p(math.fsum(traces))) * np.eye(mixture.dimension)
        traces.clear()
        raised = replace(mixture, covariances=mixture.covariances + floor)
        return replace(found, fitted=replace(found.fitted, mixture=raised))

    from dpgmm_dist.pipeline import release as releasing

    original, measure_model = sessions.Session._sum, releasing.measure_model
    monkeypatch.setattr(sessions.Session, "_sum", watched)
    monkeypatch.setattr(releasing, "measure_model", with_floor)
    with pytest.raises(NOTICED):
        same_answers_same_files(tmp_path)
