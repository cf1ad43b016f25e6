#!/usr/bin/env bash
# Installs the object stores that tests/external/ needs, from PyPI and npm only:
#   the clients s3fs, gcsfs and adlfs        into the environment that runs the tests (.venv)
#   moto (S3) and fake-gcs-server (GCS)      into build/external/emulators
#   azurite (Azure Blob Storage)             into build/external/azurite
# `make test-external` runs this. A second run does nothing. Without npm the Azure tests are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly locks=tests/external
readonly target=build/external
readonly python="${PYTHON:-.venv/bin/python}"
readonly azurite=azurite@3.37.0
mkdir -p "$target"

# True if the stamp $1 is missing, or older than one of the other files.
stale() {
  local stamp="$target/$1" file
  shift
  [ -e "$stamp" ] || return 0
  for file in "$@"; do [ "$file" -nt "$stamp" ] && return 0; done
  return 1
}

install() { # into the environment of the interpreter $1
  "$1" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

if stale clients "$locks/clients.lock" requirements.lock || ! "$python" -c 'import s3fs' 2>/dev/null; then
  # Hashes cover what releases run on; the clients, which only tests use, have versions alone.
  install "$python" --require-hashes -r requirements.lock
  install "$python" --no-deps -r "$locks/clients.lock"
  touch "$target/clients"
fi

if stale emulators/installed "$locks/emulators.lock"; then
  "$python" -m venv --clear "$target/emulators"
  install "$target/emulators/bin/python" -r "$locks/emulators.lock"
  # The program in the package lacks the permission to run.
  find "$target/emulators" -name 'fake-gcs-server-*' -type f -exec chmod +x {} +
  touch "$target/emulators/installed"
fi

if stale azurite/installed "$locks/install_emulators.sh"; then
  if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends nodejs npm; } >&2 || true
  fi
  if command -v npm >/dev/null; then
    mkdir -p "$target/azurite"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$target/azurite" "$azurite"
    touch "$target/azurite/installed"
  else
    echo "install_emulators: npm is missing, so the Azure tests are skipped" >&2
  fi
fi
