"""Many light workers in one process. A Dask scheduler cannot distinguish them from real ones.

    python jobs/benchmarks/light_workers.py SCHEDULER_FILE WORKERS FILES_PER_TASK

Each worker has its own address and its own connection to the scheduler. It registers, sends
heartbeats, accepts tasks and reports at once that they are done. When it is asked for a result, it
returns one that was made beforehand. It runs no task, fetches no inputs of tasks, and starts no
thread, process or HTTP server. What remains is the cost of a cluster of that size for its
scheduler. The workers use the protocol of the installed version of Dask.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from distributed.comm import connect, listen
from distributed.core import rpc
from distributed.protocol import Serialized, serialize
from distributed.versions import get_versions
from synthetic_files import empty_statistic, footers_of

from dpgmm_dist.engine.cluster import Counted
from dpgmm_dist.usage import Usage

METRICS = {
    "task_counts": {},
    "bandwidth": {"total": 100_000_000, "workers": {}, "types": {}},
    "digests_total_since_heartbeat": {},
    "managed_bytes": 0,
    "spilled_bytes": {"memory": 0, "disk": 0},
    "transfer": {
        "incoming_bytes": 0,
        "incoming_count": 0,
        "incoming_count_total": 0,
        "outgoing_bytes": 0,
        "outgoing_count": 0,
        "outgoing_count_total": 0,
    },
    "event_loop_interval": 0.02,
    "cpu": 0.0,
    "memory": 200 << 20,
    "time": 0.0,
    "host_net_io": {"read_bps": 0.0, "write_bps": 0.0},
    "host_disk_io": {"read_bps": 0.0, "write_bps": 0.0},
    "num_fds": 20,
}
"""Plausible metrics, which each heartbeat sends."""
RESULT_BYTES = 100_000
"""Size of a result, as reported to the scheduler."""


class LightWorker:
    """A worker: its address, its connection to the scheduler, and the results that it returns."""

    def __init__(self, name: str, scheduler: str, result: Callable[[str], Serialized]) -> None:
        self.name = name
        self.scheduler = scheduler
        self.result = result
        self.heartbeat_seconds = 10.0

    async def start(self, versions: dict[str, Any]) -> None:
        """Listen and register; then follow the scheduler in the background."""
        self.listener = await listen("tcp://127.0.0.1:0", self.serve, deserialize=False)
        self.address = self.listener.contact_address
        self.comm = await connect(self.scheduler, deserialize=False)
        await self.comm.write(
            {
                "op": "register-worker",
                "reply": False,
                "address": self.address,
                "status": "running",
                "nthreads": 1,
                "name": self.name,
                "now": time.time(),
                "resources": {},
                "memory_limit": 1 << 32,
                "local_directory": "",
                "services": {},
                "nanny": "",
                "pid": 0,
                "versions": versions,
                "metrics": METRICS | {"time": time.time()},
                "extra": {},
                "stimulus_id": f"worker-connect-{self.name}",
                "server_id": self.name,
            }
        )
        answer = await self.comm.read()
        if answer["status"] != "OK":
            raise RuntimeError(answer)
        self.heartbeat_seconds = answer["heartbeat-interval"]
        self.work = asyncio.create_task(self.follow())

    async def follow(self) -> None:
        """Answer the messages of the scheduler until it closes the connection."""
        while True:
            answers = [self.answer(message) for message in await self.comm.read()]
            answers = [answer for answer in answers if answer is not None]
            if answers:
                await self.comm.write(answers)

    def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a message; None if it needs none."""
        if message["op"] == "compute-task":
            now = time.time()
            return {
                "op": "task-finished",
                "status": "OK",
                "key": message["key"],
                "run_id": message["run_id"],
                "nbytes": RESULT_BYTES,
                "type": b"",
                "typename": "ExactStatistic",
                "metadata": {},
                "thread": 1,
                "startstops": [{"action": "compute", "start": now, "stop": now}],
                "stimulus_id": f"task-finished-{now}",
            }
        if message["op"] == "steal-request":  # the task is done already
            return {
                "op": "steal-response",
                "key": message["key"],
                "state": "memory",
                "stimulus_id": message["stimulus_id"],
            }
        return None

    async def serve(self, comm: Any) -> None:
        """Answer requests for results."""
        try:
            while True:
                message = await comm.read()
                if message == "OK":  # a result has arrived
                    continue
                if message.get("op") == "get_data":
                    data = {key: self.result(str(key)) for key in message["keys"]}
                    await comm.write({"status": "OK", "data": data})
                elif message.get("reply", True):
                    await comm.write({"status": "OK"})
        except OSError:
            pass  # the connection is closed

    async def heartbeat(self, scheduler: Any) -> None:
        """Send one heartbeat."""
        await scheduler.heartbeat_worker(
            address=self.address,
            now=time.time(),
            metrics=METRICS | {"time": time.time()},
            executing={},
            extensions={},
        )


async def beat(workers: list[LightWorker], scheduler: str) -> None:
    """Send the heartbeats of all workers, spread evenly over the interval of the scheduler."""
    async with rpc(scheduler) as connection:
        while True:
            for worker in workers:
                await asyncio.sleep(workers[-1].heartbeat_seconds / len(workers))
                await worker.heartbeat(connection)


async def run(scheduler: str, count: int, files_per_task: int) -> None:
    """Start ``count`` workers, print "ready", and run them until the scheduler ends."""
    footers = Serialized(*serialize(footers_of(0, files_per_task)))
    sums = Serialized(*serialize(Counted(empty_statistic(), Usage(1))))

    def result(key: str) -> Serialized:
        return footers if key.startswith("_call_packed") else sums

    workers = [LightWorker(f"light-{i}", scheduler, result) for i in range(count)]
    versions = get_versions()
    for worker in workers:
        await worker.start(versions)
    beating = asyncio.create_task(beat(workers, scheduler))
    print("ready", flush=True)
    try:
        await asyncio.gather(*(worker.work for worker in workers))
    except OSError:
        pass  # the scheduler has ended
    finally:
        beating.cancel()


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        address = json.load(file)["address"]
    asyncio.run(run(address, int(sys.argv[2]), int(sys.argv[3])))
