"""Public errors: one line, the documented exit code, no message of Arrow's, no value of a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather

from dpgmm_dist.errors import DataError, SpecError

from .reading import open_source, read, write


def refused(error, *words, path, features="x", **dataset):
    with pytest.raises(error) as caught:
        open_source(path, features, **dataset)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text, text
    return text


def test_paths(tmp_path):
    refused(DataError, "does not exist", str(tmp_path / "no"), path=tmp_path / "no")
    refused(DataError, "does not exist", path="memory://nowhere/at/all")
    refused(DataError, "no Parquet file", ".parquet", path=tmp_path)
    refused(DataError, "no Parquet file", path=tmp_path / "*.parquet")
    (tmp_path / "a.csv").write_text("1,2")
    refused(DataError, "no Parquet file", path=tmp_path)
    refused(SpecError, "protocol", path="nosuch://bucket/x")


def write_as(path, table):
    if path.suffix in (".arrow", ".feather", ".ipc"):
        feather.write_feather(table, path)
    elif path.suffix == ".json":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    else:
        options = csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
        csv.write_csv(table, path, options)


@pytest.mark.parametrize("suffix", ["arrow", "feather", "ipc", "csv", "tsv", "json"])
def test_other_formats_are_refused_with_the_line_that_converts_them(tmp_path, suffix):
    """The line is what a user copies, so it is run."""
    file = tmp_path / "rows" / f"a.{suffix}"
    file.parent.mkdir()
    write_as(file, pa.table({"x": [1.0, 2.0]}))
    for path in (file, file.parent, tmp_path, f"{file.parent}/*.{suffix}"):
        with pytest.raises(DataError) as caught:
            open_source(path, ["x"])
        text = str(caught.value)
        assert f"a.{suffix} is a" in text
        assert "\n" not in text
    _, _, line = text.partition("convert it: ")
    assert line.startswith("python -c ")
    subprocess.run(line.replace("python", sys.executable, 1), shell=True, check=True)
    (block,) = read(open_source(file.parent, ["x"]))
    assert block.features.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("file", ""),
        ("directory", ""),
        ("hard", ""),
        ("file", "*/*.parquet"),
        ("hard", "*/*.parquet"),
    ],
)
def test_one_file_under_two_names(tmp_path, kind, pattern):
    """Its rows would count twice."""
    write(tmp_path / "label=3" / "a.parquet", x=pa.array([[1.0]]))
    if kind == "directory":
        (tmp_path / "label=4").symlink_to(tmp_path / "label=3")
    else:
        (tmp_path / "label=4").mkdir()
        link = tmp_path / "label=4" / "a.parquet"
        (link.symlink_to if kind == "file" else link.hardlink_to)(
            tmp_path / "label=3" / "a.parquet"
        )
    names = [str(tmp_path / f"label={label}" / "a.parquet") for label in (3, 4)]
    path = f"{tmp_path}/{pattern}" if pattern else tmp_path
    refused(DataError, "twice", *names, path=path, width=1)
    open_source(tmp_path / "label=4", width=1)  # one of the names alone


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("_delta_log/0.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
def test_tables_that_keep_old_rows(tmp_path, log, kind):
    table = tmp_path / "table"
    file = write(table / "data" / "a.parquet", x=pa.array([[1.0]]))
    (table / log).parent.mkdir()
    (table / log).write_text("{}")
    for path in (f"{table}/*/a.parquet", f"{tmp_path}/tab*"):
        refused(DataError, kind, str(table), "export", path=path, width=1)
    # Without the package of the format it says which one; the log here is none that it can read.
    with pytest.raises((DataError, SpecError), match=kind):
        open_source(table, width=1)
    open_source(file, width=1)  # chosen by name


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 100])
def test_damaged_footers(tmp_path, content):
    write(tmp_path / "a.parquet", x=pa.array([[1.0]]))
    (tmp_path / "b.parquet").write_bytes(content)
    text = refused(DataError, "b.parquet", "damaged", path=tmp_path, width=1)
    assert "arrow" not in text.lower().replace(str(tmp_path).lower(), "")


def test_footer_cut_short(tmp_path):
    path = write(tmp_path / "a.parquet", x=pa.array([[1.0]]))
    path.write_bytes(path.read_bytes()[:-30] + path.read_bytes()[-8:])
    refused(DataError, "a.parquet", "damaged", path=path, width=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_files(tmp_path):
    path = write(tmp_path / "a.parquet", x=pa.array([[1.0]]))
    path.chmod(0)
    refused(DataError, "permission denied", path=path, width=1)


def test_columns(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        x=pa.array([[1.0]]),
        f=pa.array([[1.0]], pa.list_(pa.float32(), 1)),
        text=["secret"],
        texts=[["secret"]],
        nested=pa.array([[["secret"]]]),
        n=[1],
        raw=[b"secret"],
        id=pa.array([b"secret"], pa.binary(6)),
        meta=[{"n": 1, "text": "secret"}],
    )
    refused(DataError, "'nope'", "x, f, text", path=path, features="nope")
    refused(DataError, "'nope'", path=path, features=["n", "nope"])
    for name, kind in (("text", "string"), ("texts", "list<"), ("nested", "list<element: list<")):
        text = refused(DataError, f"'{name}'", kind, "list of", path=path, features=name, width=1)
        assert "secret" not in text
    refused(DataError, "'n'", "int64", "[n]", path=path, features="n")
    for name, kind in (("text", "string"), ("raw", "binary"), ("id", "binary[6]")):
        refused(DataError, f"'{name}'", kind, "cast", path=path, features=["n", name])
        refused(DataError, f"'{name}'", kind, "cast", path=path, features=name, width=1)
    refused(DataError, "'meta'", "struct", "meta.FIELD", path=path, features=["n", "meta"])
    refused(DataError, "'meta'", "struct", "meta.FIELD", path=path, features="meta", width=1)
    refused(DataError, "'meta.text'", "string", "cast", path=path, features=["meta.text"])
    refused(DataError, "'meta.no'", "x, f, text", path=path, features=["meta.no"])
    refused(DataError, "'x'", "features: x", path=path, features=["x"])
    refused(SpecError, "dataset.width", "missing", "'x'", path=path)
    refused(SpecError, "dataset.width is 3", "list of 1", path=path, features="f", width=3)
    refused(DataError, "'nope'", path=path, width=1, label="nope", labels=[1])


def test_a_later_file_of_another_schema(tmp_path):
    write(tmp_path / "a.parquet", x=pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)))
    second = tmp_path / "b.parquet"
    write(second, z=[1])
    refused(DataError, "b.parquet", "'x'", "it has z", path=tmp_path)
    write(second, x=["text"])
    refused(DataError, "b.parquet", "string", path=tmp_path)
    write(second, x=pa.array([[1.0]], pa.list_(pa.float32(), 1)))
    refused(DataError, "list of 1 in some", path=tmp_path)
    pq.write_table(pa.table([[[1.0]], [[1.0]]], names=["x", "x"]), second)
    refused(DataError, "b.parquet", "2 columns named 'x'", path=tmp_path)


def test_labels(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        x=pa.array([[1.0]]),
        i=[1],
        s=["a"],
        c=pa.array(["a"]).dictionary_encode(),
        f=[1.0],
        b=[True],
        d=[date(2020, 1, 31)],
        t=[datetime(2020, 1, 31)],
        raw=[b"a"],
    )
    for name in ("f", "t", "raw"):
        refused(DataError, f"'{name}'", "cast", path=path, width=1, label=name, labels=[1])
    for name in ("s", "c"):
        refused(SpecError, "integers", "quotes", path=path, width=1, label=name, labels=[1])
    refused(SpecError, "strings", "without quotes", path=path, width=1, label="i", labels=["1"])
    refused(SpecError, "booleans", "whole", path=path, width=1, label="i", labels=[True])
    refused(SpecError, "strings", "true", path=path, width=1, label="b", labels=["true"])
    refused(SpecError, "integers", "'2026-11-25'", path=path, width=1, label="d", labels=[20])
    refused(SpecError, "'31.1.'", "'2026-11-25'", path=path, width=1, label="d", labels=["31.1."])
    for labels in ([2**63], [2**64], [-(2**63) - 1]):
        refused(SpecError, "64 bits", "strings", path=path, width=1, label="i", labels=labels)


def test_a_column_of_another_kind_in_a_later_file(tmp_path):
    write(tmp_path / "a.parquet", x=[date(2020, 1, 31)])
    write(tmp_path / "b.parquet", x=[None, None])
    open_source(tmp_path, features=["x"])
    empty = open_source(tmp_path / "b.parquet", features=["x"])
    assert empty.kinds == (None,)  # that all is missing is private, and dates are as good as any
    write(tmp_path / "c.parquet", x=[18292])
    refused(DataError, "'x'", "dates in some", "numbers in others", path=tmp_path, features=["x"])


def test_directory_names_of_the_wrong_kind(tmp_path):
    write(tmp_path / "kind=secret" / "a.parquet", h=[1.0], x=pa.array([[1.0]]))
    text = refused(DataError, "'kind'", "not numbers", path=tmp_path, features=["h", "kind"])
    assert "secret" not in text
    refused(SpecError, "integers", "quotes", path=tmp_path, width=1, label="kind", labels=[1])
    # A list never comes from a directory name.
    refused(DataError, "'kind'", path=tmp_path, features="kind", width=1)


def test_directories_that_cannot_be_listed_are_not_skipped(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", x=pa.array([[1.0]]))
    write(tmp_path / "sub" / "b.parquet", x=pa.array([[1.0]]))
    listing = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(DataError, "cannot list", "permission denied", path=tmp_path, width=1)


def everything_of(error: BaseException) -> str:
    assert error.__cause__ is None
    assert error.__context__ is None
    return "".join(traceback.format_exception(error))


def test_damaged_pages_end_as_a_bare_data_error(tmp_path):
    path = tmp_path / "a.parquet"
    x = np.random.default_rng(0).standard_normal((1000, 4))
    table = pa.table({"x": x.tolist(), "y": ["secret"] * 1000})
    pq.write_table(table, path, compression="zstd")
    source = open_source(path, width=4, label="y", labels=["a"])
    (unit,) = source.plan()
    content = bytearray(path.read_bytes())
    content[100:-3000] = b"\xff" * (len(content) - 3100)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*a\.parquet: it is damaged") as caught:
        list(source.blocks(unit, 100))
    text = everything_of(caught.value)
    assert "secret" not in text
    assert "Arrow" not in text
    assert "zstd" not in text.lower()


@pytest.mark.parametrize("change", ["delete", "cut", "retype", "fewer"])
def test_files_that_change_after_the_plan(tmp_path, change):
    path = tmp_path / "a.parquet"
    table = pa.table({"x": [[1.0, 2.0]] * 100})
    pq.write_table(table, path, row_group_size=10)
    source = open_source(path, width=2)
    (unit,) = source.plan()
    if change == "delete":
        path.unlink()
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif change == "retype":
        pq.write_table(pa.table({"x": ["secret"] * 100}), path, row_group_size=10)
    else:
        pq.write_table(table.slice(0, 5), path)
    with pytest.raises(DataError, match=r"cannot read .*a\.parquet") as caught:
        list(source.blocks(unit, 100))
    assert "secret" not in everything_of(caught.value)


def test_rows_of_any_kind_raise_nothing(tmp_path):
    # Private facts: each is read like any other row.
    strange = [[1e308, -1e308], [np.nan, np.inf], [5e-324, -0.0], [1.0], [], None, [1.0] * 9]
    for column in (strange, strange[3:], [None] * 3, [[]] * 2):
        path = write(
            tmp_path / "a.parquet",
            x=pa.array(column, pa.list_(pa.float64())),
            y=pa.array([2**63] * len(column), pa.uint64()),
        )
        source = open_source(path, width=2, label="y", labels=[-(2**63), 0])
        for block in read(source):
            assert block.rows == len(column)
            assert (block.labels == -1).all()
