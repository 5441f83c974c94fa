"""Which of several triggerers releases a waiter for a freed slot: claims, as decisions without clocks or network.

A claim is a Variable whose *key* is the message, as a bell is (see :mod:`~airflow_provider_pika.api.callback`). Whoever
sees a slot free looks for a claim, claims it if there is none, and looks again; of two who claimed at the same moment
both derive alike who has it. A claim outlives its triggerer and binds nobody: a slot that stays empty is offered again
under another name. A wrong release costs a worker start and a 429, never a job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from airflow_provider_pika.api.keys import digest, read_time, write_time
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL

CLAIM_PREFIX = "pika_slot:"
# Seconds for which a claim can be read: until every triggerer has seen its slot free, though the list is late or fails.
CLAIM_AGE = 600.0
# Slots that one key names: Airflow takes keys of 250 characters.
MOST_SLOTS = 12
# A slot is left to a triggerer whose first waiter has waited so much longer than one's own ...
HEAD_START = 60.0
# ... for so long: in this time each of them polls once.
LEFT_FOR = MIN_POLL_INTERVAL
# Where two poll within so many seconds of each other, one of them comes to poll halfway between the other's polls:
# triggerers that got their waiters at the same moment would see each free slot together, and late.
CLOSE = MIN_POLL_INTERVAL / 4
_NO_TIME = "-"


class Claim(NamedTuple):
    """
    What one triggerer has told the others of a line.

    :param line: what :func:`line_digest` makes of the line
    :param at: when, UTC epoch seconds by its own clock: which of its own claims is the newest, and which are old
    :param runner: a random name of the triggerer's poller
    :param first_since: since when the first of those who stay in its line has waited, None if nobody does
    :param slots: the digests of the slots it claims
    """

    line: str
    at: float
    runner: str
    first_since: float | None
    slots: frozenset[str]


class Look(NamedTuple):
    """
    What the claims of others leave.

    :param taken: slots that others have claimed
    :param wanted: slots to claim now
    :param tells: whether to tell the others of one's own first waiter, because theirs came much later
    :param put_off: seconds by which the next poll is better put off, so that it comes between the others'
    """

    taken: set[str]
    wanted: list[str]
    tells: bool
    put_off: float = 0.0


def line_digest(conn_id: str, channel: str) -> str:
    """Return the name of the line of a connection and a channel, the same in every triggerer."""
    return _digest(f"{conn_id}\0{channel}")


def read_claim(key: str) -> Claim | None:
    """Read the key of a claim; None for any other key."""
    parts = key.removeprefix(CLAIM_PREFIX).split(":")
    if not key.startswith(CLAIM_PREFIX) or len(parts) != 5:
        return None
    line, told_at, runner, told_since, slots = parts
    at, since = read_time(told_at), read_time(told_since)
    if at is None or (since is None and told_since != _NO_TIME):
        return None
    return Claim(line, at, runner, since, frozenset(slots.split(".")) - {""})


def old_claims(keys: Iterable[str], now: float) -> list[str]:
    """Return the keys of those claims that nobody needs any more, of whichever line and triggerer."""
    return [key for key in keys if (claim := read_claim(key)) and claim.at < now - CLAIM_AGE]


def put_off(gap: float) -> float:
    """
    Return by how many seconds to put off the next poll for it to fall halfway between another triggerer's polls.

    :param gap: seconds since that one polled, as its claim tells; where the clocks of two hosts differ the spacing is
        off by as much, and nothing else
    """
    earlier, half = gap % MIN_POLL_INTERVAL, MIN_POLL_INTERVAL / 2
    return 0.0 if abs(earlier - half) <= half - CLOSE else (half - earlier) % MIN_POLL_INTERVAL


class Claimant:
    """
    One triggerer, as it claims slots for those in its line.

    :param line: what :func:`line_digest` makes of the line
    :param runner: this triggerer's poller
    """

    def __init__(self, line: str, runner: str) -> None:
        # With this the keys begin that are asked for: those of other lines are none of its business.
        self.prefix = f"{CLAIM_PREFIX}{line}:"
        self._line = line
        self._runner = runner
        self._told: float | None = None
        # When a slot was left to others, and whose time for that has passed in vain.
        self._left: dict[str, float] = {}
        self._unheeded: set[Claim] = set()

    def look(self, keys: Iterable[str], slots: Sequence[str], *, first_since: float, now: float) -> Look:
        """
        Take in all claims there are, before claiming.

        :param slots: the slots that are free for all this triggerer knows
        :param first_since: since when its first waiter has waited
        """
        others = self._others(keys)
        claimed = {slot for claim in others for slot in claim.slots}
        taken = {slot for slot in slots if _digest(slot) in claimed}
        rest = [slot for slot in slots if slot not in taken]
        newest = {claim.runner: claim for claim in sorted(others, key=lambda claim: claim.at)}.values()
        self._unheeded &= set(newest)
        ahead = {it for it in newest if it.first_since is not None and it.first_since < first_since - HEAD_START}
        ahead -= self._unheeded
        self._left = {slot: self._left.get(slot, now) for slot in rest} if ahead else {}
        wanted = [slot for slot in rest if now - self._left.get(slot, now - LEFT_FOR) >= LEFT_FOR]
        if wanted:
            # It is dead, or its line is empty: it is waited for again when it claims again.
            self._unheeded |= ahead
        behind = any(it.first_since is not None and it.first_since > first_since + HEAD_START for it in newest)
        gaps = [now - claim.at for claim in others if claim.slots & set(map(_digest, taken))]
        tells = bool(taken) and behind and first_since != self._told
        return Look(taken, wanted[:MOST_SLOTS], tells, put_off(min(gaps)) if gaps else 0.0)

    def claim(self, slots: Sequence[str], *, first_since: float | None, now: float) -> str:
        """
        Return the key that claims these slots, or without any only tells of the first waiter.

        :param first_since: since when the first of those has waited who stay, None if nobody does
        """
        self._told = first_since
        since = _NO_TIME if first_since is None else write_time(first_since)
        names = ".".join(map(_digest, slots))
        return f"{self.prefix}{write_time(now)}:{self._runner}:{since}:{names}"

    def won(self, keys: Iterable[str], slots: Collection[str]) -> set[str]:
        """Return which of the slots it has just claimed are its own, given all claims there are now."""
        others = self._others(keys)
        return {slot for slot in slots if self._has_won(_digest(slot), others)}

    def _has_won(self, slot: str, others: list[Claim]) -> bool:
        # No claim was there a moment ago: these were made at the same time, and each of them is seen by all who made
        # one. No order of times: the clocks of two hosts differ by more.
        runners = {self._runner, *(claim.runner for claim in others if slot in claim.slots)}
        return self._runner == min(runners, key=lambda runner: _digest(slot + runner))

    def _others(self, keys: Iterable[str]) -> list[Claim]:
        claims = map(read_claim, keys)
        return [claim for claim in claims if claim and claim.line == self._line and claim.runner != self._runner]


def _digest(text: str) -> str:
    return digest(text, 12)
