"""What Dask logs becomes events in dpgmm's words; originals are at level debug, without values."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dpgmm_dist.cli.log import LogFormat, close_log, open_log
from dpgmm_dist.engine.dask_logs import dask_logs, original, take_over_in_worker

SECRET = "row 17 is 3.25"
DASK, NANNY = "distributed", "distributed.nanny"


@pytest.fixture(params=list(LogFormat))
def shape(request: pytest.FixtureRequest) -> Iterator[LogFormat]:
    """A run of the command; its loggers are put back afterwards."""
    handlers, last = logging.getLogger().handlers, logging.lastResort
    with dask_logs():
        open_log(request.param)
        yield request.param
        close_log()
    logging.getLogger().handlers, logging.lastResort = handlers, last


def said(shape: LogFormat, capsys: Any) -> list[tuple[str, str]]:
    """Level and event or, of lines for people, the level alone."""
    lines = capsys.readouterr().err.splitlines()
    if shape is LogFormat.text:
        assert all(line.startswith("dpgmm: ") for line in lines)
        return [(line.split(": ")[1], "") for line in lines]
    objects = [json.loads(line) for line in lines]
    return [(line["level"], line["event"]) for line in objects]


@pytest.mark.parametrize(
    ("logger", "message", "event"),
    [
        (NANNY, "Restarting worker (status=Status.running)", "worker_lost"),
        (
            "distributed.scheduler",
            "Worker failed to heartbeat for 300s; attempting restart: <WorkerState 'tcp://1'>",
            "worker_lost",
        ),
        (
            "distributed.nanny.memory",
            "Worker tcp://127.0.0.1:1234 (pid=7) exceeded 95% memory budget. Restarting...",
            "out_of_memory",
        ),
        (NANNY, "Failed to restart worker after its process exited", "worker_not_started"),
    ],
)
def test_what_matters_is_an_event(shape, capsys, logger, message, event) -> None:
    with dask_logs():
        logging.getLogger(logger).warning(message)
    if shape is LogFormat.text:
        assert said(shape, capsys) == [("warning", "")]
    else:
        assert said(shape, capsys) == [("warning", event), ("debug", "library")]


def test_the_original_is_told_in_json_alone(shape, capsys) -> None:
    with dask_logs():
        logging.getLogger(NANNY).warning("Restarting worker (status=%s)", "Status.running")
    printed = capsys.readouterr().err
    assert "a worker was lost" in printed
    assert ("Restarting worker (status=Status.running)" in printed) == (shape is LogFormat.json)
    assert (NANNY in printed) == (shape is LogFormat.json)


@pytest.mark.parametrize("logger", ["distributed.worker", "tornado.application", "asyncio", "dask"])
def test_no_value_is_told(shape, capsys, logger) -> None:
    """Not from a message, its arguments, an exception, or what follows a message that is known."""
    with dask_logs():
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            logging.getLogger(logger).exception("Compute Failed %s", error)
            logging.getLogger(logger).error(f"Exception in callback {SECRET}", exc_info=True)
        logging.getLogger(logger).warning(f"Restarting worker (status=Status.running) {SECRET}")
        logging.getLogger(logger).warning("wrong arguments %d", SECRET, 2)
    printed = capsys.readouterr().err
    assert SECRET not in printed
    assert "Traceback" not in printed
    assert ("test_dask_logs.py" in printed) == (shape is LogFormat.json)
    assert ("(ValueError)" in printed) == (shape is LogFormat.json)


def test_a_failed_callback_of_asyncio_is_not_told_with_its_traceback(shape, capsys) -> None:
    def fails() -> None:
        raise ValueError(SECRET)

    async def run() -> None:
        asyncio.get_running_loop().call_soon(fails)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with dask_logs():
        asyncio.run(run())
    printed = capsys.readouterr().err
    assert SECRET not in printed
    assert (printed == "") == (shape is LogFormat.text)


def test_workers_that_end_with_the_cluster_are_no_event(shape, capsys) -> None:
    with dask_logs() as logs:
        logs.end()
        logging.getLogger(NANNY).warning("Restarting worker (status=Status.running)")
    only_original = [] if shape is LogFormat.text else [("debug", "library")]
    assert said(shape, capsys) == only_original


def test_what_dask_logs_after_the_cluster_has_closed_is_not_told(shape, capsys) -> None:
    """Its threads and its connections end when they like."""
    with dask_logs():
        pass
    logging.getLogger("distributed.comm.tcp").warning("Closing dangling stream in %s", SECRET)
    logging.getLogger("asyncio").error("Task was destroyed but it is pending! %s", SECRET)
    printed = capsys.readouterr().err
    assert SECRET not in printed
    assert (printed == "") == (shape is LogFormat.text)


def test_all_loggers_are_put_back() -> None:
    import distributed  # noqa: F401 - its loggers have handlers from then on

    names = ["asyncio", DASK, NANNY, "distributed.client", "tornado", "tornado.application"]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    with dask_logs():
        assert len({id(logger.handlers[0]) for logger in loggers if logger.handlers}) == 1
    assert [(logger.handlers, logger.propagate, logger.level) for logger in loggers] == before


class Worker:
    """Stands in for Dask's; notes what it would send."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.sent: list[Any] = []
        self.failure = failure

    def log_event(self, topic: str, message: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append(message)


@pytest.mark.parametrize(
    ("worker", "wanted", "sent"),
    [(Worker(), True, 1), (Worker(), False, 0), (Worker(OSError("closed")), True, 0)],
)
def test_workers_send_originals_and_print_nothing(worker, wanted, sent, capfd) -> None:
    with dask_logs():  # puts everything back
        take_over_in_worker(worker, wanted)
        logging.getLogger("distributed.worker").warning("Compute Failed %s", SECRET)
        logging.getLogger("distributed.comm").warning("of the connection that would be used")
    assert len(worker.sent) == sent
    assert SECRET not in json.dumps(worker.sent)
    assert capfd.readouterr() == ("", "")


def test_addresses_and_process_ids_are_told_and_memory_is_not() -> None:
    message = "Worker tcp://[::1]:1234 (pid=7) exceeded 95% memory budget. Restarting... 1.5 GiB"
    record = logging.LogRecord(NANNY, logging.WARNING, "nanny.py", 1, message, (), None)
    assert original(record)["message"] == message.removesuffix(" 1.5 GiB")
