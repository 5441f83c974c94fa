"""
The route the service calls, in the api-server: a bare ASGI callable, which any version of its framework mounts.

It trusts nothing in a call but what the call's URL proves: that the caller knows the token of an open mailbox. What is
left to a forger is in :mod:`airflow_provider_pika.api.callback`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from uuid import UUID

from airflow_provider_pika.api.callback import BODY_LIMIT, CALLBACK_PATH, Call, mailbox_key, read_call

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Message = MutableMapping[str, Any]

log = logging.getLogger(__name__)

# Seconds for a body to come in whole: one that drips must not hold a connection for ever.
_BODY_TIMEOUT = 10.0
# Seconds for the database. SQLite gives up on a lock by itself before; PostgreSQL would wait for one without end.
_STORE_TIMEOUT = 20.0
# Callbacks may come in hundreds, and the api-server's other work needs its threads and database connections as well.
_THREADS = 4
# Calls that wait for the database, of which nobody knows yet whether their tokens are true: some seconds' work, and
# some megabytes.
_MOST_UNDER_WAY = 1000
# Seconds between two lines in the log that tell of failures: a flood of calls must not be one of lines.
_WARNING_PAUSE = 60.0


class _Refusal(Exception):
    """The answer to a call that is not taken; its text tells the caller why."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


async def receive_callback(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Take a call of the service: 204 once it is kept, whatever came of it earlier."""
    if scope["type"] != "http":
        await send({"type": "websocket.close"})
        return
    try:
        await _take(scope, receive)
    except _Refusal as refusal:
        # Hung up on, or the server would go on reading a body that nobody wants and that may have no end.
        headers = [(b"content-type", b"text/plain"), (b"connection", b"close"), *refusal.headers]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": f"{refusal}\n".encode()})
    else:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _take(scope: Message, receive: Callable[[], Awaitable[Message]]) -> None:
    if scope["method"] != "POST":
        raise _Refusal(405, "only POST is taken here", (b"allow", b"POST"))
    ti_id, key = _address(scope)
    try:
        body = await asyncio.wait_for(_read(receive), _BODY_TIMEOUT)
    except asyncio.TimeoutError:
        raise _Refusal(408, "the body took too long") from None
    call = read_call(body)
    if call is None:
        raise _Refusal(400, "a JSON object with a jobid is expected")
    # While calls wait for the database nobody has checked their tokens yet: it must not be their bodies that wait.
    del body
    if not await _deliveries.deliver(ti_id, key, call):
        raise _unknown()


def _address(scope: Message) -> tuple[UUID, str]:
    """Return task instance and mailbox that a URL names; from here on nobody has the token any more."""
    try:
        ti_id = UUID(scope["path"].rpartition(CALLBACK_PATH)[2].removeprefix("/"))
        (token,) = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)["token"]
    except (KeyError, ValueError):
        raise _unknown() from None
    return ti_id, mailbox_key(token)


def _unknown() -> _Refusal:
    return _Refusal(404, "no task waits for a callback at this URL")


async def _read(receive: Callable[[], Awaitable[Message]]) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refusal(400, "the body was cut short")
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise _Refusal(413, f"the body is longer than {BODY_LIMIT} bytes")
        if not message.get("more_body"):
            return bytes(body)


class _Deliveries:
    """The calls that wait for the database, of all event loops of this process."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[bool]] = set()
        self._warned_at = float("-inf")

    async def deliver(self, ti_id: UUID, key: str, call: Call) -> bool:
        """
        Put a call into its mailbox; return whether there is one.

        :raises _Refusal: when it could not be kept
        """
        if len(self._under_way) >= _MOST_UNDER_WAY:
            raise self._failed(f"{_MOST_UNDER_WAY} calls wait for the database")
        called_off = threading.Event()
        working = asyncio.get_running_loop().run_in_executor(_threads(), _delivered, called_off, ti_id, key, call)
        self._under_way.add(working)
        working.add_done_callback(self._ended)
        try:
            await asyncio.wait({working}, timeout=_STORE_TIMEOUT)
        finally:
            # A thread that has begun goes on and may still deliver; one that has not will do nothing. It is not
            # cancelled: then it would no longer count as one that waits, and would wait all the same.
            called_off.set()
        if not working.done():
            raise self._failed(f"no answer within {_STORE_TIMEOUT:g} s")
        error = working.exception()
        if error is None:
            return working.result()
        # A state store backend of one's own may raise anything. Neither its text nor its traceback is logged: the
        # frames hold the call's scope, and the token in it.
        from airflow_provider_pika.callbacks.mailbox import StoreAwayError

        raise self._failed(str(error) if isinstance(error, StoreAwayError) else type(error).__name__) from None

    def _ended(self, working: asyncio.Future[bool]) -> None:
        self._under_way.discard(working)
        # Or the loop would log, traceback and all, what nobody was left to hear of.
        if not working.cancelled():
            working.exception()

    def _failed(self, reason: str) -> _Refusal:
        """Return the answer to a call that could not be kept, and log it now and then."""
        if time.monotonic() - self._warned_at >= _WARNING_PAUSE:
            self._warned_at = time.monotonic()
            log.warning(
                "A callback of the Pika service could not be kept: %s; the service is asked to call again.", reason
            )
        return _Refusal(503, "the database is busy or away, call again", (b"retry-after", b"10"))


_deliveries = _Deliveries()


def _delivered(called_off: threading.Event, ti_id: UUID, key: str, call: Call) -> bool:
    # With the models of Airflow's database: not for a process that never takes a call.
    from airflow_provider_pika.callbacks.mailbox import deliver

    return not called_off.is_set() and deliver(ti_id, key, call)


@cache
def _threads() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(_THREADS, "pika-callback")
