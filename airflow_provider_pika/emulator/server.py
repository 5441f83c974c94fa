"""Running the emulator: in this thread, in one beside it, or as a process of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

from airflow_provider_pika.emulator.app import PikaApp
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.settings import Settings
from airflow_provider_pika.emulator.wire import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STOP_TIMEOUT = 30


class Server:
    """
    The emulator on a port that is already open.

    :param settings: how it behaves until it is told otherwise
    :param host: where it listens; beyond the loopback its control routes are open to anybody
    :param port: 0 for any free one
    :param say: takes one line per API request; None for silence
    :raises OSError: if it cannot listen there
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        # asyncio sets it only on sockets that name their protocol, and without it every answer takes 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self.app = PikaApp(settings, self.url, say)
        config = uvicorn.Config(
            self.app.asgi(),
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            # A client that hangs in a slow answer must not hold up Ctrl-C.
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until :meth:`stop`, SIGINT or SIGTERM."""
        self._uvicorn.run(sockets=[self._socket])

    def stop(self) -> None:
        """Ask a server that runs in another thread to end."""
        self._uvicorn.should_exit = True


@contextlib.contextmanager
def running_emulator(settings: Settings | None = None, *, port: int = 0) -> Iterator[EmulatorClient]:
    """
    Run an emulator in a thread for as long as the block lasts.

    :param settings: how it behaves until it is told otherwise
    :param port: 0 for any free one
    """
    settings = settings or Settings()
    server = Server(settings, port=port)
    thread = threading.Thread(target=server.run, name="pika-emulator", daemon=True)
    thread.start()
    client = EmulatorClient(server.url, settings.token)
    # The socket listens already, so this waits until the server answers.
    client.counters()
    try:
        yield client
    finally:
        server.stop()
        thread.join(_STOP_TIMEOUT)
