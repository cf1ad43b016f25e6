"""What is drawn by a release, and what it costs by that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.pipeline.release import release
from dpgmm_dist.privacy.accounting import rho_from_epsilon_delta
from dpgmm_dist.privacy.noise import DiscreteGaussian, NoiseSource
from dpgmm_dist.privacy.rounded_gaussian import RoundedGaussian
from dpgmm_dist.spec.release_spec import ReleaseSpec

SOURCES = (DiscreteGaussian, RoundedGaussian)
DRAWS = {source: source.draw for source in SOURCES}


@dataclass
class Recorder:
    """Replaces ``draw`` of private sources: draws, and records scales, sizes and threads."""

    asked: list[tuple[float, int]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    before: object = None
    fail_at: int | None = None

    def draw(self, source: NoiseSource, sigma: float, size: int) -> np.ndarray:
        if self.before is not None:
            self.before()  # type: ignore[operator]
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append((sigma, size))
        self.threads.add(threading.current_thread().name)
        return DRAWS[type(source)](source, sigma, size)


def recording(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A recorder in place of the private sources' own draws."""
    recorder = Recorder()
    for source in SOURCES:
        monkeypatch.setattr(source, "draw", lambda *call: recorder.draw(*call))
    return recorder


def recomputed(receipt: dict, asked: list[tuple[float, int]]) -> Fraction:
    """The cost of a release from the scales drawn with, in the order of the receipt's blocks.

    Sensitivities are those that the receipt claims, w t^power; tests of the kernel check them. In
    the Frobenius norm of a second moment an off-diagonal entry counts twice.
    """
    draws = iter(asked)
    total = Fraction(0)
    for query in receipt["queries"]:
        for block in query["blocks"]:
            groups, p = block["groups"], block["dimension"]
            power = {"count": 0, "sum": 1, "second": 2, "square": 2, "bins": 0}[block["statistic"]]
            bound = Fraction(block["weight_unit"] * block["radius"] ** power)
            sigma, size = next(draws)
            if block["statistic"] == "bins":
                # One bin of each of p columns.
                assert size == groups * sum(block["bins"]) and len(block["bins"]) == p
                total += p * bound**2 / (2 * Fraction(sigma) ** 2)
                continue
            is_number = block["statistic"] in ("count", "square")
            assert size == groups * (1 if is_number else p)
            price = 1 / (2 * Fraction(sigma) ** 2)
            if block["statistic"] == "second" and p > 1:
                sigma_off, size = next(draws)
                assert size == groups * p * (p - 1) // 2
                price = max(price, 1 / (4 * Fraction(sigma_off) ** 2))
            total += bound**2 * price
    assert next(draws, None) is None
    return total


def draws_of(query: dict) -> int:
    return sum(
        2 if block["statistic"] == "second" and block["dimension"] > 1 else 1
        for block in query["blocks"]
    )


def stopped_and_released(
    spec: Callable[[Path], ReleaseSpec],
    folder: Path,
    recorder: Recorder,
    fail_at: int,
    source: Any = None,
) -> int:
    """Stop a release before one of its draws, and finish it; the number of answers kept.

    A query stopped half-way is drawn again as a whole, and its first draws are never used. What is
    stored stays, and all draws that were used cost no more than the budget.
    """
    url, out = folder / "ledger", str(folder / "out")
    job = spec(url)
    epsilon, delta = job.privacy.epsilon, job.privacy.delta
    Ledger.init(str(url), epsilon, delta)
    recorder.fail_at = fail_at
    with pytest.raises(KeyboardInterrupt):
        release(job, output=out, source=source, release_id="week-1")
    assert not (folder / "out" / "release.json").exists()
    journal = url / "journal" / "week-1"
    answers = {path.name: path.read_bytes() for path in journal.glob("answer-*.bin")}
    first, recorder.asked, recorder.fail_at = recorder.asked, [], None

    result = release(job, output=out, source=source, release_id="week-1")
    assert len(Ledger.open(str(url)).records) == 1
    for name, data in answers.items():
        assert (journal / name).read_bytes() == data
    # Draws whose answers were stored, and those of the second run, make up one release.
    kept = sum([draws_of(query) for query in result.receipt["queries"]][: len(answers)])
    cost = recomputed(result.receipt, first[:kept] + recorder.asked)
    assert cost <= Fraction(rho_from_epsilon_delta(epsilon, delta))
    assert verify_release(out).exit_code == 0
    return len(answers)
