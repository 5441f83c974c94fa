"""The route's rules, spoken to as a server speaks to it; the database behind it is a stub."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_pika.api.callback import BODY_LIMIT, mailbox_key, new_token, read_call
from airflow_provider_pika.callbacks import mailbox, route

TI = uuid.UUID(int=7)
TOKEN = new_token()
BODY = json.dumps({"jobid": "job:1"}).encode()


class Kept:
    """What reached the database side, and what it says."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.known = True
        self.error: Exception | None = None
        self.hold = threading.Event()
        self.hold.set()

    def deliver(self, *call: Any) -> bool:
        self.hold.wait(5)
        self.calls.append(call)
        if self.error:
            raise self.error
        return self.known


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    kept = Kept()
    monkeypatch.setattr(mailbox, "deliver", kept.deliver)
    monkeypatch.setattr(route, "_deliveries", route._Deliveries())
    yield kept
    kept.hold.set()


def call(
    *chunks: bytes, method: str = "POST", path: str = f"/pika/callback/{TI}", query: str = f"token={TOKEN}"
) -> tuple[int, dict[bytes, bytes], int]:
    """Speak to the route; return status, headers, and how many chunks of the body it took."""
    taken = 0
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        if taken > len(chunks):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": taken < len(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    asyncio.run(route.receive_callback(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], dict(sent[0]["headers"]), taken


def test_a_call_is_handed_on_without_its_token(kept: Kept) -> None:
    status, headers, _ = call(BODY[:5], BODY[5:])
    assert (status, headers) == (204, {})
    assert kept.calls == [(TI, mailbox_key(TOKEN), read_call(BODY))]


@pytest.mark.parametrize("path", [f"/airflow/pika/callback/{TI}", f"/{TI}", f"{TI}"])
def test_it_is_found_wherever_airflow_is_mounted(kept: Kept, path: str) -> None:
    assert call(BODY, path=path)[0] == 204


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_post_is_taken(kept: Kept, method: str) -> None:
    status, headers, taken = call(BODY, method=method)
    assert (status, headers[b"allow"], taken) == (405, b"POST", 0)


@pytest.mark.parametrize(
    "address",
    [
        {"query": ""},
        {"query": "token="},
        {"query": f"token={TOKEN}&token={TOKEN}"},
        {"query": "&".join(f"a{n}=1" for n in range(100))},
        {"query": f"Token={TOKEN}"},
        {"path": "/pika/callback/"},
        {"path": "/pika/callback"},
        {"path": "/pika/callback/not-a-uuid"},
        {"path": f"/pika/callback/{TI}/more"},
        {"path": f"/pika/callback/{TI}/"},
    ],
)
def test_what_names_no_mailbox_is_not_even_read(kept: Kept, address: dict[str, str]) -> None:
    status, headers, taken = call(BODY, **address)
    assert (status, headers[b"connection"], taken) == (404, b"close", 0)
    assert kept.calls == []


def test_a_mailbox_that_is_not_open_is_not_found(kept: Kept) -> None:
    kept.known = False
    assert call(BODY)[0] == 404


@pytest.mark.parametrize(("more", "status"), [(0, 204), (1, 413)])
def test_a_body_has_a_limit(kept: Kept, more: int, status: int) -> None:
    body = BODY.ljust(BODY_LIMIT + more)
    assert call(body)[0] == status
    assert call(body[:40_000], body[40_000:])[0] == status
    assert len(kept.calls) == (0 if more else 2)


def test_an_endless_body_is_left_unread_and_hung_up_on(kept: Kept) -> None:
    status, headers, taken = call(*[b" " * 1000] * 10_000)
    assert (status, headers[b"connection"]) == (413, b"close")
    assert taken == BODY_LIMIT // 1000 + 1


def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one(kept: Kept) -> None:
    assert call()[0] == 400
    assert kept.calls == []


def test_a_body_that_drips_is_not_waited_for(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_BODY_TIMEOUT", 0.05)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": f"/pika/callback/{TI}"}
    asyncio.run(route.receive_callback({**scope, "query_string": f"token={TOKEN}".encode()}, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b"{}", b'{"jobid": 1}', b'{"jobid": ""}', b"[" * 60_000])
def test_what_names_no_job_is_bad(kept: Kept, body: bytes) -> None:
    assert call(body)[0] == 400
    assert kept.calls == []


def test_a_database_that_is_away_asks_for_another_call(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    kept.error = mailbox.StoreAwayError("OperationalError: database is locked")
    with caplog.at_level(logging.WARNING):
        status, headers, _ = call(BODY)
    assert (status, headers[b"retry-after"]) == (503, b"10")
    assert "database is locked" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("error", [RuntimeError(f"cannot store at {TOKEN}"), KeyError("bucket"), TimeoutError()])
def test_a_store_of_ones_own_that_fails_is_told_by_its_type_alone(
    kept: Kept, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The server would answer 500 and log a traceback, whose frames hold the URL and the token in it."""
    kept.error = error
    with caplog.at_level(logging.WARNING):
        status, headers, _ = call(BODY)
    assert (status, headers[b"retry-after"]) == (503, b"10")
    (record,) = caplog.records
    assert type(error).__name__ in record.getMessage() or "no answer" in record.getMessage()
    assert TOKEN not in caplog.text
    assert record.exc_info is None


def test_a_database_that_does_not_answer_is_not_waited_for(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_STORE_TIMEOUT", 0.05)
    kept.hold.clear()
    assert call(BODY)[0] == 503


async def receive_at_once(count: int, body: bytes) -> list[int]:
    """Call so often at the same time; return each one's status."""
    statuses: list[int] = []

    async def one() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": f"/pika/callback/{TI}"}
        await route.receive_callback({**scope, "query_string": f"token={TOKEN}".encode()}, receive, send)

    await asyncio.gather(*(one() for _ in range(count)))
    return statuses


def test_calls_that_wait_for_a_database_that_hangs_are_few_and_hold_no_bodies(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has checked their tokens yet: 500 of them held 34 MiB, and each left a line in the log."""
    monkeypatch.setattr(route, "_STORE_TIMEOUT", 0.2)
    monkeypatch.setattr(route, "_MOST_UNDER_WAY", 50)
    kept.hold.clear()
    body = BODY[:-1] + b', "content": "' + b"x" * 50_000 + b'"}'
    held = 0

    async def flood() -> None:
        nonlocal held
        for _ in range(2):
            assert await receive_at_once(200, body) == [503] * 200
        held, _ = tracemalloc.get_traced_memory()
        kept.hold.set()
        # Those that were called off do nothing, and the next one is taken again.
        for _ in range(500):
            if (await receive_at_once(1, BODY)) == [204]:
                break
            await asyncio.sleep(0.01)

    tracemalloc.start()
    try:
        with caplog.at_level(logging.WARNING):
            asyncio.run(flood())
    finally:
        tracemalloc.stop()
    assert held < 2 * 2**20
    assert len(caplog.records) == 1
    assert 1 <= len(kept.calls) <= 5


def test_a_flood_that_is_kept_in_part_is_no_flood_in_the_log(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for error in [mailbox.StoreAwayError("away"), None] * 20:
            kept.error = error
            assert call(BODY)[0] == (503 if error else 204)
    assert len([record for record in caplog.records if "Pika" in record.getMessage()]) == 1


def test_a_call_whose_server_gives_it_up_is_called_off(kept: Kept) -> None:
    """A server that ends would else wait for a thousand of them."""
    kept.hold.clear()

    async def give_up() -> None:
        calls = asyncio.ensure_future(receive_at_once(10, BODY))
        await asyncio.sleep(0.2)
        calls.cancel()
        await asyncio.wait({calls})
        kept.hold.set()
        await asyncio.wait(set(route._deliveries._under_way))

    asyncio.run(asyncio.wait_for(give_up(), 10))
    assert len(kept.calls) == 4


def test_a_websocket_is_turned_away(kept: Kept) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(route.receive_callback({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]
