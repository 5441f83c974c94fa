"""The shared polls while the API drips or the connection cannot be read: deadlines pass, and nobody's wait is ended."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_pika.api import polling
from airflow_provider_pika.api.polling import TRANSIENT_LIMIT
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers import job_waiter, poller, queue, running_list
from airflow_provider_pika.triggers import pika as triggers
from airflow_provider_pika.triggers.pika import PikaJobTrigger, PikaQueueTrigger
from tests.support.task_context import Clock, Log, events_of, run_leaping


def waiter(jobid: str = "job:1", **about: Any) -> PikaJobTrigger:
    trigger = PikaJobTrigger(
        jobid=jobid, **{"pika_conn_id": "pika_default", "poll_interval": 30.0, "deadline": time.time() + 9000, **about}
    )
    trigger._log = Log()
    return trigger


def in_queue(deadline: float) -> PikaQueueTrigger:
    now = time.time()
    trigger = PikaQueueTrigger(
        pika_conn_id="pika_default",
        channel="",
        executing_jobs=["job:2"],
        rejected_at=now,
        not_before=now,
        queued_since=now,
        deadline=deadline,
    )
    trigger._log = Log()
    return trigger


def job_of(emulator: EmulatorClient, seconds: float) -> str:
    emulator.configure(seconds=seconds)
    return PikaHook().encrypt_text(message="HI", prompt="waves").jobid


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the pace of a test that runs in real time."""
    for module in (polling, job_waiter, poller, queue, running_list, triggers):
        monkeypatch.setattr(module, "MIN_POLL_INTERVAL", 0.2)
    monkeypatch.setattr(job_waiter, "LAST_POLL_GRACE", 0.5)


class Drips(BaseHTTPRequestHandler):
    """Answers anything with the first byte of a long body, and with another one now and then."""

    over = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        while not self.over.wait(0.1):
            self.wfile.write(b" ")
            self.wfile.flush()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def dripping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ``pika_default`` lead to a server that never finishes an answer."""
    Drips.over.clear()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Drips) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv(
            "AIRFLOW_CONN_PIKA_DEFAULT", json.dumps({"conn_type": "pika", "host": host, "password": "user:1-token"})
        )
        yield
        Drips.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("hasty", "dripping")
def test_deadlines_pass_on_time_while_the_list_drips() -> None:
    """Of a job and of a queue; the poll that hangs belongs to a waiter with all the time in the world."""

    async def timed(trigger: Any) -> tuple[str, float]:
        (event,) = await events_of(trigger)
        return event["outcome"], time.time()

    async def all_wait() -> tuple[list[tuple[str, float]], float]:
        deadline = time.time() + 1.5
        patient = asyncio.ensure_future(events_of(waiter("job:9", poll_interval=0.2)))
        ended = await asyncio.gather(*(timed(it) for it in (waiter(deadline=deadline), in_queue(deadline))))
        patient.cancel()
        return ended, deadline

    ended, deadline = asyncio.run(asyncio.wait_for(all_wait(), 20))
    assert [outcome for outcome, _ in ended] == ["timeout"] * 2
    assert max(at for _, at in ended) < deadline + 0.5 + 2


@pytest.mark.usefixtures("hasty")
def test_a_deadline_passes_on_time_while_the_connection_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor or a secrets backend that hangs."""
    answers = threading.Event()

    def hangs(self: PikaHook, conn_id: str) -> Any:
        answers.wait(20)
        raise RuntimeError("the backend is away")

    monkeypatch.setattr(PikaHook, "get_connection", hangs)

    async def wait() -> tuple[str, float]:
        try:
            (event,) = await events_of(waiter(deadline=time.time() + 1))
            return event["outcome"], time.time()
        finally:
            answers.set()

    before = time.time()
    outcome, at = asyncio.run(wait())
    assert outcome == "timeout"
    assert at - before < 1 + 0.5 + 2


@pytest.mark.parametrize("kind", [RuntimeError, PikaUnavailableError])
def test_a_connection_that_cannot_be_read_for_a_while_ends_nobody(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """A secrets backend that fails, whatever it raises."""
    jobids = [job_of(pika_emulator, 200) for _ in range(5)]
    settings = PikaHook.__dict__["settings"].func
    back = clock.time() + 120

    def failing(hook: PikaHook) -> Any:
        if clock.time() < back:
            raise kind("the backend is away")
        return settings(hook)

    shaky = cached_property(failing)
    shaky.__set_name__(PikaHook, "settings")
    monkeypatch.setattr(PikaHook, "settings", shaky)

    async def all_wait() -> list[Any]:
        return await asyncio.gather(*(events_of(waiter(jobid, deadline=clock.time() + 9000)) for jobid in jobids))

    assert [event["outcome"] for (event,) in run_leaping(all_wait(), clock)] == ["ended"] * 5


def test_a_connection_that_stays_unreadable_ends_the_waits_with_an_error_that_may_be_retried(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure is one of the ten, for all who wait at once: nobody asks a backend once for each job."""
    seen: list[float] = []

    def failing(hook: PikaHook) -> Any:
        seen.append(clock.time())
        raise RuntimeError("user:1-token is what could not be read")

    shaky = cached_property(failing)
    shaky.__set_name__(PikaHook, "settings")
    monkeypatch.setattr(PikaHook, "settings", shaky)

    async def all_wait() -> list[Any]:
        deadline = clock.time() + 90_000
        return await asyncio.gather(*(events_of(waiter(f"job:{n}", deadline=deadline)) for n in range(40)))

    errors = [event["error"] for (event,) in run_leaping(all_wait(), clock)]
    assert {error["kind"] for error in errors} == {"PikaUnavailableError"}
    assert all(f"after {TRANSIENT_LIMIT} failed polls" in error["message"] for error in errors)
    assert "'pika_default' could not be read: RuntimeError" in errors[0]["message"]
    assert "token" not in str(errors)
    assert min(later - earlier for earlier, later in pairwise(seen)) >= 9.99
    assert pika_emulator.counters()["requests"] == 0


@pytest.mark.usefixtures("hasty")
def test_a_deadline_that_falls_into_a_hanging_list_still_gets_its_last_read(pika_emulator: EmulatorClient) -> None:
    """And the job that has completed by then is no timeout."""
    jobid = job_of(pika_emulator, 0.6)
    pika_emulator.fault("list", "slow", seconds=3, times=100)
    (event,) = asyncio.run(events_of(waiter(jobid, poll_interval=0.2, deadline=time.time() + 1.2)))
    assert event["outcome"] == "ended"


@pytest.mark.usefixtures("hasty")
def test_a_deadline_that_falls_into_hanging_reads_of_other_jobs_still_gets_its_last_read(
    pika_emulator: EmulatorClient,
) -> None:
    pika_emulator.fault("submit", "unlisted", times=3)
    others = [job_of(pika_emulator, 3600) for _ in range(3)]
    for jobid in others:
        pika_emulator.fault("job", "slow", seconds=3, times=100, jobid=jobid)
    jobid = job_of(pika_emulator, 0.6)

    async def both() -> list[Any]:
        waiting = [asyncio.ensure_future(events_of(waiter(other, poll_interval=0.2))) for other in others]
        event = await events_of(waiter(jobid, poll_interval=0.2, deadline=time.time() + 1.2))
        for task in waiting:
            task.cancel()
        return event

    (event,) = asyncio.run(both())
    assert event["outcome"] == "ended"
