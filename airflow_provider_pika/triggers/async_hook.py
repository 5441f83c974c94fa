"""The hook on an event loop: its reads run in a few threads, so that nothing here blocks the triggerer's loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import PikaError, PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook

log = logging.getLogger(__name__)

T = TypeVar("T")

# Reads of jobs at the same time, when several have ended at once.
THREADS = 8
# A rotated token or a moved host is noticed within this.
SETTINGS_AGE = 300.0
# How long a read may wait for its turn.
READ_TIME = 20.0


class AsyncHook:
    """
    The reads of one connection, which is read itself off the loop, and anew now and then.

    ``paused_until`` is when the longest pause ends that a 429 to any of them has asked for.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.paused_until = 0.0
        self._hook = PikaHook(conn_id)
        self._settings_at: float | None = None
        self._reads = asyncio.Semaphore(THREADS)
        # One more for the list, which is never kept waiting by jobs whose reads hang, nor they by it.
        self._pool = ThreadPoolExecutor(THREADS + 1, thread_name_prefix=f"pika-{conn_id}")

    @property
    def is_paused(self) -> bool:
        """Whether a 429 has asked for a pause that still lasts."""
        return time.time() < self.paused_until

    @property
    def callback_url(self) -> str | None:
        """Where the service reports ends, None if nowhere or not known yet."""
        return self._hook.settings.callback_url if self._settings_at is not None else None

    @property
    def is_old(self) -> bool:
        """Whether it is time to read the connection anew."""
        return self._settings_at is not None and time.time() - self._settings_at >= SETTINGS_AGE

    async def connect(self) -> PikaError | None:
        """Read the connection, before a thread needs it; return why it could not be read."""
        from asgiref.sync import sync_to_async

        if self._settings_at is not None:
            return None
        try:
            await sync_to_async(lambda: self._hook.settings)()
        except PikaError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a secrets backend that fails must not end a thousand waits
            # Its type alone: a secrets backend may quote in its message what it failed to read.
            return PikaUnavailableError(
                f"The Airflow connection {self.conn_id!r} could not be read: {type(error).__name__}."
            )
        self._settings_at = time.time()
        return None

    async def renew(self) -> bool:
        """Read the connection anew; return whether it has changed since."""
        from asgiref.sync import sync_to_async

        self._settings_at = time.time()
        hook = PikaHook(self.conn_id)
        try:
            changed = await sync_to_async(lambda: hook.settings != self._hook.settings)()
        except Exception as error:  # noqa: BLE001 - a secrets backend that fails once must not end a thousand waits
            name = type(error).__name__
            log.warning("The connection %r cannot be read anew (%s): going on with the one known.", self.conn_id, name)
            return False
        if changed:
            log.info("The connection %r has changed: going on with the new one.", self.conn_id)
            old, self._hook = self._hook, hook
            old.get_conn().close()
        return changed

    async def list_jobs(self) -> frozenset[str]:
        """Return the jobids on the list of running jobs."""
        return frozenset(await self._ask(self._hook.list_jobs))

    async def get_job(self, jobid: str, *, is_last: bool = False) -> tuple[float, Job | PikaError] | None:
        """
        Read a job when it is its turn.

        :param is_last: the wait ends with this read, so no pause that a 429 asks for can be waited out
        :return: when the read began and what it found; None if its turn did not come for 20 s, because the API is slow,
            or if a 429 asks for quiet
        """
        until = time.time() + READ_TIME
        async with self._reads:
            at = time.time()
            if (self.is_paused and not is_last) or at > until:
                return None
            try:
                return at, await self._ask(self._hook.get_job, jobid)
            except PikaError as error:
                return at, error

    def close(self) -> None:
        """Let go of its threads and its session."""
        self._pool.shutdown(wait=False)
        if self._settings_at is not None:
            self._hook.get_conn().close()

    async def _ask(self, ask: Callable[..., T], *arguments: str) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, ask, *arguments)
        except PikaError as error:
            self.paused_until = max(self.paused_until, time.time() + (error.retry_after or 0.0))
            raise
