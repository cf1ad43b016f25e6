"""release.json, the manifest: it makes a directory a release and has a digest of every file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dpgmm_dist.artifact.schema import (
    AXES,
    MANIFEST,
    OPTIONAL,
    REQUIRED,
    SCHEMA_VERSION,
    canonical_json,
    parse_json,
)
from dpgmm_dist.errors import DataError


@dataclass(frozen=True)
class FileDigest:
    """SHA-256 and size of a file of a release."""

    sha256: str
    """Hex."""
    size: int
    """In bytes."""

    @classmethod
    def of(cls, data: bytes) -> FileDigest:
        """The digest of these bytes."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class StoredQueries:
    """The queries and answers in the journal of a release."""

    queries: int
    """Number of answered queries."""
    sha256: str
    """Hex, of all queries and answers: `dpgmm_dist.budget.journal.Journal.stored`."""


@dataclass(frozen=True)
class Manifest:
    """The contents of release.json."""

    release_id: str
    specification_digest: str
    """SHA-256 (hex) of the specification. It does not depend on the output path."""
    privacy: str
    """"private", or "NOT PRIVATE" for a release made with insecure test noise."""
    library_version: str
    files: Mapping[str, FileDigest]
    stored: StoredQueries | None = None
    """The queries and answers in the journal; None in releases of versions that did not say."""

    @property
    def schema_version(self) -> int:
        """2 where covariances share their axes, which version 1 does not know; otherwise 1."""
        return 2 if AXES in self.files else 1

    def to_bytes(self) -> bytes:
        """The contents of release.json: the same manifest gives the same bytes."""
        return canonical_json(
            {
                "schema_version": self.schema_version,
                "release_id": self.release_id,
                "specification_digest": self.specification_digest,
                "privacy": self.privacy,
                "library_version": self.library_version,
                "files": {
                    name: {"sha256": digest.sha256, "bytes": digest.size}
                    for name, digest in self.files.items()
                },
                **({} if self.stored is None else {"stored": asdict(self.stored)}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read release.json.

        Raises
        ------
        DataError
            When it is damaged, lists files that a release cannot have, or has a newer schema.
        """
        value = parse_json(MANIFEST, data)
        version = value.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise DataError(
                f"the release has schema version {version}, and this library reads versions up to "
                f"{SCHEMA_VERSION}: upgrade dpgmm-dist"
            )
        try:
            manifest = cls(
                release_id=_string(value["release_id"]),
                specification_digest=_string(value["specification_digest"]),
                privacy=_string(value["privacy"]),
                library_version=_string(value["library_version"]),
                files={
                    str(name): FileDigest(_string(entry["sha256"]), int(entry["bytes"]))
                    for name, entry in value["files"].items()
                },
                stored=_stored(value.get("stored")),
            )
            stated = int(value["schema_version"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(
                f"{MANIFEST} lacks a key or has a wrong value: the release is not intact"
            ) from None
        _check_names(manifest.files, stated)
        return manifest


def _stored(value: Any) -> StoredQueries | None:
    if value is None:
        return None
    return StoredQueries(int(value["queries"]), _string(value["sha256"]))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _check_names(files: Mapping[str, FileDigest], version: int) -> None:
    """Accept known names only: a manifest can neither omit a file nor point to another folder."""
    required = (*REQUIRED, AXES) if version > 1 else REQUIRED
    missing = [name for name in required if name not in files]
    unknown = sorted(set(files) - set(required) - set(OPTIONAL))
    if missing or unknown:
        raise DataError(
            f"{MANIFEST} lists the wrong files: missing {missing}, unknown {unknown}; "
            "the release is not intact"
        )
