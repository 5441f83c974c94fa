"""One wait for one job, as the shared poller serves it: when it is due, and what a poll means to it."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from airflow_provider_pika.api.callback import BELL_AGE, Ring, job_digest
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, Lines, PollOutcome, PollState, Told
from airflow_provider_pika.exceptions import PikaError

# A wait ends this long after its deadline, whether or not the last poll has been answered.
LAST_POLL_GRACE = 15.0


def _running(jobid: str) -> Job:
    """Return what the list says of a job that is on it."""
    return Job(jobid, "progress", {})


class JobWaiter:
    """
    One trigger that waits for one job.

    ``due`` is when it wants the next poll, ``not_before`` the earliest time to read its job. ``wants_read`` says that
    only the job itself can tell: it is gone from the list, or has been on it for long.

    :param lines: room in the logs, shared by all waiters of a connection
    """

    def __init__(self, state: PollState, lines: Lines) -> None:
        now = time.time()
        self.state = state
        self.digest = job_digest(state.jobid)
        self.news: asyncio.Queue[PollOutcome | Exception] = asyncio.Queue()
        # Airflow may fail a task whose trigger fires too soon after the defer (see MIN_RESCHEDULE).
        self.not_before = self._first = now + MIN_POLL_INTERVAL
        self.due = max(self.not_before, min(now + state.interval, state.deadline))
        self.wants_read = False
        self.read_at = now
        self.overdue = max(state.deadline, self.not_before) + LAST_POLL_GRACE
        self._rung: Ring | None = None
        self._rung_at = 0.0
        self._is_exempt = True
        self._lines = lines
        # That the job runs is no news; a thousand triggers that log so at once would block the loop.
        self._told = Told(PollState(state.jobid, state.interval, now).after_poll(_running(state.jobid), now).note)
        self._told_failure = False

    @property
    def earliest(self) -> float:
        """When its job may be read; once in its life, when the service itself has called, 10 s need not have passed."""
        return self._first if self._rung and self._is_exempt else self.not_before

    @property
    def last_read(self) -> float:
        """When its job is read for the last time: at the deadline, but not sooner than it may be."""
        return max(self.state.deadline, self.earliest)

    def next_read(self, *, listed: bool) -> float:
        """Return when to read its job, given whether there is a list that makes most reads needless."""
        if self.wants_read or self._rung:
            return self.earliest
        # Before the wait times out, the list's word is not enough.
        wanted = self.state.deadline if listed else min(self.state.deadline, self.due)
        return max(self.not_before, wanted)

    def was_rung(self, ring: Ring) -> None:
        """Take in that the service has called about its job, or somebody who says so: its job is read, and judged."""
        self._rung, self._rung_at = ring, time.time()

    def was_listed(self, at: float) -> None:
        """Take in that a list asked for at this time named its job."""
        self.wants_read = False
        if at < self.state.deadline:
            outcome = self.state.after_poll(_running(self.state.jobid), at)
            self.due = at + outcome.after
            # Its word is no news, but that the weather has passed is.
            if self._told_failure:
                self._tell(outcome, at, failed=False)

    def was_read(self, found: Job | PikaError, at: float, arrived: float) -> bool:
        """
        Take in what a read of its job found, now; return whether the wait is over.

        :param at: when the read began: the interval counts from there
        :param arrived: when the API had it at the latest: what the API asks to wait counts from there
        """
        now = time.time()
        # What began too early for an ordinary read was the exempt one, although the service has called again meanwhile.
        self._is_exempt = self._is_exempt and at >= self.not_before
        self.wants_read = False
        self.read_at = at
        failed = isinstance(found, PikaError)
        # A failure may have taken long to show: the pause that follows it counts from its answer. But who began before
        # the deadline has not polled for the last time.
        counts_from = now if failed and now < self.state.deadline else at
        outcome = self.state.after_poll(found, counts_from, random.random())
        self.due = (now if failed else at) + outcome.after
        self.not_before = self.due if failed else arrived + MIN_POLL_INTERVAL
        # A read that was under way when the service called may have seen the job before its end: it is not the one.
        if self._rung and self._rung_at <= at:
            told_after = max(0.0, now - self._rung.at)
            # An old bell is one that nobody has removed yet: how long ago it rang says nothing of this wait.
            outcome = replace(outcome, told_after=told_after if told_after <= BELL_AGE else None)
            self._rung, self._is_exempt = None, False
        self._tell(outcome, now, failed=failed)
        return outcome.is_last

    def was_read_for_others(self, arrived: float) -> None:
        """Take in that its job was read when it might not be told yet: so it is left alone for the usual time."""
        self._is_exempt = False
        self.not_before = max(self.not_before, arrived + MIN_POLL_INTERVAL)

    def _tell(self, outcome: PollOutcome, now: float, *, failed: bool) -> None:
        if outcome.is_last:
            self.news.put_nowait(outcome)
        elif self._told.is_news(outcome.note, now) and (delay := self._lines.delay(now)) is not None:
            self._told, self._told_failure = Told(outcome.note, now + delay), failed
            asyncio.get_running_loop().call_later(delay, self.news.put_nowait, outcome)
