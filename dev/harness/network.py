"""A network between Airflow and the emulator that can be away, and tasks that stand still: what machines really do."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

import psutil
from typing_extensions import Self

_STEP = 0.05


class Network:
    """
    A TCP proxy in threads of this process.

    :param targets: the URLs it leads to, each connection to the next one that accepts it, as a load balancer does
    """

    def __init__(self, *targets: str) -> None:
        addresses = [urlsplit(target) for target in targets]
        self._targets = deque((address.hostname or "127.0.0.1", address.port or 80) for address in addresses)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.accepted = 0
        self._open = threading.Event()
        self._flowing = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._fillers: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._open.set()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._flowing.set()
        with self._lock:
            # Closing alone would leave it listening for as long as the other thread waits on it.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._hang_up()
            for filler in self._fillers:
                filler.close()

    def hold(self) -> None:
        """
        Let every new ``connect()`` hang from now on; connections that stand go on.

        Not accepting is not enough: the kernel itself completes as many handshakes as the backlog has room for, and
        the client would send its request. So the backlog is one, and full.
        """
        with self._lock:
            self._open.clear()
            self._listener.listen(0)
            while self._has_room():
                pass

    def holds(self, pid: int) -> bool:
        """Tell whether a process hangs in a ``connect()`` to here."""
        own = {filler.getsockname() for filler in self._fillers}
        with suppress(psutil.NoSuchProcess):
            return any(
                connection.status == psutil.CONN_SYN_SENT
                and connection.raddr.port == self._port
                and tuple(connection.laddr) not in own
                for connection in psutil.Process(pid).net_connections("tcp")
            )
        return False

    def release(self) -> None:
        """Let connections through again; one that hung is made when the client's kernel asks next: 1, 3, 7, 15 s …."""
        with self._lock:
            own = {filler.getsockname() for filler in self._fillers}
            # Those in the backlog: ours are dropped, a client that slipped in before them is served.
            while select.select([self._listener], [], [], 0)[0]:
                client, address = self._listener.accept()
                if address in own:
                    client.close()
                else:
                    self._serve(client)
            for filler in self._fillers:
                filler.close()
            self._fillers.clear()
            self._listener.listen(128)
            self._open.set()

    def leave(self) -> None:
        """Be away: nothing flows either way any more, and nobody is told; new connections hang."""
        self._flowing.clear()
        self.hold()

    def come_back(self) -> None:
        """Carry new connections again; those of before are broken, and what they held is lost."""
        with self._lock:
            self._hang_up()
        self._flowing.set()
        self.release()

    def _has_room(self) -> bool:
        """Put one more connection of our own into the backlog; tell whether it fitted."""
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", self._port))
        self._fillers.append(filler)
        return bool(select.select([], [filler], [], 0.2)[1])

    def _accept(self) -> None:
        while not self._closed.is_set():
            self._open.wait(_STEP)
            with suppress(OSError, ValueError):  # closed meanwhile
                select.select([self._listener], [], [], _STEP)
            with self._lock:
                if self._closed.is_set():
                    return
                if self._open.is_set() and select.select([self._listener], [], [], 0)[0]:
                    self._serve(self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        self.accepted += 1
        for _ in range(len(self._targets)):
            self._targets.rotate(-1)
            with suppress(OSError):
                server = socket.create_connection(self._targets[-1], timeout=10)
                break
        else:
            client.close()
            return
        server.settimeout(None)
        self._pairs.append((client, server))
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        # Whoever hung up, the other one hears of it, unless the network is away.
        self._flowing.wait()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _hang_up(self) -> None:
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._pairs.clear()


def freeze(pids: Iterable[int]) -> None:
    """Let processes stand still, as on a paused machine; give a task's supervisor and the task itself."""
    _signal(pids, signal.SIGSTOP)


def thaw(pids: Iterable[int]) -> None:
    """Let frozen processes go on; one that has been killed meanwhile is no error."""
    _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], sig: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)
