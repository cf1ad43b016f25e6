"""ExactStatistic: totals that do not wrap at the public capacity, and that give nothing away."""

from __future__ import annotations

import ast
import copy
import json
import operator
import pickle
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpgmm_dist
from dpgmm_dist.privacy.exact import ExactStatistic
from dpgmm_dist.privacy.measure import measure
from dpgmm_dist.privacy.query import CAPACITY, EXACT, Block, PassQuery

from ..queries import accumulated, integers

ZERO = np.zeros(1, dtype=np.int64)
SECRET = 123_456_789


def statistic(values: list[int], step: str = "components.1") -> ExactStatistic:
    """One block that holds these integers, whatever their size."""
    hi = np.array([v >> 32 for v in values], dtype=np.int64)
    lo = np.array([v & 0xFFFFFFFF for v in values], dtype=np.int64)
    return ExactStatistic(step, (hi,), (lo,))


def query(statistic_: str, radius: int, unit_bits: int = 0, sigma: float = 1.0) -> PassQuery:
    """One cell in two dimensions; soft where ``unit_bits`` is given."""
    soft = unit_bits > 0
    return PassQuery(
        "components.1",
        2,
        ZERO,
        np.zeros((1, 2), dtype=np.int64),
        radius,
        (Block(statistic_, ZERO, sigma, sigma if statistic_ == "second" else None),),
        rule="full" if soft else "label",
        soft=soft,
        unit_bits=unit_bits,
        table=np.array([1]) if soft else None,
    )


@dataclass
class FixedNoise:
    """Hands out given integers, and remembers what it was asked."""

    values: list[int]
    name: str = "fixed"
    accounting: str = "zcdp"
    private: bool = False
    asked: list[tuple[float, int]] = field(default_factory=list)

    def draw(self, sigma: float, size: int) -> np.ndarray:
        self.asked.append((sigma, size))
        taken, self.values = self.values[:size], self.values[size:]
        return np.array(taken, dtype=np.int64)


# ---------------------------------------------------------------- totals

# What one slice of rows may add, in either direction, and what a total may come to.
ADDED = st.integers(-(2**62), 2**62) | st.sampled_from([0, -1, 1, 2**32, -(2**32), 2**62, -(2**62)])
TOTAL = st.integers(-(2**93), 2**93) | st.sampled_from([2**93, -(2**93), 2**63, -(2**63), -1])


@settings(max_examples=200)
@given(st.lists(st.tuples(ADDED, ADDED), max_size=20))
def test_sums_of_slices_are_pythons(values):
    total = ExactStatistic.zeros("s", (2,))
    for pair in values:
        total.add_integers(0, np.array(pair, dtype=np.int64))
    assert integers(total) == [[sum(a for a, _ in values), sum(b for _, b in values)]]


def test_sums_carry_and_borrow_between_limbs():
    total = ExactStatistic.zeros("s", (3,))
    added = [[2**32 - 1, -1, 2**62], [1, -(2**32), 2**62], [2**33, 5, 2**62], [-7, -(2**62), -1]]
    for row in added:
        total.add_integers(0, np.array(row, dtype=np.int64))
    assert integers(total) == [[sum(column) for column in zip(*added, strict=True)]]


@settings(max_examples=200)
@given(st.lists(st.integers(-(2**88), 2**88), min_size=1, max_size=24), st.data())
def test_merging_is_exact_commutative_and_associative(values, data):
    parts = [statistic([v]) for v in values]
    while len(parts) > 1:
        a = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        b = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        merged = a.merge(b)
        assert pickle.dumps(merged) == pickle.dumps(b.merge(a))
        parts.append(merged)
    assert integers(parts[0]) == [[sum(values)]]
    # The limbs are canonical, so equal sums are the same bytes.
    assert pickle.dumps(parts[0]) == pickle.dumps(statistic([sum(values)]))


def test_merging_leaves_its_arguments_alone():
    a, b = statistic([2**40]), statistic([2**32 - 1])
    before = pickle.dumps(a), pickle.dumps(b)
    a.merge(b)
    assert (pickle.dumps(a), pickle.dumps(b)) == before


def test_sums_of_different_queries_are_not_added():
    with pytest.raises(ValueError, match="different queries"):
        statistic([1], "a").merge(statistic([1], "b"))


@pytest.mark.parametrize(
    ("what", "radius", "unit_bits", "power"),
    [
        ("count", 1, 12, 0),
        ("sum", 1 << 15, 12, 1),
        ("second", 1 << 21, 0, 2),
        ("second", 4096, 12, 2),
        ("square", 1 << 21, 0, 2),
        ("square", 4096, 12, 2),
    ],
)
def test_a_total_of_all_rows_there_may_be_does_not_wrap(what, radius, unit_bits, power):
    """2**40 rows, each at the bound: summed by doubling one row, and opened with noise."""
    asked = query(what, radius, unit_bits)
    of_a_row = asked.weight_unit * radius**power
    size = {"count": 1, "square": 1, "sum": 2, "second": 3}[what]
    total = statistic([of_a_row, *[-of_a_row] * (size - 1)])
    for _ in range(40):
        total = total.merge(total)
    whole = CAPACITY * of_a_row
    assert integers(total) == [[whole, *[-whole] * (size - 1)]]
    noise = [3, -5, 7][:size]
    # Draws go diagonal first; entries are (0,0), (0,1), (1,1).
    order = [0, 2, 1] if what == "second" else range(size)
    answer = measure(total, asked, FixedNoise(noise)).values[0]
    given = np.array(answer).reshape(-1)[[0, 1, 3] if what == "second" else slice(None)]
    sums = [whole, *[-whole] * (size - 1)]
    for value, place in zip(noise, order, strict=True):
        want = (sums[place] + value) / asked.weight_unit
        assert given[place] == pytest.approx(want, rel=2**-52)


@settings(max_examples=300)
@given(st.lists(st.tuples(TOTAL, st.integers(-(2**60), 2**60)), min_size=2, max_size=2))
def test_what_the_gate_opens_is_the_sum_with_its_noise(pairs):
    totals, noise = [t for t, _ in pairs], [n for _, n in pairs]
    asked = query("sum", 1 << 16)
    opened = measure(statistic(totals), asked, FixedNoise(noise)).values[0][0]
    for total, value, got in zip(totals, noise, opened, strict=True):
        assert got == pytest.approx(float(total + value), rel=2**-52)
        if abs(total + value) <= EXACT:
            assert got == total + value


def test_the_lock_opens_only_with_noise_for_every_integer_of_the_right_query():
    """One draw for many integers would be broadcast: their differences would come out exact."""
    three = ExactStatistic.zeros("components.1", (3,))
    two = ExactStatistic.zeros("components.1", (1,))
    other = ExactStatistic.zeros("components.2", (2,))
    for wrong in (three, two, other):
        with pytest.raises(ValueError, match="own query"):
            measure(wrong, query("sum", 4), FixedNoise([1, 2, 3]))


def test_the_gate_noises_what_a_block_sees():
    """Every number of the axes that a block sees gets a draw, in the block's own order."""
    asked = replace(
        query("sum", 9),
        width=3,
        centres=np.zeros((1, 3), dtype=np.int64),
        blocks=(
            Block("sum", ZERO, 2.0, axes=(1, 3)),
            Block("second", ZERO, 3.0, 2.5, axes=(0, 2)),
            Block("second", ZERO, 4.0, axes=(2, 3)),
            Block("square", ZERO, 5.0, radius=4, axes=(0, 2)),
        ),
    )
    exact = accumulated(asked, np.array([[1.0, 2.0, 3.0], [0.0, 7.0, 0.0]]), np.zeros(2, int))
    assert integers(exact) == [[9, 3], [1, 2, 53], [9], [5 + 16]]
    noise = FixedNoise([10, 20, 100, 200, 300, 1000, 5000])
    total, second, single, square = measure(exact, asked, noise).values
    assert total.tolist() == [[19, 23]]
    assert second.tolist() == [[[101, 302], [302, 253]]]
    assert single.tolist() == [[[1009]]]
    assert square.tolist() == [5021]
    assert noise.asked == [(2.0, 2), (3.0, 2), (2.5, 1), (4.0, 1), (5.0, 1)]


# ---------------------------------------------------------------- nothing to see


REFUSED = {
    "==": lambda s: s == s,
    "== number": lambda s: s == SECRET,
    "!=": lambda s: s != 1,
    "<": lambda s: s < 1,
    "<=": lambda s: s <= 1,
    ">": lambda s: s > 1,
    ">=": lambda s: s >= 1,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "round": round,
    "iter": iter,
    "list": list,
    "len": len,
    "hash": hash,
    "set": lambda s: {s},
    "item": lambda s: s[0],
    "in": lambda s: SECRET in s,
    "add": lambda s: s + 1,
    "sum": lambda s: sum([s, s]),
    "array": lambda s: np.array(s),
    "asarray": lambda s: np.asarray(s, dtype=float),
    "ufunc": lambda s: np.add(s, 0),
    "float64": lambda s: np.float64(s),
    "json": json.dumps,
    "bytes": bytes,
    "vars": vars,
    "number format": lambda s: f"{s:d}",
    "percent": lambda s: "%d" % s,  # noqa: UP031
}


@pytest.mark.parametrize("how", REFUSED)
def test_it_cannot_be_compared_or_converted(how):
    with pytest.raises(TypeError) as caught:
        REFUSED[how](statistic([SECRET]))
    assert str(SECRET) not in str(caught.value)


def test_it_shows_nothing_of_itself():
    secret = statistic([SECRET] * 3)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>10}", f"{[secret]}"):
        assert "ExactStatistic(private)" in text
        assert not any(character.isdigit() for character in text)
    import pprint

    assert pprint.pformat({"x": secret}) == "{'x': ExactStatistic(private)}"


def test_it_travels_by_pickle_and_copies_whole():
    secret = statistic([SECRET, -(2**90)])
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert integers(pickle.loads(pickle.dumps(secret, protocol))) == [[SECRET, -(2**90)]]
    assert integers(copy.deepcopy(secret)) == integers(secret)


def test_dask_knows_how_large_it_is():
    from dask.sizeof import sizeof

    small, large = ExactStatistic.zeros("s", (10,)), ExactStatistic.zeros("s", (10_000, 90_000))
    assert 160 <= sizeof(small) < 1000
    assert 1_600_000 <= sizeof(large) < 1_700_000
    assert sys.getsizeof(large) >= 1_600_000


# ---------------------------------------------------------------- who may look

PACKAGE = Path(dpgmm_dist.__file__).parent


@dataclass(frozen=True)
class Mentions:
    """What the code of a module mentions."""

    attributes: frozenset[str]
    names: frozenset[str]
    """Attributes, names, definitions and strings."""
    imports: frozenset[tuple[str | None, str]]
    """The module after "from", or None, and the imported name."""


@cache
def modules() -> dict[str, Mentions]:
    """What each module of the package mentions; they are parsed once."""
    return {
        path.relative_to(PACKAGE).as_posix(): mentions(path.read_text())
        for path in PACKAGE.rglob("*.py")
    }


def mentions(code: str) -> Mentions:
    attributes, names, imports = set(), set(), set()
    for node in ast.walk(ast.parse(code)):
        attributes.add(getattr(node, "attr", ""))
        names |= {getattr(node, key, "") for key in ("attr", "id", "name")}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            source = getattr(node, "module", None)
            imports |= {(source, alias.name) for alias in node.names}
    return Mentions(frozenset(attributes), frozenset(names), frozenset(imports))


def users(*names: str) -> set[str]:
    """Modules of the package that mention one of these names as attribute, name or string."""
    return {module for module, found in modules().items() if found.names & set(names)}


def importers(module: str, *names: str) -> set[str]:
    """Modules of the package that import one of these names, or the module itself."""
    return {
        importer
        for importer, found in modules().items()
        if any(
            name == module or (source == module and name in names) for source, name in found.imports
        )
    }


def test_only_the_gate_opens_an_exact_statistic():
    assert users("_open_for_the_gate") == {"privacy/exact.py", "privacy/measure.py"}
    handlers = importers("dpgmm_dist.privacy.exact", "ExactStatistic")
    assert handlers == {
        "audit/job.py",
        "audit/sums.py",
        "privacy/measure.py",
        "passes/kernel.py",
        "passes/run.py",
        "engine/base.py",
        "engine/local.py",
        "engine/cluster.py",
        "engine/dask_arrays.py",
        "pipeline/session.py",
    }
    for module in handlers:
        assert not {"_hi", "_lo"} & modules()[module].attributes, module


def test_only_a_session_measures_and_the_audit_made_up_rows():
    measuring = importers("dpgmm_dist.privacy.measure", "measure")
    assert measuring == {"pipeline/session.py", "audit/run.py", "audit/sums.py"}


def test_only_the_gate_draws():
    sources = ("DiscreteGaussian", "InsecureTestNoise", "NoiseSource", "noise_source")
    holders = importers("dpgmm_dist.privacy.noise", *sources)
    assert {m for m in holders if "draw" in modules()[m].attributes} == {"privacy/measure.py"}
    assert importers("opendp.prelude", "*") == {"privacy/noise.py"}
