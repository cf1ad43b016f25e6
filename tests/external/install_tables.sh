#!/usr/bin/env bash
# Installs the libraries that write the tables of Delta Lake and Iceberg, pandas, and OpenTelemetry's SDK, into
# the environment of the tests. `make test-external` runs this. A second run does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly python="${PYTHON:-.venv/bin/python}"
# The lock file is complete, so pip need not resolve, and changes none of the other packages.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps -r tests/external/tables.lock
