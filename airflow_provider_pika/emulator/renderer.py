"""
Bring your own renderer: a program that makes each job's film, so that a model of one's own stands behind the API.

It is run once a job, ``CMD FILM``: the job comes as JSON on its stdin, with every field of the command by its API name
(of a file, the path, with the suffix of its kind), besides ``jobid``, ``verb`` and ``take``, which tells a retried job
from its parent. It writes an MP4 to the path FILM. Each line on its stdout, such as ``33%``, becomes the job's
``content``. If it exits with anything but 0, the job has failed, and the last line of its stderr says why. It is
killed, with all it started, when the job is cancelled, takes too long, or when the emulator ends. As many run at once
as the channels have jobs, so ``maxJobs`` each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_pika.emulator.jobs import Job
    from airflow_provider_pika.emulator.state import State

_LINE = 200
# What a program leaves running behind it may hold its pipes open: so long its last words are waited for.
_LAST_WORDS = 1
_LOOK = 0.05


class Renderer:
    """
    Runs the program for every job that runs, and ends the jobs as it ends.

    :param state: whose jobs and settings
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._renders: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._folder = TemporaryDirectory(prefix="pika-films-", ignore_cleanup_errors=True)

    def settle(self) -> None:
        """Start what has come and end what is over: cancelled, or forgotten by a reset."""
        for jobid, (job, render) in list(self._renders.items()):
            if render.done() or job.ended is not None or self._state.jobs.get(jobid) is not job:
                del self._renders[jobid]
                self._end(render)
        for job in self._state.running():
            if job.jobid not in self._renders:
                self._renders[job.jobid] = job, asyncio.create_task(self._render(job))

    async def close(self) -> None:
        """End every program and forget the films."""
        for _, render in self._renders.values():
            self._end(render)
        await asyncio.gather(*self._ending, return_exceptions=True)
        self._folder.cleanup()

    def _end(self, render: asyncio.Task[None]) -> None:
        # Once: a second cancel would strike while its program is being waited for.
        if not render.done():
            self._ending.add(render)
            render.add_done_callback(self._ending.discard)
            render.cancel()

    async def _render(self, job: Job) -> None:
        settings = self._state.settings
        film = Path(self._folder.name, f"{job.number}.mp4")
        why: str | None
        try:
            why = await asyncio.wait_for(self._run(job, film), settings.renderer_limit)
        except asyncio.TimeoutError:
            why = f"The renderer took longer than {settings.renderer_limit:g} s"
        except OSError as problem:
            why = f"The renderer cannot be started: {problem}"
        if why is None and not _has_bytes(film):
            why = "The renderer made no film"
        if job.ended is not None:
            return
        job.film = film if why is None else None
        job.traits = replace(job.traits, reason=why or job.traits.reason)
        # A marker or a fault may have another end for it, or none.
        if why or not job.traits.stuck:
            self._state.end(job, "failed" if why else job.traits.end_as)

    async def _run(self, job: Job, film: Path) -> str | None:
        """Run the program to its end; return why it failed, None if it did not."""
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(
            *self._state.settings.renderer, str(film), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        complaints: deque[str] = deque(maxlen=1)
        if program.stdin is None or program.stdout is None or program.stderr is None:
            raise RuntimeError("a program was started without its pipes")
        words = asyncio.gather(
            self._tell(program.stdin, job, film),
            _each_line(program.stdout, lambda line: self._progress(job, line)),
            _each_line(program.stderr, complaints.append),
        )
        try:
            # Not wait(), which waits for the pipes as well, and those a program may leave to others.
            while program.returncode is None:  # noqa: ASYNC110 - asyncio tells this to nobody
                await asyncio.sleep(_LOOK)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(words), _LAST_WORDS)
        finally:
            # Not ended, or something it started holds its pipes: its group is still its own.
            if program.returncode is None or not words.done():
                _kill_group(program.pid)
                await program.wait()
            words.cancel()
            await asyncio.gather(words, return_exceptions=True)
        if program.returncode == 0:
            return None
        return complaints[0] if complaints else f"The renderer ended with exit code {program.returncode}"

    async def _tell(self, stdin: asyncio.StreamWriter, job: Job, film: Path) -> None:
        asked = job.shows
        fields: dict[str, Any] = dict(asked.texts)
        for name, upload in asked.files.items():
            path = film.with_name(f"{job.number}-{name}{upload.suffix}")
            path.write_bytes(upload.data or b"")
            fields[name] = str(path)
        told = {"jobid": job.jobid, "verb": asked.command.verb, "take": job.take, **fields}
        # A program that reads nothing of it is free to.
        with contextlib.suppress(ConnectionError):
            stdin.write(json.dumps(told).encode())
            await stdin.drain()
        stdin.close()

    def _progress(self, job: Job, line: str) -> None:
        if job.ended is None:
            job.progress = line
            self._state.set_status(job, "progress")


async def _each_line(stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
    rest = b""
    while read := await stream.read(2**14):
        *lines, rest = (rest + read).split(b"\n")
        for line in [*lines, b""]:
            if text := line.decode(errors="replace").strip()[:_LINE]:
                take(text)
        # Of a line that does not end, its beginning is enough.
        rest = rest[: 4 * _LINE]
    if text := rest.decode(errors="replace").strip()[:_LINE]:
        take(text)


def _has_bytes(film: Path) -> bool:
    return film.is_file() and film.stat().st_size > 0


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
