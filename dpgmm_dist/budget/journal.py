"""The journal of one release: its queries and its noisy answers, each written once.

Noise must be drawn only once for each query, because two noisy answers to one query reveal more
than one. So a complete query is stored before it runs, and a noisy answer before it is used. Both
are create-only, and the driver continues with the *stored* bytes, never with its own. A restarted
driver, or a second one with the same release id, reads the stored answers and draws only the
missing ones.

Objects of a release, under ``journal/<release id>/``:

    meta.json                     specification, mechanism, library version
    query-0000.bin, answer-0000.bin, query-0001.bin, ...
    private-<name>.bin            identifiers of the input; only in private storage
    finished.json                 where the release is

A ``.bin`` object is a sealed line of JSON followed by the content. The line has the step, the name,
and the size and SHA-256 of the content; that of an answer also has the SHA-256 of its query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from dpgmm_dist.budget.differences import differences, plain
from dpgmm_dist.budget.records import check_release_id
from dpgmm_dist.budget.sealed import SCHEMA, now, seal, sha256_hex, stamp, unseal
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.create_only import confirm_create_only, is_complete
from dpgmm_dist.storage.store import Store, create_or_read, open_store, read_or_none

_STEP = re.compile(r"(query|answer)-(\d{4})\.bin")
_PRIVATE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_MOST_STEPS = 10_000
_MOST_DIFFERENCES = 10

Kind = Literal["query", "answer", "private"]


class Journal:
    """The journal of ``release_id`` in a create-only store.

    Parameters
    ----------
    store : Store
        The store of the ledger, or the directory ``_journal`` of the output if there is no ledger.
    release_id : str
        See `records.check_release_id`.
    prefix : str
        Where the journals are in the store: "journal/" beside a ledger, "" in an output.
    private : bool
        Whether the store is private storage, which may hold identifiers of the input. An output is
        not: it gets published.
    """

    def __init__(
        self, store: Store, release_id: str, *, prefix: str = "journal/", private: bool = True
    ) -> None:
        self._store = store
        self.release_id = check_release_id(release_id)
        self.private_storage = private
        self._prefix = f"{prefix}{release_id}/"

    @classmethod
    def locate(
        cls,
        release_id: str,
        output_url: str,
        ledger_url: str | None = None,
        *,
        output_options: Mapping[str, Any] | None = None,
        ledger_options: Mapping[str, Any] | None = None,
    ) -> Journal:
        """Return the journal of a release: beside its ledger, or in its output without a ledger."""
        if ledger_url is not None:
            return cls(open_store(ledger_url, ledger_options), release_id)
        store = open_store(f"{output_url.rstrip('/')}/_journal", output_options)
        return cls(store, release_id, prefix="", private=False)

    @property
    def url(self) -> str:
        """Where the journal is, without credentials."""
        return f"{self._store.url}/{self._prefix.rstrip('/')}"

    def begin(
        self, spec_digest: str, public_spec: Mapping[str, Any], mechanism: str
    ) -> dict[str, Any]:
        """Bind the release id to a specification; return the stored meta record.

        Parameters
        ----------
        spec_digest : str
            Digest of the specification. Two runs with the same id and digest are one release.
        public_spec : mapping
            The public part of the specification, as JSON values, to show how another one differs.
        mechanism : str
            The noise, for example "discrete_gaussian". Another mechanism is refused.

        Raises
        ------
        SpecError
            The id belongs to another specification or mechanism; the message shows the differences.
        DataError
            The store cannot be written, or lets an object be created twice.
        """
        fields = {
            **self._head("journal"),
            "spec_digest": spec_digest,
            "spec": plain(public_spec),
            "mechanism": mechanism,
            "created": now(),
            **stamp(),
        }
        name = self._prefix + "meta.json"
        stored = create_or_read(self._store, name, seal(fields))
        meta = self._check_meta(stored)
        self._refuse_other(meta, fields)
        confirm_create_only(self._store, name, stored)
        return meta

    def meta(self) -> dict[str, Any] | None:
        """Return the meta record that `begin` stored, or None."""
        data = read_or_none(self._store, self._prefix + "meta.json")
        return None if data is None else self._check_meta(data)

    def check_same(
        self, spec_digest: str, public_spec: Mapping[str, Any], mechanism: str
    ) -> dict[str, Any] | None:
        """Return the meta record, or None; raise SpecError if it differs from the arguments."""
        meta = self.meta()
        if meta is not None:
            wanted = {"spec_digest": spec_digest, "mechanism": mechanism}
            self._refuse_other(meta, {**wanted, "spec": plain(public_spec)})
        return meta

    def put_query(self, step: int, name: str, data: bytes) -> bytes:
        """Store the query of a step unless one is stored; return the stored one, to execute."""
        return self._put("query", step, name, data)

    def put_answer(self, step: int, name: str, data: bytes) -> bytes:
        """Store the noisy answer of a step unless one is stored; return the stored one, to use.

        This is always the answer that was stored first, whichever driver drew it.
        """
        return self._put("answer", step, name, data)

    def query(self, step: int) -> bytes | None:
        """Return the stored query of a step, or None."""
        return self._get("query", step)

    def answer(self, step: int) -> bytes | None:
        """Return the stored answer of a step, or None. Noise may be drawn only if it is None."""
        return self._get("answer", step)

    def steps(self) -> list[int]:
        """Return the numbers of the answered steps.

        Raises
        ------
        DataError
            A record is missing. Steps are written in order, and the query of a step before its
            answer, so every gap is a loss.
        """
        finished = self._finished_record()
        names = [name.removeprefix(self._prefix) for name in self._store.list(self._prefix)]
        matches = [match for match in map(_STEP.fullmatch, names) if match]
        queries = {int(match[2]) for match in matches if match[1] == "query"}
        answers = {int(match[2]) for match in matches if match[1] == "answer"}
        count = max([-1, *answers]) + 1
        if finished is not None:
            count = max(count, int(finished["steps"]))
        asked = max([count - 1, *queries]) + 1
        if not (
            is_complete(self._store, answers, count, partial(self._path, "answer"))
            and is_complete(self._store, queries, asked, partial(self._path, "query"))
        ):
            raise DataError(
                f"The journal {self.url} has lost records (steps are missing), so noise could be"
                " drawn a second time. Restore it from a backup, or use another release id."
            )
        return list(range(count))

    def put_private(self, name: str, data: bytes) -> bytes:
        """Store private bytes, such as the etags of the input; return the stored ones.

        Raises
        ------
        DataError
            The journal is not in private storage.
        """
        if not self.private_storage:
            raise DataError(f"The journal {self.url} is in an output, which holds nothing private.")
        return self._put("private", None, _check_private_name(name), data)

    def private(self, name: str) -> bytes | None:
        """Return stored private bytes, or None."""
        return self._get("private", _check_private_name(name))

    def stored(self) -> dict[str, Any]:
        """Return the number of answered queries, and a digest of them and of their answers.

        Raises
        ------
        DataError
            A record is missing or damaged.
        """
        steps = self.steps()
        lines = []
        for step in steps:
            query, answer = self.query(step), self.answer(step)
            if query is None or answer is None:
                raise DataError(f"The journal {self.url} has lost step {step}.")
            lines.append(f"{step} {sha256_hex(query)} {sha256_hex(answer)}\n")
        return {"queries": len(steps), "sha256": sha256_hex("".join(lines).encode())}

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Record the public facts of the complete release; return those that are stored."""
        fields = {
            **self._head("finished"),
            "release": plain(facts),
            "steps": len(self.steps()),
            "stored": self.stored(),
            "time": now(),
            **stamp(),
        }
        stored = create_or_read(self._store, self._prefix + "finished.json", seal(fields))
        return dict(self._check_finished(stored)["release"])

    def finish_begun(self, facts: Mapping[str, Any]) -> None:
        """Do what `finish` does for a driver that ended before it could.

        Without a journal that was begun, nothing is written: the ledger may have moved.
        """
        if self.finished() is None and self.meta() is not None:
            self.finish(facts)

    def finished(self) -> dict[str, Any] | None:
        """Return the facts that `finish` stored first, or None."""
        record = self._finished_record()
        return None if record is None else dict(record["release"])

    def finished_stored(self) -> dict[str, Any] | None:
        """Return what `stored` was when the release was finished; None if that is not known."""
        record = self._finished_record()
        return None if record is None else record.get("stored")

    def _finished_record(self) -> dict[str, Any] | None:
        data = read_or_none(self._store, self._prefix + "finished.json")
        return None if data is None else self._check_finished(data)

    def _put(self, kind: Kind, step: int | None, name: str, data: bytes) -> bytes:
        answers = self._digest_of_query(step) if kind == "answer" else None
        key: int | str = name if step is None else step
        header = {
            **self._head(kind),
            "step": step,
            "name": name,
            "size": len(data),
            "sha256": sha256_hex(data),
            "answers": answers,
            **stamp(),
        }
        path = self._path(kind, key)
        stored = create_or_read(self._store, path, seal(header) + data)
        stored_header, content = self._open(kind, key, stored)
        if stored_header["name"] != name:
            raise DataError(
                f"{self._store.url}/{path} is for step {stored_header['name']!r}, but this run"
                f" expects {name!r} there: another version of dpgmm-dist began the release. Use"
                " that version, or another release id."
            )
        return content

    def _get(self, kind: Kind, key: int | str) -> bytes | None:
        data = read_or_none(self._store, self._path(kind, key))
        return None if data is None else self._open(kind, key, data)[1]

    def _open(self, kind: Kind, key: int | str, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the header and the content of an object, and check both."""
        where = f"{self._store.url}/{self._path(kind, key)}"
        line, newline, content = data.partition(b"\n")
        header = self._check_head(unseal(line + newline, where), kind, where)
        stored_key = header.get("name") if kind == "private" else header.get("step")
        intact = (header.get("size"), header.get("sha256")) == (len(content), sha256_hex(content))
        if stored_key != key or not intact:
            raise DataError(
                f"{where} is corrupt, or was moved there. Restore it from a backup. Do not delete"
                " it: noise could be drawn a second time for its step."
            )
        if kind == "answer" and header.get("answers") != self._digest_of_query(int(key)):
            raise DataError(
                f"{where} answers a query that differs from the stored one. Restore both from a"
                " backup."
            )
        return header, content

    def _digest_of_query(self, step: int | None) -> str:
        query = self._get("query", -1 if step is None else step)
        if query is None:
            raise DataError(f"The journal {self.url} has no query for the answer of step {step}.")
        return sha256_hex(query)

    def _path(self, kind: Kind, key: int | str) -> str:
        if isinstance(key, str):
            return f"{self._prefix}{kind}-{key}.bin"
        if not 0 <= key < _MOST_STEPS:
            raise SpecError(f"A step must be from 0 to {_MOST_STEPS - 1}, got {key}.")
        return f"{self._prefix}{kind}-{key:04d}.bin"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"schema": SCHEMA, "kind": kind, "release_id": self.release_id}

    def _check_head(self, fields: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
        if any(fields.get(key) != value for key, value in self._head(kind).items()):
            raise DataError(
                f"{where} is not the {kind} record of release {self.release_id!r} in schema"
                f" {SCHEMA}: it was moved, or written by another version of dpgmm-dist."
            )
        return fields

    def _check_meta(self, data: bytes) -> dict[str, Any]:
        where = f"{self.url}/meta.json"
        return self._check_head(unseal(data, where), "journal", where)

    def _check_finished(self, data: bytes) -> dict[str, Any]:
        where = f"{self.url}/finished.json"
        return self._check_head(unseal(data, where), "finished", where)

    def _refuse_other(self, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Raise SpecError if the release id belongs to another specification or mechanism."""
        if all(stored[key] == wanted[key] for key in ("spec_digest", "mechanism")):
            return
        keys = ("spec", "mechanism")
        changes = differences({k: stored[k] for k in keys}, {k: wanted[k] for k in keys})
        shown = "; ".join(changes[:_MOST_DIFFERENCES]) or "only their digests"
        raise SpecError(
            f"The release id {self.release_id!r} belongs to another specification. What differs:"
            f" {shown}. Use another release id for this one."
        )


def _check_private_name(name: str) -> str:
    if not _PRIVATE_NAME.fullmatch(name):
        raise SpecError(f"{name!r} cannot name a private record: use a-z, 0-9 and '-'.")
    return name
