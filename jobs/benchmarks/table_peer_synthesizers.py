"""Synthetic rows by another library, run by `table_peers.py` in an environment of that library.

    python table_peer_synthesizers.py NAME SECONDS INPUT.npz OUTPUT.npz

INPUT has the rows as `codes` (n, c), whole numbers below `sizes` (c,), how many `rows` to draw, and
`epsilon`, `delta` and `rho`. OUTPUT gets the drawn `codes`, the most memory in `megabytes` and the
processor `seconds`. After SECONDS of them the system ends the program.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import numpy as np
import pandas as pd


def smartnoise(kind: str, frame: Any, given: Any) -> Any:
    """AIM or MST of smartnoise-synth, for (epsilon, delta)."""
    from snsynth import Synthesizer

    found = Synthesizer.create(kind, epsilon=float(given["epsilon"]), delta=float(given["delta"]))
    found.fit(frame, categorical_columns=list(frame.columns), preprocessor_eps=0.0)
    return found.sample(int(given["rows"])).to_numpy()


def opendp(kind: str, frame: Any, given: Any) -> Any:
    """AIM or MST of OpenDP, for the rho of zero-concentrated privacy."""
    import opendp.prelude as dp
    import polars as pl

    dp.enable_features("contrib", "floating-point")
    context = dp.Context.compositor(
        data=pl.LazyFrame({name: frame[name].to_numpy() for name in frame}),
        privacy_unit=dp.unit_of(contributions=1),
        privacy_loss=dp.loss_of(rho=float(given["rho"])),
        split_evenly_over=1,
    )
    keys = {
        name: list(range(size)) for name, size in zip(frame, given["sizes"].tolist(), strict=True)
    }
    algorithm = {"aim": dp.mbi.AIM, "mst": dp.mbi.MST}[kind]()
    query = context.query().contingency_table(keys=keys, algorithm=algorithm)
    return query.release().synthesize(int(given["rows"])).fill_null(0).to_numpy()


def main(name: str, limit: str, source: str, target: str) -> None:
    """Draw rows and store them."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
    given = np.load(source)
    frame = pd.DataFrame(given["codes"], columns=[f"c{j}" for j in range(len(given["sizes"]))])
    library, kind = name.split("-")
    drawn = {"smartnoise": smartnoise, "opendp": opendp}[library](kind, frame, given)
    used = resource.getrusage(resource.RUSAGE_SELF)
    np.savez(
        target,
        codes=np.asarray(drawn, dtype=np.int64),
        megabytes=used.ru_maxrss / 1024,
        seconds=used.ru_utime + used.ru_stime,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
