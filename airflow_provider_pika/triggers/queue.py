"""Who waits in the triggerer to submit: the channel queues of one connection, fed by the polls its waiters share."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection

from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, Lines, Told
from airflow_provider_pika.api.queue import ChannelQueue
from airflow_provider_pika.triggers.claims import SlotClaims


class QueueWaiter:
    """One trigger that waits to be released: its news are a line for its log, an error, or None when it is its turn."""

    def __init__(self, channel: str, since: float) -> None:
        self.channel = channel
        self.since = since
        # Airflow may fail a task whose trigger fires too soon after the defer (see MIN_RESCHEDULE).
        self.not_before = time.time() + MIN_POLL_INTERVAL
        self.news: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.told = Told("")


class ChannelQueues:
    """
    The queues before the channels of one connection.

    :param lines: room in the logs, which its waiters share with the others of the connection
    :param start: begins work that takes time, unless just that is under way
    """

    def __init__(self, conn_id: str, lines: Lines, start: Callable[..., None]) -> None:
        self._lines = lines
        self._start = start
        self._claims = SlotClaims(conn_id)
        self._is_prepared = False
        self._polled_at = self._put_off_to = 0.0
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
        if not self._is_prepared and not self._claims.is_alone:
            self._is_prepared = True
            self._start(self._claims.prepare)

    def leave(self, waiter: QueueWaiter) -> None:
        """Forget a trigger that waits no more."""
        self._waiters.pop(waiter, None)

    def dues(self) -> list[float]:
        """Return when the waiters next want the list of running jobs."""
        return [
            max(waiter.not_before, self._queues[waiter.channel].not_before, self._put_off_to)
            for waiter in self._waiters
        ]

    def after_poll(self, running: Collection[str], now: float) -> None:
        """Take in the list of running jobs; release those whose turn it is, first come, first served."""
        self._polled_at = now
        for channel, queue in self._queues.items():
            queue.after_poll(running, now=now)
            self._offer(channel, now)
            self._tell_places(channel, queue, now)

    def after_end(self, jobid: str, now: float) -> None:
        """Take in that a job was read as ended; release whoever takes its place."""
        for channel, queue in self._queues.items():
            if jobid in queue.blockers:
                queue.after_end(jobid, now=now)
                self._offer(channel, now)

    def fail(self, error: Exception) -> None:
        """Tell all who wait that nobody polls for them any more."""
        for waiter in self._waiters:
            waiter.news.put_nowait(error)

    def _line(self, channel: str) -> list[QueueWaiter]:
        return sorted((waiter for waiter in self._waiters if waiter.channel == channel), key=lambda it: it.since)

    def _ready(self, channel: str, now: float) -> list[QueueWaiter]:
        return [waiter for waiter in self._line(channel) if waiter.not_before <= now]

    def _offer(self, channel: str, now: float) -> None:
        """Release for the free slots: at once, or when the other triggerers have been asked for theirs."""
        slots = self._queues[channel].offered(waiting=len(self._ready(channel, now)), now=now)
        if any(slots) and not self._claims.is_alone:
            self._start(self._agree, channel)
        elif slots:
            self._settle(channel, set(slots), set())

    async def _agree(self, channel: str) -> None:
        while True:
            now = time.time()
            waiters = self._ready(channel, now)
            slots = self._queues[channel].offered(waiting=len(waiters), now=now)
            if not slots:
                break
            agreement = await self._claims.agree(channel, slots, [waiter.since for waiter in waiters])
            # Who has just heard of an end by the service's call knows nothing of when others poll.
            if agreement.put_off and now - self._polled_at < 1:
                self._put_off_to = self._polled_at + MIN_POLL_INTERVAL + agreement.put_off
            if not agreement.mine and not agreement.others:
                break
            self._settle(channel, agreement.mine, agreement.others)
        self._start(self._claims.prune)

    def _settle(self, channel: str, mine: set[str], others: set[str]) -> None:
        now, queue = time.time(), self._queues[channel]
        waiters = self._ready(channel, now)
        self._release(waiters[: queue.settle(mine, others, waiting=len(waiters), now=now)])
        self._tell_places(channel, queue, now)

    def _release(self, waiters: list[QueueWaiter]) -> None:
        for waiter in waiters:
            self.leave(waiter)
            waiter.news.put_nowait(None)

    def _tell_places(self, channel: str, queue: ChannelQueue, now: float) -> None:
        for number, waiter in enumerate(self._line(channel), 1):
            text = queue.place(number, channel)
            if waiter.told.is_news(text, now) and (delay := self._lines.delay(now)) is not None:
                waiter.told = Told(text, now + delay)
                asyncio.get_running_loop().call_later(delay, waiter.news.put_nowait, text)
