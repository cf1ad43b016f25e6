"""An Airflow DAG: a weekly release whose task may be retried, cleared and backfilled safely.

The id of a release comes from the week of the run's logical date (``output.release_id`` in the
specification), so a second attempt is the same release: it resumes, and is charged once. Copy this
file to the DAG folder. DPGMM_COMMAND is the command in its own environment, DPGMM_SPEC the
specification, DPGMM_RETRY_SECONDS how long to wait before another attempt.
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
NOT_BY_TRYING_AGAIN = {2: "the specification is wrong", 3: "the ledger refuses"}


@dag(
    dag_id="dpgmm_weekly",
    schedule="30 2 * * 1",
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": WAIT},
)
def dpgmm_weekly() -> None:
    """Release the week, then check what was published."""

    @task
    def release(ds: str | None = None) -> str:
        """Run the release of the week that holds the logical date; return where it is."""
        done = _run("release", SPEC, "--date", str(ds))
        return next(
            line.partition(": ")[2] for line in done.splitlines() if line.startswith("release: ")
        )

    @task
    def verify(where: str) -> None:
        """Work the guarantee out anew from the release alone."""
        _run("verify", where)

    verify(release())


def _run(*arguments: str) -> str:
    done = subprocess.run([COMMAND, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode in NOT_BY_TRYING_AGAIN:
        raise AirflowFailException(NOT_BY_TRYING_AGAIN[done.returncode])
    done.check_returncode()
    return done.stdout


dpgmm_weekly()
