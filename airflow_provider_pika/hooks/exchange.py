"""An HTTP exchange that can be given up: whatever hangs, its caller is free when the time is up."""

from __future__ import annotations

import contextvars
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

T = TypeVar("T")

GRACE = 0.5


class TooSlowError(Exception):
    """The exchange was not over in its time."""


class GivenUpError(Exception):
    """Ends an exchange that nobody waits for any more; raised in its own thread only."""


class Exchange(threading.Thread, Generic[T]):
    """
    One HTTP exchange, in a thread of its own.

    The timeouts of ``requests`` are per chunk, so a list that drips a byte every 4 s holds a call, and every deadline
    behind it, for ever; a DNS lookup has no timeout at all, and nothing but another thread can stop waiting for it.
    The waiting thread still handles signals at once. The thread is a daemon: one that was given up holds no
    interpreter's end.

    :param work: the exchange; runs once, with the caller's context variables
    """

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="pika-exchange", daemon=True)
        self._work: Callable[[], T] = work
        self._context = contextvars.copy_context()
        self._over = threading.Event()
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._given_up = False
        self._socket: socket.socket | None = None
        self._half_made: socket.socket | None = None

    def within(self, seconds: float) -> T:
        """
        Start the exchange and return what it returns, or raise what it raises.

        :raises TooSlowError: when it is not over by then; it is given up, as on whatever a signal's handler raises
        """
        over = False
        try:
            # A signal's handler may raise in here already, with the thread under way.
            self.start()
            # A moment more, for an answer that came while this process was stopped and the time ran out.
            over = self._over.wait(seconds) or self._over.wait(GRACE)
        finally:
            if not over:
                self._give_up()
        if not over:
            raise TooSlowError(f"it was not over within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def run(self) -> None:
        """Do the work; the thread's own method."""
        try:
            self._outcome.append(self._context.run(self._work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, as it is
            self._error = error
        finally:
            self._over.set()

    @property
    def connected(self) -> bool:
        """Whether a connection was made."""
        return self._socket is not None

    def hold(self, sock: socket.socket | None) -> None:
        """
        Keep the socket the exchange is about to use, so that giving up wakes whoever reads from it.

        :raises GivenUpError: when it has been given up meanwhile
        """
        with self._lock:
            if self._given_up:
                raise GivenUpError
            self._socket = sock

    def hold_half_made(self, sock: socket.socket) -> None:
        """
        Keep the socket on which a proxy's tunnel is still being made: no byte of the call leaves on it yet.

        :raises GivenUpError: when it has been given up meanwhile
        """
        with self._lock:
            if self._given_up:
                raise GivenUpError
            self._half_made = sock

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            for sock in (self._socket, self._half_made):
                # It may be closed, or be a kind that cannot be shut down: then its own timeout ends the thread.
                with suppress(OSError, AttributeError):
                    if sock is not None:
                        sock.shutdown(socket.SHUT_RDWR)


class _HeldConnection(HTTPConnection):
    """A connection that tells the exchange it serves about its socket, a new one and a kept one alike."""

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        exchange = threading.current_thread()
        if isinstance(exchange, Exchange):
            exchange.hold_half_made(sock)
        return sock

    def connect(self) -> None:
        super().connect()
        _hold(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _hold(self.sock)
        super().request(*args, **kwargs)


def _hold(sock: socket.socket | None) -> None:
    exchange = threading.current_thread()
    if isinstance(exchange, Exchange):
        exchange.hold(sock)


class HeldAdapter(HTTPAdapter):
    """The adapter of ``requests`` whose connections can be given up."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool as ``requests`` chose it, by way of a proxy or not."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _HeldConnection):
            pool.ConnectionCls = type("HeldConnection", (_HeldConnection, pool.ConnectionCls), {})
        return pool
