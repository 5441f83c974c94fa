"""Who may submit next, and when: the queue before a full channel, as decisions without clocks or network.

A 429 names the jobs in the way. One waiter is released for each of them that is gone from the list of running
jobs. Numbers of jobs are never compared: the list spans all channels of the API token, the limit is per channel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_pika.api.polling import MIN_RESCHEDULE
from airflow_provider_pika.exceptions import PikaError, PikaRateLimitedError

# A released waiter needs a worker before its job can show up in the list. One that has not shown up by then was
# lost, or its job ended at once: its slot is offered again.
RELEASE_TIMEOUT = 120.0
# The list may name an ended job for so long, beside the one that has taken its place.
LIST_LAG = 60.0
# A queue that has not moved for so long releases one waiter to find out why.
STALL_TIMEOUT = 300.0
# A full queue frees a slot every minute or so: who was rejected often need not ask that often.
MAX_SUBMIT_WAIT = 300.0


def submit_wait(error: PikaError, *, rejections: int, left: float, jitter: float) -> float | None:
    """
    Return how many seconds to wait before submitting again after a 429, or None to give up.

    :param error: the queue-full or rate-limit answer
    :param rejections: how often this task has been rejected before
    :param left: seconds left of ``queue_timeout``
    :param jitter: a random number in [0, 1)
    """
    least = max(MIN_RESCHEDULE, error.retry_after or 0.0)
    if least > left:
        return None
    if isinstance(error, PikaRateLimitedError) and error.retry_after is not None:
        # What the service asks for is waited in full; the jitter keeps a mapped task's many submits apart.
        return min(left, least + MIN_RESCHEDULE * jitter)
    # 15 to 30 s at first, longer for those rejected often: hundreds may queue behind ten.
    slower = min(MAX_SUBMIT_WAIT, MIN_RESCHEDULE * 1.25 ** min(rejections, 20))
    return min(left, max(least, slower * (1 + jitter)))


class Slot(NamedTuple):
    """
    A slot of the channel that nobody is known to hold.

    :param name: by which every triggerer knows it: the job that held it; empty if only this one knows of it
    :param at: since when it is free, or a waiter released for it
    """

    name: str
    at: float

    def again(self, now: float) -> Slot:
        """Return the slot as it is offered once more, after a release that came to nothing."""
        return Slot(self.name and f"{self.name}+", now)


@dataclass
class ChannelQueue:
    """
    The queue before one channel, as one triggerer sees it.

    Where several triggerers release into one channel, each follows all of its slots, also those that another one has
    released for: so whoever still has waiters goes on where the others stop.

    :param blockers: jobs known to hold a slot of the channel
    :param free: slots known to be free
    :param released: slots for which somebody was released whose job has not been seen running yet, oldest first
    :param full_at: when the newest 429 said that the channel is full, 0 if none has
    :param not_before: nobody is released before this, because a 429 asked for a pause
    """

    blockers: set[str] = field(default_factory=set)
    free: list[Slot] = field(default_factory=list)
    released: list[Slot] = field(default_factory=list)
    full_at: float = 0.0
    not_before: float = 0.0
    _known: set[str] = field(default_factory=set)
    # Jobs that nobody here was released for, and when they were first seen: another channel's, or those of waiters
    # whom another triggerer has released.
    _strangers: dict[str, float] = field(default_factory=dict)
    _moved_at: float = float("inf")

    def rejected(
        self, executing_jobs: Collection[str], *, at: float, not_before: float = 0.0, again: bool = False
    ) -> None:
        """
        Take in what a waiter was told when its submit was rejected.

        :param executing_jobs: the jobs in the way; none if it was a rate limit
        :param at: when that was, epoch seconds: older news than the newest is none
        :param not_before: until when the answer asked for a pause, epoch seconds
        :param again: whether this waiter had been released before, and is back
        """
        self.not_before = max(self.not_before, not_before)
        if again and self.released:
            del self.released[0]
            # Who met a rate limit has not taken the slot; who met a full queue says below that there was none.
            self.free.append(Slot("", at))
        if not executing_jobs or at <= self.full_at:
            return
        self._meet(set(executing_jobs), at)
        self._strangers = {job: seen for job, seen in self._strangers.items() if job not in executing_jobs}
        self.blockers = set(executing_jobs)
        self.full_at = at
        self.free = []

    def after_poll(self, running: Collection[str], *, now: float) -> None:
        """Take in the list of running jobs."""
        running = set(running)
        lost = [slot for slot in self.released if now - slot.at >= RELEASE_TIMEOUT]
        del self.released[: len(lost)]
        self._moved_at = min(self._moved_at, now)
        self._meet(running, now)
        self._strangers = {job: seen for job, seen in self._strangers.items() if job in running}
        gone = self.blockers - running
        self.blockers -= gone
        self._known = running | self.blockers
        self.free += [Slot(job, now) for job in sorted(gone)] + [slot.again(now) for slot in lost]
        if not self.full_at:
            # Only a rate limit has been met so far, nothing tells how many slots there are: one at a time.
            self.free = [Slot("", now)]
        if not self.free and now - self._moved_at >= STALL_TIMEOUT and now >= self.not_before:
            # The list may lie: one is released and brings fresh news.
            self.free = [Slot("", now)]

    def after_end(self, jobid: str, *, now: float) -> None:
        """Take in that a job was read as ended, which its list may show late."""
        if jobid in self.blockers:
            self.blockers.discard(jobid)
            self.free.append(Slot(jobid, now))

    def offered(self, *, waiting: int, now: float) -> list[str]:
        """
        Return the names of the slots for which those who wait may be released now, if nobody else has been.

        :param waiting: how many wait
        """
        if now < self.not_before:
            return []
        if not waiting:
            self._moved_at = now
        return [slot.name for slot in self.free[:waiting]]

    def settle(self, mine: Collection[str], others: Collection[str] = (), *, waiting: int, now: float) -> int:
        """
        Take in for which slots this triggerer releases a waiter and for which another one does; return how many go.

        What has come meanwhile counts: a slot that is not free any more, or a pause, releases nobody.
        """
        go = 0
        free, self.free = self.free, []
        for slot in free:
            if slot.name in others:
                self._expect(slot, now)
            elif slot.name in mine and go < waiting and now >= self.not_before:
                go += 1
                self.released.append(Slot(slot.name, now))
            else:
                self.free.append(slot)
        if len(self.free) < len(free) or not waiting:
            self._moved_at = now
        return go

    def _expect(self, slot: Slot, now: float) -> None:
        """Take one of the jobs that came by themselves for that of the waiter another triggerer has released."""
        came = [job for job, seen in self._strangers.items() if seen >= slot.at - LIST_LAG]
        if came:
            del self._strangers[came[0]]
            self.blockers.add(came[0])
        else:
            self.released.append(Slot(slot.name, now))

    def place(self, number: int, channel: str) -> str:
        """Word a waiter's place in the queue, the first being number 1."""
        where = f"channel {channel}" if channel else "any channel"
        jobs = f"{len(self.blockers)} {'job runs' if len(self.blockers) == 1 else 'jobs run'}"
        return f"{ordinal(number)} in line for {where} among those in this triggerer, {jobs}"

    def _meet(self, running: set[str], now: float) -> None:
        """Take jobs nobody knew for those of released waiters: they hold the slots now."""
        arrived = sorted(running - self._known)
        taken, rest = arrived[: len(self.released)], arrived[len(self.released) :]
        del self.released[: len(taken)]
        self.blockers |= set(taken)
        self._strangers |= dict.fromkeys(rest, now)
        self._known |= running


def ordinal(number: int) -> str:
    """Word a place in a line."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
