"""Small files of an object store: one request each, and the same rows as from local files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile
from hypothesis import given
from hypothesis import strategies as st

from dpgmm_dist.data import source as reading
from dpgmm_dist.data.parquet_schema import Columns
from dpgmm_dist.data.source import ParquetSource
from dpgmm_dist.errors import DataError
from dpgmm_dist.storage import rereading, small_files
from dpgmm_dist.storage.parquet_files import Place
from dpgmm_dist.storage.ranges import Ranges, fetches_ranges
from dpgmm_dist.storage.small_files import with_contents
from dpgmm_dist.usage import take_retries

KEYS = ("bucket/rows/a.parquet", "bucket/rows/b.parquet", "bucket/rows/c.parquet")
Requests = Counter[tuple[str, str]]


class Bucket(AsyncFileSystem):
    """An object store in memory that counts its requests and fails as ordered."""

    protocol = "counted"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[Requests] = Counter()
    ignores_ranges: ClassVar[bool] = False
    failing: ClassVar[set[str]] = set()
    """Objects whose next request fails."""

    async def _cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        self.requests["get", path] += 1
        if path in self.failing:
            self.failing.remove(path)
            raise OSError("503 Slow Down: row 123.4")
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path] if self.ignores_ranges else self.objects[path][start:end]

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self.requests["head", path] += 1
        if path in self.objects:
            content = self.objects[path]
            return {"name": path, "type": "file", "size": len(content), "ETag": str(hash(content))}
        if any(key.startswith(f"{path}/") for key in self.objects):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        self.requests["list", path] += 1
        below = [key for key in self.objects if key.startswith(f"{path}/")]
        entries = [
            {"name": key, "type": "file", "size": len(self.objects[key])}
            | {"ETag": str(hash(self.objects[key]))}
            for key in below
        ]
        if not entries:
            raise FileNotFoundError(path)
        return entries if detail else below

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        known = {key: options[key] for key in ("cache_type",) if key in options}
        return OpenObject(self, path, mode, **known)


class OpenObject(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.requests["range", self.path] += 1
        return bytes(self.fs.objects[self.path][start:end])


@dataclass(frozen=True)
class File:
    path: str
    size: int


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    fsspec.register_implementation("counted", Bucket, clobber=True)
    for name, empty in (
        ("objects", {}),
        ("requests", Counter()),
        ("failing", set()),
        ("ignores_ranges", False),
    ):
        monkeypatch.setattr(Bucket, name, empty)
    monkeypatch.setattr(rereading, "_FIRST_WAIT_SECONDS", 0.001)
    take_retries()
    yield Bucket
    take_retries()


def parquet(first: int, rows: int = 20) -> bytes:
    x = np.arange(first, first + 2 * rows, dtype=np.float32).reshape(-1, 2)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": pa.array(list(x))}), sink, row_group_size=7)
    return bytes(sink.getvalue())


def fill(bucket: type[Bucket]) -> None:
    bucket.objects |= {key: parquet(100 * number) for number, key in enumerate(KEYS)}


def opened_source() -> ParquetSource:
    place = Place("counted://bucket/rows", {})
    return ParquetSource.open(place, Columns(("x",), False, None, ()), width=2)


def rows_of(source: ParquetSource) -> list[list[float]]:
    blocks = [block for unit in source.plan() for block in source.blocks(unit, 16)]
    return [row for block in blocks for row in block.features.tolist()]


EXPECTED = [
    [100.0 * number + value, 100.0 * number + value + 1]
    for number in range(3)
    for value in range(0, 40, 2)
]


def test_a_small_file_takes_one_request_for_its_footer_and_one_in_each_pass(
    bucket: type[Bucket],
) -> None:
    fill(bucket)
    source = opened_source()
    for reads in (1, 2, 3):
        of_files = {(kind, path) for kind, path in bucket.requests if path in KEYS}
        assert of_files == {("get", key) for key in KEYS}
        assert all(bucket.requests["get", key] == reads for key in KEYS)
        assert rows_of(source) == EXPECTED
    assert take_retries() == 0


def test_a_listing_lists_the_files_once(bucket: type[Bucket]) -> None:
    fill(bucket)
    opened_source()
    listings = {path: n for (kind, path), n in bucket.requests.items() if kind == "list"}
    assert listings == {"bucket/rows": 1}


def test_larger_files_take_a_request_for_the_footer_and_one_for_the_rows(
    bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket)
    limit = max(map(len, bucket.objects.values()))
    bucket.objects[KEYS[1]] = parquet(100, 400)
    assert len(bucket.objects[KEYS[1]]) > limit
    source = opened_source()
    bucket.requests.clear()
    limited = partial(with_contents, largest=limit)
    monkeypatch.setattr(reading, "with_contents", limited)
    assert len(rows_of(source)) == 440
    assert [bucket.requests["get", key] for key in KEYS] == [1, 2, 1]  # its footer and its rows
    assert not any(kind in ("head", "range") and path in KEYS for kind, path in bucket.requests)


def test_what_cannot_be_fetched_is_opened(bucket: type[Bucket]) -> None:
    fill(bucket)
    source = opened_source()
    bucket.failing.add(KEYS[1])
    assert rows_of(source) == EXPECTED
    assert take_retries() == 1
    assert [bucket.requests["get", key] for key in KEYS] == [2, 4, 2]


def test_a_store_that_ignores_ranges_is_not_believed(bucket: type[Bucket]) -> None:
    fill(bucket)
    file = Ranges(bucket(), KEYS[0], 100)
    assert file.read(10) == bucket.objects[KEYS[0]][:10]
    bucket.ignores_ranges = True
    with pytest.raises(OSError, match="more than it was asked for"):
        file.read(10)
    (content,) = (content for _, content in with_contents(bucket(), [File(KEYS[0], 100)]))
    assert content is None


def test_web_servers_are_not_asked_for_ranges() -> None:
    assert fetches_ranges(Bucket())
    assert not fetches_ranges(fsspec.filesystem("memory"))
    assert not fetches_ranges(type("Web", (Bucket,), {"protocol": ("http", "https")})())


def test_a_file_that_grew_is_read_again_and_then_refused(bucket: type[Bucket]) -> None:
    fill(bucket)
    source = opened_source()
    source.require_unchanged()
    bucket.objects[KEYS[1]] = parquet(100, 30)
    assert len(rows_of(source)) == len(EXPECTED) + 1  # its three row groups now hold 21 rows
    assert take_retries() == 1
    with pytest.raises(DataError, match="changed while it was read"):
        source.require_unchanged()


def test_a_file_that_went_away_is_named(bucket: type[Bucket]) -> None:
    fill(bucket)
    source = opened_source()
    del bucket.objects[KEYS[1]]
    with pytest.raises(DataError, match=r"b\.parquet: it went away"):
        rows_of(source)


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 5), st.integers(1, 60))
def test_every_file_comes_once_in_order(sizes: list[int], files: int, together: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_files, "_TOGETHER_FILES", files)
        patch.setattr(small_files, "_TOGETHER_BYTES", together)
        patch.setattr(Bucket, "requests", Counter())
        content = {f"b/{n}": bytes([n]) * size for n, size in enumerate(sizes)}
        patch.setattr(Bucket, "objects", content)
        listed = [File(path, len(text)) for path, text in content.items()]
        groups: list[int] = []
        fetched = small_files._fetched
        patch.setattr(
            small_files,
            "_fetched",
            lambda fs, files: groups.append(len(files)) or fetched(fs, files),
        )
        found = list(with_contents(Bucket(), listed, 25))
    assert [file for file, _ in found] == listed
    for file, got in found:
        assert got == (content[file.path] if 0 < file.size <= 25 else None)
    assert max(groups, default=0) <= files


def test_local_files_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(0))
    file = File(str(path), path.stat().st_size)
    assert list(with_contents(fsspec.filesystem("file"), [file])) == [(file, None)]
