"""Those who wait for jobs on one connection, kept so that whoever comes, leaves or is told costs the others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from heapq import nsmallest

from airflow_provider_pika.api.polling import reads_beside_list
from airflow_provider_pika.triggers.job_waiter import JobWaiter

# So many are told at one go: others live on the event loop too.
AT_ONE_GO = 20


class JobWaiters:
    """All of them, in the order in which they came; several may wait for the same job."""

    def __init__(self) -> None:
        self._all: dict[JobWaiter, None] = {}
        self._by_job: dict[str, list[JobWaiter]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[JobWaiter]:
        return iter(self._all)

    def __contains__(self, waiter: JobWaiter) -> bool:
        return waiter in self._all

    async def in_turn(self) -> AsyncIterator[JobWaiter]:
        """Go through those who wait now, with pauses for the event loop; meanwhile some may leave."""
        for count, waiter in enumerate(list(self._all), 1):
            yield waiter
            if count % AT_ONE_GO == 0:
                await asyncio.sleep(0)

    def of_job(self, jobid: str) -> list[JobWaiter]:
        """Return those who wait for this job."""
        return list(self._by_job.get(jobid, ()))

    def join(self, waiter: JobWaiter) -> None:
        """Let one more wait."""
        self._all[waiter] = None
        self._by_job.setdefault(waiter.state.jobid, []).append(waiter)

    def leave(self, waiter: JobWaiter) -> None:
        """Forget one whose wait is over, unless that was known."""
        if waiter in self._all:
            del self._all[waiter]
            mates = self._by_job[waiter.state.jobid]
            mates.remove(waiter)
            if not mates:
                del self._by_job[waiter.state.jobid]

    def stale(self, now: float) -> set[JobWaiter]:
        """Return whose job is to be read although the list names it."""
        few = reads_beside_list([now - waiter.read_at for waiter in self._all])
        ready = [waiter for waiter in self._all if waiter.not_before <= now]
        return set(nsmallest(few, ready, key=lambda waiter: waiter.read_at))

    def spread_reads(self, now: float) -> None:
        """Spread those that are due at once over the interval: from here on each job is read at its own time."""
        due = [waiter for waiter in self._all if waiter.due <= now]
        for number, waiter in enumerate(due):
            waiter.due = now + number * waiter.state.interval / len(due)
