"""The journal keeps the first query and answer of a step, and detects loss and changes."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpgmm_dist.budget.differences import differences, plain
from dpgmm_dist.budget.journal import Journal
from dpgmm_dist.budget.sealed import seal
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.store import FsspecStore, open_store

from .budgets import DIGEST, SPEC, FaultyStore, InterruptedStore

FOLDER = "journal/week-1"


@pytest.fixture
def journal(store: FsspecStore) -> Journal:
    return begun(store)


def begun(store: FsspecStore) -> Journal:
    journal = Journal(store, "week-1")
    journal.begin(DIGEST, SPEC, "discrete_gaussian")
    return journal


def overwrite(store: FsspecStore, name: str, data: bytes) -> None:
    store._fs.pipe_file(store._path(f"{FOLDER}/{name}"), data)


def test_the_first_query_and_answer_are_kept(journal: Journal) -> None:
    assert journal.query(0) is None
    assert journal.answer(0) is None
    assert journal.put_query(0, "moments", b"first") == b"first"
    assert journal.put_query(0, "moments", b"second") == b"first"
    assert journal.put_answer(0, "moments", b"noisy") == b"noisy"
    assert journal.put_answer(0, "moments", b"noise of another driver") == b"noisy"
    assert journal.query(0) == b"first"
    assert journal.answer(0) == b"noisy"
    assert journal.steps() == [0]


@given(data=st.binary(max_size=200))
def test_any_bytes_come_back(data: bytes) -> None:
    journal = begun(open_store(f"memory://{os.urandom(8).hex()}"))
    assert journal.put_query(0, "q", data) == data == journal.query(0)
    assert journal.put_answer(0, "q", data[::-1]) == data[::-1] == journal.answer(0)


def test_an_answer_drawn_meanwhile_by_another_driver_is_used(memory: FsspecStore) -> None:
    other = begun(memory)
    other.put_query(0, "moments", b"q")
    racing = InterruptedStore(memory, "answer", lambda: other.put_answer(0, "moments", b"theirs"))
    assert Journal(racing, "week-1").put_answer(0, "moments", b"mine") == b"theirs"


@pytest.mark.parametrize("fault", ["acknowledgement lost", "error before"])
def test_a_failed_write_is_resolved_by_reading_back(memory: FsspecStore, fault: str) -> None:
    begun(memory)
    for at in range(4):
        journal = Journal(FaultyStore(memory, at, fault), "week-1")
        try:
            journal.put_query(at, "q", b"q")
            assert journal.put_answer(at, "q", b"first") == b"first"
        except DataError:  # the query could not be read back: no answer was returned or used
            assert fault == "error before"
        answer = Journal(memory, "week-1").answer(at)
        assert answer in (None, b"first")


def test_journals_of_different_releases_are_apart(memory: FsspecStore) -> None:
    begun(memory).put_query(0, "q", b"one")
    other = Journal(memory, "week-2")
    assert other.meta() is None
    assert other.query(0) is None
    assert other.steps() == []


def test_begin_again_returns_what_is_stored(journal: Journal) -> None:
    meta = journal.begin(DIGEST, {"other": "text, same digest"}, "discrete_gaussian")
    assert meta["spec"] == SPEC
    assert meta["library"]
    assert journal.meta() == meta


def test_another_specification_is_refused_with_the_difference(journal: Journal) -> None:
    changed = {"model": {"components": (3, 5)}, "privacy": SPEC["privacy"], "output": {"path": "x"}}
    for attempt in (journal.begin, journal.check_same):
        with pytest.raises(SpecError) as caught:
            attempt("e" * 64, changed, "discrete_gaussian")
        text = str(caught.value)
        assert "model.components was 3 and is now [3, 5]" in text
        assert "output was None and is now {'path': 'x'}" in text
        assert "epsilon" not in text


def test_another_mechanism_is_refused(journal: Journal) -> None:
    with pytest.raises(SpecError, match="mechanism was 'discrete_gaussian' and is now 'insecure'"):
        journal.begin(DIGEST, SPEC, "insecure")


def test_a_store_that_overwrites_is_refused() -> None:
    from ..storage.test_store import OverwritingFileSystem

    assert OverwritingFileSystem.protocol == "overwriting"
    with pytest.raises(DataError, match="second time"):
        begun(open_store("overwriting://journal"))


def test_an_answer_needs_its_query(journal: Journal) -> None:
    with pytest.raises(DataError, match="no query for the answer of step 0"):
        journal.put_answer(0, "moments", b"noisy")
    assert journal.answer(0) is None


@pytest.mark.parametrize("kind", ["query", "answer"])
def test_a_plan_of_another_version_is_refused(journal: Journal, kind: str) -> None:
    journal.put_query(0, "moments", b"q")
    journal.put_answer(0, "moments", b"a")
    with pytest.raises(DataError, match="is for step 'moments', but this run expects 'cells'"):
        getattr(journal, f"put_{kind}")(0, "cells", b"x")


@pytest.mark.parametrize("name", ["query-0000.bin", "answer-0000.bin"])
@pytest.mark.parametrize(
    "position", [0, 10, -1], ids=["first byte", "in the header", "in the content"]
)
def test_a_flipped_bit_is_found(memory: FsspecStore, name: str, position: int) -> None:
    journal = begun(memory)
    journal.put_query(0, "moments", b"query")
    journal.put_answer(0, "moments", b"noisy")
    data = bytearray(memory.read(f"{FOLDER}/{name}"))
    data[position] ^= 1
    overwrite(memory, name, bytes(data))
    read = journal.query if name.startswith("query") else journal.answer
    with pytest.raises(DataError, match="corrupt"):
        read(0)


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_a_truncated_object_is_found(memory: FsspecStore, cut: int) -> None:
    journal = begun(memory)
    journal.put_query(0, "moments", b"query")
    overwrite(memory, "query-0000.bin", memory.read(f"{FOLDER}/query-0000.bin")[:cut])
    with pytest.raises(DataError, match="corrupt"):
        journal.query(0)


def test_objects_of_another_step_or_release_are_refused(memory: FsspecStore) -> None:
    journal = begun(memory)
    journal.put_query(0, "q", b"0")
    overwrite(memory, "query-0001.bin", memory.read(f"{FOLDER}/query-0000.bin"))
    with pytest.raises(DataError, match="was moved there"):
        journal.query(1)
    memory.create("journal/week-2/query-0000.bin", memory.read(f"{FOLDER}/query-0000.bin"))
    with pytest.raises(DataError, match="is not the query record of release 'week-2'"):
        Journal(memory, "week-2").query(0)


def test_an_answer_to_a_replaced_query_is_refused(memory: FsspecStore) -> None:
    journal = begun(memory)
    journal.put_query(0, "q", b"asked")
    journal.put_answer(0, "q", b"noisy")
    other = Journal(open_store("memory://elsewhere"), "week-1")
    other.put_query(0, "q", b"another")
    overwrite(memory, "query-0000.bin", other._store.read(f"{FOLDER}/query-0000.bin"))
    with pytest.raises(DataError, match="answers a query that differs"):
        journal.answer(0)


def test_a_later_schema_is_refused(memory: FsspecStore) -> None:
    begun(memory)
    fields = json.loads(memory.read(f"{FOLDER}/meta.json"))
    fields.pop("digest")
    overwrite(memory, "meta.json", seal({**fields, "schema": 2}))
    with pytest.raises(DataError, match="written by another version"):
        Journal(memory, "week-1").meta()


@pytest.mark.parametrize("lost", ["query-0000", "query-0001", "answer-0000", "query-0002"])
def test_lost_steps_are_found(memory: FsspecStore, lost: str) -> None:
    journal = begun(memory)
    for step in range(3):
        journal.put_query(step, "q", b"q")
        journal.put_answer(step, "q", b"a")
    assert journal.steps() == [0, 1, 2]
    memory._fs.rm(memory._path(f"{FOLDER}/{lost}.bin"))
    with pytest.raises(DataError, match="has lost records"):
        journal.steps()


def test_a_finished_release_knows_how_many_answers_it_had(journal: Journal) -> None:
    journal.put_query(0, "q", b"q")
    journal.put_answer(0, "q", b"a")
    assert journal.finished() is None
    assert journal.finish({"output": "s3://a/b"}) == {"output": "s3://a/b"}
    assert journal.finish({"output": "elsewhere"}) == {"output": "s3://a/b"}
    assert journal.finished() == {"output": "s3://a/b"}
    store = journal._store
    store._fs.rm(store._path(f"{FOLDER}/answer-0000.bin"))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="has lost records"):
        journal.steps()


def test_queries_may_be_ahead_of_answers(journal: Journal) -> None:
    journal.put_query(0, "a", b"")
    journal.put_query(1, "b", b"")
    assert journal.steps() == []


def test_private_records_stay_in_private_storage(memory: FsspecStore) -> None:
    journal = begun(memory)
    assert journal.private("input") is None
    assert journal.put_private("input", b"etag 1") == b"etag 1"
    assert journal.put_private("input", b"etag 2") == b"etag 1"
    assert journal.private("input") == b"etag 1"
    with pytest.raises(SpecError, match="cannot name a private record"):
        journal.put_private("../x", b"")
    published = Journal(memory, "week-1", prefix="", private=False)
    with pytest.raises(DataError, match="holds nothing private"):
        published.put_private("input", b"etag 1")
    assert memory.list("week-1/") == []


@pytest.mark.parametrize("release_id", ["", ".", "..", "a/b", "a b", "é", "x" * 129])
def test_release_ids_cannot_leave_the_journal(memory: FsspecStore, release_id: str) -> None:
    with pytest.raises(SpecError, match="release id"):
        Journal(memory, release_id)


@pytest.mark.parametrize("step", [-1, 10_000])
def test_steps_have_a_range(journal: Journal, step: int) -> None:
    with pytest.raises(SpecError, match=f"got {step}"):
        journal.put_query(step, "q", b"")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
)


@settings(max_examples=40)
@given(st.dictionaries(st.text("ab"), TREES), st.dictionaries(st.text("ab"), TREES))
def test_differences_are_empty_only_between_equal_trees(old: dict, new: dict) -> None:  # type: ignore[type-arg]
    assert not differences(old, old)
    # A key with the value None is the same as an absent key.
    assert bool(differences(old, new)) or _without_none(old) == _without_none(new)


def _without_none(tree: object) -> object:
    if not isinstance(tree, dict):
        return tree
    return {key: _without_none(value) for key, value in tree.items() if value is not None}


def test_plain_is_what_json_reads_back() -> None:
    assert plain({"a": (1, 2)}) == {"a": [1, 2]}
