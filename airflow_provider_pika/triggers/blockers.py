"""The jobs in the way of a queue, read by the queue itself: where there is no list, or when the service has called."""

from __future__ import annotations

import asyncio
import logging
import time

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import PikaNotFoundError
from airflow_provider_pika.triggers.async_hook import AsyncHook
from airflow_provider_pika.triggers.queue import ChannelQueues

log = logging.getLogger(__name__)

# Without a list they are read one by one, this often.
BLOCKERS_AGE = 30.0


class Blockers:
    """
    Reads the jobs in the way.

    ``next`` is when all of them may be read again.
    """

    def __init__(self, hook: AsyncHook, queues: ChannelQueues) -> None:
        self._hook = hook
        self._queues = queues
        self.next = 0.0

    async def read_all(self, waited_for: set[str]) -> None:
        """Read them all, and release whoever may go; those that somebody waits for are read for him."""
        self.next = time.time() + BLOCKERS_AGE
        blockers = list(self._queues.blockers - waited_for)
        found = await asyncio.gather(*(self._may_run(jobid) for jobid in blockers))
        ended = {jobid for jobid, may_run in zip(blockers, found, strict=True) if not may_run}
        # A 429 that came meanwhile may have named others, of which nothing is known.
        self._queues.after_poll((self._queues.blockers - ended) | waited_for, time.time())

    async def read(self, jobid: str) -> None:
        """Read one of them, and release whoever takes its place if it has ended."""
        if not await self._may_run(jobid):
            self._queues.after_end(jobid, time.time())

    async def _may_run(self, jobid: str) -> bool:
        try:
            read = await self._hook.get_job(jobid)
        except Exception as error:  # noqa: BLE001 - a queue that stalls over it sends a worker to find out
            log.warning("A job in the way of a queue could not be read: an unforeseen %s", type(error).__name__)
            return True
        found = read[1] if read else None
        return not (isinstance(found, PikaNotFoundError) or (isinstance(found, Job) and found.is_final))
