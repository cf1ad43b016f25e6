"""A scheduled release: release and verify, and try again after a failure that may pass.

    python jobs/weekly_flow.py --date 2026-11-25 [--spec jobs/weekly.yaml] [-- OPTIONS OF RELEASE]

Every attempt is the same command and so the same release: it is charged once, however often it
runs. The flow tries again after failures of data, storage or the cluster (exit codes 4 and 5) and
after a killed driver. A wrong specification (2) or a refusal by the ledger (3) would only occur
again, so the flow ends with that code.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

FINAL = {0, 2, 3}
"""Exit codes after which the flow does not try again."""


def dpgmm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a dpgmm command and capture its results; its progress and errors go to our stderr."""
    command = [sys.executable, "-m", "dpgmm_dist.cli", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


def attempt(arguments: list[str], attempts: int, wait: float) -> subprocess.CompletedProcess[str]:
    """Run the release until its exit code is final, at most ``attempts`` times.

    ``wait`` is the number of seconds between attempts.
    """
    for number in range(1, attempts + 1):
        done = dpgmm("release", *arguments, "--json")
        if done.returncode in FINAL or number == attempts:
            break
        print(
            f"attempt {number} ended with exit code {done.returncode}; trying again",
            file=sys.stderr,
        )
        time.sleep(wait)
    return done


def main() -> int:
    """Release, verify, print the release; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--date", required=True, help="any day of the period, such as 2026-11-25")
    parser.add_argument("--spec", default="jobs/weekly.yaml")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds between attempts")
    parser.add_argument("more", nargs="*", help="options of dpgmm release, after --")
    options = parser.parse_args()

    done = attempt(
        [options.spec, "--date", options.date, *options.more], options.attempts, options.wait
    )
    if done.returncode:
        return done.returncode if done.returncode > 0 else 1
    release = json.loads(done.stdout)
    verified = dpgmm("verify", release["release"], "--json")
    print(json.dumps({key: release[key] for key in ("status", "release_id", "release")}))
    return verified.returncode


if __name__ == "__main__":
    sys.exit(main())
