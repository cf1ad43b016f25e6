#!/usr/bin/env bash
# Installs the programs that check the schedules of deploy/:
#   Airflow                                  into build/external/airflow
#   schemas of Kubernetes and DaskJob        into build/external/kubernetes
#   cron and systemd (crontab, systemd-analyze), as root on Debian
# `make test-external` runs this. A second run does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly locks=tests/external
readonly target=build/external
readonly python="${PYTHON:-.venv/bin/python}"
mkdir -p "$target"

for name in airflow kubernetes; do
  if [ "$target/$name/installed" -nt "$locks/$name.lock" ]; then continue; fi
  "$python" -m venv --clear "$target/$name"
  # The lock file is complete, so pip need not resolve Airflow's many pins.
  "$target/$name/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    -r "$locks/$name.lock"
  touch "$target/$name/installed"
done

if ! { command -v crontab && command -v systemd-analyze; } >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends cron systemd; } >&2 || true
  else
    echo "install_schedules: crontab or systemd-analyze is missing: their tests are skipped" >&2
  fi
fi
