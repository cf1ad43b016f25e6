"""Parquet as a source: the same rows from every layout, type and file system."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpgmm_dist.pipeline.resolve import open_dataset

from .reading import expected, open_source, read, rows, spec, write

WIDTH = 3
FLOATS = st.floats(width=32) | st.none()  # NaN and infinity included
ROW = st.none() | st.lists(FLOATS, min_size=WIDTH, max_size=WIDTH) | st.lists(FLOATS, max_size=5)
LABEL = st.none() | st.integers(-1, 4)
LABELS = (3, 0, 2)


def codes(labels, known=LABELS):
    return [known.index(y) if y in known else -1 for y in labels]


def table_of(values, labels, kind=None):
    return pa.table(
        {
            "x": pa.array(values, kind or pa.list_(pa.float32())),
            "other": pa.array(["unread"] * len(values)),
            "y": pa.array(labels, pa.int16()),
        }
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_partitioning_of_the_same_rows_reads_the_same(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    pairs = data.draw(st.lists(st.tuples(ROW, LABEL), max_size=20))
    want = expected([v for v, _ in pairs], codes([y for _, y in pairs]), WIDTH, np.float32)
    shuffled = data.draw(st.permutations(pairs))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=3)))
    edges = [0, *cuts, len(pairs)]
    for i, (lo, hi) in enumerate(pairwise(edges)):
        part = shuffled[lo:hi]
        kind = data.draw(st.sampled_from([pa.list_, pa.large_list]))(pa.float32())
        pq.write_table(
            table_of([v for v, _ in part], [y for _, y in part], kind),
            root / f"part-{i}.parquet",
            row_group_size=data.draw(st.integers(1, 7)),
            compression=data.draw(st.sampled_from(["none", "zstd"])),
        )
    source = open_source(root, width=WIDTH, label="y", labels=list(LABELS))
    max_rows = data.draw(st.integers(1, 30))
    target = data.draw(st.sampled_from([1, 100, 1 << 20, 1 << 27]))
    assert rows(read(source, max_rows, target)) == want
    assert rows(read(pickle.loads(pickle.dumps(source)), max_rows, target)) == want


def test_every_kind_of_column_reads_the_same(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    plain = x.tolist()
    want = expected(plain, [0] * 8, 3)
    for i, kind in enumerate(
        [
            pa.list_(pa.float16()),
            pa.list_(pa.float32()),
            pa.list_(pa.float64()),
            pa.large_list(pa.float32()),
            pa.list_(pa.uint8()),
            pa.list_(pa.float32(), 3),
            pa.list_(pa.uint8(), 3),
            pa.list_(pa.int32(), 3),
        ]
    ):
        path = write(tmp_path / f"{i}.parquet", x=pa.array(plain, kind))
        fixed = pa.types.is_fixed_size_list(kind)
        assert rows(read(open_source(path, width=None if fixed else 3))) == want
    # Files of different kinds and element types in one data set.
    assert rows(read(open_source(tmp_path))) == expected(plain * 8, [0] * 64, 3)
    kinds = [pa.int8(), pa.float16(), pa.uint64()]
    columns = {f"c{j}": pa.array(x[:, j].astype(int), kinds[j]) for j in range(3)}
    path = write(tmp_path / "table.parquet", **columns)
    assert rows(read(open_source(path, ["c0", "c1", "c2"]))) == want
    assert rows(read(open_source(path, ["c2"]))) == expected(x[:, 2:].tolist(), [0] * 8, 1)


def test_nulls_of_every_kind(tmp_path):
    values = [[1.0, 2.0], None, [3.0, None], [4.0, 5.0]]
    for kind in (pa.list_(pa.float32(), 2), pa.list_(pa.float64()), pa.large_list(pa.float32())):
        path = write(tmp_path / "a.parquet", x=pa.array(values, kind), y=["a", "b", None, "c"])
        source = open_source(path, width=2, label="y", labels=["c", "a"])
        assert rows(read(source)) == expected(values, [1, -1, -1, 0], 2)
    path = write(tmp_path / "t.parquet", a=[1, None, 3], b=[None, 2.0, 4.0])
    want = expected([[1, None], [None, 2.0], [3, 4.0]], [0] * 3, 2)
    assert rows(read(open_source(path, ["a", "b"]))) == want


def test_partitions_without_any_value_have_the_null_type(tmp_path):
    write(tmp_path / "a.parquet", x=pa.array([[1.0, 2.0]]), y=pa.array([7]))
    write(tmp_path / "b.parquet", x=pa.nulls(2), y=pa.nulls(2))
    write(tmp_path / "c.parquet", x=pa.array([[None, None]]), y=pa.array([7]))
    source = open_source(tmp_path, width=2, label="y", labels=[7])
    want = expected([[1.0, 2.0], None, None, None], [0, -1, -1, 0], 2)
    assert rows(read(source)) == want


def test_no_rows_and_no_row_groups(tmp_path):
    empty = {"x": pa.array([], pa.list_(pa.float32(), 2))}
    write(tmp_path / "none.parquet", **empty)
    source = open_source(tmp_path)
    assert [unit.index for unit in source.plan()] == [0]
    assert read(source) == []
    schema = pa.schema([("x", pa.list_(pa.float32(), 2))])
    with pq.ParquetWriter(tmp_path / "groups.parquet", schema) as writer:
        writer.write_table(pa.table(empty, schema=schema))
        writer.write_table(pa.table({"x": pa.array([[1, 2]], schema.field(0).type)}))
        writer.write_table(pa.table(empty, schema=schema))
    assert rows(read(open_source(tmp_path))) == expected([[1, 2]], [0], 2)


def test_directory_glob_and_url_forms(tmp_path, monkeypatch):
    parts = ["a.parquet", "deep/er/b.PARQUET", "c.parq", "d/e.pq"]
    for i, name in enumerate(parts):
        write(tmp_path / "set" / name, x=pa.array([[float(i)]]))
    for name in ("_tmp/x.parquet", ".hidden.parquet", "_metadata.parquet", "deep/.c/x.parquet"):
        write(tmp_path / "set" / name, x=pa.array([[99.0]]))
    (tmp_path / "set" / "README.txt").write_text("not data")
    (tmp_path / "set" / "_SUCCESS").touch()

    def found(path):
        return sorted(
            b.features.item(i) for b in read(open_source(path, width=1)) for i in range(b.rows)
        )

    root = tmp_path / "set"
    assert found(root) == [0, 1, 2, 3]
    assert found(f"{root}/") == found(f"file://{root}") == [0, 1, 2, 3]
    assert found(f"{root}/*") == [0, 1, 2, 3]  # directories that match are read whole
    assert found(f"{root}/*.parquet") == [0]
    assert found(f"{root}/**/*.p*q*") == [0, 2, 3]
    assert found(f"{root}/deep/er/b.PARQUET") == [1]
    monkeypatch.chdir(tmp_path)
    assert found("set") == [0, 1, 2, 3]
    (root / "c.parq").rename(root / "any-name")
    assert found(f"{root}/any-name") == [2]  # a file named in full needs no suffix
    write(tmp_path / "odd[1]" / "a.parquet", x=pa.array([[5.0]]))
    assert found(tmp_path / "odd[1]") == [5]


def test_links_are_followed(tmp_path):
    write(tmp_path / "real" / "a.parquet", x=pa.array([[1.0]]))
    (tmp_path / "set" / "sub").mkdir(parents=True)
    (tmp_path / "set" / "a.parquet").symlink_to(tmp_path / "real" / "a.parquet")
    write(tmp_path / "far" / "a.parquet", x=pa.array([[1.0]]))
    (tmp_path / "set" / "sub" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "sub" / "back").symlink_to(tmp_path / "set")
    assert rows(read(open_source(tmp_path / "set", width=1))) == expected([[1.0]] * 2, [0] * 2, 1)


def test_hive_partitions_give_label_and_features(tmp_path):
    root = tmp_path / "label=9" / "set"
    null = "__HIVE_DEFAULT_PARTITION__"
    for label, age in (("3", "1.5"), ("4", "-2"), (null, "0"), ("3", null), ("x y", "1")):
        name = label.replace(" ", "%20")
        write(root / f"label={name}" / f"age={age}" / "p.parquet", h=[1, 2])
    source = open_source(root, ["h", "age"], label="label", labels=[3, 4])
    values = [[h, age] for age in (1.5, -2, 0, None, 1) for h in (1, 2)]
    want = expected(values, [0, 0, 1, 1, -1, -1, 0, 0, -1, -1], 2)
    assert rows(read(source)) == want
    # A directory name above the path gives no column, unless the path is a glob or a file.
    text = open_source(root, ["h", "age"], label="label", labels=["x y", "3"])
    assert rows(read(text)) == expected(values, [1, 1, -1, -1, -1, -1, 1, 1, 0, 0], 2)
    file = root / "label=3" / "age=1.5" / "p.parquet"
    for path in (file, root / "label=3" / "age=1.5*"):
        source = open_source(path, ["age"], label="label", labels=[4, 3])
        assert rows(read(source)) == expected([[1.5], [1.5]], [1, 1], 1)


def test_the_files_own_column_comes_before_the_directory_name(tmp_path):
    write(tmp_path / "y=1" / "a.parquet", x=pa.array([[1.0]]), y=[2])
    source = open_source(tmp_path, width=1, label="y", labels=[1, 2])
    assert rows(read(source)) == expected([[1.0]], [1], 1)


def test_object_store_urls(tmp_path):
    import fsspec

    path = write(tmp_path / "a.parquet", x=pa.array([[1.0, 2.0]] * 5), y=[0, 1, 2, 3, None])
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/y=1/a.parquet", path.read_bytes())
    memory.pipe_file("/bucket/_x/a.parquet", b"no")
    try:
        for url in ("memory://bucket", "memory://bucket/*/a.parquet"):
            source = open_source(url, width=2, label="y", labels=[1], storage_options={})
            want = expected([[1.0, 2.0]] * 5, [-1, 0, -1, -1, -1], 2)
            assert rows(read(source)) == want
            assert source.fingerprint().keys() == {"/bucket/y=1/a.parquet"}
    finally:
        memory.rm("/bucket", recursive=True)


def test_plan_bins_row_groups_in_order(tmp_path):
    values = pa.array(np.zeros((1000, 4), np.float32).tolist(), pa.list_(pa.float32(), 4))
    for name in ("b.parquet", "a.parquet"):
        pq.write_table(pa.table({"x": values}), tmp_path / name, row_group_size=100)
    source = open_source(tmp_path)
    plan = source.plan()
    assert len(plan) == 1
    assert [p.path for p in plan[0].pieces] == [f"{tmp_path}/{n}.parquet" for n in "ab"]
    assert plan[0].pieces[0].row_groups == tuple(range(10))
    assert plan[0].bytes >= 2 * 1000 * 16
    assert plan == source.plan()
    single = source.plan(target_bytes=1)
    assert [u.index for u in single] == list(range(20))
    assert [(p.path[-9], p.row_groups) for u in single for p in u.pieces] == [
        (n, (g,)) for n in "ab" for g in range(10)
    ]
    # Tiny files are not all put in one unit.
    assert len(source.plan(target_bytes=2 << 20)) == 2


def test_memory_follows_the_block_not_the_row_group(tmp_path):
    x = np.zeros((200_000, 16), np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 16)
    pq.write_table(
        pa.table({"x": column}), tmp_path / "a.parquet", use_dictionary=False, compression="none"
    )
    source = open_source(tmp_path)
    del column
    before, peak = pa.total_allocated_bytes(), 0
    for block in source.blocks(source.plan()[0], 1000):
        assert block.rows <= 1000
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < x.nbytes / 2


def test_small_row_groups_are_joined_into_blocks(tmp_path):
    pq.write_table(
        pa.table({"x": pa.array([[float(i)] for i in range(1000)])}),
        tmp_path / "a.parquet",
        row_group_size=10,
    )
    blocks = read(open_source(tmp_path, width=1), max_rows=500)
    assert [b.rows for b in blocks] == [500, 500]
    assert [b.features[0, 0] for b in blocks] == [0, 500]


def test_nothing_shows_in_a_repr(tmp_path):
    write(tmp_path / "a.parquet", x=pa.array([[12345.0]]))
    source = open_source(tmp_path, width=1, storage_options={"auto_mkdir": False})
    (unit,) = source.plan()
    (block,) = source.blocks(unit, 10)
    shown = [repr(o) for o in (source, source.place, source.columns, source.footers()[0], unit)]
    shown += [repr(block), str(block), repr(unit.pieces[0]), f"{source}"]
    for text in shown:
        assert "12345" not in text
        assert "auto_mkdir" not in text
        assert str(tmp_path) not in text
        assert len(text) < 30


def test_pickles_carry_no_footers(tmp_path):
    for i in range(50):
        write(tmp_path / f"some-long-name-{i}.parquet", x=pa.array([[1.0]]))
    source = open_source(tmp_path, width=1)
    assert b"some-long-name" not in pickle.dumps(source)
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.width, copy.labels) == (1, ())
    assert copy.plan() == source.plan()


def test_fingerprint_changes_with_a_file(tmp_path):
    write(tmp_path / "a.parquet", x=pa.array([[1.0]]))
    first = open_source(tmp_path, width=1).fingerprint()
    assert first == open_source(tmp_path, width=1).fingerprint()
    write(tmp_path / "a.parquet", x=pa.array([[2.0]]))
    assert first != open_source(tmp_path, width=1).fingerprint()


def test_columns_with_dots_and_neighbours_of_their_name(tmp_path):
    write(tmp_path / "a.parquet", **{"x": pa.array([[1.0]]), "x.y": pa.array([[2.0]])})
    for name, value in (("x", 1.0), ("x.y", 2.0)):
        (block,) = read(open_source(tmp_path, name, width=1))
        assert block.features.tolist() == [[value]]


def test_source_is_made_from_the_specification_alone(tmp_path):
    path = write(tmp_path / "a.parquet", x=pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)), y=[1])
    source = open_dataset(spec(path, label="y", labels=[5, 1]).dataset)
    assert source.width == 2
    assert source.labels == (5, 1)
    with pytest.raises(AttributeError):
        source.width = 3
