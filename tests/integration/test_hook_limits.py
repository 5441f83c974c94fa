"""Every call has an end, whatever hangs: the name, the connection, the headers or the body."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_pika.api.commands import ENCRYPT_TEXT
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import PikaUnavailableError, PikaUnknownOutcomeError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.hooks.settings import PikaSettings
from tests.support.hook_tools import (
    ASKS,
    JOBID,
    READS,
    connect,
    dripper,
    exchanges,
    http,
    no_exchange_left,
    no_proxies,
    read,
    recorder,
    submit,
)

OK = http(200, {"jobid": JOBID, "status": "progress"})
HEADERS = b"HTTP/1.1 200 OK\r\nX-Slow: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n["
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\n\r\n["


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read ends within 1 s, a small submit within 1.2 s."""
    no_proxies(monkeypatch)
    settings = "airflow_provider_pika.hooks.settings"
    monkeypatch.setattr(f"{settings}.CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(f"{settings}.SUBMIT_TIMEOUT", 0.5)
    monkeypatch.setattr(f"{settings}.ANSWER_TIMEOUT", 0.2)


def link(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    connect(monkeypatch, url, timeout=0.5)


@contextlib.contextmanager
def timed(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


@contextlib.contextmanager
def hanging_names(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[threading.Event]:
    """Let every look-up of a name hang until the event is set, and do something as soon as one does."""
    answered = threading.Event()
    ask = socket.getaddrinfo

    def hang(*args: Any, **kwargs: Any) -> Any:
        meanwhile()
        answered.wait(30)
        return ask(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        yield answered
    finally:
        answered.set()


@contextlib.contextmanager
def deaf_server() -> Iterator[str]:
    """A port whose queue of callers is full: a further one gets neither a yes nor a no."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("on", READS)
@pytest.mark.parametrize("head", [HEADERS, BODY, CHUNKED, OLD], ids=["headers", "body", "chunk", "to the end"])
def test_a_read_whose_answer_drips_ends_in_time_and_leaves_nothing_behind(
    head: bytes, on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that dripped one byte every 4 s held every wait of its connection, deadlines included."""
    with dripper(head) as server:
        link(monkeypatch, server.url)
        with timed(2):
            error = read(on)
        assert type(error) is PikaUnavailableError
        assert "not over within 1 s" in str(error)
        assert "Is the host of the connection 'pika_default' right" not in str(error)
        assert no_exchange_left()
    assert len(server.requests) == 1


@pytest.mark.parametrize("head", [HEADERS, BODY], ids=["headers", "body"])
def test_a_submit_whose_answer_drips_is_of_unknown_outcome_in_time(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dripper(head) as server:
        link(monkeypatch, server.url)
        with timed(2.5):
            error = submit()
        assert type(error) is PikaUnknownOutcomeError
        assert no_exchange_left()
    assert len(server.requests) == 1


@pytest.mark.parametrize("ask", ASKS)
def test_a_name_that_is_not_looked_up_in_time_is_unavailable(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server, hanging_names(monkeypatch) as answered:
        link(monkeypatch, server.url)
        with timed(2.5):
            error = ask()
        assert type(error) is PikaUnavailableError
        assert "Is the host of the connection 'pika_default' right" in str(error)

        answered.set()
        assert no_exchange_left()
        time.sleep(0.1)
    assert server.requests == [], "a call that was given up was sent all the same"


@pytest.mark.parametrize("ask", ASKS)
def test_a_connection_that_is_not_taken_in_time_is_unavailable(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_server() as url:
        link(monkeypatch, url)
        with timed(2.5):
            error = ask()
        assert type(error) is PikaUnavailableError


@pytest.mark.parametrize("ask", ASKS)
def test_a_proxy_that_drips_its_tunnel_leaves_nothing_behind(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a triggerer each poll would leave one more thread; and no byte of a submit has left."""
    with dripper(HEADERS) as proxy:
        link(monkeypatch, "https://api.example")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with timed(2.5):
            error = ask()
        assert type(error) is PikaUnavailableError
        assert no_exchange_left()
    assert [request.split()[0] for request in proxy.requests] == [b"CONNECT"]


def test_a_submit_whose_body_is_not_taken_is_of_unknown_outcome_and_never_completed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("airflow_provider_pika.hooks.settings.UPLOAD_BYTES_PER_SECOND", 10**9)
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20_000_000))
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        link(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        hook = PikaHook()
        call = hook.prepare(ENCRYPT_TEXT, message="HI", prompt="waves", image=str(tmp_path / "cat.png"))
        with hook.open_files(call) as files, timed(2.5), pytest.raises(PikaUnknownOutcomeError):
            hook.send(call, files, after_body=lambda: told.append("after"))
        assert no_exchange_left()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            received = sum(len(data) for data in iter(lambda: connection.recv(2**20), b""))
    assert received < 20_000_000
    assert told == []


def test_a_submit_whose_caller_is_asked_for_too_long_is_certainly_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may hang, too: the caller must not be told that nothing was sent while it still may be."""
    answered = threading.Event()
    with recorder(OK) as server:
        link(monkeypatch, server.url)
        hook = PikaHook()
        call = hook.prepare(ENCRYPT_TEXT, message="HI", prompt="waves")
        with timed(2.5), pytest.raises(PikaUnavailableError):
            hook.send(call, {}, before_body=lambda: answered.wait(30) and None)
        answered.set()
        assert no_exchange_left()
        time.sleep(0.1)
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b""]


def test_a_call_after_one_that_was_given_up_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(OK) as server:
        link(monkeypatch, server.url)
        hook = PikaHook()
        with hanging_names(monkeypatch):
            first = hook.get_conn()
            with pytest.raises(PikaUnavailableError):
                hook.get_job(JOBID)
        assert hook.get_conn() is not first
        assert isinstance(hook.get_job(JOBID), Job)
        hook.get_conn().close()


def test_reads_at_the_same_time_are_given_up_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The triggerer's threads share one hook."""

    def answer(request: bytes) -> bytes:
        if b"slow" in request:
            time.sleep(1.5)
        return OK

    with recorder(answer) as server:
        connect(monkeypatch, server.url, timeout=5)
        hook = PikaHook()
        found: dict[str, Any] = {}

        def ask(jobid: str) -> None:
            try:
                found[jobid] = hook.get_job(jobid)
            except PikaUnavailableError as error:
                found[jobid] = error

        monkeypatch.setattr(PikaSettings, "read_limit", 0.7)
        threads = [threading.Thread(target=ask, args=(jobid,)) for jobid in ("slow:1", "quick:1", "slow:2", "quick:2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hook.get_conn().close()
    assert {jobid: type(each) for jobid, each in found.items()} == {
        "slow:1": PikaUnavailableError,
        "slow:2": PikaUnavailableError,
        "quick:1": Job,
        "quick:2": Job,
    }


class Terminated(BaseException):
    """What a handler of a signal raises, as Airflow's do."""


@contextlib.contextmanager
def handler_of(number: int, handle: Any) -> Iterator[None]:
    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def raise_it(*_: Any) -> None:
    raise Terminated


def test_a_signal_is_handled_at_once_while_a_call_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []
    handled: list[float] = []

    def meanwhile() -> None:
        sent.append(time.monotonic())
        terminate()

    with (
        recorder(OK) as server,
        hanging_names(monkeypatch, meanwhile),
        handler_of(signal.SIGTERM, lambda *_: handled.append(time.monotonic())),
    ):
        link(monkeypatch, server.url)
        assert type(read("list")) is PikaUnavailableError
    assert handled[0] - sent[0] < 0.4


def test_a_submit_that_a_signal_interrupted_is_never_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution timeout ends the task's wait by an exception out of a handler; the job must not be made after it."""
    with (
        recorder(OK) as server,
        hanging_names(monkeypatch, terminate) as answered,
        handler_of(signal.SIGTERM, raise_it),
    ):
        link(monkeypatch, server.url)
        with pytest.raises(Terminated):
            submit()
        assert exchanges()
        answered.set()
        assert no_exchange_left()
        time.sleep(0.1)
    assert server.requests == []


def test_a_submit_that_a_signal_interrupted_while_its_caller_was_asked_is_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def ask() -> None:
        terminate()
        answered.wait(30)

    with recorder(OK) as server, handler_of(signal.SIGTERM, raise_it):
        link(monkeypatch, server.url)
        hook = PikaHook()
        call = hook.prepare(ENCRYPT_TEXT, message="HI", prompt="waves")
        # A socket that cannot be shut down: it is the body that must be held back.
        with monkeypatch.context() as stiff:
            stiff.setattr(socket.socket, "shutdown", lambda *_: None)
            with pytest.raises(Terminated):
                hook.send(call, {}, before_body=ask)
        answered.set()
        assert no_exchange_left()
        time.sleep(0.1)
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b""]


HANGING = """
import socket, time
from airflow_provider_pika.api import commands
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.hooks import settings
from airflow_provider_pika.hooks.transport import Transport

settings.CONNECT_TIMEOUT = 0.2
socket.getaddrinfo = lambda *args, **kwargs: time.sleep(60)
try:
    Transport(settings.PikaSettings("http://pika.invalid", "user:1-token", timeout=0.1)).send(commands.list_jobs())
except PikaUnavailableError:
    print("given up")
"""


def test_a_call_that_was_given_up_does_not_hold_the_interpreters_end() -> None:
    begun = time.monotonic()
    code = HANGING
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)  # noqa: S603
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "given up", "")
    assert time.monotonic() - begun < 30


def test_the_limits_add_up_what_each_part_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    settings = PikaSettings("http://127.0.0.1:9", "user:1-token")
    assert settings.read_limit == 10 + 20
    assert settings.submit_limit(0) == 10 + 60 + 30
    assert settings.submit_limit(25 * 2**20) == 10 + 60 + 30 + 400
