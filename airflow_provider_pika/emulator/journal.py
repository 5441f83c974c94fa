"""What was asked of the emulator, one line a request: for a person at the terminal and for a test."""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_pika.emulator.state import State

_KEPT = 500
_WIDEST = 60
_log = logging.getLogger(__name__)


class Journal:
    """
    Remembers and prints the API's requests; the control routes and the page are not among them.

    :param say: takes one line per request; None for silence
    """

    def __init__(self, state: State, say: Callable[[str], None] | None) -> None:
        self._state = state
        self._say = say
        self.requests: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Wrap an app so that each of its requests is entered."""

        async def entered(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(("/v1/", "/v2/", "/attachments/")):
                await app(scope, receive, send)
                return
            self._state.counters.requests += 1
            started = time.monotonic()
            status: int | None = None

            async def watched(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, watched)
            except Exception:
                # The server itself is silent, so that Ctrl-C is; a defect of the emulator must not be.
                _log.exception("the emulator failed on %s %s", scope["method"], scope["path"])
                raise
            finally:
                self._enter(scope, status, time.monotonic() - started)

        return entered

    def _enter(self, scope: Scope, status: int | None, seconds: float) -> None:
        headers = Headers(scope=scope)
        remark = scope["state"].get("note")
        # The query of an attachment is its signature, and nothing else can say what was meant by it.
        query = "" if scope["path"].startswith("/attachments/") else scope["query_string"].decode("latin-1")
        self.requests.append(
            {
                "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
                "method": scope["method"],
                "path": scope["path"] + (f"?{query}" if query else ""),
                "status": status,
                "user_agent": headers.get("user-agent"),
                "seconds": round(seconds, 3),
                "note": remark,
            }
        )
        if self._say:
            path = scope["path"] if len(scope["path"]) < _WIDEST else f"{scope['path'][: _WIDEST - 1]}…"
            ending = "dropped" if status is None else str(status)
            self._say(
                f"{datetime.now().astimezone():%H:%M:%S}  {scope['method']:<4} {path:<24}  {ending}"
                f"  {1000 * seconds:.0f} ms{f'  {remark}' if remark else ''}"
            )


def note(request: Request, remark: str) -> None:
    """Add what a person would want to know about this request to its line."""
    before = getattr(request.state, "note", None)
    request.state.note = f"{before}; {remark}" if before else remark
