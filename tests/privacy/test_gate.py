"""The gate: charged before the first draw, with separate noise for every integer, drawn once.

The cost of a release is computed again from the scales that the noise source was called with, and
compared with the receipt and the budget.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import threading
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.budget.records import rho_of_mu
from dpgmm_dist.data.source import ArraySource
from dpgmm_dist.engine.local import LocalEngine
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.privacy.accounting import (
    epsilon_from_mu,
    epsilon_from_rho,
    mu_from_epsilon_delta,
    rho_from_epsilon_delta,
)
from dpgmm_dist.privacy.measure import NoisyStatistic, measure
from dpgmm_dist.privacy.query import Block, IntMap, PassQuery
from dpgmm_dist.privacy.sensitivity import query_cost
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..draws import recomputed, stopped_and_released
from ..queries import accumulated, reference


def spec(
    ledger: Path | None = None,
    labels: int = 1,
    noise: str = "discrete_gaussian",
    **model: object,
) -> ReleaseSpec:
    labelled = {"label": "label", "labels": list(range(labels))} if labels > 1 else {}
    return ReleaseSpec.from_dict(
        {
            "dataset": {"path": "memory", "features": "x", **labelled},
            "bounds": {"norm": 1.0},
            "privacy": {
                "epsilon": 1.0,
                "delta": 1e-6,
                "ledger": None if ledger is None else str(ledger),
                "noise": noise,
            },
            "model": {"components": 1, **model},
        }
    )


def rows(n: int = 200, d: int = 2, labels: int = 1) -> ArraySource:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)) * 0.3
    if labels == 1:
        return ArraySource(x, chunk_rows=400)
    return ArraySource(x, rng.integers(0, labels, n), tuple(range(labels)), chunk_rows=400)


def epsilon_of_gaussian(rho: float, delta: float) -> float:
    return epsilon_from_mu(math.sqrt(2 * rho), delta)


def rho_of_gaussian(epsilon: float, delta: float) -> float:
    return rho_of_mu(mu_from_epsilon_delta(epsilon, delta))


# ---------------------------------------------------------------- the cost of a release


@pytest.mark.parametrize(
    ("noise", "budget_of", "epsilon_of"),
    [
        ("discrete_gaussian", rho_from_epsilon_delta, epsilon_from_rho),
        ("auto", rho_of_gaussian, epsilon_of_gaussian),
    ],
)
@pytest.mark.parametrize(
    ("n", "d", "labels", "model"),
    [
        (1500, 2, 1, {"components": 2}),
        (1500, 3, 2, {"components": 1, "dimension": 2}),
        (200, 2, 3, {"components": 1, "allocation": "even", "covariance": "tied"}),
    ],
)
def test_the_receipt_says_what_the_draws_cost_and_that_is_the_budget(
    tmp_path, recorder, noise, budget_of, epsilon_of, n, d, labels, model
):
    result = release(
        spec(labels=labels, noise=noise, **model),
        output=str(tmp_path),
        source=rows(n, d, labels),
    )
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt == result.receipt | {"input": receipt["input"]}
    cost = recomputed(receipt, recorder.asked)
    budget = Fraction(budget_of(1.0, 1e-6))
    stated = Fraction(receipt["totals"]["rho"])
    assert cost <= stated <= cost * (1 + Fraction(1, 10**12))
    assert Fraction(999, 1000) * budget < stated <= budget
    assert 0.99 < receipt["totals"]["epsilon"] <= 1.0
    assert receipt["totals"]["epsilon"] >= epsilon_of(float(cost), 1e-6) * (1 - 1e-12)
    assert verify_release(str(tmp_path)).exit_code == 0
    assert "the guarantee is computational" in receipt["randomness"]
    assert ("ChaCha20" in receipt["randomness"]) == (receipt["mechanism"] == "gaussian")


def test_what_is_executed_is_what_is_stored_and_what_is_priced(tmp_path, recorder, monkeypatch):
    executed: list[bytes] = []
    run = LocalEngine.run

    def watched(self, context, units, report):
        executed.append(context.query.to_bytes())
        return run(self, context, units, report)

    monkeypatch.setattr(LocalEngine, "run", watched)
    url = tmp_path / "ledger"
    Ledger.init(str(url), 1.0, 1e-6)
    source = rows()
    result = release(spec(url), output=str(tmp_path / "out"), source=source, release_id="week-1")
    journal = url / "journal" / "week-1"
    stored = [p.read_bytes().partition(b"\n")[2] for p in sorted(journal.glob("query-*.bin"))]
    assert executed == stored
    costs = [query_cost(PassQuery.from_bytes(data)) for data in stored]
    for cost, query in zip(costs, result.receipt["queries"], strict=True):
        assert cost <= Fraction(query["rho"]) <= cost * (1 + Fraction(1, 10**12))
    assert sum(costs) <= Fraction(Ledger.open(str(url)).find("week-1").charge.rho)


# ---------------------------------------------------------------- when and where noise is drawn


def test_the_whole_release_is_charged_before_the_first_draw_and_once(tmp_path, recorder):
    url = tmp_path / "ledger"
    Ledger.init(str(url), 1.0, 1e-6)
    balances: list[float] = []
    recorder.before = lambda: balances.append(Ledger.open(str(url)).balance().spent)
    release(spec(url), output=str(tmp_path / "out"), source=rows())
    rho = rho_from_epsilon_delta(1.0, 1e-6)
    assert len(balances) > 5
    assert set(balances) == {rho}
    assert len(Ledger.open(str(url)).records) == 1


def test_noise_is_drawn_by_the_driver_alone_and_after_the_sum_is_there(
    tmp_path, recorder, monkeypatch
):
    running: list[bool] = [False]
    run = LocalEngine.run

    def watched(self, context, units, report):
        running[0] = True
        exact = run(self, context, units, report)
        running[0] = False
        return exact

    monkeypatch.setattr(LocalEngine, "run", watched)
    recorder.before = lambda: running[0] and pytest.fail("a draw while the engine runs")
    release(spec(), output=str(tmp_path), source=rows(), engine=LocalEngine(threads=2))
    assert recorder.threads == {threading.current_thread().name}
    assert multiprocessing.parent_process() is None


def test_an_engine_keeps_no_rows_after_a_release(tmp_path, recorder):
    """Rows changed in place are another input to the next release, also after a failed one."""
    source, engine = rows(), LocalEngine(threads=2)
    for name, fail_at in (("first", None), ("second", 0)):
        recorder.asked, recorder.fail_at = [], fail_at
        try:
            release(spec(), output=str(tmp_path / name), source=source, engine=engine)
        except KeyboardInterrupt:
            assert fail_at == 0
        assert engine._cache is None
        assert engine._cached == (None, None)


@pytest.mark.parametrize("fail_at", [0, 1, 2, 5, 7])
def test_a_job_stopped_between_draws_draws_no_answer_twice(tmp_path, recorder, fail_at):
    stopped_and_released(spec, tmp_path, recorder, fail_at, source=rows())


@pytest.mark.parametrize("named", [(0, 1), (0, 1, 2, 3), (2, 1, 0), ()])
def test_rows_with_other_labels_are_refused_before_anything_is_spent(tmp_path, recorder, named):
    url, out = tmp_path / "ledger", tmp_path / "out"
    Ledger.init(str(url), 1.0, 1e-6)
    source = rows(labels=3) if named else rows()
    given = replace(source, labels=named) if named else source
    with pytest.raises(SpecError, match="labels"):
        release(spec(url, labels=3), output=str(out), source=given)
    assert not out.exists()
    assert not Ledger.open(str(url)).records
    assert recorder.asked == []


def test_a_finished_release_is_not_measured_again(tmp_path, recorder):
    release(spec(), output=str(tmp_path), source=rows(), release_id="week-1")
    drawn = len(recorder.asked)
    again = release(spec(), output=str(tmp_path), source=rows(), release_id="week-1")
    assert again.already_done
    assert len(recorder.asked) == drawn


def test_stored_queries_that_cost_more_than_the_charge_are_refused(tmp_path, monkeypatch):
    """Every query in the journal is priced again before it is answered."""
    from dpgmm_dist.pipeline import session

    compile_pass = session.compile_pass
    budget = rho_from_epsilon_delta(1.0, 1e-6)

    def expensive(plan, latent, step, unit):
        from dataclasses import replace

        blocks = tuple(replace(block, rho=block.rho * 40) for block in plan.blocks)
        return compile_pass(replace(plan, blocks=blocks), latent, step, unit)

    monkeypatch.setattr(session, "compile_pass", expensive)
    opened: list[Fraction] = []
    monkeypatch.setattr(
        session, "measure", lambda e, q, n: opened.append(query_cost(q)) or measure(e, q, n)
    )
    with pytest.raises(DataError, match="more than the charge"):
        release(spec(), output=str(tmp_path), source=rows())
    assert sum(opened) <= Fraction(budget)


def test_a_query_of_another_width_is_refused(tmp_path, monkeypatch):
    from dpgmm_dist.pipeline.compile import compile_pass

    def narrower(plan, latent, step, unit):
        query = compile_pass(plan, latent, step, unit)
        object.__setattr__(query, "width", 1)
        return query

    monkeypatch.setattr("dpgmm_dist.pipeline.session.compile_pass", narrower)
    with pytest.raises(DataError, match="another version"):
        release(spec(), output=str(tmp_path), source=rows())


# ---------------------------------------------------------------- the answers


@dataclass
class Counting:
    """Draws 1, 2, 3, ... so that every entry of an answer can be identified."""

    name: str = "counting"
    accounting: str = "zcdp"
    private: bool = False
    asked: list[tuple[float, int]] = field(default_factory=list)
    silent: bool = False

    def draw(self, sigma: float, size: int) -> np.ndarray:
        start = 1 + sum(n for _, n in self.asked)
        self.asked.append((sigma, size))
        values = np.arange(start, start + size)
        return np.zeros_like(values) if self.silent else values


def three_blocks(soft: bool = False) -> PassQuery:
    cells = np.array([0, 0, 1])
    groups = np.array([0, 1, 2])
    return PassQuery(
        "components.1",
        3,
        cells,
        np.array([[0, 0, 0], [9, 0, 0], [0, 5, 5]]),
        1000,
        (
            Block("count", groups, 2.0),
            Block("sum", cells, 30.0),
            Block("second", np.array([0, 0, 1]), 400.0, 300.0),
        ),
        maps=(IntMap(np.eye(3, dtype=np.int64), 0),),
        cell_map=np.array([0, 0, 0]),
        rule="full",
        soft=soft,
        unit_bits=6 if soft else 0,
        table=np.array([8, 4, 2, 1, 0]) if soft else None,
        table_shift=4 if soft else 0,
    )


U = np.array([[3, 4, 0], [8, 1, -2], [0, 0, 1], [-5, 5, 5]], dtype=float)
LABELS = np.array([0, 0, 1, 1])


@pytest.mark.parametrize("soft", [False, True])
def test_an_answer_without_noise_is_the_exact_sum_in_whole_rows(soft):
    query = three_blocks(soft)
    answer = measure(accumulated(query, U, LABELS), query, Counting(silent=True))
    want = reference(query, [[int(v) for v in row] for row in U], LABELS.tolist())
    unit = query.weight_unit
    count, total, second = answer.values
    assert (count * unit).tolist() == want[0]
    assert (total * unit).reshape(-1).tolist() == want[1]
    assert second.shape == (2, 3, 3)
    upper = np.triu_indices(3)
    assert np.concatenate([matrix[upper] * unit for matrix in second]).tolist() == want[2]
    assert (second == second.transpose(0, 2, 1)).all()


def test_every_integer_gets_noise_of_its_own_and_of_its_own_scale():
    query = three_blocks()
    noise = Counting()
    exact = accumulated(query, U, LABELS)
    loud = measure(exact, query, noise).values
    still = measure(exact, query, Counting(silent=True)).values
    assert noise.asked == [(2.0, 3), (30.0, 6), (400.0, 6), (300.0, 6)]
    count, total, second = (a - b for a, b in zip(loud, still, strict=True))
    assert count.tolist() == [1, 2, 3]
    assert total.tolist() == [[4, 5, 6], [7, 8, 9]]
    assert [np.diagonal(matrix).tolist() for matrix in second] == [[10, 11, 12], [13, 14, 15]]
    off = [matrix[np.triu_indices(3, 1)].tolist() for matrix in second]
    assert off == [[16, 17, 18], [19, 20, 21]]
    # The lower triangle repeats the upper one: nothing is measured twice.
    assert (second == second.transpose(0, 2, 1)).all()


def test_one_dimension_has_no_off_diagonal_draws():
    zero = np.zeros(1, dtype=np.int64)
    query = PassQuery(
        "moments.second",
        1,
        zero,
        np.zeros((1, 1), dtype=np.int64),
        8,
        (Block("second", zero, 9.0),),
    )
    noise = Counting()
    answer = measure(accumulated(query, U[:, :1], LABELS * 0), query, noise)
    assert noise.asked == [(9.0, 1)]
    # Squares of 3, 8, 0 and -5, and the first draw.
    assert answer.values[0].tolist() == [[[9 + 64 + 0 + 25 + 1]]]


def test_an_answer_is_stored_without_loss():
    query = three_blocks()
    answer = measure(accumulated(query, U, LABELS), query, Counting())
    stored = NoisyStatistic.from_bytes(answer.to_bytes())
    assert stored.step == answer.step
    assert [v.tobytes() for v in stored.values] == [v.tobytes() for v in answer.values]
    with pytest.raises(DataError, match="damaged"):
        NoisyStatistic.from_bytes(answer.to_bytes()[:-40])


def test_a_query_is_stored_without_loss():
    from ..queries import PROBLEMS, real_queries

    first = next(iter(PROBLEMS))
    for query in (
        *real_queries(first),
        *real_queries("staged"),
        three_blocks(),
        three_blocks(soft=True),
    ):
        assert PassQuery.from_bytes(query.to_bytes()).to_bytes() == query.to_bytes()
    with pytest.raises(DataError, match="damaged"):
        PassQuery.from_bytes(query.to_bytes()[:100])


def test_the_gate_checks_the_query_before_it_draws():
    from dataclasses import replace

    query = three_blocks()
    noise = Counting()
    for wrong in (replace(query, radius=0), replace(query, radius=1 << 26)):
        with pytest.raises(SpecError):
            measure(accumulated(query, U, LABELS), wrong, noise)
    assert noise.asked == []
