"""
The weather of the soak: lost answers, lists that are late, reads that are spoilt, a secrets backend that fails.

All of it is drawn from the seed. What befalls the n-th submit and the n-th film does not depend on when it comes, so
that a seed that found something finds it again, as far as processes that die at other moments let it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.failing_secrets import Secrets

# How long a job runs. Short, so that 300 of them get through a queue of ten in about 40 minutes.
SECONDS = (30, 70)
# How late the list shows a job: the service's freshness is 15 to 60 s. For this long each job is listed before it ends,
# or not even a search without a fault could tell it from one that was never made.
LATE = (5, 45)
LISTED = 25
ANSWER_SECONDS = 4

# The service answers a submit when the bot has spoken, so a kill may well strike between work and answer.
USUAL = "slow"
# And now and then it takes its time to take a submit: a task killed meanwhile is back before its job is made.
SLOW = "slow_take"
_Wish = dict[str, Any]
SUBMITS: Sequence[tuple[int, _Wish]] = (
    (85, {"kind": USUAL, "seconds": ANSWER_SECONDS}),
    (4, {"kind": SLOW, "seconds": 40}),
    (3, {"kind": "drop_after"}),
    (1, {"kind": "drop_before"}),
    (1, {"kind": "cut"}),
    (1, {"kind": "server_error", "status": 500, "work": True}),
    (1, {"kind": "server_error", "status": 502, "work": False}),
    (1, {"kind": "server_error", "status": 503, "work": True}),
    (1, {"kind": "server_error", "status": 504, "work": True}),
    (1, {"kind": "html", "status": 200, "work": True}),
    (1, {"kind": "html", "status": 502, "work": False}),
)
READS: Sequence[tuple[int, _Wish]] = (
    (2, {"kind": "server_error", "status": 500}),
    (2, {"kind": "server_error", "status": 503}),
    (2, {"kind": "html", "status": 403}),
    (2, {"kind": "html", "status": 404}),
    (1, {"kind": "html", "status": 200}),
    (2, {"kind": "cut"}),
    (2, {"kind": "drop_before"}),
    (1, {"kind": "redirect"}),
    (1, {"kind": "slow", "seconds": 8}),
    (1, {"kind": "slow", "seconds": 25}),
    (1, {"kind": "drip", "seconds": 4}),
)
# Between two spells of bad weather on reads, and how many calls one spoils at most. Of the list not many: after each
# the triggerer waits longer, and with three in a row nobody submits for a minute and a half.
SPELLS = (15.0, 40.0)
SPOILT = {"list": 2, "job": 5}
# Between two failures of the secrets backend, and how long one lasts.
OUTAGES = (60.0, 150.0)
OUTAGE_SECONDS = (5.0, 25.0)
# More than can be submitted while a process is being started anew.
_AHEAD = 60
_PAUSE = 2.0


@dataclass(frozen=True)
class Film:
    """
    What is particular about the job of one film.

    :param seconds: how long it runs
    :param late: after how many of them the list shows it
    """

    seconds: int
    late: int

    @property
    def markers(self) -> str:
        """The same as markers in a prompt."""
        return f"[emulator:seconds={self.seconds}] [emulator:late_listing={self.late}]"


def film(seed: int, number: int) -> Film:
    """Draw the job of a film."""
    drawn = random.Random(f"{seed} film {number}")
    late = drawn.randint(*LATE)
    return Film(drawn.randint(max(SECONDS[0], late + LISTED), SECONDS[1]), late)


class Weather:
    """
    The weather over one emulator and one secrets backend.

    :param say: takes a line of progress
    """

    def __init__(self, emulator: EmulatorClient, secrets: Secrets, seed: int | str, say: Callable[[str], None]) -> None:
        self.outages = 0
        self._emulator = emulator
        self._secrets = secrets
        self._failing = False
        self._say = say
        # One source for each, or the timing of one would change what another draws.
        self._submits = random.Random(f"{seed} submits")
        self._reads = random.Random(f"{seed} reads")
        self._outages = random.Random(f"{seed} secrets")
        self._tape: list[_Wish] = []
        self._struck = 0
        self._spells: Counter[str] = Counter()
        self._left: list[dict[str, Any]] = []
        now = time.monotonic()
        self._next_turn = now
        self._next_spell = now + self._reads.uniform(*SPELLS)
        self._next_outage = now + self._outages.uniform(*OUTAGES)

    def turn(self) -> None:
        """Let the weather go on; to be called again and again."""
        now = time.monotonic()
        if now < self._next_turn:
            return
        self._next_turn = now + _PAUSE
        self._count(self._emulator.faults())
        while len(self._tape) - self._struck < _AHEAD:
            self._tape.append(_draw(self._submits, SUBMITS))
            self._emulator.fault("submit", **self._tape[-1])
        if now >= self._next_spell:
            self._next_spell = now + self._reads.uniform(*SPELLS)
            self._spell()
        if now >= self._next_outage:
            self._turn_secrets(now)

    def end(self) -> None:
        """Give the secrets backend back, and let no further call be spoilt."""
        self._secrets.recover()
        self._count(self._emulator.take_back_faults())

    @property
    def slow(self) -> int:
        """Submits that the service took late."""
        return sum(wish["kind"] == SLOW for wish in self._tape[: self._struck])

    @property
    def lost(self) -> Counter[str]:
        """Lost answers to submits, by kind."""
        return Counter(_name(wish) for wish in self._tape[: self._struck] if wish["kind"] not in (USUAL, SLOW))

    @property
    def spoilt(self) -> Counter[str]:
        """Reads that were spoilt, by call."""
        left = Counter({call: sum(fault["times"] for fault in self._left_on(call)) for call in self._spells})
        return self._spells - left

    def _spell(self) -> None:
        call = self._reads.choice(sorted(SPOILT))
        wish = _draw(self._reads, READS)
        times = self._reads.randint(1, SPOILT[call])
        # Calls of which none comes must not have a storm in store for them.
        if self._left_on(call):
            return
        self._emulator.fault(call, times=times, **wish)
        self._spells[call] += times
        self._count(self._emulator.faults())
        self._say(f"weather: {_name(wish)} on the next {times} of {call}")

    def _turn_secrets(self, now: float) -> None:
        if self._failing:
            self._failing = False
            self._secrets.recover()
            self._next_outage = now + self._outages.uniform(*OUTAGES)
            return
        lasts = self._outages.uniform(*OUTAGE_SECONDS)
        self._failing = True
        self._secrets.fail()
        self.outages += 1
        self._next_outage = now + lasts
        self._say(f"weather: the secrets backend fails for {lasts:.0f} s")

    def _count(self, left: list[dict[str, Any]]) -> None:
        self._left = left
        # Oldest first: what is left is the end of the tape.
        self._struck = len(self._tape) - len(self._left_on("submit"))

    def _left_on(self, call: str) -> list[dict[str, Any]]:
        return [fault for fault in self._left if fault["on"] == call]


def _draw(drawn: random.Random, choices: Sequence[tuple[int, _Wish]]) -> _Wish:
    return drawn.choices([wish for _, wish in choices], [weight for weight, _ in choices])[0]


def _name(wish: _Wish) -> str:
    words = [wish["kind"], *(str(wish[name]) for name in ("status", "seconds") if name in wish)]
    if wish.get("work"):
        words.append("with the work done")
    return " ".join(words)
