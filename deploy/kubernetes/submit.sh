#!/usr/bin/env bash
# Runs a release as a DaskJob, prints its output, and ends with its exit code.
#   deploy/kubernetes/submit.sh SPEC RELEASE_ID [options of kubectl, such as --namespace N]
# RELEASE_ID may have a-z, 0-9 and -. Run the same command again to resume: nothing is charged or drawn
# twice. KUBECTL=... names another kubectl.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
spec=$1
name=$2
shift 2
flags=("$@")
if ! [[ $name =~ ^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$ ]]; then
  echo "submit.sh: RELEASE_ID is $name: use at most 42 of a-z, 0-9 and -" >&2
  exit 2
fi
kube() { "${KUBECTL:-kubectl}" ${flags[@]+"${flags[@]}"} "$@"; }

kube delete daskjob "$name" --ignore-not-found --wait >&2
kube create secret generic "$name" --from-file=spec.yaml="$spec" --dry-run=client -o yaml |
  kube apply -f - >&2
sed "s/dpgmm-release/$name/g" "${DASKJOB:-$here/daskjob.yaml}" | kube apply -f - >&2

status=""
pod=""
while :; do
  status=$(kube get daskjob "$name" -o 'jsonpath={.status.jobStatus}')
  pod=$(kube get daskjob "$name" -o 'jsonpath={.status.jobRunnerPodName}')
  case $status in Successful | Failed) break ;; esac
  sleep "${POLL_SECONDS:-5}"
done
kube logs "$pod" || true
code=$(kube get pod "$pod" -o 'jsonpath={.status.containerStatuses[0].state.terminated.exitCode}')
kube delete secret "$name" --ignore-not-found >&2
exit "${code:-1}"
