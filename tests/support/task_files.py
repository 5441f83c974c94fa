"""What a test of a transfer needs of Airflow, and a web server with answers of the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow.sdk.execution_time.context import OutletEventAccessors

from tests.support.task_context import Log, TaskInstance


class Run:
    """One run of an operator, outside of Airflow."""

    def __init__(self, operator: Any) -> None:
        self.ti = TaskInstance(task_id=operator.task_id)
        self.events = OutletEventAccessors()
        self.log = Log()
        operator._log = operator._cached_logger = self.log
        self.result = operator.execute({"ti": self.ti, "outlet_events": self.events})


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web_server(answer: Answer) -> Iterator[str]:
    """Serve every GET by the test's own function while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def trickle(handler: BaseHTTPRequestHandler, **headers: str) -> None:
    """Answer with a body of a byte now and then, for as long as somebody reads it."""
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)
