"""Telling a ``replyUrl`` that its job has ended."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_pika.emulator.jobs import Job
    from airflow_provider_pika.emulator.state import State

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TIMEOUT = 5


class _StayHome(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: a redirect could lead off this machine."""


class Callbacks:
    """Sends each ended job's JSON to its ``replyUrl``, if that is on this machine, and counts what came of it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._due: list[tuple[str, Callable[[], dict[str, Any]], dict[str, int]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._opener = build_opener(ProxyHandler({}), _StayHome)

    def due(self, job: Job, body: Callable[[], dict[str, Any]]) -> None:
        """Note that a job has ended; :meth:`start_due` does the rest."""
        if job.asked.reply_url:
            # The counts of now: a reset before it is sent must not find it among those of the next test.
            self._due.append((job.asked.reply_url, body, self._state.counters.callbacks))

    def start_due(self) -> None:
        """Start sending what is due."""
        due, self._due = self._due, []
        for url, body, counts in due:
            task = asyncio.create_task(self._send(url, body(), counts))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, url: str, body: dict[str, Any], counts: dict[str, int]) -> None:
        if not _is_near(url):
            # An emulator has no business with a host of the real world.
            counts["not_delivered"] += 1
            return
        request = Request(  # noqa: S310 - the scheme was looked at
            url,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method="POST",
        )
        try:
            await run_in_threadpool(lambda: self._opener.open(request, timeout=_TIMEOUT).close())
            counts["delivered"] += 1
        except (URLError, OSError, ValueError):
            counts["failed"] += 1


def _is_near(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK
