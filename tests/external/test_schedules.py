"""The schedules, checked by Airflow, cron and systemd, and by the schemas of Kubernetes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpgmm_dist.artifact.verify import verify_release
from dpgmm_dist.budget.ledger import Ledger
from dpgmm_dist.spec.release_spec import ReleaseSpec

from ..system.releases import Rows, write_spec
from .emulators import ROOT

DEPLOY = ROOT / "deploy"
CRONJOB = DEPLOY / "kubernetes" / "cronjob.yaml"
INSTALL = "run tests/external/install_schedules.sh (make test-external does)"
WEEK = "2026-W48"


def program(name: str) -> str:
    """Return a program of build/external or of the system; skip the test if it is missing."""
    path = ROOT / "build" / "external" / name
    command = str(path) if path.exists() else shutil.which(name)
    if command is None:
        pytest.skip(f"{name} is not installed: {INSTALL}")
    return command


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
        **options,
    )


def test_the_crontab_is_valid() -> None:
    crontab = program("crontab")
    path = str(DEPLOY / "cron" / "dpgmm-weekly")
    checked = run(crontab, "-n", path)
    if "invalid option" in checked.stdout:
        checked = run(crontab, "-T", path)
    assert checked.returncode == 0, checked.stdout


def test_a_mistake_in_the_crontab_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "crontab"
    wrong.write_text((DEPLOY / "cron" / "dpgmm-weekly").read_text().replace("30 2", "30 25"))
    assert run(program("crontab"), "-n", str(wrong)).returncode != 0


def test_the_systemd_units_are_valid(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    units = sorted((DEPLOY / "systemd").iterdir())
    checked = run(analyze, "verify", *map(str, units))
    assert (checked.returncode, checked.stdout) == (0, "")
    calendar = re.search(r"OnCalendar=(.+)", units[1].read_text())
    assert calendar is not None
    assert run(analyze, "calendar", calendar[1]).returncode == 0


def test_a_mistake_in_a_unit_is_found(tmp_path: Path) -> None:
    service = (DEPLOY / "systemd" / "dpgmm-weekly.service").read_text()
    wrong = tmp_path / "dpgmm-weekly.service"
    wrong.write_text(service.replace("Restart=on-failure", "Restart=always"))
    checked = run(program("systemd-analyze"), "verify", str(wrong))
    assert checked.returncode != 0 or "Restart" in checked.stdout


@pytest.fixture
def airflow(tmp_path: Path) -> Any:
    """Return a function that runs the DAG for a date, with a command in place of dpgmm."""
    command = program("airflow/bin/airflow")
    data = Rows.make(200).write(tmp_path / "data")
    Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-6)
    spec = write_spec(
        tmp_path / "weekly.yaml",
        data,
        privacy={"ledger": str(tmp_path / "ledger")},
        output={
            "path": str(tmp_path / "releases" / "{date:%G-W%V}"),
            "release_id": "weekly-{date:%G-W%V}",
        },
    )
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DEPLOY / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "DPGMM_SPEC": str(spec),
        "DPGMM_RETRY_SECONDS": "1",
    }
    assert run(command, "db", "migrate", env=environment).returncode == 0

    def test_run(dpgmm: Path, date: str = "2026-11-25") -> str:
        done = run(
            *(command, "dags", "test", "dpgmm_weekly", date),
            env=environment | {"DPGMM_COMMAND": str(dpgmm)},
        )
        return done.stdout

    return test_run


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_dag_releases_a_week_once_if_its_first_driver_is_killed(
    airflow: Any, tmp_path: Path
) -> None:
    """The first driver is killed after the charge. Airflow's second attempt resumes the release."""
    charged = tmp_path / "ledger" / "ledger" / "00000001.json"
    dying = script(
        tmp_path / "dpgmm",
        f'dpgmm() {{ exec "{sys.executable}" -m dpgmm_dist.cli "$@"; }}\n'
        f'[ -e "{charged}" ] && dpgmm "$@"\n'
        '(dpgmm "$@") & driver=$!\n'
        f'while kill -0 $driver && [ ! -e "{charged}" ]; do sleep 0.01; done\n'
        f"kill -9 $driver; wait $driver; code=$?; echo $code >> {tmp_path}/deaths; exit $code",
    )
    shown = airflow(dying)
    assert (tmp_path / "deaths").read_text() == "137\n", shown
    assert "new_state=up_for_retry" in shown
    assert verify_release(str(tmp_path / "releases" / WEEK)).exit_code == 0, shown
    # Another day of the week is the same release.
    assert "already released" in airflow(dying, "2026-11-27")
    assert Ledger.open(str(tmp_path / "ledger")).verify() == 1


def manifests() -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(CRONJOB.read_text())}


def checked(text: str) -> subprocess.CompletedProcess[str]:
    python = program("kubernetes/bin/python")
    return run(python, str(Path(__file__).parent / "manifests.py"), input=text)


def test_the_cronjob_is_valid() -> None:
    result = checked(CRONJOB.read_text())
    assert result.returncode == 0, result.stdout
    cronjob = manifests()["CronJob"]["spec"]
    assert cronjob["concurrencyPolicy"] == "Forbid"
    assert cronjob["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert cronjob["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("backoffLimit: 0", "backofLimit: 0"), ("schedule: ", "cron: "), ("verbs: [", "verbs: [[")],
)
def test_a_mistake_in_the_cronjob_is_found(right: str, wrong: str) -> None:
    assert checked(CRONJOB.read_text().replace(right, wrong)).returncode != 0


def test_a_mistake_in_the_daskjob_is_found() -> None:
    daskjob = manifests()["ConfigMap"]["data"]["daskjob.yaml"]
    assert checked(daskjob).returncode == 0
    for right, wrong in (("worker:", "workers:"), ("containers:", "container:")):
        assert checked(daskjob.replace(right, wrong, 1)).returncode != 0


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("", ["get", "create"]),
        ("dpgmm-weekly-2026-w48 Running", ["get"]),
        ("dpgmm-weekly-2026-w48 ", ["get"]),
        ("dpgmm-weekly-2026-w48 Failed", ["get", "delete", "create"]),
        ("dpgmm-weekly-2026-w48 Successful", ["get", "delete", "create"]),
    ],
)
def test_the_cronjob_starts_one_daskjob_a_week(
    state: str, verbs: list[str], tmp_path: Path
) -> None:
    """Run its script with a stub of kubectl that records its calls."""
    data = manifests()["ConfigMap"]["data"]
    (tmp_path / "daskjob.yaml").write_text(data["daskjob.yaml"])
    start = data["start.sh"].replace("/job/", f"{tmp_path}/")
    (tmp_path / "bin").mkdir()
    script(
        tmp_path / "bin" / "kubectl",
        f'echo "$*" >> {tmp_path}/calls\n'
        f'[ "$1" != get ] || printf "%s" "{state}"\n'
        f'[ "$1" != create ] || cat > {tmp_path}/created.yaml',
    )
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = run("sh", "-c", start, env=os.environ | {"PATH": path, "DATE": "2026-11-25"})
    assert done.returncode == 0, done.stdout
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == verbs
    assert all("dpgmm-weekly-2026-w48" in call for call in calls if "create" not in call)
    if "create" in verbs:
        created = (tmp_path / "created.yaml").read_text()
        assert "@" not in created
        daskjob = yaml.safe_load(created)
        assert daskjob["metadata"]["name"] == "dpgmm-weekly-2026-w48"
        assert "--date 2026-11-25" in daskjob["spec"]["job"]["spec"]["containers"][0]["args"][2]
        assert checked(created).returncode == 0


def test_the_specification_in_the_cronjob_is_valid() -> None:
    text = manifests()["ConfigMap"]["data"]["weekly.yaml"]
    spec = ReleaseSpec.from_yaml(text, environ={}, date="2026-11-25")
    assert spec.output.release_id == f"weekly-{WEEK}"
