"""Several triggerers before one channel: one waiter goes for each freed slot, whoever of them lives to release it."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_pika.api.claims import (
    CLAIM_AGE,
    CLAIM_PREFIX,
    HEAD_START,
    LEFT_FOR,
    MOST_SLOTS,
    Claimant,
    line_digest,
    old_claims,
    put_off,
    read_claim,
)
from airflow_provider_pika.api.queue import RELEASE_TIMEOUT, ChannelQueue

LINE = line_digest("pika_default", "7" * 19)
NOW = 1_800_000_000.0


def claimant(runner: str, line: str = LINE) -> Claimant:
    return Claimant(line, runner)


def claimed(runner: str, *slots: str, first_since: float | None = NOW, at: float = NOW, line: str = LINE) -> str:
    return claimant(runner, line).claim(slots, first_since=first_since, now=at)


# What a key says


def test_a_key_tells_who_claims_which_slots_and_who_waits_behind() -> None:
    claim = read_claim(claimed("a1", "job:1", "job:2", first_since=NOW - 5.5))
    assert claim is not None
    assert (claim.line, claim.at, claim.runner, claim.first_since, len(claim.slots)) == (LINE, NOW, "a1", NOW - 5.5, 2)


def test_the_longest_key_is_one_that_airflow_takes() -> None:
    key = claimed("f" * 8, *(f"user:4242-job:{n}" for n in range(MOST_SLOTS)), first_since=NOW)
    assert len(key) <= 250


def test_a_key_gives_no_name_away() -> None:
    key = claimed("a1", "user:4242-job:1")
    assert not [name for name in ("pika_default", "7" * 19, "4242", "job") if name in key]


@pytest.mark.parametrize(
    "key",
    ["", "pika_ended:1:2:3", CLAIM_PREFIX, f"{CLAIM_PREFIX}a:b:c:d:e", f"{CLAIM_PREFIX}a:{'1' * 99}:c:-:", "pika_slot"],
)
def test_a_key_of_another_kind_is_no_claim(key: str) -> None:
    assert read_claim(key) is None
    assert old_claims([key], NOW + 1e6) == []


def test_claims_are_old_after_some_minutes_whosever_they_are() -> None:
    keys = [claimed("a1", "job:1", at=NOW - CLAIM_AGE - 1), claimed("b2", "job:2", at=NOW - CLAIM_AGE + 1)]
    assert old_claims(keys, NOW) == keys[:1]


# Whose a slot is


def test_a_slot_that_nobody_has_claimed_is_claimed() -> None:
    look = claimant("a1").look([], ["job:1", "job:2"], first_since=NOW, now=NOW)
    assert (look.taken, look.wanted, look.tells) == (set(), ["job:1", "job:2"], False)


def test_a_slot_that_another_one_has_claimed_is_his() -> None:
    look = claimant("a1").look([claimed("b2", "job:1")], ["job:1", "job:2"], first_since=NOW, now=NOW)
    assert (look.taken, look.wanted, look.tells) == ({"job:1"}, ["job:2"], False)


def test_ones_own_claim_of_before_is_no_obstacle() -> None:
    """The waiter it was claimed for has left meanwhile."""
    mine = claimant("a1")
    keys = [mine.claim(["job:1"], first_since=None, now=NOW)]
    assert mine.look(keys, ["job:1"], first_since=NOW, now=NOW).wanted == ["job:1"]


@pytest.mark.parametrize("line", [line_digest("pika_other", "7" * 19), line_digest("pika_default", "")])
def test_claims_of_another_line_are_none_of_ours(line: str) -> None:
    """A job may be in the way of two lines: each of them follows its own slots."""
    mine, keys = claimant("a1"), [claimed("b2", "job:1", line=line)]
    assert mine.look(keys, ["job:1"], first_since=NOW, now=NOW).wanted == ["job:1"]
    assert mine.won(keys, ["job:1"]) == {"job:1"}


@pytest.mark.parametrize("number", range(20))
def test_of_those_who_claim_at_the_same_moment_just_one_wins(number: int) -> None:
    slot = f"job:{number}"
    runners = ["a1", "b2", "c3"]
    keys = [claimed(runner, slot) for runner in runners]
    assert sum(slot in claimant(runner).won(keys, [slot]) for runner in runners) == 1


def test_no_more_slots_are_wanted_than_a_key_can_name() -> None:
    look = claimant("a1").look([], [f"job:{n}" for n in range(MOST_SLOTS + 5)], first_since=NOW, now=NOW)
    assert len(look.wanted) == MOST_SLOTS


# Who has waited longer


def test_a_slot_is_left_for_a_poll_to_who_has_waited_much_longer() -> None:
    mine, keys = claimant("a1"), [claimed("b2", "job:0", first_since=NOW - HEAD_START - 1)]
    looks = [mine.look(keys, ["job:1"], first_since=NOW, now=NOW + after) for after in (0, LEFT_FOR - 1, LEFT_FOR)]
    assert [look.wanted for look in looks] == [[], [], ["job:1"]]


def test_who_did_not_take_what_was_left_to_him_is_not_waited_for_again() -> None:
    """His triggerer is dead, or all who waited there have given up."""
    mine, keys = claimant("a1"), [claimed("b2", "job:0", first_since=NOW - HEAD_START - 1)]
    mine.look(keys, ["job:1"], first_since=NOW, now=NOW)
    mine.look(keys, ["job:1"], first_since=NOW, now=NOW + LEFT_FOR)
    assert mine.look(keys, ["job:2"], first_since=NOW, now=NOW + 20).wanted == ["job:2"]
    keys.append(claimed("b2", "job:3", first_since=NOW - HEAD_START - 1, at=NOW + 30))
    assert mine.look(keys, ["job:4"], first_since=NOW, now=NOW + 40).wanted == []


@pytest.mark.parametrize("first_since", [None, NOW - HEAD_START + 1, NOW, NOW + 500])
def test_nobody_else_is_waited_for(first_since: float | None) -> None:
    keys = [claimed("b2", "job:0", first_since=first_since)]
    assert claimant("a1").look(keys, ["job:1"], first_since=NOW, now=NOW).wanted == ["job:1"]


def test_only_the_newest_word_of_a_triggerer_counts() -> None:
    keys = [claimed("b2", first_since=NOW - 500, at=NOW - 50), claimed("b2", first_since=NOW, at=NOW - 40)]
    assert claimant("a1").look(keys, ["job:1"], first_since=NOW, now=NOW).wanted == ["job:1"]


def test_who_always_comes_late_tells_once_that_he_has_waited_longer() -> None:
    mine, keys = claimant("a1"), [claimed("b2", "job:1", first_since=NOW + HEAD_START + 1)]
    assert mine.look(keys, ["job:1"], first_since=NOW, now=NOW).tells
    mine.claim([], first_since=NOW, now=NOW)
    assert not mine.look(keys, ["job:1"], first_since=NOW, now=NOW).tells


# When to poll


@pytest.mark.parametrize(("gap", "later"), [(0.0, 5.0), (0.3, 4.7), (2.4, 2.6), (9.0, 6.0), (19.0, 6.0), (-1.0, 6.0)])
def test_who_polls_close_behind_another_one_comes_to_poll_halfway_between_his_polls(gap: float, later: float) -> None:
    mine, keys = claimant("a1"), [claimed("b2", "job:1", at=NOW - gap), claimed("b2", "job:0", at=NOW - 33)]
    assert mine.look(keys, ["job:1"], first_since=NOW, now=NOW).put_off == pytest.approx(later, abs=0.01)


@pytest.mark.parametrize("gap", [2.6, 5.0, 7.4, 13.0])
def test_who_polls_far_enough_behind_stays_there(gap: float) -> None:
    mine, keys = claimant("a1"), [claimed("b2", "job:1", at=NOW - gap)]
    assert mine.look(keys, ["job:1"], first_since=NOW, now=NOW).put_off == 0


# Two triggerers and a channel


class World:
    """
    A channel of ten slots and triggerers before it, on one clock; who finds the channel full is counted, and rejoins.

    A call to Airflow takes some hundredths of a second, a worker's start some seconds.
    """

    def __init__(self, seed: int, waiting: int, *, agree: bool = True, apart: float | None = None) -> None:
        self.dice = random.Random(seed)
        self.agree = agree
        self.now = NOW
        self.keys: list[str] = []
        self.jobs = {f"job:{n}": NOW + self.dice.uniform(20, 90) for n in range(10)}
        self.number = itertools.count()
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        self.wanted = self.taken = self.refused = 0
        self.idle: list[float] = []
        self.ended: list[float] = []
        self.went: list[float] = []
        self.triggerers = [Triggerer(self, runner) for runner in ("a1", "b2")]
        for place in range(waiting):
            self.join(self.dice.choice(self.triggerers), NOW + place / 10)
        for number, triggerer in enumerate(self.triggerers):
            phase = self.dice.uniform(0, 10) if apart is None else number * apart
            self.at(10 + phase, triggerer.poll)

    def at(self, after: float, what: Callable[[], object]) -> None:
        heapq.heappush(self.events, (self.now + after, next(self.number), what))

    def join(self, triggerer: Triggerer, since: float, *, again: bool = False) -> None:
        self.wanted += not again
        triggerer.queue.rejected(list(self.jobs), at=self.now, again=again)
        triggerer.waiters.append(since)
        triggerer.waiters.sort()

    def release(self, since: float) -> None:
        self.went.append(since)
        self.at(self.dice.uniform(1, 6), lambda: self.submit(since))

    def submit(self, since: float) -> None:
        if len(self.jobs) >= 10:
            self.refused += 1
            self.join(self.dice.choice([it for it in self.triggerers if it.lives]), since, again=True)
            return
        self.taken += 1
        self.idle.append(self.now - self.ended.pop(0))
        self.jobs[f"new:{next(self.number)}"] = self.now + self.dice.uniform(20, 90)

    def run(self, seconds: float = 1e9) -> None:
        end = self.now + seconds
        while self.events and self.events[0][0] <= end:
            self.now, _, what = heapq.heappop(self.events)
            over = sorted((ends, job) for job, ends in self.jobs.items() if ends <= self.now)
            for ends, job in over:
                del self.jobs[job]
                self.ended.append(ends)
            what()
            assert self.now < NOW + 20_000, "somebody was never served"
        self.now = min(end, self.now)


class Triggerer:
    """One of them: it polls every ten seconds, and agrees with the others step by step."""

    def __init__(self, world: World, runner: str) -> None:
        self.world = world
        self.queue = ChannelQueue()
        self.claimant = claimant(runner)
        self.waiters: list[float] = []
        self.lives = True
        self.is_agreeing = False
        self.put_off = 0.0

    def poll(self) -> None:
        if not self.lives:
            return
        if self.put_off:
            self.world.at(self.put_off, self.poll)
            self.put_off = 0.0
            return
        self.queue.after_poll(self.world.jobs, now=self.world.now)
        if self.world.agree and not self.is_agreeing:
            self.is_agreeing = True
            self.go_on(self.steps())
        elif not self.world.agree:
            self.settle(set(self.offered()))
        if self.world.taken < self.world.wanted:
            self.world.at(10 + self.world.dice.uniform(0, 0.05), self.poll)

    def offered(self) -> list[str]:
        return self.queue.offered(waiting=len(self.waiters), now=self.world.now)

    def settle(self, mine: set[str], others: set[str] | None = None) -> None:
        go = self.queue.settle(mine, others or set(), waiting=len(self.waiters), now=self.world.now)
        for since in self.waiters[:go]:
            self.world.release(since)
        del self.waiters[:go]

    def go_on(self, steps: Iterator[None]) -> None:
        if self.lives and next(steps, "over") != "over":
            self.world.at(self.world.dice.uniform(0.01, 0.03), lambda: self.go_on(steps))

    def steps(self) -> Iterator[None]:
        world = self.world
        while slots := self.offered():
            named = [slot for slot in slots if slot]
            look = self.claimant.look(list(world.keys), named, first_since=self.waiters[0], now=world.now)
            yield
            if look.wanted or look.tells:
                stays = self.waiters[len(look.wanted) :] or [None]
                world.keys.append(self.claimant.claim(look.wanted, first_since=stays[0], now=world.now))
                yield
            mine = self.claimant.won(list(world.keys), look.wanted)
            lost = set(look.wanted) - mine
            self.put_off = put_off(0.0) if lost else look.put_off
            if not mine | look.taken | lost:
                break
            self.settle(mine | ({""} & set(slots)), look.taken | lost)
        self.is_agreeing = False


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(40))
def test_two_triggerers_release_one_waiter_for_each_freed_slot(seed: int) -> None:
    world = World(seed, waiting=60)
    world.run()
    assert (world.taken, world.refused) == (60, 0)
    assert mean(world.idle) < 9


def test_without_claims_they_release_too_many() -> None:
    """What the claims are for; and that this world would show it."""
    worlds = [World(seed, waiting=60, agree=False) for seed in range(10)]
    for world in worlds:
        world.run()
    assert min(world.refused for world in worlds) >= 5


@pytest.mark.parametrize("apart", [0.0, 0.005, 0.02, 0.05])
def test_two_who_poll_at_the_same_moment_release_hardly_one_too_many(apart: float) -> None:
    worlds = [World(seed, waiting=60, apart=apart) for seed in range(10)]
    for world in worlds:
        world.run()
    assert sum(world.refused for world in worlds) <= 0.01 * 600
    # Three seconds of it are the worker's start: they have come to poll in turns.
    assert mean([mean(world.idle) for world in worlds]) < 7.3


@pytest.mark.parametrize("seed", range(20))
def test_a_triggerers_death_costs_nobody_his_turn(seed: int) -> None:
    """Its waiters are taken over half a minute later, with the lists of their own 429s."""
    world = World(seed, waiting=40)
    world.run(seconds=60 + seed)
    dead, alive = world.triggerers
    dead.lives = False
    orphans = dead.waiters
    dead.waiters = []
    world.run(seconds=30)
    for since in orphans:
        world.join(alive, since)
        world.wanted -= 1
    world.run()
    assert world.taken == 40
    # Nothing but what the dead one had taken and not released is waited for.
    assert world.refused <= 2
    assert mean(world.idle) < 15


@pytest.mark.parametrize("seed", range(20))
def test_who_has_no_waiters_left_leaves_the_slots_to_the_other(seed: int) -> None:
    world = World(seed, waiting=0)
    few, many = world.triggerers
    for place in range(40):
        world.join(many if place > 3 else few, NOW + place / 10)
    world.run()
    assert (world.taken, world.refused) == (40, 0)
    assert mean(world.idle) < 10


@pytest.mark.parametrize("seed", range(10))
def test_who_has_waited_longer_goes_first_whichever_triggerer_polls_first(seed: int) -> None:
    """One of them always sees a free slot first; those who came ten minutes earlier stand in the other's line."""
    world = World(seed, waiting=0, apart=1.0)
    first, late = world.triggerers
    for place in range(15):
        world.join(late, NOW - 600 + place)
        world.join(first, NOW + place)
    world.run()
    assert (world.taken, world.refused) == (30, 0)
    places = [place for place, since in enumerate(world.went) if since < NOW]
    assert sum(place > 17 for place in places) <= 2


def test_a_slot_nobody_has_filled_is_offered_again_and_goes_to_one() -> None:
    """The triggerer that had claimed it died, or its waiter did."""
    keys = [claimed("dead", "job:0")]
    queues = {runner: ChannelQueue() for runner in ("a1", "b2")}
    claimants = {runner: claimant(runner) for runner in queues}
    for queue in queues.values():
        queue.rejected(["job:0"], at=NOW)
    went = []
    for step in range(30):
        now = NOW + 10 + 5 * step
        runner = "a1" if step % 2 else "b2"
        queues[runner].after_poll([], now=now)
        slots = queues[runner].offered(waiting=5, now=now)
        look = claimants[runner].look(keys, slots, first_since=NOW, now=now)
        if look.wanted:
            keys.append(claimants[runner].claim(look.wanted, first_since=NOW, now=now))
        if queues[runner].settle(claimants[runner].won(keys, look.wanted), look.taken, waiting=5, now=now):
            went.append(now)
    assert len(went) == 1
    assert RELEASE_TIMEOUT <= went[0] - NOW <= RELEASE_TIMEOUT + 25
