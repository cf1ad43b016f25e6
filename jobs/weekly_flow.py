"""A scheduled release from beginning to end: release, verify; tried again where that helps.

    python jobs/weekly_flow.py --date 2026-11-25 [--spec jobs/weekly.yaml] [-- OPTIONS OF RELEASE]

Every attempt is the same command, so it is the same release: charged once, however often it runs.
Data, storage and cluster failures (exit codes 4 and 5) and killed drivers are tried again. A wrong
specification (2) or a refusal of the ledger (3) would only be repeated: the flow ends with that
code.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

FINAL = {0, 2, 3}


def dpgmm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; its results are read, its progress and errors go where ours go."""
    command = [sys.executable, "-m", "dpgmm_dist.cli", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


def attempt(arguments: list[str], attempts: int, wait: float) -> subprocess.CompletedProcess[str]:
    """The release, at most so many times."""
    for number in range(1, attempts + 1):
        done = dpgmm("release", *arguments, "--json")
        if done.returncode in FINAL or number == attempts:
            break
        print(f"attempt {number} ended with code {done.returncode}; again", file=sys.stderr)
        time.sleep(wait)
    return done


def main() -> int:
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
