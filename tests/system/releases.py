"""What the system tests share: rows as Parquet in many shapes, specifications, the command."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from .command_server import run_command

LABELS = (3, 5)
WIDTH = 3


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dpgmm_dist.cli", *map(str, arguments)]


def environment(more: Mapping[str, object] | None = None) -> dict[str, str]:
    """The tests' own, without the user's settings and with what they ask for."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DPGMM_", "DASK_"))}
    return kept | {k: str(v) for k, v in (more or {}).items()}


def dpgmm(
    *arguments: object, env: Mapping[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and return what it printed."""
    return run_command([str(argument) for argument in arguments], environment(env))


def done(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command; a failure is a failure of the test, with what was printed."""
    result = dpgmm(*arguments, **options)
    assert result.returncode == 0, result.stderr
    return result


def write_spec(path: Path, data: Path, **sections: Mapping[str, Any]) -> Path:
    """A specification of labelled rows of three features, with sections changed."""
    document: dict[str, dict[str, Any]] = {
        "dataset": {"path": str(data), "features": "x", "width": WIDTH},
        "bounds": {"norm": 1.5},
        "privacy": {"epsilon": 1.0, "delta": 1e-6},
        "model": {"components": 1},
    }
    for name, changes in sections.items():
        document.setdefault(name, {}).update(changes)
    path.write_text(yaml.safe_dump(document))
    return path


def labelled(labels: Sequence[int | str] = LABELS) -> dict[str, Any]:
    return {"label": "y", "labels": list(labels)}


@dataclass
class Rows:
    """Rows as Python sees them: what is written is decided by :meth:`write`."""

    x: list[Any]
    """Lists of float32 values, or anything that stands in for a row."""
    y: list[Any]

    @classmethod
    def make(cls, n: int = 2000, seed: int = 0) -> Rows:
        rng = np.random.default_rng(seed)
        y = rng.integers(0, len(LABELS), n)
        x = rng.normal(size=(n, WIDTH)) * 0.25 + y[:, None] * 0.4
        x[:5] *= 1e4  # some rows are far out of bounds
        x = x.astype(np.float32)
        return cls(x.tolist(), [LABELS[i] for i in y])

    def shuffled(self, seed: int = 1) -> Rows:
        order = np.random.default_rng(seed).permutation(len(self.x))
        return Rows([self.x[i] for i in order], [self.y[i] for i in order])

    def with_invalid(self, every: int = 9) -> Rows:
        """The same rows with rows among them that contribute nothing."""
        nan, inf = float("nan"), float("inf")
        bad: list[tuple[Any, Any]] = [
            ([nan, 0.1, 0.1], LABELS[0]),
            ([0.1, inf, 0.1], LABELS[1]),
            ([0.1, 0.1, -inf], LABELS[0]),
            (None, LABELS[1]),
            ([0.1, None, 0.1], LABELS[0]),
            ([0.1, 0.2], LABELS[0]),
            ([0.1, 0.2, 0.3, 0.4], LABELS[0]),
            ([], LABELS[1]),
            ([0.1, 0.2, 0.3], None),
            ([0.1, 0.2, 0.3], 4),
            ([0.1, 0.2, 0.3], -1),
        ]
        x, y = [], []
        for index, row in enumerate(zip(self.x, self.y, strict=True)):
            added = [] if index % every else [bad[index // every % len(bad)]]
            for features, label in [*added, row]:
                x.append(features)
                y.append(label)
        return Rows(x, y)

    def write(
        self,
        folder: Path,
        files: int = 1,
        row_group: int = 100_000,
        kind: pa.DataType | None = None,
        hive: bool = False,
    ) -> Path:
        """Parquet files below ``folder``, of about equal size; hive makes the label a directory."""
        kind = kind or pa.list_(pa.float32())
        groups: dict[str, list[int]] = {"": list(range(len(self.x)))}
        if hive:
            groups = {f"y={y}": [i for i, z in enumerate(self.y) if z == y] for y in set(self.y)}
        for name, rows in groups.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for part in range(files):
                of_part = rows[part * len(rows) // files : (part + 1) * len(rows) // files]
                columns = {"x": pa.array([self.x[i] for i in of_part], kind)}
                if not hive:
                    columns["y"] = pa.array([self.y[i] for i in of_part])
                pq.write_table(
                    pa.table(columns),
                    folder / name / f"part-{part:03d}.parquet",
                    row_group_size=row_group,
                )
        return folder


def digests(release: Path, *names: str) -> list[str]:
    """SHA-256 of files of a release; of its parameters by default."""
    names = names or ("mixture.parquet", "transform.parquet")
    return [hashlib.sha256((release / name).read_bytes()).hexdigest() for name in names]


def receipt(release: Path) -> dict[str, Any]:
    return json.loads((release / "receipt.json").read_text())
