"""Processes of our own: each in a session and with a log of its own, followed by name, ended without remains."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from dev.harness.guard import MARK, end_marked, marked

T = TypeVar("T")


class WaitError(AssertionError):
    """Something awaited did not come in time; the text says what was seen instead."""


# Bound and never listening, so that the kernel gives the port to nobody else before its server starts, or while that
# is killed and started again. A server that sets SO_REUSEADDR, as nearly all do, listens on it all the same.
_kept_ports: list[socket.socket] = []


def free_port() -> int:
    """Return a TCP port that is kept for whoever listens on it, as long as this process lives."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _kept_ports.append(kept)
    return int(kept.getsockname()[1])


def wait_until(
    check: Callable[[], T | None],
    what: str,
    timeout: float,
    *,
    interval: float = 0.25,
    detail: Callable[[], str] | None = None,
) -> T:
    """Return the first true answer of ``check``; past the timeout raise, with ``detail()`` of what was seen."""
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            seen = f"\n{detail()}" if detail else ""
            raise WaitError(f"waited {timeout:g} s in vain for {what}{seen}")
        time.sleep(interval)


def tail(path: Path, lines: int = 30) -> str:
    """Return the last lines of a log that may not exist."""
    if not path.exists():
        return f"(no {path})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


class Family:
    """
    Named processes which live and die together.

    All of them, and whatever they start in turn, carry the family's mark in their environment. That is how
    a task process is still found when its scheduler is dead and it belongs to nobody.
    """

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.logs = logs
        # setproctitle, used by Airflow, would write over the environment block and so over the mark.
        self.env = {**env, MARK: self.mark, "SPT_NOENV": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        """
        Start one process; its output is appended to ``<logs>/<name>.log``.

        :param cwd: its working folder, ours by default
        :param user: whom it runs as, for what refuses to run as root
        """
        if self.alive(name):
            raise RuntimeError(f"{name} is already running")
        self.logs.mkdir(parents=True, exist_ok=True)
        self._watch()
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(part) for part in argv],
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
                **({"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}),
            )

    def log(self, name: str) -> Path:
        """Return the path of a process's own log."""
        return self.logs / f"{name}.log"

    def alive(self, name: str) -> bool:
        """Tell whether the named process runs."""
        return name in self._running and self._running[name].poll() is None

    def pid(self, name: str) -> int:
        """Return the pid of a process that was started, be it alive or not."""
        return self._running[name].pid

    def names(self) -> list[str]:
        """Return the names of all processes started so far, in order."""
        return list(self._running)

    def check(self) -> None:
        """Raise when a process has ended that was not asked to."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise WaitError(f"{name} ended by itself ({process.returncode}):\n{tail(self.log(name))}")

    def tree(self, name: str) -> list[psutil.Process]:
        """Return every live descendant of a process, also those orphaned by its death."""
        main = self.pid(name)
        found = {process.pid: process for process in marked(self.mark) if _session(process.pid) == main}
        try:  # a task may have opened a session of its own (BashOperator does)
            found.update({process.pid: process for process in psutil.Process(main).children(recursive=True)})
        except psutil.Error:
            pass
        found.pop(main, None)
        return list(found.values())

    def kill(self, name: str, sig: int = signal.SIGKILL, *, tree: bool | None = None, grace: float = 10) -> None:
        """
        Send a signal to a process and see it end.

        With ``tree`` all its descendants get the signal too; by default so with SIGKILL (the container dies)
        and not so with any other signal (the service manager asks the process alone).
        """
        process = self._running[name]
        family = self.tree(name) if (sig == signal.SIGKILL if tree is None else tree) else []
        # The head first, so that it has no time to report what befalls its children.
        _send(process.pid, sig)
        for member in family:
            _send(member.pid, sig)
        if sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired as error:
                raise WaitError(f"{name} did not end within {grace:g} s of signal {sig}") from error
            # What the head forked after it was looked at: orphans by now, but still of its session.
            while family and (family := [member for member in family if member.is_running()] + self.tree(name)):
                for member in family:
                    _send(member.pid, sig)
                family = psutil.wait_procs(family, timeout=grace)[1]
            del self._running[name]

    def stop(self, grace: float = 10) -> None:
        """End everything: ask first, then kill, until nothing with the mark is left."""
        for process in self._running.values():
            if process.poll() is None:
                _send(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(process.poll() is None for process in self._running.values()):
            time.sleep(0.1)
        end_marked(self.mark, grace=1)
        for process in self._running.values():
            process.wait()
        self._running.clear()
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _watch(self) -> None:
        if self._guard is None:
            self._guard = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("guard.py")), self.mark],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )


def _send(pid: int, sig: int) -> None:
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1
