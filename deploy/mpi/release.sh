#!/usr/bin/env bash
# Runs a release on the processes of one mpirun, and ends with its exit code.
#   deploy/mpi/release.sh PROCESSES SPEC RELEASE_ID [more arguments of dpgmm release]
# PROCESSES is the number of workers plus two, for the scheduler and the driver. Run the same command
# again to resume. MPIRUN_FLAGS has more options of mpirun (--hostfile F, ...).
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
processes=$1
spec=$2
release_id=$3
shift 3
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# shellcheck disable=SC2086
exec mpirun ${MPIRUN_FLAGS:-} -n "$processes" "${DPGMM:-dpgmm}" release "$spec" \
  --release-id "$release_id" --set cluster.kind=mpi "$@"
