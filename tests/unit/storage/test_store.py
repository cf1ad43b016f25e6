"""The store creates each object once and whole, and its errors say what failed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage import local_file
from dpgmm_dist.storage.create_only import confirm_create_only, is_complete, probe
from dpgmm_dist.storage.store import (
    FsspecStore,
    ObjectExists,
    ObjectMissing,
    create_or_read,
    open_store,
    read_or_none,
)

from ..budget.budgets import FaultyStore, InterruptedStore


class OverwritingFileSystem(MemoryFileSystem):
    """Ignores the condition of a create, as some emulators and gateways do."""

    protocol = "overwriting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, mode="overwrite")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("overwriting://").strip("/")


class RaisingFileSystem(MemoryFileSystem):
    """Answers every create with one error."""

    protocol = "raising"

    def __init__(self, error: Exception, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        raise self.error


fsspec.register_implementation("overwriting", OverwritingFileSystem, clobber=True)


def test_an_object_is_created_once_and_keeps_its_first_content(store: FsspecStore) -> None:
    assert not store.exists("a/b.json")
    store.create("a/b.json", b"first")
    with pytest.raises(ObjectExists, match=r"a/b\.json"):
        store.create("a/b.json", b"second")
    assert store.read("a/b.json") == b"first"
    assert store.exists("a/b.json")


def test_a_missing_object_is_not_a_failure(store: FsspecStore) -> None:
    with pytest.raises(ObjectMissing):
        store.read("nothing")
    assert read_or_none(store, "nothing") is None
    assert store.list("nothing/") == []


def test_listing_is_sorted_flat_and_blind_to_temporary_files(store: FsspecStore) -> None:
    for name in ("l/2", "l/10", "l/1", "l/deep/3", "other/4"):
        store.create(name, b"x")
    if store._local:
        Path(store._root, "l", ".tmp-1-ab").write_bytes(b"half")
    assert store.list("l/") == ["l/1", "l/10", "l/2"]


def test_empty_and_large_objects_come_back_whole(store: FsspecStore) -> None:
    large = os.urandom(1 << 20)
    store.create("empty", b"")
    store.create("large", large)
    assert store.read("empty") == b""
    assert store.read("large") == large


def test_racing_threads_have_one_winner(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"))
    wins: list[int] = []
    barrier = threading.Barrier(8)

    def write(writer: int) -> None:
        barrier.wait()
        try:
            store.create("l/name", str(writer).encode() * 1000)
        except ObjectExists:
            return
        wins.append(writer)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.read("l/name") == str(wins[0]).encode() * 1000
    assert os.listdir(tmp_path / "s" / "l") == ["name"]


def test_local_data_and_directory_are_flushed_before_a_create_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def record(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            events.append(name)
            return real(*args)

        return run

    open_store(str(tmp_path)).create("l/first", b"x")
    for name in ("fsync", "link", "unlink"):
        monkeypatch.setattr(local_file.os, name, record(name, getattr(os, name)))
    open_store(str(tmp_path)).create("l/second", b"x")
    # the file, its name, the two directories of the store, the temporary name
    assert events == ["fsync", "link", "fsync", "fsync", "unlink"]


@pytest.mark.parametrize(
    "error",
    [
        FileExistsError("x"),
        OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold"),
        OSError(errno.EINVAL, "PreconditionFailed"),
    ],
)
def test_conflicts_of_every_client_are_recognised(error: Exception) -> None:
    store = FsspecStore(RaisingFileSystem(error), "/x", "raising://x")
    with pytest.raises(ObjectExists):
        store.create("name", b"")


@pytest.mark.parametrize(
    "error", [PermissionError("Access Denied"), RuntimeError("odd"), ValueError("Bad Request")]
)
def test_other_errors_name_the_store_and_hide_credentials(error: Exception) -> None:
    error.args = (f"{error.args[0]} for key TOPSECRET at https://h/x?sig=abc",)
    store = FsspecStore(RaisingFileSystem(error), "/x", "raising://u:pw@x/y?z=1", ("TOPSECRET",))
    with pytest.raises(DataError) as caught:
        store.create("name", b"")
    text = str(caught.value)
    assert not isinstance(caught.value, ObjectExists)
    assert "raising://x/y/name" in text
    assert type(error).__name__ in text
    assert "then run the same command again" in text
    assert not {"TOPSECRET", "pw", "abc", "z=1"} & set(text.replace("?", " ").split())
    assert caught.value.__cause__ is None


def test_a_store_whose_create_looks_and_then_writes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Plain(AbstractFileSystem):
        protocol = "plain"

    fsspec.register_implementation("plain", Plain, clobber=True)
    with pytest.raises(DataError, match="plain://host/x has no atomic create"):
        open_store("plain://host/x")


def test_urls_that_cannot_be_stores_are_usage_errors() -> None:
    with pytest.raises(SpecError, match="ftp://host/x holds a password"):
        open_store("ftp://user:hunter2@host/x")
    with pytest.raises(SpecError, match="chained"):
        open_store("simplecache::s3://bucket/x")
    with pytest.raises(SpecError, match="nosuch://x"):
        open_store("nosuch://x")


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, **options: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("dpgmm_dist.storage.store.url_to_fs", missing)
    with pytest.raises(DataError, match=r"dpgmm-dist\[s3\]"):
        open_store("s3://bucket/x", {"secret": "hunter2"})


def test_a_directory_that_may_not_be_written_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str, *args: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(local_file.os, "open", denied)
    with pytest.raises(DataError, match="Permission denied"):
        open_store(str(tmp_path)).create("a", b"")


def test_a_file_in_the_way_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = open_store(str(tmp_path / "file"))
    with pytest.raises(DataError, match="Not a directory"):
        store.create("a", b"")
    with pytest.raises(DataError, match="Not a directory"):
        store.list("a/")


def test_exists_raises_errors_instead_of_returning_false(
    memory: FsspecStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str) -> Any:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(memory._fs, "info", denied)
    with pytest.raises(DataError, match="look for"):
        memory.exists("a")


def test_a_lost_acknowledgement_is_read_back(memory: FsspecStore) -> None:
    assert create_or_read(FaultyStore(memory, 0, "acknowledgement lost"), "n", b"mine") == b"mine"


def test_a_conflict_returns_what_is_stored(memory: FsspecStore) -> None:
    racing = InterruptedStore(memory, "n", lambda: memory.create("n", b"theirs"))
    assert create_or_read(racing, "n", b"mine") == b"theirs"


def test_a_temporary_error_is_retried_and_a_lasting_one_is_raised(memory: FsspecStore) -> None:
    assert create_or_read(FaultyStore(memory, 0, "error before"), "n", b"mine") == b"mine"
    broken = FsspecStore(RaisingFileSystem(OSError("no space")), "/x", "raising://x")
    with pytest.raises(DataError, match="no space"):
        create_or_read(broken, "n", b"mine")


def test_an_object_that_exists_and_cannot_be_read_is_an_error() -> None:
    broken = FsspecStore(RaisingFileSystem(FileExistsError()), "/never", "raising://x")
    with pytest.raises(DataError):
        create_or_read(broken, "n", b"mine")


def test_probe_accepts_good_stores_and_leaves_nothing(store: FsspecStore) -> None:
    probe(store)
    assert store._fs.find(store._root) == []


def test_probe_refuses_a_store_that_overwrites() -> None:
    with pytest.raises(DataError, match=r"overwriting://here let an existing object be created"):
        probe(open_store("overwriting://here"))


def test_confirm_leaves_the_object_as_it_is(store: FsspecStore) -> None:
    store.create("a", b"x")
    confirm_create_only(store, "a", store.read("a"))
    bad = open_store("overwriting://there")
    bad.create("a", b"x")
    with pytest.raises(DataError, match="second time"):
        confirm_create_only(bad, "a", b"x")
    assert bad.read("a") == b"x"


def test_a_series_is_complete_if_a_listing_only_missed_an_object(memory: FsspecStore) -> None:
    for number in range(3):
        memory.create(f"n/{number}", b"")
    assert is_complete(memory, {0, 2}, 3, lambda n: f"n/{n}")
    assert not is_complete(memory, {0, 2}, 4, lambda n: f"n/{n}")


def test_options_are_never_shown(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {"auto_mkdir": False})
    assert "auto_mkdir" not in repr(store)
