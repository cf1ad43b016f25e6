#!/usr/bin/env bash
# Submits a release to Slurm, waits for it, and ends with its exit code.
#   deploy/slurm/submit.sh SPEC RELEASE_ID [more arguments of dpgmm release]
# Set options of sbatch in the environment (SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT, ...).
# A requeued job (preemption, a dead node, `scontrol requeue`) runs the same command again and resumes:
# nothing is charged or drawn twice.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec sbatch --wait --requeue --job-name="dpgmm-$2" "$here/release.sbatch" "$@"
