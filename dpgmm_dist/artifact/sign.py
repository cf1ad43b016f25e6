"""Ed25519 signatures of releases: they name the publisher of the manifest, and so of every file.

A signature is of the bytes of release.json, which has the digests of all other files. It is kept
beside them in a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpgmm_dist.artifact.manifest import Manifest
from dpgmm_dist.artifact.schema import MANIFEST, canonical_json, parse_json
from dpgmm_dist.errors import DataError, SpecError
from dpgmm_dist.storage.store import create_or_read, open_store

SIGNATURE = "release.json.sig"
_ALGORITHM = "ed25519"
_ADVICE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


def sign_release(url: str, key_file: Path, storage_options: Mapping[str, Any] | None = None) -> str:
    """Sign the release at a URL; return the public key (hex). A second time changes nothing.

    Parameters
    ----------
    key_file : an Ed25519 private key in PEM, without a password.

    Raises
    ------
    SpecError
        The file holds no such key.
    DataError
        There is no release, or it has a signature of another key.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    store = open_store(url, storage_options)
    manifest = store.read(MANIFEST)
    Manifest.from_bytes(manifest)
    key = _key(key_file, lambda data: load_pem_private_key(data, None), "sign")
    public = _hex_of(key.public_key())
    document = canonical_json(
        {"algorithm": _ALGORITHM, "public_key": public, "signature": key.sign(manifest).hex()}
    )
    if create_or_read(store, SIGNATURE, document) != document:
        raise DataError(f"{store.url}/{SIGNATURE} is of another key: remove it to sign again")
    return public


def signature_problems(
    url: str, key_file: Path, storage_options: Mapping[str, Any] | None = None
) -> list[str]:
    """What is wrong with the signature of a release by the holder of a public key; empty if valid.

    Parameters
    ----------
    key_file : an Ed25519 public key in PEM.

    Raises
    ------
    SpecError
        The file holds no such key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _key(key_file, load_pem_public_key, "verify")
    store = open_store(url, storage_options)
    try:
        found = parse_json(SIGNATURE, store.read(SIGNATURE))
        # The key that is trusted is the one that is given, never the one in the file.
        key.verify(bytes.fromhex(found["signature"]), store.read(MANIFEST))
    except DataError as error:
        return [str(error)]
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return [f"{SIGNATURE} is not a signature of {MANIFEST} by the key in {key_file}"]
    return []


def _key(path: Path, load: Any, method: str) -> Any:
    try:
        key = load(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, TypeError):
        key = None
    if not hasattr(key, method) or "Ed25519" not in type(key).__name__:
        raise SpecError(f"{path} holds no Ed25519 key in PEM to {method} with; {_ADVICE}")
    return key


def _hex_of(public_key: Any) -> str:
    return str(public_key.public_bytes_raw().hex())
