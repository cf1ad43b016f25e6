"""What to do with files that are not Parquet: the line that converts one."""

from __future__ import annotations

_FEATHER = ("an Arrow (Feather) file", "pyarrow.feather", "read_table('{}')")
_CSV = ("a CSV file", "pyarrow.csv", "read_csv('{}')")
_TAB = "parse_options=f.ParseOptions(delimiter=chr(9))"
_JSON = ("a JSON file", "pyarrow.json", "read_json('{}')")
_READ = {
    ".arrow": _FEATHER,
    ".feather": _FEATHER,
    ".ipc": _FEATHER,
    ".csv": _CSV,
    ".csv.gz": _CSV,
    ".tsv": ("a TSV file", "pyarrow.csv", f"read_csv('{{}}', {_TAB})"),
    ".json": _JSON,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".orc": ("an ORC file", "pyarrow.orc", "read_table('{}')"),
}
"""By the end of a file's name: what it is, the module of pyarrow that reads it, and the call."""


def conversion(path: str) -> str | None:
    """What a file of another format is and how to convert it; None if its name does not say."""
    name = path.rpartition("/")[2]
    suffix = next((suffix for suffix in _READ if name.lower().endswith(suffix)), None)
    if suffix is None:
        return None
    kind, module, call = _READ[suffix]
    target = f"{path[: -len(suffix)]}.parquet"
    return (
        f'{name} is {kind}; convert it: python -c "import {module} as f, pyarrow.parquet as p; '
        f"p.write_table(f.{call.format(path)}, '{target}')\""
    )
