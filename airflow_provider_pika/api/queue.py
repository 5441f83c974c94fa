"""Who may submit next, and when: the queue before a full channel, as decisions without clocks or network.

A 429 names the jobs in the way. One waiter is released for each of them that is gone from the list of running
jobs. Numbers of jobs are never compared: the list spans all channels of the API token, the limit is per channel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from airflow_provider_pika.api.polling import MIN_RESCHEDULE
from airflow_provider_pika.exceptions import PikaError, PikaRateLimitedError

# A released waiter needs a worker before its job can show up in the list. One that has not shown up by then was
# lost, or its job ended at once: its slot is offered again.
RELEASE_TIMEOUT = 120.0
# A queue that has not moved for so long releases one waiter to find out why.
STALL_TIMEOUT = 300.0
# A full queue frees a slot every minute or so: who was rejected often need not ask that often.
MAX_SUBMIT_WAIT = 300.0


def submit_wait(error: PikaError, *, rejections: int, left: float, spread: float) -> float | None:
    """
    Return how many seconds to wait before submitting again after a 429, or None to give up.

    :param error: the queue-full or rate-limit answer
    :param rejections: how often this task has been rejected before
    :param left: seconds left of ``queue_timeout``
    :param spread: a random number in [0, 1)
    """
    least = max(MIN_RESCHEDULE, error.retry_after or 0.0)
    if least > left:
        return None
    if isinstance(error, PikaRateLimitedError) and error.retry_after is not None:
        # What the service asks for is waited in full; the jitter keeps a mapped task's many submits apart.
        return min(left, least + MIN_RESCHEDULE * spread)
    # 15 to 30 s at first, longer for those rejected often: hundreds may queue behind ten.
    slower = min(MAX_SUBMIT_WAIT, MIN_RESCHEDULE * 1.25 ** min(rejections, 20))
    return min(left, max(least, slower * (1 + spread)))


@dataclass
class ChannelQueue:
    """
    The queue before one channel.

    :param blockers: jobs known to hold a slot of the channel
    :param free: slots known to be free
    :param released: when those were released whose jobs have not been seen running yet, oldest first
    :param full_at: when the newest 429 said that the channel is full, 0 if none has
    :param not_before: nobody is released before this, because a 429 asked for a pause
    """

    blockers: set[str] = field(default_factory=set)
    free: int = 0
    released: list[float] = field(default_factory=list)
    full_at: float = 0.0
    not_before: float = 0.0
    _known: set[str] = field(default_factory=set)
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
            self.free += 1
        if not executing_jobs or at <= self.full_at:
            return
        self._meet(set(executing_jobs))
        self.blockers = set(executing_jobs)
        self.full_at = at
        self.free = 0

    def after_poll(self, running: Collection[str], *, waiting: int, now: float) -> int:
        """
        Take in the list of running jobs; return how many of those who wait are released now.

        :param waiting: how many wait
        """
        running = set(running)
        lost = [at for at in self.released if now - at >= RELEASE_TIMEOUT]
        del self.released[: len(lost)]
        self._moved_at = min(self._moved_at, now)
        self._meet(running)
        gone = self.blockers - running
        self.blockers -= gone
        self._known = running | self.blockers
        self.free += len(gone) + len(lost)
        if not self.full_at:
            # Only a rate limit has been met so far, nothing tells how many slots there are: one at a time.
            self.free = 1
        if not self.free and now - self._moved_at >= STALL_TIMEOUT and now >= self.not_before:
            # The list may lie: one is released and brings fresh news.
            self.free = 1
        return self._release(waiting, now)

    def after_end(self, jobid: str, *, waiting: int, now: float) -> int:
        """Take in that a job was read as ended, which its list may show late; return how many are released now."""
        if jobid not in self.blockers:
            return 0
        self.blockers.discard(jobid)
        self.free += 1
        return self._release(waiting, now)

    def _release(self, waiting: int, now: float) -> int:
        if now < self.not_before:
            return 0
        go = min(self.free, waiting)
        self.free -= go
        self.released += [now] * go
        if go or not waiting:
            self._moved_at = now
        return go

    def place(self, number: int, channel: str) -> str:
        """Word a waiter's place in the queue, the first being number 1."""
        where = f"channel {channel}" if channel else "any channel"
        jobs = f"{len(self.blockers)} {'job runs' if len(self.blockers) == 1 else 'jobs run'}"
        return f"{ordinal(number)} in line for {where} among those in this triggerer, {jobs}"

    def _meet(self, running: set[str]) -> None:
        """Take jobs nobody knew for those of released waiters: they hold the slots now."""
        arrived = sorted(running - self._known)[: len(self.released)]
        del self.released[: len(arrived)]
        self.blockers |= set(arrived)
        self._known |= running


def ordinal(number: int) -> str:
    """Word a place in a line."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
