"""The jobs in the way of a queue, read by the queue itself: where there is no list, or when the service has called."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_pika.api.callback import Ring, job_digest
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL
from airflow_provider_pika.exceptions import PikaError, PikaNotFoundError
from airflow_provider_pika.triggers.async_hook import AsyncHook
from airflow_provider_pika.triggers.queue import ChannelQueues

log = logging.getLogger(__name__)

# Without a list they are read one by one, this often.
BLOCKERS_AGE = 30.0


@dataclass
class _Called:
    """
    A job in the way that the service has called about.

    :param rings: the bells that were rung for it
    :param is_wanted: whether one of them is still to be read for
    :param read_at: when it was last read for one
    """

    rings: set[Ring] = field(default_factory=set)
    is_wanted: bool = False
    read_at: float = 0.0


class Blockers:
    """
    Reads the jobs in the way.

    ``next`` is when all of them may be read again.
    """

    def __init__(self, hook: AsyncHook, queues: ChannelQueues) -> None:
        self._hook = hook
        self._queues = queues
        self._called: dict[str, _Called] = {}
        self.next = 0.0

    async def read_all(self, waited_for: set[str]) -> None:
        """Read them all, and release whoever may go; those that somebody waits for are read for him."""
        self.next = time.time() + BLOCKERS_AGE
        blockers = list(self._queues.blockers - waited_for)
        found = await asyncio.gather(*(self._read(jobid) for jobid in blockers))
        ended = {jobid for jobid, read in zip(blockers, found, strict=True) if _has_ended(read)}
        # A 429 that came meanwhile may have named others, of which nothing is known.
        self._queues.after_poll((self._queues.blockers - ended) | waited_for, time.time())

    def hear(self, rings: Iterable[Ring]) -> list[str]:
        """Return which of them are to be read for these bells; each bell has one read at most, however often told."""
        blockers = {job_digest(jobid): jobid for jobid in (self._queues.blockers if self._queues else ())}
        self._called = {jobid: called for jobid, called in self._called.items() if jobid in blockers.values()}
        wanted = []
        for ring in rings:
            if jobid := blockers.get(ring.job):
                called = self._called.setdefault(jobid, _Called())
                if ring not in called.rings:
                    called.rings.add(ring)
                    called.is_wanted = True
                    wanted.append(jobid)
        return wanted

    async def read(self, jobid: str) -> None:
        """
        Read one of them, which the service has called about; release whoever takes its place if it has ended.

        A call may be early, or forged, so it is read again for the next one, 10 s later at the soonest.
        """
        called = self._called.get(jobid)
        while called and called.is_wanted:
            await asyncio.sleep(max(0.0, called.read_at + MIN_POLL_INTERVAL - time.time()))
            if not self._queues or jobid not in self._queues.blockers:
                # Whoever joins next is told of these bells anew.
                self._called.pop(jobid, None)
                return
            called.is_wanted = False
            has_ended = _has_ended(await self._read(jobid))
            called.read_at = time.time()
            if has_ended:
                self._queues.after_end(jobid, time.time())
                return

    async def _read(self, jobid: str) -> Job | PikaError | None:
        try:
            read = await self._hook.get_job(jobid)
        except Exception as error:  # noqa: BLE001 - a queue that stalls over it sends a worker to find out
            log.warning("A job in the way of a queue could not be read: an unforeseen %s", type(error).__name__)
            return None
        return read[1] if read else None


def _has_ended(found: Job | PikaError | None) -> bool:
    return isinstance(found, PikaNotFoundError) or (isinstance(found, Job) and found.is_final)
