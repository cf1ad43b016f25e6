#!/usr/bin/env bash
# Installs Slurm and MPI from Debian's packages, for tests/external/test_slurm.py and test_mpi.py.
# Needs root and apt-get. Without them those tests are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly python="${PYTHON:-.venv/bin/python}"
if ! command -v slurmctld >/dev/null || ! command -v mpirun >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install_slurm: root or apt-get is missing: the tests of Slurm and MPI are skipped" >&2
    exit 0
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >&2
  apt-get -qq install -y --no-install-recommends \
    slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins openmpi-bin >/dev/null
fi
if ! "$python" -c 'import dask_mpi, mpi4py' 2>/dev/null; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps \
    dask-mpi==2026.3.0 mpi4py==4.1.2
fi
