"""Records of runs, in the store of a ledger: what ran, where, and what it cost. PRIVATE storage.

Each run of a release adds ``runs/<time>-<release id>-<random>.json``. A release that is resumed has
several. No decision depends on these records, so they have no digest and may be deleted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dpgmm_dist import json_bytes
from dpgmm_dist.budget.records import check_release_id
from dpgmm_dist.storage.store import Store

_FOLDER = "runs/"


def keep_run(store: Store, record: Mapping[str, Any]) -> None:
    """Write the record of a run, which has a ``release_id``.

    Raises
    ------
    DataError
        The store fails.
    """
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{moment}-{check_release_id(record['release_id'])}-{secrets.token_hex(4)}.json"
    store.create(_FOLDER + name, (json.dumps(record, indent=1) + "\n").encode())


def runs(store: Store, last: int | None = None) -> list[dict[str, Any]]:
    """Return the records of the last runs, oldest first, each with its ``url``.

    A record that cannot be read as one has only ``url`` and ``problem``.

    Raises
    ------
    DataError
        The store fails.
    """
    names = [name for name in store.list(_FOLDER) if name.endswith(".json")]
    return [_read(store, name) for name in names[-(last or 0) :]]


def _read(store: Store, name: str) -> dict[str, Any]:
    url = f"{store.url}/{name}"
    try:
        record = json_bytes.parse(store.read(name))
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("passes"), list):
        return {"url": url, "problem": "damaged"}
    return {**record, "url": url}
