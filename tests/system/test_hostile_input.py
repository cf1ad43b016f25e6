"""Input that was made to do harm: one error of the documented kind, never a wait or a trace."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpgmm_dist import load_release
from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.data.provenance import METADATA_KEY, from_metadata
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.privacy.measure import NoisyStatistic
from dpgmm_dist.privacy.query import PassQuery, pack
from dpgmm_dist.spec.release_spec import ReleaseSpec
from dpgmm_dist.storage.parquet_files import Place, list_files, opened

from ..hostile import DEEP, SPECIAL, declare_rows
from .releases import Rows, done, dpgmm, write_spec

pytestmark = pytest.mark.timeout(120)
ROWS = 5000


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A release that was charged to a ledger, whose files the tests damage in copies."""
    place = tmp_path_factory.mktemp("released")
    Ledger.init(str(place / "ledger"), 1.0, 1e-6)
    data = Rows.make(60).write(place / "data")
    spec = write_spec(place / "spec.yaml", data, privacy={"ledger": str(place / "ledger")})
    done("release", spec, "--output", place / "out", "--release-id", "first")
    return place


@pytest.fixture
def copied(released, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(released, tmp_path / "copy"))


def open_table(folder: Path) -> ParquetSource:
    return ParquetSource.open(Place(str(folder), {}), Columns(("a",), True, None, ()))


def table(folder: Path, rows: int = ROWS) -> Path:
    folder.mkdir()
    pq.write_table(pa.table({"a": np.arange(rows) / rows}), folder / "part.parquet")
    return folder


# ---------------------------------------------------------------- pipes, sockets and devices


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("place", ["in the directory", "the path itself", "by a glob"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind, place, tmp_path):
    folder = table(tmp_path / "data")
    SPECIAL[kind](folder / "more.parquet")
    path = {"in the directory": folder, "the path itself": folder / "more.parquet"}.get(
        place, folder / "*.parquet"
    )
    with pytest.raises(DataError, match=r"more\.parquet is a named pipe, a socket, a device"):
        open_table(path)


def test_a_pipe_in_a_directory_ends_the_command_with_exit_code_4(tmp_path):
    data = Rows.make(60).write(tmp_path / "data")
    SPECIAL["named pipe"](data / "part-001.parquet")
    spec = write_spec(tmp_path / "spec.yaml", data)
    result = dpgmm("release", spec, "--output", tmp_path / "out")
    assert result.returncode == 4, result.stderr
    assert "part-001.parquet" in result.stderr
    assert "remove it" in result.stderr


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_takes_the_place_of_a_file_after_the_plan_is_not_waited_for(kind, tmp_path):
    source = open_table(table(tmp_path / "data"))
    (tmp_path / "data" / "part.parquet").unlink()
    SPECIAL[kind](tmp_path / "data" / "part.parquet")
    with pytest.raises(DataError, match=r"part\.parquet"):
        list(source.blocks(source.plan()[0], 1000))
    with pytest.raises(DataError):
        source.require_unchanged()


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["release.json", "receipt.json", "mixture.parquet"])
def test_a_release_of_other_things_than_files_is_not_intact(kind, name, copied):
    (copied / "out" / name).unlink()
    SPECIAL[kind](copied / "out" / name)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_release(str(copied / "out"))
    assert verify_release(str(copied / "out")).exit_code == 4


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_ledger_or_journal_of_other_things_than_files_is_refused(kind, copied):
    record = sorted((copied / "ledger" / "ledger").iterdir())[-1]
    meta = copied / "ledger" / "journal" / "first" / "meta.json"
    for path in (record, meta):
        path.unlink()
        SPECIAL[kind](path)
    with pytest.raises(DataError):
        Ledger.open(str(copied / "ledger")).show()
    with pytest.raises(DataError):
        Journal.locate("first", str(copied / "out"), str(copied / "ledger")).meta()


# ---------------------------------------------------------------- nesting


def test_deep_json_in_a_release_is_damage(copied):
    for name in ("receipt.json", "release.json"):
        (copied / "out" / name).write_bytes(DEEP)
        with pytest.raises(DataError, match="not"):
            load_release(str(copied / "out"))
        result = dpgmm("verify", copied / "out")
        assert result.returncode == 4, result.stderr
        assert "unexpected" not in result.stderr


@pytest.mark.parametrize("levels", [90, 500, 5000, 100_000])
def test_a_receipt_that_is_deep_in_one_of_its_keys_is_read_or_refused(levels, copied):
    path, manifest = copied / "out" / "receipt.json", copied / "out" / "release.json"
    data = path.read_bytes().rstrip()[:-1] + b',"more":' + b"[" * levels + b"]" * levels + b"}\n"
    path.write_bytes(data)
    listed = json.loads(manifest.read_bytes())
    listed["files"]["receipt.json"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    manifest.write_text(json.dumps(listed))
    assert verify_release(str(copied / "out")).exit_code == (0 if levels < 99 else 4)


def test_deep_json_in_a_ledger_journal_or_footer_is_damage(copied):
    record = sorted((copied / "ledger" / "ledger").iterdir())[-1]
    record.write_bytes(DEEP + b"\n")
    with pytest.raises(DataError, match="corrupt"):
        Ledger.open(str(copied / "ledger")).show()
    meta = copied / "ledger" / "journal" / "first" / "meta.json"
    meta.write_bytes(DEEP + b"\n")
    with pytest.raises(DataError, match="corrupt"):
        Journal.locate("first", str(copied / "out"), str(copied / "ledger")).meta()
    assert from_metadata({METADATA_KEY.encode(): DEEP}) is None
    stored = pack({}, {}).replace(b"{}", DEEP[:1] + b"]")
    with pytest.raises(DataError):
        PassQuery.from_bytes(stored)
    answer = NoisyStatistic("moments.centre", ()).to_bytes()
    with pytest.raises(DataError, match="damaged"):
        PassQuery.from_bytes(answer)  # whole, but no query
    with pytest.raises(DataError, match="damaged"):
        NoisyStatistic.from_bytes(pack([1], {}))  # type: ignore[arg-type]


def test_a_deep_specification_and_one_without_an_end_are_refused(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_bytes(b"dataset: " + b"[" * 5000 + b"]" * 5000)
    with pytest.raises(SpecError):
        ReleaseSpec.from_yaml(spec)
    with pytest.raises(SpecError, match="larger than 16 MiB"):
        ReleaseSpec.from_yaml(Path("/dev/zero"))


def test_aliases_that_would_unfold_without_an_end_are_refused(tmp_path):
    lines = ["a0: &a0 [1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    spec = tmp_path / "spec.yaml"
    spec.write_text("\n".join([*lines, "dataset: {labels: *a29, path: x}"]) + "\n")
    with pytest.raises(SpecError) as caught:
        ReleaseSpec.from_yaml(spec)
    assert len(str(caught.value)) < 10_000


# ---------------------------------------------------------------- sizes that a file declares


@pytest.mark.parametrize("said", [1 << 40, 1 << 62, ROWS + 1])
def test_rows_that_a_footer_declares_and_its_pages_lack_are_damage(said, tmp_path):
    folder = table(tmp_path / "data")
    declare_rows(folder / "part.parquet", ROWS, said)
    source = open_table(folder)
    units = source.plan()
    assert len(units) == 1
    with pytest.raises(DataError, match=r"part\.parquet: it is damaged"):
        list(source.blocks(units[0], 1000))


def test_a_declared_number_of_rows_ends_the_command_before_a_charge(tmp_path):
    Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-6)
    data = Rows.make(ROWS).write(tmp_path / "data")
    declare_rows(data / "part-000.parquet", ROWS, 1 << 40)
    spec = write_spec(tmp_path / "spec.yaml", data, privacy={"ledger": str(tmp_path / "ledger")})
    result = dpgmm("release", spec, "--output", tmp_path / "out")
    assert result.returncode == 4, result.stderr
    assert "part-000.parquet: it is damaged" in result.stderr
    assert len(list((tmp_path / "ledger" / "ledger").iterdir())) == 1


# ---------------------------------------------------------------- change


def test_a_directory_that_changes_while_it_is_listed_is_listed_or_refused(tmp_path):
    folder = table(tmp_path / "data", 10)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            (folder / "sub").mkdir(exist_ok=True)
            (folder / "sub" / "now.parquet").write_bytes(b"")
            (folder / "sub" / "now.parquet").unlink()
            (folder / "sub").rmdir()

    thread = threading.Thread(target=change)
    thread.start()
    seen = set()
    try:
        for _ in range(200):
            try:
                seen.add(len(list_files(Place(str(folder), {}))))
            except DataError:
                seen.add(0)
    finally:
        stop.set()
        thread.join()
    assert seen <= {0, 1, 2}


def test_a_file_is_opened_only_where_it_is_a_file(tmp_path):
    folder = table(tmp_path / "data")
    fs, _ = Place(str(folder), {}).resolve()
    with opened(fs, str(folder / "part.parquet"), 1, 0) as file:
        assert file.metadata.num_rows == ROWS


@pytest.mark.parametrize("column", ["label", "unit", "category"])
def test_a_long_text_in_every_row_takes_the_memory_of_one(column, tmp_path):
    """Some hundred bytes that would be 2.6 GB of text, 650 MB in each block."""
    (tmp_path / "data").mkdir()
    rows, text = 40_000, "x" * (1 << 16)
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))
    path = tmp_path / "data" / "part.parquet"
    written = pa.table({"a": np.zeros(rows), "y": texts})
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    pq.write_table(written, path, **options)
    assert path.stat().st_size < 2000
    columns = {
        "label": Columns(("a",), True, "y", ("a", text)),
        "unit": Columns(("a",), True, None, (), unit="y"),
        "category": Columns(("a", "y"), True, None, (), categories={"y": ("a", text)}),
    }[column]
    usual, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        source = ParquetSource.open(Place(str(tmp_path / "data"), {}), columns)
        seen = sum(len(block.features) for block in source.blocks(source.plan()[0], 10_000))
    finally:
        pa.set_memory_pool(usual)
    assert seen == rows
    assert 0 < counted.max_memory() < 20 << 20


@pytest.mark.parametrize(("table", "column"), [(True, "a"), (False, "x"), (True, "y")])
def test_pages_that_inflate_a_thousandfold_are_refused_by_the_footer(
    table, column, tmp_path, monkeypatch
):
    from dpgmm_dist.data import parquet_schema

    monkeypatch.setattr(parquet_schema, "_LARGE_CHUNK", 1 << 20)
    rng, rows = np.random.default_rng(0), 1 << 19
    folder = tmp_path / "data"
    folder.mkdir()

    def opened_with(inflated: str) -> ParquetSource:
        numbers = {
            name: np.zeros(rows) if name == inflated else rng.normal(size=rows)
            for name in ("a", "x", "y")
        }
        numbers["x"] = pa.FixedSizeListArray.from_arrays(pa.array(numbers["x"]), 1)
        path = folder / "part.parquet"
        one_page = {"data_page_size": 1 << 30, "max_rows_per_page": 1 << 30}
        pq.write_table(
            pa.table(numbers), path, compression="zstd", use_dictionary=False, **one_page
        )
        names = (column,) if not table or column == "a" else ("a", column)
        return ParquetSource.open(Place(str(folder), {}), Columns(names, table, None, ()))

    other = "y" if column == "a" else "a"
    if column != "y":
        assert opened_with(other).plan()  # a column that is not read may hold what it likes
    with pytest.raises(DataError, match=r"part\.parquet: a column to read takes 1 MiB or more"):
        opened_with(column)
