"""An Airflow DAG: a weekly release whose tasks can safely be retried, cleared and backfilled.

The release id comes from the week of the logical date of the run (``output.release_id`` in the
specification). So a second attempt is the same release: it resumes, and is charged once. Copy this
file to the DAG folder and set these environment variables:

    DPGMM_COMMAND        the path of the ``dpgmm`` command
    DPGMM_SPEC           the path of the specification
    DPGMM_RETRY_SECONDS  the wait before another attempt
"""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timedelta

from airflow.exceptions import AirflowFailException
from airflow.sdk import dag, task

COMMAND = os.environ.get("DPGMM_COMMAND", "/opt/dpgmm/.venv/bin/dpgmm")
SPEC = os.environ.get("DPGMM_SPEC", "/opt/dpgmm/jobs/weekly.yaml")
WAIT = timedelta(seconds=float(os.environ.get("DPGMM_RETRY_SECONDS", "600")))
FINAL_FAILURES = {2: "the specification is wrong", 3: "the ledger refuses"}


@dag(
    dag_id="dpgmm_weekly",
    schedule="30 2 * * 1",
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": WAIT},
)
def dpgmm_weekly() -> None:
    """Release the week, then verify the release."""

    @task
    def release(ds: str | None = None) -> str:
        """Release the week that contains the logical date; return where the release is."""
        done = _run("release", SPEC, "--date", str(ds))
        return next(
            line.partition(": ")[2] for line in done.splitlines() if line.startswith("release: ")
        )

    @task
    def verify(url: str) -> None:
        """Recompute the guarantee from the release alone."""
        _run("verify", url)

    verify(release())


def _run(*arguments: str) -> str:
    done = subprocess.run([COMMAND, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode in FINAL_FAILURES:
        raise AirflowFailException(FINAL_FAILURES[done.returncode])
    done.check_returncode()
    return done.stdout


dpgmm_weekly()
