from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import releases
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.artifact.manifest import FileDigest
from dpgmm_dist.artifact.receipt import QueryBlock, check_receipt, mu_of, round_up
from dpgmm_dist.artifact.verify import accounting_problems, block_cost, verify_release
from dpgmm_dist.privacy import accounting


def test_a_good_release_verifies(tmp_path: Path) -> None:
    releases.write(tmp_path)
    result = verify_release(str(tmp_path))
    assert result.ok and result.private and result.problems == () and result.exit_code == 0
    assert result.summary["release_id"] == "r-1" and result.summary["components"] == 4
    assert result.summary["epsilon_spent"] <= result.summary["epsilon"] == 1.0


def test_insecure_noise_is_intact_but_not_private(tmp_path: Path) -> None:
    receipt = releases.receipt_of(
        mechanism="insecure_test_noise", private=False, privacy_reason="made with test noise"
    )
    releases.write(tmp_path, receipt=receipt)
    result = verify_release(str(tmp_path))
    assert result.ok and not result.private and result.exit_code == 6
    assert result.summary["reason"] == "made with test noise"


@pytest.mark.parametrize(
    "name", ["mixture.parquet", "transform.parquet", "receipt.json", "report.html"]
)
def test_every_file_is_needed_and_every_bit_of_the_data_files_counts(
    tmp_path: Path, name: str
) -> None:
    releases.write(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    for position in (0, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        result = verify_release(str(tmp_path))
        assert result.exit_code == 4 and any(name in problem for problem in result.problems)
    path.unlink()
    assert verify_release(str(tmp_path)).exit_code == 4


@pytest.mark.parametrize("key", ["release_id", "specification_digest", "privacy", "files"])
def test_a_changed_manifest_is_found(tmp_path: Path, key: str) -> None:
    releases.write(tmp_path)
    manifest = json.loads((tmp_path / "release.json").read_bytes())
    for wrong in ("another", None):
        (tmp_path / "release.json").write_text(json.dumps(manifest | {key: wrong}))
        assert verify_release(str(tmp_path)).exit_code == 4
    (tmp_path / "release.json").unlink()
    result = verify_release(str(tmp_path))
    assert result.exit_code == 4 and "there is no release" in result.problems[0]


def rewrite(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file and its digest in the manifest, so that only its contents are wrong."""
    data = change((folder / name).read_bytes())
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "release.json").read_bytes())
    digest = FileDigest.of(data)
    manifest["files"][name] = {"sha256": digest.sha256, "bytes": digest.size}
    (folder / "release.json").write_text(json.dumps(manifest))


def edit(*path: Any, to: Any) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        document = json.loads(data)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return json.dumps(document).encode()

    return change


BLOCK = ("queries", 0, "blocks", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(*BLOCK, "rho", to=1e-9), "costs rho"),
        (edit(*BLOCK, "rho", to=1e-2), "costs only"),
        (edit(*BLOCK, "sigma", to=1e9), "costs rho"),
        (edit(*BLOCK, "sigma_off", to=1e9), "costs rho"),
        (edit(*BLOCK, "sigma_off", to=None), "needs sigma_off"),
        (edit(*BLOCK, "radius", to=1 << 13), "costs rho"),
        (edit(*BLOCK, "weight_unit", to=1 << 11), "costs rho"),
        (edit(*BLOCK, "statistic", to="third"), "receipt is not valid"),
        (edit("queries", 0, "rho", to=1e-9), "blocks add up"),
        (edit("totals", "rho", to=1e-9), "the total rho is"),
        (edit("totals", "epsilon", to=1e-3), "the total epsilon is"),
        (edit("budget", "rho", to=10.0), "the budget's rho is"),
        (edit("budget", "epsilon", to=0.01), "allow"),
        (edit("budget", "delta", to=1e-300), "specification asks for delta"),
        (edit("mechanism", to="insecure_test_noise"), "no proved guarantee"),
        (edit("accounting", to="gdp"), "no proved guarantee"),
        (edit("capacity", "rows", to=10), "capacity"),
        (edit("privacy", to="NOT PRIVATE"), "the manifest says privacy"),
        (edit("release_id", to="r-2"), "the manifest says release_id"),
        (edit("specification", "model", "components", to=3), "does not have the receipt's digest"),
        (edit("specification", "dataset", "labels", to=[3, 7]), "labels of the mixture"),
        (edit("input", "width", to=4), "input columns"),
        (lambda data: b"[]", "JSON object"),
    ],
)
def test_a_receipt_with_wrong_accounting_is_found(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    releases.write(tmp_path)
    rewrite(tmp_path, "receipt.json", change)
    result = verify_release(str(tmp_path))
    assert result.exit_code == 4
    assert any(message in problem for problem in result.problems), result.problems


def test_the_output_path_is_not_part_of_the_digest(tmp_path: Path) -> None:
    releases.write(tmp_path)
    rewrite(tmp_path, "receipt.json", edit("specification", "output", "path", to="elsewhere/"))
    assert verify_release(str(tmp_path)).exit_code == 0


@pytest.mark.parametrize("column", ["weight", "mean", "covariance", "mean_se", "label"])
def test_parameters_that_are_not_a_mixture_are_found(tmp_path: Path, column: str) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    def change(data: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(data))
        values = table[column].to_pylist()
        if column == "label":
            values[0] = None
        elif column == "weight":
            values[0] += 0.1
        elif column == "covariance":
            values[0][0] = -1.0
        else:
            values[0][0] = math.nan
        index = table.column_names.index(column)
        changed = table.set_column(index, column, pa.array(values, table.schema.field(index).type))
        sink = io.BytesIO()
        pq.write_table(changed, sink)
        return sink.getvalue()

    releases.write(tmp_path)
    rewrite(tmp_path, "mixture.parquet", change)
    result = verify_release(str(tmp_path))
    assert result.exit_code == 4
    assert any("does not hold a valid mixture" in problem for problem in result.problems)


def test_queries_that_use_the_whole_budget_pass_and_one_more_float_does_not() -> None:
    def receipt(sigma: float) -> Any:
        cost = Fraction(3) ** 2 / (2 * Fraction(sigma) ** 2)
        block = {
            "statistic": "sum", "groups": 1, "dimension": 2, "radius": 3, "weight_unit": 1,
            "sigma": sigma, "sigma_off": None, "rho": round_up(cost),
        }  # fmt: skip
        query = {"step": "moments", "blocks": [block], "rho": block["rho"]}
        document = releases.receipt_of(queries=[query]) | {"input": releases.LIST_INPUT}
        return check_receipt(document)

    budget = accounting.rho_from_epsilon_delta(1.0, 1e-6)
    sigma = 3 / math.sqrt(2 * budget)
    while round_up(Fraction(9) / (2 * Fraction(sigma) ** 2)) > budget:
        sigma = math.nextafter(sigma, math.inf)
    assert accounting_problems(receipt(sigma)) == []
    for _ in range(4):
        sigma = math.nextafter(sigma, 0)
    assert any("the queries cost rho" in problem for problem in accounting_problems(receipt(sigma)))


def test_gaussian_dp_allows_more_but_only_for_exact_gaussian_noise() -> None:
    mu = accounting.mu_from_epsilon_delta(1.0, 1e-6)
    sigma = math.nextafter(1 / mu, math.inf)
    block = {
        "statistic": "count", "groups": 1, "dimension": 2, "radius": 1, "weight_unit": 1,
        "sigma": sigma, "sigma_off": None, "rho": round_up(1 / (2 * Fraction(sigma) ** 2)),
    }  # fmt: skip
    queries = [{"step": "moments", "blocks": [block], "rho": block["rho"]}]

    def problems(mechanism: str, kind: str) -> list[str]:
        document = releases.receipt_of(queries=queries, mechanism=mechanism, accounting=kind)
        return accounting_problems(check_receipt(document | {"input": releases.LIST_INPUT}))

    assert problems("gaussian", "gdp") == []
    assert any("allow" in problem for problem in problems("gaussian", "zcdp"))
    assert any("no proved" in problem for problem in problems("discrete_gaussian", "gdp"))


@given(
    p=st.integers(1, 4),
    radius=st.integers(1, 50),
    unit=st.sampled_from([1, 4]),
    sigma=st.floats(0.5, 1e4),
    ratio=st.floats(0.3, 3),
    data=st.data(),
)
def test_no_row_costs_more_than_the_recomputed_block(
    p: int, radius: int, unit: int, sigma: float, ratio: float, data: st.DataObject
) -> None:
    """For any row within the radius: the cost of each noisy entry of the triangle, added up."""
    row = np.array(data.draw(st.lists(st.integers(-radius, radius), min_size=p, max_size=p)))
    if (row**2).sum() > radius**2:
        row = np.trunc(row * radius / math.sqrt((row**2).sum()) * (1 - 1e-12))
    fields = {"groups": 1, "dimension": p, "radius": radius, "weight_unit": unit, "rho": 0.0}
    off = sigma * ratio
    outer = unit * np.outer(row, row)
    changes = {
        "count": unit**2 / (2 * sigma**2),
        "sum": unit**2 * (row**2).sum() / (2 * sigma**2),
        "second": (np.diag(outer) ** 2).sum() / (2 * sigma**2)
        + (np.triu(outer, 1) ** 2).sum() / (2 * off**2),
        "square": unit**2 * (row**2).sum() ** 2 / (2 * sigma**2),
    }
    for statistic, cost in changes.items():
        block = QueryBlock(statistic=statistic, sigma=sigma, sigma_off=off, **fields)
        assert cost <= float(block_cost(block)) * (1 + 1e-12)


STATISTICS = [(0, "count"), (0, "sum"), (3, "second"), (5, "sum"), (0, "square"), (3, "square")]


def test_the_cost_agrees_with_the_gates_own() -> None:
    from dpgmm_dist.privacy.query import Block, PassQuery
    from dpgmm_dist.privacy.sensitivity import block_cost as gate_cost

    for unit_bits, statistic in STATISTICS:
        query = PassQuery(
            step="x", width=3, cell_label=np.zeros(1, np.int64), centres=np.zeros((1, 3), np.int64),
            radius=77, blocks=(), soft=unit_bits > 0, unit_bits=unit_bits,
        )  # fmt: skip
        block = Block(statistic, np.zeros(1, np.int64), 123.4, 99.9)
        entry = QueryBlock(
            statistic=statistic, groups=1, dimension=3, radius=77, weight_unit=query.weight_unit,
            sigma=123.4, sigma_off=99.9, rho=0.0,
        )  # fmt: skip
        assert block_cost(entry) == gate_cost(query, block)


def receipt_of_own_blocks() -> dict[str, Any]:
    """A receipt of one query whose blocks have a radius and axes of their own, as releases write
    it."""
    from dpgmm_dist.pipeline.session import receipt_query
    from dpgmm_dist.privacy.query import Block, PassQuery

    zero = np.zeros(1, np.int64)
    query = PassQuery(
        step="moments", width=3, cell_label=zero, centres=np.zeros((1, 3), np.int64), radius=77,
        blocks=(
            Block("square", zero, 1e6),
            Block("square", zero, 1e6, radius=50, axes=(1, 3)),
            Block("sum", zero, 1e4, radius=300),
            Block("second", zero, 1e6, 7e5, axes=(0, 2)),
            Block("second", zero, 1e6, axes=(2, 3)),
        ),
    )  # fmt: skip
    document = releases.receipt_of(queries=[receipt_query(query)])
    return json.loads(json.dumps(document | {"input": releases.LIST_INPUT}))


def test_blocks_with_a_radius_and_axes_of_their_own_add_up() -> None:
    document = receipt_of_own_blocks()
    assert accounting_problems(check_receipt(document)) == []
    blocks = document["queries"][0]["blocks"]
    assert [block["radius"] for block in blocks] == [77, 50, 300, 77, 77]
    assert [block["dimension"] for block in blocks] == [3, 2, 3, 2, 1]
    assert [block["sigma_off"] for block in blocks] == [None, None, None, 7e5, None]
    assert blocks[0]["rho"] == pytest.approx(77**4 / 2e12)
    assert blocks[1]["rho"] == pytest.approx(50**4 / 2e12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 78}, "square: it costs rho"),
        ({"radius": 76}, "square: rho"),
        ({"sigma": 0.99e6}, "square: it costs rho"),
        ({"sigma": 1.01e6}, "square: rho"),
        ({"weight_unit": 2}, "square: it costs rho"),
        ({"statistic": "sum"}, "sum: rho"),
        ({"statistic": "count"}, "count: rho"),
        ({"rho": 1e-6}, "square: it costs rho"),
    ],
)
def test_a_square_that_does_not_add_up_is_found(change: dict[str, Any], message: str) -> None:
    document = receipt_of_own_blocks()
    document["queries"][0]["blocks"][0] |= change
    assert any(message in problem for problem in accounting_problems(check_receipt(document)))


def test_a_unit_of_several_rows_costs_the_square() -> None:
    block = QueryBlock(
        statistic="count", groups=1, dimension=1, radius=1, weight_unit=1, sigma=1.0, rho=0.5
    )
    assert block_cost(block, 3) == 9 * block_cost(block)


@given(st.floats(1e-12, 1e3))
def test_mu_is_rounded_up(rho: float) -> None:
    mu = mu_of(rho)
    assert Fraction(mu) ** 2 >= 2 * Fraction(rho)
    assert mu == pytest.approx(math.sqrt(2 * rho))
