"""The jobs in the way of a queue, read by the queue itself: where there is no list, or when the service has called."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from airflow_provider_pika.api.callback import job_digest
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL
from airflow_provider_pika.exceptions import PikaError, PikaNotFoundError
from airflow_provider_pika.triggers.async_hook import AsyncHook
from airflow_provider_pika.triggers.queue import ChannelQueues

log = logging.getLogger(__name__)

# Without a list they are read one by one, this often.
BLOCKERS_AGE = 30.0
# So often one is read because the service has called about it: a call may be early, or forged.
CALLED_READS = 3


class Blockers:
    """
    Reads the jobs in the way.

    ``next`` is when all of them may be read again.
    """

    def __init__(self, hook: AsyncHook, queues: ChannelQueues) -> None:
        self._hook = hook
        self._queues = queues
        # How often each was read because the service had called about it, and when it was asked for last.
        self._called: dict[str, tuple[int, float]] = {}
        self.next = 0.0

    async def read_all(self, waited_for: set[str]) -> None:
        """Read them all, and release whoever may go; those that somebody waits for are read for him."""
        self.next = time.time() + BLOCKERS_AGE
        blockers = list(self._queues.blockers - waited_for)
        found = await asyncio.gather(*(self._read(jobid) for jobid in blockers))
        ended = {jobid for jobid, read in zip(blockers, found, strict=True) if _has_ended(read)}
        # A 429 that came meanwhile may have named others, of which nothing is known.
        self._queues.after_poll((self._queues.blockers - ended) | waited_for, time.time())

    def called_about(self, digests: Collection[str]) -> list[str]:
        """Return which of them bells were rung for, each a few times in its life, whoever rings how often."""
        blockers = self._queues.blockers if self._queues else set()
        self._called = {jobid: called for jobid, called in self._called.items() if jobid in blockers}
        return [
            jobid
            for jobid in blockers
            if self._called.get(jobid, (0, 0.0))[0] < CALLED_READS and job_digest(jobid) in digests
        ]

    async def read(self, jobid: str) -> None:
        """Read one of them, which the service has called about; release whoever takes its place if it has ended."""
        reads, last = self._called.get(jobid, (0, 0.0))
        await asyncio.sleep(max(0.0, last + MIN_POLL_INTERVAL - time.time()))
        at = time.time()
        found = await self._read(jobid)
        is_answer = isinstance(found, (Job, PikaNotFoundError))
        self._called[jobid] = (reads + is_answer, at)
        if _has_ended(found):
            self._queues.after_end(jobid, time.time())

    async def _read(self, jobid: str) -> Job | PikaError | None:
        try:
            read = await self._hook.get_job(jobid)
        except Exception as error:  # noqa: BLE001 - a queue that stalls over it sends a worker to find out
            log.warning("A job in the way of a queue could not be read: an unforeseen %s", type(error).__name__)
            return None
        return read[1] if read else None


def _has_ended(found: Job | PikaError | None) -> bool:
    return isinstance(found, PikaNotFoundError) or (isinstance(found, Job) and found.is_final)
