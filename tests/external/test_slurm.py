"""A Slurm cluster of one node: deploy/slurm submits, workers are jobs, a requeued job resumes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dpgmm_dist.budget.ledger import Ledger

from ..system.releases import Rows, digests, done, environment, labelled, write_spec
from ..system.troubled import Job, ended, trouble
from .emulators import ROOT, free_port

SUBMIT = ROOT / "deploy" / "slurm" / "submit.sh"
_CPUS = 4

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={control}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=cred_expire=5
CryptoType=crypto/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=00:30:00 State=UP
"""


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    for program in ("slurmctld", "slurmd", "sbatch", "munged"):
        if shutil.which(program) is None:
            return f"{program} is not installed: run tests/external/install_slurm.sh"
    return None


@contextmanager
def _daemon(*command: str, **options: Any) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemon = subprocess.Popen(command, **quiet, **options)
    try:
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the commands of Slurm find the cluster."""
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    ports = {"control": free_port(), "node": free_port()}
    conf.write_text(CONF.format(host=host, folder=folder, cpus=_CPUS, **ports))
    env = environment(
        {"SLURM_CONF": conf, "DPGMM": _command(folder), "PYTHONPATH": os.fspath(ROOT)}
    )
    with ExitStack() as stack:
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            Path("/run/munge").mkdir(exist_ok=True)
            shutil.chown("/run/munge", "munge", "munge")
            stack.enter_context(_daemon("munged", "--foreground", user="munge", group="munge"))
        stack.enter_context(_daemon("slurmctld", "-D", "-f", str(conf), env=env))
        stack.enter_context(_daemon("slurmd", "-D", "-f", str(conf), "-N", host, env=env))
        _until(lambda: "idle" in _slurm(env, "sinfo", "-h", "-o", "%t"), "an idle node", 60)
        try:
            yield env
        finally:
            _slurm(env, "scancel", "--user", "root")
            _until(lambda: not _slurm(env, "squeue", "-h"), "an empty queue", 60)


def _command(folder: Path) -> Path:
    command = folder / "dpgmm"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dpgmm_dist.cli "$@"\n')
    command.chmod(0o755)
    return command


def _slurm(env: dict[str, str], *command: str) -> str:
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    ).stdout.strip()


def _until(condition: Any, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)


def _submit(env: dict[str, str], folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [str(SUBMIT), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=env, cwd=folder, text=True, **pipes)


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in folder.glob("dpgmm-*.log"))


def _cluster(folder: Path) -> dict[str, Any]:
    options = {"interface": "lo", "walltime": "00:10:00", "local_directory": str(folder)}
    options["log_directory"] = str(folder)
    return {"kind": "slurm", "workers": 2, "memory": "1GB", "options": options}


def test_workers_are_jobs_and_the_release_is_that_of_a_local_run(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    data = Rows.make().write(tmp_path / "data", files=4, row_group=100)
    noise = ("--insecure-test-noise", 3)
    spec = write_spec(tmp_path / "spec.yaml", data, dataset=labelled(), cluster=_cluster(tmp_path))
    local = ("--workers", 1, "--output", tmp_path / "local")
    done("release", spec, "--release-id", "same", *noise, *local)

    job = _submit(slurm, tmp_path, spec, "same", *noise, "--output", tmp_path / "slurm")
    _until(lambda: _slurm(slurm, "squeue", "-h", "-o", "%j").count("dask-worker"), "workers", 120)
    job.communicate(timeout=240)
    assert job.returncode == 0, _logs(tmp_path)
    assert digests(tmp_path / "local") == digests(tmp_path / "slurm")


@pytest.mark.parametrize("workers", [2, {"minimum": 2, "maximum": 2}], ids=["fixed", "elastic"])
def test_a_worker_job_that_is_cancelled_in_a_pass_is_replaced(
    slurm: dict[str, str], tmp_path: Path, workers: Any
) -> None:
    job = Job.make(tmp_path, **_cluster(tmp_path) | {"workers": workers})
    job.env |= slurm | {"PYTHONPATH": job.env["PYTHONPATH"]}
    file = "part-004.parquet"
    # In the pass after the one with the cancelled job, a worker is kept busy until a new one reads.
    job.order(trouble("scancel", passes=(2,), file=file), trouble("wait", passes=(3,), file=file))

    def new_workers() -> set[int]:
        reads = job.reads()
        before = {process for now, _, process in reads if now < 2}
        return {process for now, _, process in reads if now >= 3} - before

    with job.running() as process:
        _until(lambda: process.poll() is not None or new_workers(), "another worker", 300)
        (job.orders / "go").touch()
        result = ended(process)
    ((_, cancelled), *_) = job.happened()
    assert new_workers() - {cancelled}
    job.require_done(result)
    assert {process for now, name, process in job.reads() if (now, name) == (2, file)} > {cancelled}
    assert cancelled not in {process for now, _, process in job.reads() if now > 2}
    _until(lambda: not _slurm(slurm, "squeue", "-h"), "the workers' jobs to end", 60)


def test_the_exit_code_is_that_of_the_command(slurm: dict[str, str], tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", tmp_path / "nothing")
    job = _submit(slurm, tmp_path, spec, "id", "--output", tmp_path / "out")
    job.communicate(timeout=120)
    assert job.returncode == 4, _logs(tmp_path)
    assert "does not exist" in _logs(tmp_path)


def test_a_requeued_job_resumes_and_is_charged_once(slurm: dict[str, str], tmp_path: Path) -> None:
    data = Rows.make(20_000).write(tmp_path / "data", files=4)
    ledger = Ledger.init(str(tmp_path / "ledger"), 1.0, 1e-6)
    spec = write_spec(
        tmp_path / "spec.yaml",
        data,
        dataset=labelled(),
        privacy={"ledger": str(tmp_path / "ledger")},
        output={"path": str(tmp_path / "out")},
    )
    job = _submit(slurm, tmp_path, spec, "weekly")
    first = tmp_path / "ledger" / "journal" / "weekly" / "answer-0000.bin"
    _until(first.exists, "a first answer", 120)
    number = _slurm(slurm, "squeue", "-h", "-n", "dpgmm-weekly", "-o", "%i")
    answered = first.read_bytes()
    _slurm(slurm, "scontrol", "requeue", number)
    job.communicate(timeout=240)
    assert job.returncode == 0, _logs(tmp_path)
    assert first.read_bytes() == answered
    assert len(Ledger.open(str(tmp_path / "ledger")).show()["charges"]) == 1
    assert ledger.verify() == 1
    done("verify", tmp_path / "out")
