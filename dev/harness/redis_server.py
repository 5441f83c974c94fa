"""A Redis of our own on a free loopback port, which keeps what it was given when it dies."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import redis

from dev.harness.processes import Family, free_port, tail, wait_until

NAME = "redis"


class Redis:
    """
    Celery's broker.

    :param family: the processes it lives and dies with
    :param folder: where it keeps what it is given, made if missing
    """

    def __init__(self, family: Family, folder: Path) -> None:
        self._family = family
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("Redis is missing: apt-get install redis-server")
        self._folder.mkdir(parents=True, exist_ok=True)
        where = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        self._family.start(NAME, [program, *where, "--save", "", "--appendonly", "yes"])
        wait_until(self._answers, "Redis to answer", 30, detail=lambda: tail(self._family.log(NAME)))

    def stop(self) -> None:
        """Kill it."""
        self._family.kill(NAME, signal.SIGKILL)

    def empty(self) -> None:
        """Let it forget all it holds: tasks that wait, and those it would hand out again."""
        with self._client() as client:
            client.flushall()

    def waiting(self, queue: str = "default") -> int:
        """Return how many tasks wait in a queue for a worker."""
        with self._client() as client:
            return int(client.llen(queue))

    def _answers(self) -> bool:
        self._family.check()
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5)
