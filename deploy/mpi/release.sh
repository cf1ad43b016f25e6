#!/usr/bin/env bash
# A release on the processes of one mpirun; ends with its exit code.
#   deploy/mpi/release.sh PROCESSES SPEC RELEASE_ID [more arguments of dpgmm release]
# PROCESSES is the number of workers and two more: a scheduler and the driver. Run the same command
# again to resume. MPIRUN_FLAGS are added to mpirun's (--hostfile F, ...).
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
