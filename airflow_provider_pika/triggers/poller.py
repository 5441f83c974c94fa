"""One poll for many: all who wait on one connection in one triggerer share their requests.

The list of running jobs is polled once for all. Jobs on it still run; those gone from it are read, because only the
job itself tells how it ended. The list is a hint: it may lag, fail, lie or not exist, so a job that is long on it is
read too now and then, and without a list each job is read, spread over the interval. Where the service calls back, a
job it called about is read at once.

Each request is a task of its own, so that none waits behind another that hangs; a tick only sees who is due.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from heapq import nsmallest
from weakref import WeakKeyDictionary

from airflow_provider_pika import compat
from airflow_provider_pika.api.callback import Ring
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, Lines, PollOutcome, PollState
from airflow_provider_pika.callbacks.ear import Ear
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.triggers.async_hook import AsyncHook
from airflow_provider_pika.triggers.blockers import Blockers
from airflow_provider_pika.triggers.job_waiter import JobWaiter
from airflow_provider_pika.triggers.job_waiters import JobWaiters
from airflow_provider_pika.triggers.queue import ChannelQueues, QueueWaiter
from airflow_provider_pika.triggers.running_list import RunningList
from airflow_provider_pika.triggers.under_way import UnderWay

log = logging.getLogger(__name__)

# Waiters that are due within this of each other are served together.
MIN_TICK = 1.0
# Reads under way at the same time: more than the threads get done until the next tick, which begins the rest. Or
# thousands of jobs that end at once would mean as many tasks that begin at once.
MOST_READS = 200
# A request that is answered at once arrived before its answer; a slow one is taken to have arrived within this.
ARRIVAL = 1.0

_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoller]] = WeakKeyDictionary()


class SharedPoller:
    """The polls of one connection on one event loop; it lives as long as somebody waits."""

    def __init__(self, conn_id: str, pollers: dict[str, SharedPoller]) -> None:
        self._conn_id = conn_id
        self._pollers = pollers
        self._hook = AsyncHook(conn_id)
        self._list = RunningList()
        self._ear: Ear | None = None
        self._lines = Lines()
        self._jobs = JobWaiters()
        # Set to let the loop see anew who is due; hurried, it does so without a pause since its last tick.
        self._wake = asyncio.Event()
        self._is_hurried = False
        self._last_tick = 0.0
        self._sleeps_until = 0.0
        self._under_way = UnderWay(self._wake.set)
        self._queues = ChannelQueues(conn_id, self._lines, self._under_way.start)
        self._blockers = Blockers(self._hook, self._queues)
        # In a context of its own: Airflow tells triggers' logs apart by context variables, and this is nobody's.
        self._task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    @staticmethod
    def of(conn_id: str) -> SharedPoller:
        """Return the poller that the triggers of this connection on this event loop share."""
        pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
        if conn_id not in pollers:
            pollers[conn_id] = SharedPoller(conn_id, pollers)
        return pollers[conn_id]

    async def at_job(self, state: PollState) -> AsyncGenerator[PollOutcome, None]:
        """Yield what polls of a job say, whenever it is news; the last one ends the wait."""
        waiter = JobWaiter(state, self._lines)
        if self._ear and (ring := self._ear.heard_of(waiter.digest)):
            waiter.was_rung(ring)
        self._jobs.join(waiter)
        # Thousands join one by one: only for who cannot wait for the next tick are all others seen through again.
        wanted = max(min(waiter.due, waiter.next_read(listed=self._list.is_there)), self._hook.paused_until)
        if min(wanted, waiter.last_read) < self._sleeps_until:
            self._wake.set()
        # A deadline passes on time whatever the API, the connection or the other waiters do meanwhile.
        timer = asyncio.get_running_loop().call_later(waiter.overdue - time.time(), self._time_out, waiter)
        try:
            while True:
                outcome = await waiter.news.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:
            timer.cancel()
            self._jobs.leave(waiter)
            self._leave()

    async def for_slot(
        self,
        channel: str,
        *,
        since: float,
        executing_jobs: list[str],
        rejected_at: float,
        not_before: float,
        again: bool,
        timeout: float,
        tell: Callable[[str], None],
    ) -> bool:
        """
        Return True when this waiter is released to submit, False when its timeout (seconds) has passed.

        First come, first served, by ``since``. To be awaited as it stands: in a task of its own it would join later,
        perhaps when everybody else has left and the poller with them.

        :param tell: is told the waiter's place, in the context of whoever awaits this
        """
        waiter = QueueWaiter(channel, since)
        self._queues.join(waiter, executing_jobs, at=rejected_at, not_before=not_before, again=again)
        if self._ear:
            # A job in the way may have ended, and been called about, between the 429 and now.
            self._hear_of_blockers(self._ear.rings)
        self._wake.set()
        end = time.time() + timeout
        try:
            while True:
                try:
                    news = await asyncio.wait_for(waiter.news.get(), max(0.0, end - time.time()))
                except asyncio.TimeoutError:
                    return False
                if news is None:
                    return True
                if isinstance(news, Exception):
                    raise news
                tell(news)
        finally:
            self._queues.leave(waiter)
            self._leave()

    def _time_out(self, waiter: JobWaiter) -> None:
        if waiter in self._jobs:
            self._jobs.leave(waiter)
            waiter.news.put_nowait(PollOutcome(timed_out=True, note=waiter.state.last))

    def _leave(self) -> None:
        if not self._jobs and not self._queues and self._pollers.get(self._conn_id) is self:
            # Whoever comes next finds no poller and makes a new one, while this one's threads are ending.
            del self._pollers[self._conn_id]
            self._task.cancel()

    async def _run(self) -> None:
        try:
            # Before anybody is due: so the service can be heard by then.
            await self._connect()
            while await self._until_due():
                self._last_tick = time.time()
                if await self._connect():
                    await self._begin_due()
        except Exception as error:
            log.exception("The shared polls of connection %r failed", self._conn_id)
            for waiter in self._jobs:
                waiter.news.put_nowait(error)
            self._queues.fail(error)
        finally:
            if self._pollers.get(self._conn_id) is self:
                del self._pollers[self._conn_id]
            if self._ear:
                self._ear.leave(self._hear)
            self._under_way.cancel()
            self._hook.close()

    async def _until_due(self) -> bool:
        """Wait for the next tick; return whether there is anybody to poll for."""
        while True:
            self._under_way.check()
            if self._pollers.get(self._conn_id) is not self:
                return False  # Everybody has left: a cancel can get lost in wait_for, and this would go on for nobody.
            # Whoever asked for this poller joins in a moment, if ever.
            busy = self._jobs or self._queues
            wanted = self._next_request() if busy else time.time() + MIN_POLL_INTERVAL
            tick = 0.0 if self._is_hurried else self._last_tick + MIN_TICK
            pause = self._hook.paused_until
            if self._hook.is_paused:
                # It holds all but the last read of a wait, without which a job that has completed would time out.
                pause = min([pause, *(waiter.last_read for waiter in self._jobs)])
            self._sleeps_until = max(wanted, pause, tick)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.0, self._sleeps_until - time.time()))
            except asyncio.TimeoutError:
                self._is_hurried = False
                return bool(self._jobs or self._queues)

    def _next_request(self) -> float:
        requests = [self._next_list(), *(waiter.next_read(listed=self._list.is_there) for waiter in self._jobs)]
        if not self._list.is_there:
            requests += [max(due, self._blockers.next) for due in self._queues.dues()]
        return min(requests)

    def _next_list(self) -> float:
        dues = [waiter.due for waiter in self._jobs if not waiter.wants_read] + self._queues.dues()
        return self._list.next(min(dues, default=float("inf")))

    async def _connect(self) -> bool:
        """Read the connection if it is time to, and do what it says of callbacks; return whether it is known."""
        if (failure := await self._hook.connect()) is None:
            if self._hook.is_old and await self._hook.renew():
                self._list.expect()
            self._listen()
            return True
        now = time.time()
        log.warning("%s", failure)
        self._hook.paused_until = max(self._hook.paused_until, now + MIN_POLL_INTERVAL)
        async for waiter in self._jobs.in_turn():
            if waiter.not_before <= now and min(waiter.due, waiter.next_read(listed=True)) <= now:
                self._was_read(waiter, failure, now, now)
        # Nothing is known of the jobs in the way; a queue that stalls over it sends a worker to find out.
        self._queues.after_poll(self._queues.blockers, now)
        return False

    def _listen(self) -> None:
        wanted = bool(self._hook.callback_url) and compat.has_variable_keys()
        if wanted and not self._ear:
            self._ear = Ear.listen(self._hear)
        elif self._ear and not wanted:
            self._ear.leave(self._hear)
            self._ear = None

    def _hear(self, rings: Sequence[Ring]) -> None:
        """
        Take in that the service has called: whose job it is about reads it at once.

        What is called about jobs that nobody here waits for is somebody else's.
        """
        newest = {ring.job: ring for ring in rings}
        rung = [waiter for waiter in self._jobs if waiter.digest in newest]
        for waiter in rung:
            waiter.was_rung(newest[waiter.digest])
        self._hear_of_blockers(rings)
        if rung:
            self._hurry()

    def _hear_of_blockers(self, rings: Sequence[Ring]) -> None:
        """Read the jobs in a queue's way that were called about: the list may still name them for a minute."""
        for jobid in self._blockers.hear(rings):
            # What somebody here waits for is read for him, and the queue is told.
            if not self._jobs.of_job(jobid):
                self._under_way.start(self._blockers.read, jobid)

    def _hurry(self) -> None:
        self._is_hurried = True
        self._wake.set()

    async def _begin_due(self) -> None:
        now, is_paused = time.time(), self._hook.is_paused
        if not is_paused and self._next_list() <= now:
            self._under_way.start(self._poll_list)
        if not is_paused and not self._list.is_there and self._queues and now >= self._blockers.next:
            self._under_way.start(self._read_blockers)
        # Each look at all who wait is a step of its own, so that others on this loop are not kept waiting by thousands.
        await asyncio.sleep(0)
        due = [waiter for waiter in self._jobs if waiter.next_read(listed=self._list.is_there) <= now]
        due = [waiter for waiter in due if not is_paused or waiter.last_read <= now]
        due = [waiter for waiter in due if not self._under_way.has(self._read, waiter.state.jobid)]
        for waiter in nsmallest(MOST_READS - len(self._under_way), due, key=lambda waiter: waiter.state.deadline):
            self._under_way.start(self._read, waiter.state.jobid)
        await asyncio.sleep(0)

    async def _poll_list(self) -> None:
        now = time.time()
        running = await self._list.ask(self._hook)
        if running is not None:
            await self._was_listed(running, now)
        elif not self._list.is_there:
            self._jobs.spread_reads(time.time())
        # Those who are gone from it, or who must do without it, are due now.
        self._hurry()

    async def _was_listed(self, running: frozenset[str], now: float) -> None:
        """Take in the list of running jobs, asked for at this time."""
        stale = self._jobs.stale(now)
        async for waiter in self._jobs.in_turn():
            if waiter.state.jobid in running and waiter not in stale:
                waiter.was_listed(now)
            else:
                waiter.wants_read = True
        self._queues.after_poll(running, time.time())

    async def _read_blockers(self) -> None:
        await self._blockers.read_all({waiter.state.jobid for waiter in self._jobs})

    async def _read(self, jobid: str) -> None:
        try:
            is_last = any(waiter.last_read <= time.time() for waiter in self._jobs.of_job(jobid))
            read = await self._hook.get_job(jobid, is_last=is_last)
        except Exception as error:  # noqa: BLE001 - an unforeseen error strikes only those who wait for that job
            for waiter in self._jobs.of_job(jobid):
                waiter.news.put_nowait(error)
            return
        if not read:  # it is due again at a later tick
            return
        at, found = read
        arrived = min(time.time(), at + ARRIVAL)
        for waiter in self._jobs.of_job(jobid):
            if waiter.earliest <= at:
                self._was_read(waiter, found, at, arrived)
            else:
                waiter.was_read_for_others(arrived)
        if isinstance(found, Job) and found.is_final:
            self._queues.after_end(jobid, time.time())

    def _was_read(self, waiter: JobWaiter, found: Job | PikaError, at: float, arrived: float) -> None:
        if waiter.was_read(found, at, arrived):
            self._jobs.leave(waiter)
