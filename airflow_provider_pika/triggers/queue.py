"""Who waits in the triggerer to submit: the channel queues of one connection, fed by the polls its waiters share."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection

from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL
from airflow_provider_pika.api.queue import ChannelQueue


class QueueWaiter:
    """One trigger that waits to be released."""

    def __init__(self, channel: str, since: float) -> None:
        self.channel = channel
        self.since = since
        # Airflow may fail a task whose trigger fires too soon after the defer (see MIN_RESCHEDULE).
        self.not_before = time.time() + MIN_POLL_INTERVAL
        self.news: asyncio.Queue[Exception | None] = asyncio.Queue()


class ChannelQueues:
    """The queues before the channels of one connection."""

    def __init__(self) -> None:
        self._waiters: dict[QueueWaiter, None] = {}
        self._queues: defaultdict[str, ChannelQueue] = defaultdict(ChannelQueue)

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def blockers(self) -> set[str]:
        """The jobs that hold slots, as far as 429s and lists have named them."""
        return {jobid for queue in self._queues.values() for jobid in queue.blockers}

    def join(
        self, waiter: QueueWaiter, executing_jobs: Collection[str], *, at: float, not_before: float, again: bool
    ) -> None:
        """Let a trigger wait; the other arguments are those of :meth:`ChannelQueue.rejected`."""
        self._queues[waiter.channel].rejected(executing_jobs, at=at, not_before=not_before, again=again)
        self._waiters[waiter] = None

    def leave(self, waiter: QueueWaiter) -> None:
        """Forget a trigger that waits no more."""
        self._waiters.pop(waiter, None)

    def dues(self) -> list[float]:
        """Return when the waiters next want the list of running jobs."""
        return [max(waiter.not_before, self._queues[waiter.channel].not_before) for waiter in self._waiters]

    def after_poll(self, running: Collection[str], now: float) -> None:
        """Take in the list of running jobs; release those whose turn it is, first come, first served."""
        ready: defaultdict[str, list[QueueWaiter]] = defaultdict(list)
        for waiter in self._waiters:
            if waiter.not_before <= now:
                ready[waiter.channel].append(waiter)
        for channel, queue in self._queues.items():
            waiters = sorted(ready[channel], key=lambda waiter: waiter.since)
            for waiter in waiters[: queue.after_poll(running, waiting=len(waiters), now=now)]:
                self.leave(waiter)
                waiter.news.put_nowait(None)

    def fail(self, error: Exception) -> None:
        """Tell all who wait that nobody polls for them any more."""
        for waiter in self._waiters:
            waiter.news.put_nowait(error)
