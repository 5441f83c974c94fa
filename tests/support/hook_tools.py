"""What the hook's tests share: a connection, the reads by name, and a server that records bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.hooks.pika import PikaHook

TOKEN = "user:1000-s3cretTOKEN"
DISCORD = "MTE.d1scord-S3CRET"
JOBID = "job:20241218021941022-user:1308-channel:1-bot:pika"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

READS = {
    "job": ("get_job", (JOBID,)),
    "list": ("list_jobs", ()),
    "cancel": ("cancel_job", (JOBID,)),
    "account": ("list_accounts", ()),
}


def connect(monkeypatch: pytest.MonkeyPatch, host: str, password: str = TOKEN, **extra: Any) -> None:
    """Let ``pika_default`` lead to this host."""
    connection = {"conn_type": "pika", "host": host, "password": password, "extra": json.dumps(extra)}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps(connection))


def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the environment say nothing about proxies and certificates."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def read(name: str, *args: Any, times: int = 1) -> Any:
    """Ask ``times`` times with one hook; return the last answer or the error."""
    method, default = READS[name]
    hook = PikaHook()
    found = None
    try:
        for _ in range(times):
            found = getattr(hook, method)(*(args or default))
    except PikaError as error:
        return error
    finally:
        with contextlib.suppress(PikaError):
            hook.get_conn().close()
    return found


def submit(**fields: Any) -> Any:
    """Submit once; return the job or the error."""
    hook = PikaHook()
    try:
        return hook.encrypt_text(**{"message": "HI", "prompt": "waves", **fields})
    except PikaError as error:
        return error
    finally:
        with contextlib.suppress(PikaError):
            hook.get_conn().close()


# Ask anything: one read, and one submit.
ASKS = [pytest.param(lambda: read("job"), id="read"), pytest.param(submit, id="submit")]


def http(status: int, body: Any = b"", **headers: str) -> bytes:
    """Return the bytes of an answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(content)}", *lines, "", ""]
    return "\r\n".join(head).encode() + content


class Recorder:
    """
    A server on the loopback that keeps every request's bytes.

    :param answer: makes the answer out of a request's bytes; None hangs up instead
    """

    def __init__(self, answer: Callable[[bytes], bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self.requests: list[bytes] = []
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def heads(self) -> list[str]:
        """The requests' lines before the body, in small letters."""
        return [request.partition(b"\r\n\r\n")[0].decode("latin-1").lower() for request in self.requests]

    def close(self) -> None:
        """Stop listening."""
        # Wakes the accept, which a mere close leaves hanging.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while request := _read_request(connection):
                    self.requests.append(request)
                    answer = self._answer(request)
                    if answer is None:
                        return
                    connection.sendall(answer)
                    if b"Connection: close" in answer:
                        return


@contextlib.contextmanager
def dripper(head: bytes) -> Iterator[Recorder]:
    """Run a server that answers with these bytes, and after them one byte every 50 ms for ever."""

    class Dripper(Recorder):
        def _talk(self, connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                self.requests.append(_read_request(connection))
                connection.sendall(head)
                for _ in range(1000):
                    time.sleep(0.05)
                    connection.sendall(b" ")

    made = Dripper(lambda _: None)
    try:
        yield made
    finally:
        made.close()


def exchanges() -> list[threading.Thread]:
    """Return the calls that are still under way, among them those that were given up."""
    return [thread for thread in threading.enumerate() if thread.name == "pika-exchange"]


def no_exchange_left(seconds: float = 3.0) -> bool:
    """Wait until no call is under way any more."""
    end = time.monotonic() + seconds
    while exchanges() and time.monotonic() < end:
        time.sleep(0.02)
    return not exchanges()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            return data
        data += more
        if data.startswith(b"\x16"):
            # The hello of TLS, to a server that was told nothing of it.
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        more = connection.recv(65_536)
        if not more:
            break
        body += more
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def recorder(
    answer: Callable[[bytes], bytes | None] | bytes | None, tls: ssl.SSLContext | None = None
) -> Iterator[Recorder]:
    """Run a :class:`Recorder` for as long as the block lasts; bytes are one answer for all."""
    made = Recorder(answer if callable(answer) else lambda _: answer, tls)
    try:
        yield made
    finally:
        made.close()
