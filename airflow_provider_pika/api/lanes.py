"""Who may submit next: the line before a full channel, as a decision without clocks or network.

A 429 names the jobs in the way. One waiter is let go for each of them that is gone from the list of running
jobs. Numbers of jobs are never compared: the list spans all channels of the API token, the limit is per channel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

# A waiter let go needs a worker before its job can show up in the list. One that has not shown up by then was
# lost, or its job ended at once: its slot is offered again.
PATIENCE = 120.0
# A line that has not moved for so long sends somebody to find out.
STANDSTILL = 300.0


@dataclass
class Lane:
    """
    The line before one channel.

    :param blockers: jobs known to hold a slot of the channel
    :param free: slots known to be free
    :param let_go: when those were let go whose jobs have not been seen running yet, oldest first
    :param full_at: when the newest 429 said that the channel is full, 0 if none has
    :param hold_until: nobody goes before this, because Discord asked for a pause
    """

    blockers: set[str] = field(default_factory=set)
    free: int = 0
    let_go: list[float] = field(default_factory=list)
    full_at: float = 0.0
    hold_until: float = 0.0
    _known: set[str] = field(default_factory=set)
    _stirred: float = float("inf")

    def turned_away(
        self, executing_jobs: Collection[str], *, at: float, hold_until: float = 0.0, again: bool = False
    ) -> None:
        """
        Take in what a waiter was told when it was turned away.

        :param executing_jobs: the jobs in the way; none if it was a rate limit
        :param at: when that was, epoch seconds: older news than the newest is none
        :param again: whether this waiter had been let go before, and is back
        """
        self.hold_until = max(self.hold_until, hold_until)
        if again and self.let_go:
            del self.let_go[0]
            # Who met a rate limit has not taken the slot; who met a full queue says below that there was none.
            self.free += 1
        if not executing_jobs or at <= self.full_at:
            return
        self._meet(set(executing_jobs))
        self.blockers = set(executing_jobs)
        self.full_at = at
        self.free = 0

    def look(self, running: Collection[str], *, waiting: int, now: float) -> int:
        """
        Take in the list of running jobs; return how many of those who wait may go now.

        :param waiting: how many wait
        """
        running = set(running)
        lost = [at for at in self.let_go if now - at >= PATIENCE]
        del self.let_go[: len(lost)]
        self._stirred = min(self._stirred, now)
        self._meet(running)
        gone = self.blockers - running
        self.blockers -= gone
        self._known = running | self.blockers
        self.free += len(gone) + len(lost)
        if not self.full_at:
            # Only a rate limit has been met so far, nothing tells how many slots there are: one at a time.
            self.free = 1
        if now < self.hold_until:
            return 0
        if not self.free and now - self._stirred >= STANDSTILL:
            # The list may lie: one goes and brings fresh news.
            self.free = 1
        go = min(self.free, waiting)
        self.free -= go
        self.let_go += [now] * go
        if go or not waiting:
            self._stirred = now
        return go

    def _meet(self, running: set[str]) -> None:
        """Take jobs nobody knew for those of waiters let go: they hold the slots now."""
        arrived = sorted(running - self._known)[: len(self.let_go)]
        del self.let_go[: len(arrived)]
        self.blockers |= set(arrived)
        self._known |= running
