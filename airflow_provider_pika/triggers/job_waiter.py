"""One wait for one job, as the shared poller serves it: when it is due, and what a poll means to it."""

from __future__ import annotations

import asyncio
import random
import time

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, PollOutcome, PollState
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
    """

    def __init__(self, state: PollState) -> None:
        now = time.time()
        self.state = state
        self.news: asyncio.Queue[PollOutcome | Exception] = asyncio.Queue()
        # Airflow may fail a task whose trigger fires too soon after the defer (see MIN_RESCHEDULE).
        self.not_before = now + MIN_POLL_INTERVAL
        self.due = max(self.not_before, min(now + state.interval, state.deadline))
        self.wants_read = False
        self.read_at = now
        self.overdue = max(state.deadline, self.not_before) + LAST_POLL_GRACE
        # That the job runs is no news; a thousand triggers that log so at once would block the loop.
        self._note = PollState(state.jobid, state.interval, state.deadline).after_poll(_running(state.jobid), now).note

    def next_read(self, *, listed: bool) -> float:
        """Return when to read its job, given whether there is a list that makes most reads needless."""
        if self.wants_read:
            return self.not_before
        # Before the wait times out, the list's word is not enough.
        wanted = self.state.deadline if listed else min(self.state.deadline, self.due)
        return max(self.not_before, wanted)

    def was_listed(self, at: float) -> None:
        """Take in that a list asked for at this time named its job."""
        self.wants_read = False
        if at < self.state.deadline:
            self._after_poll(_running(self.state.jobid), at)

    def was_read(self, found: Job | PikaError, at: float, arrived: float) -> bool:
        """
        Take in what a read of its job found; return whether the wait is over.

        :param at: when the read began: the interval counts from there
        :param arrived: when the API had it at the latest: what the API asks to wait counts from there
        """
        self.wants_read = False
        self.read_at = at
        outcome = self._after_poll(found, at)
        self.not_before = self.due if isinstance(found, PikaError) else arrived + MIN_POLL_INTERVAL
        return outcome.is_last

    def _after_poll(self, found: Job | PikaError, at: float) -> PollOutcome:
        outcome = self.state.after_poll(found, at, random.random())
        self.due = at + outcome.after
        if outcome.is_last or outcome.note != self._note:
            self._note = outcome.note
            self.news.put_nowait(outcome)
        return outcome
