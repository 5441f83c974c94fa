"""Answers that break off, and the one way to get at a connection in order to break it."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send


class Connection(H11Protocol):
    """uvicorn's own protocol, which besides hands its transport to the app: ASGI has no word for hanging up."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport where uvicorn copies each request's ``scope["state"]`` from."""
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class Dropped(Response):
    """No answer at all: the connection is dropped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Hang up without a byte."""
        scope["state"]["transport"].abort()
        await _until_gone(receive)


class Cut(Response):
    """
    An answer that ends before all its announced bytes were sent.

    :param whole: the answer it would have been
    :param keep: how many bytes of its body are sent, None for half of them
    """

    def __init__(self, whole: Response, keep: int | None) -> None:
        super().__init__(status_code=whole.status_code)
        self.raw_headers = whole.raw_headers
        self._start = bytes(whole.body)[: len(whole.body) // 2 if keep is None else keep]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers and the first bytes, then close."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": self._start, "more_body": True})
        scope["state"]["transport"].close()
        await _until_gone(receive)


class Dripped(Response):
    """
    An answer of which one byte comes after another, slowly: no read of the client waits long, and yet none ends.

    :param whole: the answer it would have been
    :param seconds: the pause before each byte
    :param with_head: whether status line and headers drip as well
    """

    def __init__(self, whole: Response, seconds: float, *, with_head: bool) -> None:
        super().__init__(status_code=whole.status_code)
        self.raw_headers = whole.raw_headers
        self._body = bytes(whole.body)
        self._seconds = seconds
        self._with_head = with_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Drip until all is sent or the client has gone."""
        transport = scope["state"]["transport"]
        if self._with_head:
            # Past uvicorn, which sends the head in one piece.
            async for byte in self._drops(transport, self._head() + self._body):
                transport.write(byte)
            transport.close()
            await _until_gone(receive)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for byte in self._drops(transport, self._body):
            await send({"type": "http.response.body", "body": byte, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _drops(self, transport: asyncio.Transport, data: bytes) -> AsyncIterator[bytes]:
        for number in range(len(data)):
            await asyncio.sleep(self._seconds)
            if transport.is_closing():
                return
            yield data[number : number + 1]

    def _head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status_code} {HTTPStatus(self.status_code).phrase}".encode()]
        lines += [b"%s: %s" % header for header in self.raw_headers]
        return b"\r\n".join([*lines, b"connection: close", b"", b""])


async def _until_gone(receive: Receive) -> None:
    # uvicorn takes an app that returns early for a broken one, unless it has seen the connection go.
    while (await receive())["type"] != "http.disconnect":
        pass
