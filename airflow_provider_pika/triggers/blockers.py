"""The jobs in the way of a queue, read by the queue itself: where there is no list, or when the service has called."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from airflow_provider_pika.api.callback import Ring, job_digest
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL
from airflow_provider_pika.exceptions import PikaError, PikaNotFoundError
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
        # The bells that were heard of each, and those of which one is still to be read for them.
        self._heard: dict[str, set[Ring]] = {}
        self._wanted: set[str] = set()
        self._read_at: dict[str, float] = {}
        self.next = 0.0

    async def read_all(self, waited_for: set[str]) -> None:
        """Read them all, and release whoever may go; those that somebody waits for are read for him."""
        self.next = time.time() + BLOCKERS_AGE
        # What was read for a bell less than 10 s ago is taken as running until the next time.
        latest = time.time() - MIN_POLL_INTERVAL
        blockers = [jobid for jobid in self._queues.blockers - waited_for if self._read_at.get(jobid, 0.0) <= latest]
        found = await asyncio.gather(*(self._read(jobid) for jobid in blockers))
        ended = {jobid for jobid, read in zip(blockers, found, strict=True) if _has_ended(read)}
        # A 429 that came meanwhile may have named others, of which nothing is known.
        self._queues.after_poll((self._queues.blockers - ended) | waited_for, time.time())

    def hear(self, rings: Iterable[Ring]) -> set[str]:
        """Return which of them are to be read for these bells; each bell has one read at most, however often told."""
        if not self._queues:
            return set()
        blockers = {job_digest(jobid): jobid for jobid in self._queues.blockers}
        self._heard = {jobid: heard for jobid, heard in self._heard.items() if jobid in blockers.values()}
        self._wanted &= self._heard.keys()
        for ring in rings:
            if (jobid := blockers.get(ring.job)) and ring not in self._heard.setdefault(jobid, set()):
                self._heard[jobid].add(ring)
                self._wanted.add(jobid)
        return set(self._wanted)

    async def read(self, jobid: str) -> None:
        """
        Read one of them, which the service has called about; release whoever takes its place if it has ended.

        A call may be early, or forged, so it is read again for the next one, 10 s later at the soonest.
        """
        while jobid in self._wanted:
            await asyncio.sleep(max(0.0, self._read_at.get(jobid, 0.0) + MIN_POLL_INTERVAL - time.time()))
            self._wanted.discard(jobid)
            if not self._queues or jobid not in self._queues.blockers:
                # Whoever joins next is told of these bells anew.
                self._heard.pop(jobid, None)
            elif _has_ended(await self._read(jobid)):
                self._queues.after_end(jobid, time.time())

    async def _read(self, jobid: str) -> Job | PikaError | None:
        try:
            read = await self._hook.get_job(jobid)
        except Exception as error:  # noqa: BLE001 - a queue that stalls over it sends a worker to find out
            log.warning("A job in the way of a queue could not be read: an unforeseen %s", type(error).__name__)
            return None
        now = time.time()
        self._read_at = {other: at for other, at in self._read_at.items() if now - at < MIN_POLL_INTERVAL}
        self._read_at[jobid] = now
        return read[1] if read else None


def _has_ended(found: Job | PikaError | None) -> bool:
    return isinstance(found, PikaNotFoundError) or (isinstance(found, Job) and found.is_final)
