"""One look for many: all who wait on one connection in one triggerer share their requests.

A tick asks once for the list of running jobs. Jobs on it still run; those gone from it are read, because only the
job itself tells how it ended. The list is a hint: it may lag, fail, lie or not exist, so a job that is
long on it is read too now and then, and without a list each job is read, spread over the interval.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection
from weakref import WeakKeyDictionary

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.lanes import Lane
from airflow_provider_pika.api.pacing import LOOK_GAP, SLOWEST_LOOK, Verdict, Watch
from airflow_provider_pika.exceptions import PikaError, PikaNotFoundError
from airflow_provider_pika.hooks.pika import PikaHook

log = logging.getLogger(__name__)

# Reads at the same time, when several jobs have ended at once.
READS_AT_ONCE = 8
# Failed lists in a row, after which the jobs are read one by one.
LIST_FAULTS = 3
# A rotated token or a moved host is noticed within this.
SETTINGS_AGE = 300.0
# Without a list the jobs in the way of a line are read one by one, this often.
BLOCKERS_AGE = 30.0
# A wait that no look could end by this long after its deadline ends without one.
OVERDUE = 60.0
# How long the reads of one tick may take.
PASS = 20.0

_groups: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Looks]] = WeakKeyDictionary()


def _running(jobid: str) -> Job:
    """Return what the list says of a job that is on it."""
    return Job(jobid, "progress", {})


class JobWaiter:
    """One trigger that waits for one job."""

    def __init__(self, watch: Watch) -> None:
        now = time.time()
        self.watch = watch
        self.news: asyncio.Queue[Verdict | Exception] = asyncio.Queue()
        self.joined = now
        # Airflow may fail a task whose trigger fires too soon after the defer (see the pacing module).
        self.not_before = now + LOOK_GAP
        self.due = max(self.not_before, min(now + watch.interval, watch.deadline))
        self.read_at = now
        self.overdue = max(watch.deadline, self.not_before) + OVERDUE
        # That the job runs is no news; a thousand triggers that log so at once would block the loop.
        self._note = Watch(watch.jobid, watch.interval, watch.deadline).judge(_running(watch.jobid), now).note

    def take(self, found: Job | PikaError, now: float) -> bool:
        """Judge what was found; return whether the wait is over."""
        verdict = self.watch.judge(found, now, random.random())
        over = bool(verdict.job or verdict.error or verdict.timed_out)
        self.due = self.not_before = now + verdict.after
        if not isinstance(found, PikaError):
            # News of a running job is free to come sooner, with somebody else's look.
            self.not_before = now + LOOK_GAP
        if over or verdict.note != self._note:
            self._note = verdict.note
            self.news.put_nowait(verdict)
        return over


class SlotWaiter:
    """One trigger that waits for its turn to submit."""

    def __init__(self, lane: str, since: float) -> None:
        self.lane = lane
        self.since = since
        self.not_before = time.time() + LOOK_GAP
        self.news: asyncio.Queue[Exception | None] = asyncio.Queue()


class Looks:
    """The shared looks of one connection on one event loop; it lives as long as somebody waits."""

    def __init__(self, conn_id: str, groups: dict[str, Looks]) -> None:
        self._conn_id = conn_id
        self._groups = groups
        self._hook = PikaHook(conn_id)
        self._settings_at = time.time()
        self._jobs: dict[JobWaiter, None] = {}
        self._slots: dict[SlotWaiter, None] = {}
        self._lanes: defaultdict[str, Lane] = defaultdict(Lane)
        self._joined = asyncio.Event()
        self._last_tick = 0.0
        self._quiet_until = 0.0
        self._list_faults = 0
        self._list_again = 0.0
        self._blockers_read_at = 0.0
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        # In a context of its own: Airflow tells triggers' logs apart by context variables, and this is nobody's.
        self._task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    @staticmethod
    def of(conn_id: str) -> Looks:
        """Return the looks that the triggers of this connection on this event loop share."""
        groups = _groups.setdefault(asyncio.get_running_loop(), {})
        if conn_id not in groups:
            groups[conn_id] = Looks(conn_id, groups)
        return groups[conn_id]

    async def at_job(self, watch: Watch) -> AsyncGenerator[Verdict, None]:
        """Yield what looks at a job say, whenever it is news; the last one ends the wait."""
        waiter = JobWaiter(watch)
        self._jobs[waiter] = None
        self._joined.set()
        try:
            while True:
                verdict = await waiter.news.get()
                if isinstance(verdict, Exception):
                    raise verdict
                yield verdict
        finally:
            self._jobs.pop(waiter, None)
            self._leave()

    async def for_slot(
        self,
        lane: str,
        *,
        since: float,
        executing_jobs: list[str],
        turned_away_at: float,
        hold_until: float,
        again: bool,
        patience: float,
    ) -> bool:
        """
        Return True when it is this waiter's turn to submit, False when its patience (seconds) is over.

        First come, first served, by ``since``. To be awaited as it stands: in a task of its own it would join later,
        perhaps when everybody else has left and the group with them.
        """
        waiter = SlotWaiter(lane, since)
        self._lanes[lane].turned_away(executing_jobs, at=turned_away_at, hold_until=hold_until, again=again)
        self._slots[waiter] = None
        self._joined.set()
        try:
            failure = await asyncio.wait_for(waiter.news.get(), patience)
            if failure:
                raise failure
        except (asyncio.TimeoutError, TimeoutError):
            return False
        else:
            return True
        finally:
            self._slots.pop(waiter, None)
            self._leave()

    def _leave(self) -> None:
        if not self._jobs and not self._slots and self._groups.get(self._conn_id) is self:
            # Whoever comes next finds no group and makes a new one, while this one's client is closing.
            del self._groups[self._conn_id]
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while await self._until_due():
                self._last_tick = time.time()
                await self._tick(self._last_tick)
        except Exception as error:
            log.exception("The shared looks of connection %r failed", self._conn_id)
            for job_waiter in self._jobs:
                job_waiter.news.put_nowait(error)
            for slot_waiter in self._slots:
                slot_waiter.news.put_nowait(error)
        finally:
            if self._groups.get(self._conn_id) is self:
                del self._groups[self._conn_id]
            await self._hook.aclose()

    async def _until_due(self) -> bool:
        """Wait for the next tick; return whether there is anybody to look for."""
        while True:
            dues = [waiter.due for waiter in self._jobs]
            dues += [max(waiter.not_before, self._lanes[waiter.lane].hold_until) for waiter in self._slots]
            # Whoever asked for this group joins in a moment, if ever.
            due = max(min(dues, default=time.time() + LOOK_GAP), self._last_tick + LOOK_GAP, self._quiet_until)
            # A deadline passes in a quiet time too.
            overdue = [max(waiter.overdue, self._last_tick + LOOK_GAP) for waiter in self._jobs]
            self._joined.clear()
            try:
                pause = min([due, *overdue]) - time.time()
                await asyncio.wait_for(self._joined.wait(), max(0.0, pause))
            except (asyncio.TimeoutError, TimeoutError):
                return bool(dues)

    @property
    def _is_quiet(self) -> bool:
        """Whether a 429 has asked for a pause that still lasts."""
        return time.time() < self._quiet_until

    async def _tick(self, now: float) -> None:
        self._give_up_overdue(now)
        if self._is_quiet:
            return
        if now - self._settings_at >= SETTINGS_AGE:
            await self._renew_settings()
        is_due = now >= self._list_again
        running = await self._list() if is_due else None
        # A refusal may be of a token that has been replaced since: nobody is told before that is known.
        if is_due and running is None and self._list_faults >= LIST_FAULTS and await self._renew_settings():
            running = await self._list()
        now = time.time()
        ready = [waiter for waiter in self._jobs if waiter.not_before <= now]
        if running is not None:
            self._let_go(running, now)
        elif self._list_faults < LIST_FAULTS:
            ready = [waiter for waiter in ready if waiter.watch.deadline <= now]
        else:
            # Nothing is shared without a list: each job is read at its own time.
            ready = [waiter for waiter in ready if waiter.due <= now]
            if self._slots and now - self._blockers_read_at >= BLOCKERS_AGE:
                self._blockers_read_at = now
                self._let_go(await self._running_blockers(), now)
        suspect = min(ready, key=lambda waiter: waiter.read_at, default=None)
        reads: dict[str, list[JobWaiter]] = defaultdict(list)
        for number, waiter in enumerate(ready):
            if number % 20 == 19:
                # Others live on this loop too.
                await asyncio.sleep(0)
            listed = running is not None and waiter.watch.jobid in running
            # Before giving up on a job, and on the longest unread one each tick, the list's word is not enough.
            doubted = waiter.watch.deadline <= now or (waiter is suspect and now - waiter.read_at > SLOWEST_LOOK)
            if listed and not doubted:
                self._settle(waiter, _running(waiter.watch.jobid), now)
            else:
                reads[waiter.watch.jobid].append(waiter)
        await self._read_all(reads, spread=running is None)

    async def _list(self) -> frozenset[str] | None:
        try:
            running = frozenset(await self._hook.alist_jobs())
        except PikaError as error:
            # A refusal, or no such route, will not change by the next tick: the jobs tell more.
            self._list_faults = max(self._list_faults + 1, 0 if is_retryable(error) else LIST_FAULTS)
            backoff = min(SLOWEST_LOOK, LOOK_GAP * 2 ** min(self._list_faults, 5))
            self._list_again = time.time() + max(backoff, self._hush(error))
            if self._list_faults < LIST_FAULTS:
                self._quiet_until = max(self._quiet_until, self._list_again)
            log.warning("The list of running jobs could not be read (%d in a row): %s", self._list_faults, error)
            return None
        self._list_faults = 0
        return running

    async def _running_blockers(self) -> set[str]:
        """Read the jobs in the way one by one, where there is no list to tell."""
        # Those that somebody waits for are read for him.
        running = {waiter.watch.jobid for waiter in self._jobs}
        for jobid in {jobid for lane in self._lanes.values() for jobid in lane.blockers} - running:
            if self._is_quiet:
                running.add(jobid)
                continue
            try:
                job = await self._hook.aget_job(jobid)
            except PikaNotFoundError:
                continue
            except PikaError as error:
                self._hush(error)
                running.add(jobid)
            else:
                if not job.is_final:
                    running.add(jobid)
        return running

    def _hush(self, error: PikaError) -> float:
        """Keep the whole connection quiet for as long as a 429 asks; return that in seconds."""
        asked = error.retry_after or 0.0
        self._quiet_until = max(self._quiet_until, time.time() + asked)
        return float(asked)

    def _let_go(self, running: Collection[str], now: float) -> None:
        lines: defaultdict[str, list[SlotWaiter]] = defaultdict(list)
        for waiter in self._slots:
            if waiter.not_before <= now:
                lines[waiter.lane].append(waiter)
        for name, lane in self._lanes.items():
            line = sorted(lines[name], key=lambda waiter: waiter.since)
            for waiter in line[: lane.look(running, waiting=len(line), now=now)]:
                self._slots.pop(waiter)
                waiter.news.put_nowait(None)

    def _give_up_overdue(self, now: float) -> None:
        """End the waits that no look could end in time, because the API is quiet or slow."""
        for waiter in [waiter for waiter in self._jobs if waiter.overdue <= now]:
            del self._jobs[waiter]
            waiter.news.put_nowait(Verdict(timed_out=True, note=waiter.watch.last))

    async def _read_all(self, reads: dict[str, list[JobWaiter]], *, spread: bool) -> None:
        every = min((waiter.watch.interval for waiter in self._jobs), default=LOOK_GAP)
        gap = every / len(self._jobs) if spread and self._jobs else 0.0
        # What does not get its turn by then, because the API is slow, is due again at the next tick.
        end = time.time() + gap * len(reads) + PASS

        async def read(jobid: str, waiters: list[JobWaiter], after: float) -> None:
            await asyncio.sleep(after)
            found: Job | PikaError
            async with self._reads:
                if self._is_quiet or time.time() > end:
                    return
                try:
                    found = await self._hook.aget_job(jobid)
                except PikaError as error:
                    self._hush(error)
                    found = error
            now = time.time()
            for waiter in waiters:
                waiter.read_at = now
                self._settle(waiter, found, now)

        results = await asyncio.gather(
            *(read(jobid, waiters, n * gap) for n, (jobid, waiters) in enumerate(reads.items())), return_exceptions=True
        )
        # An unforeseen error strikes only those who waited for that job.
        for waiters, result in zip(reads.values(), results, strict=True):
            if isinstance(result, Exception):
                for waiter in waiters:
                    waiter.news.put_nowait(result)

    def _settle(self, waiter: JobWaiter, found: Job | PikaError, now: float) -> None:
        if waiter in self._jobs and waiter.take(found, now):
            del self._jobs[waiter]

    async def _renew_settings(self) -> bool:
        """Read the connection anew; return whether it has changed since."""
        from asgiref.sync import sync_to_async

        self._settings_at = time.time()
        hook = PikaHook(self._conn_id)
        try:
            changed = await sync_to_async(lambda: hook.settings != self._hook.settings)()
        except Exception as error:  # noqa: BLE001 - a secrets backend that fails once must not end a thousand waits
            log.warning("The connection %r cannot be read anew, going on with the one known: %r", self._conn_id, error)
            return False
        if changed:
            log.info("The connection %r has changed: going on with the new one.", self._conn_id)
            old, self._hook = self._hook, hook
            await old.aclose()
            self._list_faults, self._list_again = 0, 0.0
        return changed
