"""One poll for many: all who wait on one connection in one triggerer share their requests.

The list of running jobs is polled once for all. Jobs on it still run; those gone from it are read, because only the
job itself tells how it ended. The list is a hint: it may lag, fail, lie or not exist, so a job that is long on it is
read too now and then, and without a list each job is read, spread over the interval.

The requests are the hook's own, synchronous ones, in a few threads: nothing here blocks the triggerer's event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MAX_BACKOFF, MIN_POLL_INTERVAL, PollOutcome, PollState
from airflow_provider_pika.exceptions import PikaError, PikaNotFoundError, PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers.job_waiter import JobWaiter
from airflow_provider_pika.triggers.queue import ChannelQueues, QueueWaiter

log = logging.getLogger(__name__)

T = TypeVar("T")

# Reads at the same time, when several jobs have ended at once.
THREADS = 8
# Waiters that are due within this of each other are served together.
MIN_TICK = 1.0
# Failed lists in a row, after which the jobs are read one by one.
LIST_FAILURES = 3
# A rotated token or a moved host is noticed within this.
SETTINGS_AGE = 300.0
# Without a list the jobs in the way of a channel queue are read one by one, this often.
BLOCKERS_AGE = 30.0
# How long the reads of one tick may take.
READ_TIME = 20.0
# A request that is answered at once arrived before its answer; a slow one is taken to have arrived within this.
ARRIVAL = 1.0

_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoller]] = WeakKeyDictionary()


class SharedPoller:
    """The polls of one connection on one event loop; it lives as long as somebody waits."""

    def __init__(self, conn_id: str, pollers: dict[str, SharedPoller]) -> None:
        self._conn_id = conn_id
        self._pollers = pollers
        self._hook = PikaHook(conn_id)
        self._settings_at: float | None = None
        self._jobs: dict[JobWaiter, None] = {}
        self._queues = ChannelQueues()
        self._joined = asyncio.Event()
        self._last_tick = 0.0
        self._last_list = 0.0
        self._paused_until = 0.0
        self._list_failures = 0
        self._list_again = 0.0
        self._blockers_read_at = 0.0
        self._reads = asyncio.Semaphore(THREADS)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"pika-{conn_id}")
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
        waiter = JobWaiter(state)
        self._jobs[waiter] = None
        self._joined.set()
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
            self._jobs.pop(waiter, None)
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
    ) -> bool:
        """
        Return True when this waiter is released to submit, False when its timeout (seconds) has passed.

        First come, first served, by ``since``. To be awaited as it stands: in a task of its own it would join later,
        perhaps when everybody else has left and the poller with them.
        """
        waiter = QueueWaiter(channel, since)
        self._queues.join(waiter, executing_jobs, at=rejected_at, not_before=not_before, again=again)
        self._joined.set()
        try:
            failure = await asyncio.wait_for(waiter.news.get(), timeout)
            if failure:
                raise failure
        except (asyncio.TimeoutError, TimeoutError):
            return False
        else:
            return True
        finally:
            self._queues.leave(waiter)
            self._leave()

    def _time_out(self, waiter: JobWaiter) -> None:
        if waiter in self._jobs:
            del self._jobs[waiter]
            waiter.news.put_nowait(PollOutcome(timed_out=True, note=waiter.state.last))

    def _leave(self) -> None:
        if not self._jobs and not self._queues and self._pollers.get(self._conn_id) is self:
            # Whoever comes next finds no poller and makes a new one, while this one's threads are ending.
            del self._pollers[self._conn_id]
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while await self._until_due():
                self._last_tick = time.time()
                if await self._connect(self._last_tick):
                    await self._poll()
        except Exception as error:
            log.exception("The shared polls of connection %r failed", self._conn_id)
            for waiter in self._jobs:
                waiter.news.put_nowait(error)
            self._queues.fail(error)
        finally:
            if self._pollers.get(self._conn_id) is self:
                del self._pollers[self._conn_id]
            self._pool.shutdown(wait=False)
            if self._settings_at is not None:
                self._hook.get_conn().close()

    @property
    def _has_list(self) -> bool:
        return self._list_failures < LIST_FAILURES

    @property
    def _is_paused(self) -> bool:
        """Whether a 429 has asked for a pause that still lasts."""
        return time.time() < self._paused_until

    async def _until_due(self) -> bool:
        """Wait for the next tick; return whether there is anybody to poll for."""
        while True:
            # Whoever asked for this poller joins in a moment, if ever.
            wanted = self._next_request() if self._jobs or self._queues else time.time() + MIN_POLL_INTERVAL
            due = max(wanted, self._paused_until, self._last_tick + MIN_TICK)
            self._joined.clear()
            try:
                await asyncio.wait_for(self._joined.wait(), max(0.0, due - time.time()))
            except (asyncio.TimeoutError, TimeoutError):
                return bool(self._jobs or self._queues)

    def _next_request(self) -> float:
        requests = [waiter.next_read(listed=self._has_list) for waiter in self._jobs]
        requests.append(self._next_list())
        if not self._has_list:
            requests += [max(due, self._blockers_read_at + BLOCKERS_AGE) for due in self._queues.dues()]
        return min(requests)

    def _next_list(self) -> float:
        dues = [waiter.due for waiter in self._jobs if not waiter.wants_read] + self._queues.dues()
        return max(min(dues, default=float("inf")), self._last_list + MIN_POLL_INTERVAL, self._list_again)

    async def _connect(self, now: float) -> bool:
        """Read the connection off the event loop, before a thread needs it; return whether it is known."""
        from asgiref.sync import sync_to_async

        if self._settings_at is not None:
            if now - self._settings_at >= SETTINGS_AGE:
                await self._renew_settings()
            return True
        failure: PikaError
        try:
            await sync_to_async(lambda: self._hook.settings)()
        except PikaError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a secrets backend that fails must not end a thousand waits
            # Its type alone: a secrets backend may quote in its message what it failed to read.
            failure = PikaUnavailableError(
                f"The Airflow connection {self._conn_id!r} could not be read: {type(error).__name__}."
            )
        else:
            self._settings_at = now
            return True
        log.warning("%s", failure)
        self._paused_until = max(self._paused_until, now + MIN_POLL_INTERVAL)
        for waiter in list(self._jobs):
            if waiter.not_before <= now and min(waiter.due, waiter.next_read(listed=True)) <= now:
                self._was_read(waiter, failure, now, now)
        # Nothing is known of the jobs in the way; a queue that stalls over it sends a worker to find out.
        self._queues.after_poll(self._queues.blockers, now)
        return False

    async def _poll(self) -> None:
        now = time.time()
        if self._next_list() <= now:
            await self._poll_list(now)
        if not self._has_list and self._queues and now - self._blockers_read_at >= BLOCKERS_AGE:
            self._blockers_read_at = now
            self._queues.after_poll(await self._running_blockers(), time.time())
        await self._read_due()

    async def _poll_list(self, now: float) -> None:
        self._last_list = now
        running = await self._list()
        # A refusal may be of a token that has been replaced since: nobody is told before that is known.
        if running is None and not self._has_list and await self._renew_settings():
            running = await self._list()
        if running is None:
            if not self._has_list:
                self._spread_reads()
            return
        ready = (waiter for waiter in self._jobs if waiter.not_before <= now)
        stalest = min(ready, key=lambda waiter: waiter.read_at, default=None)
        for number, waiter in enumerate(list(self._jobs)):
            if number % 20 == 19:
                # Others live on this loop too.
                await asyncio.sleep(0)
            is_stale = waiter is stalest and now - waiter.read_at > MAX_BACKOFF
            if waiter.state.jobid in running and not is_stale:
                waiter.was_listed(now)
            else:
                waiter.wants_read = True
        self._queues.after_poll(running, time.time())

    async def _list(self) -> frozenset[str] | None:
        try:
            running = frozenset(await self._in_thread(self._hook.list_jobs))
        except PikaError as error:
            # A refusal, or no such route, will not change by the next tick: the jobs tell more.
            self._list_failures = max(self._list_failures + 1, 0 if is_retryable(error) else LIST_FAILURES)
            backoff = min(MAX_BACKOFF, MIN_POLL_INTERVAL * 2 ** min(self._list_failures, 5))
            self._list_again = time.time() + max(backoff, self._pause(error))
            log.warning("The list of running jobs could not be read (%d in a row): %s", self._list_failures, error)
            return None
        self._list_failures = 0
        return running

    def _spread_reads(self) -> None:
        """Spread those that are due at once over the interval: from here on each job is read at its own time."""
        now = time.time()
        due = [waiter for waiter in self._jobs if waiter.due <= now]
        for number, waiter in enumerate(due):
            waiter.due = now + number * waiter.state.interval / len(due)

    async def _running_blockers(self) -> set[str]:
        """Read the jobs in the way one by one, where there is no list to tell."""
        # Those that somebody waits for are read for him.
        running = {waiter.state.jobid for waiter in self._jobs}
        for jobid in self._queues.blockers - running:
            if self._is_paused:
                running.add(jobid)
                continue
            try:
                job = await self._in_thread(self._hook.get_job, jobid)
            except PikaNotFoundError:
                continue
            except PikaError as error:
                self._pause(error)
                running.add(jobid)
            else:
                if not job.is_final:
                    running.add(jobid)
        return running

    async def _read_due(self) -> None:
        now = time.time()
        jobids = {w.state.jobid: None for w in self._jobs if w.next_read(listed=self._has_list) <= now}
        # What does not get its turn by then, because the API is slow, is due again at the next tick.
        reads = [self._read(jobid, until=now + READ_TIME) for jobid in jobids]
        results = await asyncio.gather(*reads, return_exceptions=True)
        # An unforeseen error strikes only those who waited for that job.
        failures = {jobid: error for jobid, error in zip(jobids, results, strict=True) if isinstance(error, Exception)}
        for waiter in self._jobs if failures else ():
            if error := failures.get(waiter.state.jobid):
                waiter.news.put_nowait(error)

    async def _read(self, jobid: str, *, until: float) -> None:
        found: Job | PikaError
        async with self._reads:
            at = time.time()
            if self._is_paused or at > until:
                return
            try:
                found = await self._in_thread(self._hook.get_job, jobid)
            except PikaError as error:
                self._pause(error)
                found = error
        arrived = min(time.time(), at + ARRIVAL)
        for waiter in [waiter for waiter in self._jobs if waiter.state.jobid == jobid]:
            if waiter.not_before <= at:
                self._was_read(waiter, found, at, arrived)
            else:
                waiter.not_before = max(waiter.not_before, arrived + MIN_POLL_INTERVAL)

    def _was_read(self, waiter: JobWaiter, found: Job | PikaError, at: float, arrived: float) -> None:
        if waiter.was_read(found, at, arrived):
            del self._jobs[waiter]

    def _pause(self, error: PikaError) -> float:
        """Pause the whole connection for as long as a 429 asks; return that in seconds."""
        asked = error.retry_after or 0.0
        self._paused_until = max(self._paused_until, time.time() + asked)
        return float(asked)

    async def _in_thread(self, ask: Callable[..., T], *arguments: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, ask, *arguments)

    async def _renew_settings(self) -> bool:
        """Read the connection anew; return whether it has changed since."""
        from asgiref.sync import sync_to_async

        self._settings_at = time.time()
        hook = PikaHook(self._conn_id)
        try:
            changed = await sync_to_async(lambda: hook.settings != self._hook.settings)()
        except Exception as error:  # noqa: BLE001 - a secrets backend that fails once must not end a thousand waits
            name = type(error).__name__
            log.warning("The connection %r cannot be read anew (%s): going on with the one known.", self._conn_id, name)
            return False
        if changed:
            log.info("The connection %r has changed: going on with the new one.", self._conn_id)
            old, self._hook = self._hook, hook
            old.get_conn().close()
            self._list_failures, self._list_again = 0, 0.0
        return changed
