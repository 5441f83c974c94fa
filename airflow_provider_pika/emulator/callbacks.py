"""Telling a ``replyUrl`` that its job has ended, as well or as badly as the faults have it."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from starlette.concurrency import run_in_threadpool

from airflow_provider_pika.emulator.counters import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_pika.emulator.counters import Counters
    from airflow_provider_pika.emulator.faults import FaultScript
    from airflow_provider_pika.emulator.jobs import Job
    from airflow_provider_pika.emulator.state import State

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TIMEOUT = 5
# Seconds before each further try: nothing is documented of any, but a service would knock again, and not for ever.
_PAUSES = (1, 3, 9)
_DEFAULT_DELAY = 5.0


class _StayHome(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: a redirect could lead off this machine."""


@dataclass(frozen=True)
class _Delivery:
    """
    One callback to make.

    :param at: not before this time
    :param counters: those of the job's end: a reset before it is sent must not find it among those of the next test
    """

    job: Job
    url: str
    body: Callable[[], dict[str, Any]]
    counters: Counters
    at: float
    attempt: int = 1


class Callbacks:
    """
    Sends each ended job's JSON to its ``replyUrl``, if that is on this machine, and tells what came of it.

    A receiver that cannot be reached, or answers a 5xx, is tried again a few times.

    :param say: takes a line per try; None for silence
    """

    def __init__(self, state: State, faults: FaultScript, say: Callable[[str], None] | None) -> None:
        self._state = state
        self._faults = faults
        self._say = say
        self._waiting: list[_Delivery] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._opener = build_opener(ProxyHandler({}), _StayHome)

    def due(self, job: Job, body: Callable[[], dict[str, Any]]) -> None:
        """Note that a job has ended; :meth:`send_due` does the rest."""
        if not job.asked.reply_url:
            return
        # From its end, which may have been noticed later: when a test puts time ahead, by as much.
        delivery = _Delivery(job, job.asked.reply_url, body, self._state.counters, job.ended or self._state.now())
        fault = self._faults.strike("callback", job.jobid)
        kind, seconds = (fault.kind, fault.params.get("seconds", _DEFAULT_DELAY)) if fault else ("", 0)
        if kind == "lost":
            self._came_to(delivery, "lost", None)
            return
        delay = {"late": seconds, "shuffled": random.uniform(0, seconds)}.get(kind, 0)
        delivery = replace(delivery, at=delivery.at + delay)
        self._waiting += [delivery, delivery] if kind == "doubled" else [delivery]

    def send_due(self) -> None:
        """Start sending what is due, by the emulator's own time."""
        now = self._state.now()
        due = sorted((one for one in self._waiting if one.at <= now), key=lambda one: one.at)
        self._waiting = [one for one in self._waiting if one.at > now and one.counters is self._state.counters]
        for delivery in due:
            task = asyncio.create_task(self._send(delivery))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, delivery: _Delivery) -> None:
        if not _is_near(delivery.url):
            # An emulator has no business with a host of the real world.
            self._came_to(delivery, "not_delivered", None)
            return
        sent = self._state.now()
        status = await run_in_threadpool(self._post, delivery.url, json.dumps(delivery.body()).encode())
        if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            taken = status < HTTPStatus.MULTIPLE_CHOICES
            self._came_to(delivery, "delivered" if taken else "failed", sent, status)
        elif delivery.attempt > len(_PAUSES):
            self._came_to(delivery, "failed", sent, status)
        else:
            self._came_to(delivery, "retried", sent, status)
            at = self._state.now() + _PAUSES[delivery.attempt - 1]
            self._waiting.append(replace(delivery, at=at, attempt=delivery.attempt + 1))

    def _post(self, url: str, body: bytes) -> int | None:
        """Return the status a receiver answers, None if it cannot be reached."""
        try:
            request = Request(url, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310 - the scheme was looked at
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                return int(answer.status)
        except HTTPError as refused:
            with refused:
                return refused.code
        except (URLError, HTTPException, OSError, ValueError):
            return None

    def _came_to(self, delivery: _Delivery, outcome: str, sent: float | None, status: int | None = None) -> None:
        job, url = delivery.job, without_secrets(delivery.url)
        answered = None if sent is None else self._state.now()
        delivery.counters.callbacks[outcome] += 1
        delivery.counters.deliveries.append(
            {
                "jobid": job.jobid,
                "url": url,
                "ended": moment(job.ended),
                "sent": moment(sent),
                "answered": moment(answered),
                "status": status,
                "attempt": delivery.attempt,
                "outcome": outcome,
            }
        )
        if self._say:
            told = "unreachable" if sent is not None and status is None else status or ""
            self._say(
                f"{datetime.now().astimezone():%H:%M:%S}  callback {outcome}  {told}  {job.jobid} {job.status}  {url}"
            )


def without_secrets(url: str) -> str:
    """Return a URL to show: who knows a ``replyUrl`` whole, with its token, may speak to it in the service's name."""
    return re.sub(r"([?&][^=&#]*)=[^&#]*", r"\1=***", re.sub(r"//[^/?#]*@", "//***@", url))


def _is_near(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK
