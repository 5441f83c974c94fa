"""
What a transfer costs: memory of a 1 GiB download and of a 20 MiB image, and throughput against ``curl``.

Everything is on the loopback. Memory is the peak of a process that runs the real operator or hook, above what the same
process had when everything was imported and nothing had begun. Throughput is a ratio within one run, because this
machine's own speed says nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 2**20
FILM = 1024 * MIB
IMAGE = 20 * MIB
# Held on purpose, so that a meter that tells nothing is found out.
CONTROL = 64 * MIB
MEMORY_LIMIT = 32.0
RATIO_GOAL = 0.5
ROUNDS = 3
_BLOCK = bytes(MIB)


class ByteServer:
    """An HTTP server that makes up a film, and swallows a submit: as fast as a socket can go."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                while request := lines.readline():
                    headers = dict(line.decode().lower().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
                    method, path = request.decode().split()[:2]
                    if method == "POST":
                        left = int(headers["content-length"])
                        while left:
                            left -= len(lines.read(min(left, MIB)))
                        body = json.dumps({"jobid": "job:1", "status": "started"}).encode()
                        connection.sendall(_head("application/json", len(body)) + body)
                        continue
                    size = IMAGE if path.startswith("/image") else FILM
                    connection.sendall(_head("image/png" if size == IMAGE else "video/mp4", size))
                    for _ in range(size // MIB):
                        connection.sendall(_BLOCK)
            except OSError:
                return


def _head(content_type: str, size: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\n\r\n".encode()


def worker(url: str, what: str, folder: str) -> None:
    """Run one transfer in this process, and tell what it cost."""
    import requests  # noqa: F401 - part of the idle task
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.transfers.pika import PikaDownloadOperator

    os.environ["AIRFLOW_CONN_PIKA_BENCH"] = json.dumps({"conn_type": "pika", "host": url, "password": "user:1-bench"})
    link = f"{url}/film.mp4"
    attachment = {"id": "1", "filename": "film.mp4", "size": FILM, "url": link, "content_type": "video/mp4"}
    job = {"jobid": "job:1", "status": "completed", "attachments": [attachment]}

    def download() -> None:
        operator = PikaDownloadOperator(task_id="bench", path=folder, job=job, overwrite=True, do_xcom_push=False)
        operator.execute({"outlet_events": OutletEventAccessors()})

    def upload() -> None:
        image = f"{url}/image.png" if what == "url image" else str(Path(folder, "image.png"))
        PikaHook("pika_bench").encrypt_text(message="HI", prompt="waves", image=image)

    # Imports made in passing belong to the idle task; the connection and a first request do not.
    from airflow.sdk.io import attach

    import airflow_provider_pika.files.download
    import airflow_provider_pika.files.image  # noqa: F401

    attach("file")

    def hold() -> None:
        bytearray(b"x" * CONTROL)

    work: Callable[[], None] = {"film": download, "control": hold}.get(what, upload)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    idle = _memory("VmRSS")
    begun = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - begun, "above": _memory("VmHWM") - idle, "idle": idle}))


def _memory(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel does not tell {name}")


def _measure(url: str, what: str, folder: str, home: str) -> dict[str, Any]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))}
    env |= {"AIRFLOW_HOME": home, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-m", "dev.bench.transfer", "--worker", url, what, folder]
    done = subprocess.run(command, env=env, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the worker failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _curl(url: str, folder: str) -> float:
    begun = time.perf_counter()
    target = str(Path(folder, "curl.mp4"))
    subprocess.run(["curl", "-sS", "--noproxy", "*", "-o", target, f"{url}/film.mp4"], check=True)
    return time.perf_counter() - begun


@contextmanager
def _server_process() -> Iterator[str]:
    # A process of its own: sharing one with the measured transfer would share its interpreter lock too.
    command = [sys.executable, "-m", "dev.bench.transfer", "--server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> int:
    """Measure, print a table, and return 1 if a figure is missed."""
    with tempfile.TemporaryDirectory(prefix="pika-bench-") as folder, _server_process() as url:
        Path(folder, "image.png").write_bytes(b"\x89PNG\r\n\x1a\n".ljust(IMAGE, b"\0"))
        home = str(Path(folder, "airflow"))
        films, curls = [], []
        for _ in range(ROUNDS):
            films.append(_measure(url, "film", folder, home))
            if shutil.which("curl"):
                curls.append(_curl(url, folder))
        control = _measure(url, "control", folder, home)["above"]
        images = {what: _measure(url, what, folder, home) for what in ("local image", "url image")}
    rows = [("download of 1 GiB, memory above idle", max(film["above"] for film in films), "MiB", MEMORY_LIMIT)]
    for what, cost in images.items():
        rows.append((f"submit with a 20 MiB {what}, the same", cost["above"], "MiB", MEMORY_LIMIT))
    missed = control < CONTROL / MIB
    print(f"{'figure':56} {'measured':>12}   goal")
    for name, measured, unit, limit in rows:
        missed |= measured > limit
        print(f"{name:56} {measured:8.1f} {unit}   at most {limit:g}")
    print(f"{'check of the meter: 64 MiB held twice on purpose':56} {control:8.1f} MiB   at least 64")
    if curls:
        ours, theirs = (FILM / MIB / min(times) for times in ([film["seconds"] for film in films], curls))
        missed |= ours / theirs < RATIO_GOAL
        name = f"throughput as part of curl's ({ours:.0f} of {theirs:.0f} MiB/s)"
        print(f"{name:56} {ours / theirs:8.2f}       at least {RATIO_GOAL:g}")
    else:
        print("throughput: there is no curl here to compare with")
    return int(missed)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--server"]:
            print(ByteServer().url, flush=True)
            threading.Event().wait()
        case ["--worker", url, what, folder]:
            worker(url, what, folder)
        case _:
            sys.exit(main())
