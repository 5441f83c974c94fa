"""The moment a submit leaves: asked about before its first byte, told after its last."""

from __future__ import annotations

import contextvars
import io
import threading
import time
from typing import Any

import pytest

from airflow_provider_pika.api.commands import ENCRYPT_TEXT
from airflow_provider_pika.exceptions import PikaUnavailableError, PikaUnknownOutcomeError
from airflow_provider_pika.files.multipart import ImagePart
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import JOBID, connect, http, no_exchange_left, no_proxies, recorder

OK = http(200, {"jobid": JOBID, "status": "started"})
ASKER = contextvars.ContextVar("asker", default="nobody")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxies(monkeypatch)


def send(files: dict[str, ImagePart] | None = None, **callbacks: Any) -> Any:
    hook = PikaHook()
    call = hook.prepare(ENCRYPT_TEXT, message="HI", prompt="waves")
    try:
        return hook.send(call, files or {}, **callbacks)
    finally:
        hook.get_conn().close()


def test_the_caller_is_asked_once_before_the_first_byte_and_told_after_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def answer(request: bytes) -> bytes:
        told.append("read")
        time.sleep(0.3)  # an answer takes its time: who tells of the last byte does not wait for it
        told.append("answered")
        return OK

    def before() -> None:
        time.sleep(0.2)  # whatever had left by now would have been read
        told.append("before")

    with recorder(answer) as server:
        connect(monkeypatch, server.url)
        job = send(before_body=before, after_body=lambda: told.append("after"))
    assert job.jobid == JOBID
    assert told[0] == "before"
    assert sorted(told[1:3]) == ["after", "read"]
    assert told[3:] == ["answered"]
    assert b'name="message"' in server.requests[0]


@pytest.mark.parametrize(
    "refusal",
    [PikaUnavailableError("killed"), BrokenPipeError(32, "Broken pipe"), OSError("store"), KeyError("x")],
    ids=lambda refusal: type(refusal).__name__,
)
def test_what_the_asked_caller_raises_comes_out_as_it_is_and_nothing_is_sent(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = ValueError("why")
    refusal.__cause__ = cause
    told: list[str] = []

    def refuse() -> None:
        raise refusal

    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        with pytest.raises(type(refusal)) as caught:
            send(before_body=refuse, after_body=lambda: told.append("after"))
        assert no_exchange_left()
        time.sleep(0.2)
    assert caught.value is refusal
    assert caught.value.__cause__ is cause
    assert told == []
    assert [request.partition(b"\r\n\r\n")[2] for request in server.requests] == [b""]


def test_the_last_byte_is_told_though_the_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    with recorder(None) as server:
        connect(monkeypatch, server.url)
        with pytest.raises(PikaUnknownOutcomeError):
            send(after_body=lambda: told.append(time.monotonic()))
    assert len(told) == 1


def test_a_body_that_broke_off_has_no_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def broken() -> bytes:
        raise OSError("the disk is gone")

    content = io.BytesIO(bytes(2_000_000))
    image = ImagePart("cat.png", Breaking(content), "image/png")  # type: ignore[arg-type]
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        with pytest.raises(PikaUnknownOutcomeError, match="the disk is gone"):
            send({"image": image}, after_body=lambda: told.append("after"))
    assert told == []


class Breaking:
    """A file that breaks in its middle."""

    def __init__(self, content: io.BytesIO) -> None:
        self.content = content
        self.len = len(content.getbuffer())

    def seek(self, place: int) -> int:
        return self.content.seek(place)

    def read(self, size: int = -1) -> bytes:
        if self.content.tell() > 100_000:
            raise OSError("the disk is gone")
        self.len -= size
        return self.content.read(size)


def test_nobody_is_asked_while_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    connect(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(PikaUnavailableError):
        send(before_body=lambda: told.append("before"), after_body=lambda: told.append("after"))
    assert told == []


def test_the_caller_is_asked_in_a_thread_of_the_calls_own_with_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, str]] = []
    ASKER.set("the task")
    with recorder(OK) as server:
        connect(monkeypatch, server.url)
        send(before_body=lambda: asked.append((threading.current_thread() is threading.main_thread(), ASKER.get())))
    assert asked == [(False, "the task")]
