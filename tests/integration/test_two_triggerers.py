"""Two triggerers before one full channel: their pollers agree by Airflow Variables on whom to release."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.execution_time.comms import DeleteVariable, PutVariable

from airflow_provider_pika import compat
from airflow_provider_pika.api.claims import CLAIM_AGE, CLAIM_PREFIX, Claimant, line_digest, read_claim
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaQueueFullError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers import claims
from airflow_provider_pika.triggers.poller import SharedPoller
from tests.support.task_context import Clock, run_leaping
from tests.support.variables import Variables

CONN = "pika_default"


class Asked:
    """The Variables of an Airflow that lists their keys, and what it was asked."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.lists = 0
        self.fails: Callable[[str], None] = lambda what: None
        self.others: list[Any] = []
        variables.fails_on = self.note

    def note(self, message: Any) -> bool:
        self.others.append(message)
        self.fails(type(message).__name__)
        return False

    def keys(self, prefix: str) -> list[str]:
        assert prefix.startswith(CLAIM_PREFIX)
        self.lists += 1
        self.fails("keys")
        return sorted(key for key in self.variables.values if key.startswith(prefix))


@pytest.fixture
def asked(variables: Variables, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(variables)
    monkeypatch.setattr(compat, "variable_keys", asked.keys)
    monkeypatch.setattr(compat, "has_variable_keys", lambda: True)
    return asked


class Triggerers:
    """So many triggerers, each with a poller of its own, and tasks that wait there until they have submitted."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock = clock
        self.dice = random.Random(1)
        self.polling: list[dict[str, SharedPoller]] = [{} for _ in range(count)]
        self.refused = 0
        self.waited: list[float] = []

    def poller(self, number: int) -> SharedPoller:
        pollers = self.polling[number]
        if CONN not in pollers:
            pollers[CONN] = SharedPoller(CONN, pollers)
        return pollers[CONN]

    async def wait(self, number: int, jobs: list[str], since: float, *, again: bool = False) -> bool:
        return await self.poller(number).for_slot(
            "",
            since=since,
            executing_jobs=jobs,
            rejected_at=self.clock.time(),
            not_before=0,
            again=again,
            timeout=9000,
            tell=lambda place: None,
        )

    async def task(self, jobs: list[str], since: float, first: int | None = None) -> None:
        """Wait for a slot and submit, as often as it takes; each time any triggerer may get the trigger."""
        began, again = self.clock.time(), False
        while True:
            number = self.dice.randrange(len(self.polling)) if again or first is None else first
            assert await self.wait(number, jobs, since, again=again)
            await asyncio.sleep(self.dice.uniform(1, 4))  # a worker starts
            try:
                await asyncio.get_running_loop().run_in_executor(None, submit)
            except PikaQueueFullError as error:
                self.refused += 1
                jobs, again = error.executing_jobs, True
            else:
                self.waited.append(self.clock.time() - began)
                return


def submit() -> str:
    return PikaHook().encrypt_text(message="HI", prompt="waves").jobid


def fill(emulator: EmulatorClient, count: int) -> list[str]:
    """Fill a channel of so many slots with jobs that end one after the other."""
    emulator.configure(max_jobs=count)
    jobs = []
    for number in range(count):
        emulator.configure(seconds=30 + 17 * number)
        jobs.append(submit())
    emulator.configure(seconds=47)
    return jobs


def run(clock: Clock, triggerers: Triggerers, jobs: list[str], count: int) -> None:
    async def all_of_them() -> None:
        tasks = []
        for number in range(count):
            # The second triggerer's polls come between the first one's.
            later = number % len(triggerers.polling) * 4
            tasks.append(triggerers.task(jobs, clock.time() + number / 10, number % len(triggerers.polling)))
            tasks[-1] = _after(later, tasks[-1])
        await asyncio.gather(*tasks)

    run_leaping(all_of_them(), clock)


async def _after(seconds: float, what: Any) -> None:
    await asyncio.sleep(seconds)
    await what


def test_two_triggerers_release_one_waiter_for_each_freed_slot(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked
) -> None:
    triggerers = Triggerers(clock, 2)
    run(clock, triggerers, fill(pika_emulator, 4), 14)
    assert triggerers.refused == 0
    assert len(triggerers.waited) == 14
    assert pika_emulator.counters()["submits"]["refused"].get("429", 0) == 0


def test_below_airflow_33_each_has_its_own_line(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "has_variable_keys", lambda: False)
    triggerers = Triggerers(clock, 2)
    run(clock, triggerers, fill(pika_emulator, 4), 14)
    assert len(triggerers.waited) == 14
    assert triggerers.refused >= 3
    assert (asked.lists, asked.others) == (0, [])


def test_one_triggerer_alone_asks_little_and_only_when_it_releases(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked
) -> None:
    triggerers = Triggerers(clock, 1)
    run(clock, triggerers, fill(pika_emulator, 2), 6)
    assert triggerers.refused == 0
    assert len(clock.polls()["/v1/pika/jobs"]) >= 10
    assert asked.lists <= 1 + 2 * 6
    assert len(asked.others) == sum(isinstance(it, PutVariable) for it in asked.others) <= 6


def test_a_claim_names_nothing_and_is_removed_when_it_is_old(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked
) -> None:
    old = [
        Claimant(line_digest(name, ""), "dead").claim(["job:1"], first_since=None, now=clock.time()) for name in "ab"
    ]
    clock.leap(CLAIM_AGE + 1)
    asked.variables.values.update(dict.fromkeys([*old, f"{CLAIM_PREFIX}what-is-this"], ""))
    jobs = fill(pika_emulator, 2)
    run(clock, Triggerers(clock, 2), jobs, 4)
    kept = asked.variables.values
    assert sorted(it.key for it in asked.others if isinstance(it, DeleteVariable)) == sorted(old)
    claimed = [claim for key in kept if (claim := read_claim(key))]
    assert sum(len(claim.slots) for claim in claimed) >= 4
    assert set(kept.values()) == {""}
    assert not [key for key in kept if CONN in key or any(job in key for job in jobs)]


@pytest.mark.parametrize("what", ["keys", "PutVariable", "DeleteVariable"])
def test_where_airflow_cannot_be_asked_each_has_its_own_line(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    old = Claimant(line_digest(CONN, ""), "dead").claim(["job:1"], first_since=None, now=1.0)
    asked.variables.values[old] = ""

    def fail(which: str) -> None:
        if which == what:
            raise RuntimeError("user:4242-token")

    asked.fails = fail
    triggerers = Triggerers(clock, 2)
    run(clock, triggerers, fill(pika_emulator, 4), 10)
    assert len(triggerers.waited) == 10
    assert 1 <= caplog.text.count("cannot agree on whom to release from the queue (RuntimeError)") <= 4
    assert "token" not in caplog.text


def test_an_airflow_that_does_not_answer_keeps_a_release_waiting_for_a_moment_only(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    hangs: list[str] = []

    def hang(which: str) -> None:
        if which == "PutVariable":
            hangs.append(which)
            answers.wait(20)

    asked.fails = hang
    monkeypatch.setattr(claims, "CLAIM_TIME", 0.5)
    (job,) = fill(pika_emulator, 1)

    async def all_of_it() -> None:
        triggerers = Triggerers(clock, 1)
        assert await triggerers.wait(0, [job], clock.time())
        assert not answers.is_set()
        answers.set()

    run_leaping(all_of_it(), clock)
    assert hangs == ["PutVariable"]
    assert clock.passed < 30 + 10 + 5


def test_they_agree_again_once_airflow_answers(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    jobs = fill(pika_emulator, 1)

    def fail(which: str) -> None:
        if clock.passed < 100:
            raise RuntimeError

    asked.fails = fail
    run(clock, Triggerers(clock, 1), jobs, 12)
    assert caplog.text.count("cannot agree on whom to release") == 1
    assert caplog.text.count("agree again on whom to release") == 1
    assert asked.lists >= 3


def test_the_slots_of_a_dead_triggerer_go_to_the_living(
    pika_emulator: EmulatorClient, clock: Clock, asked: Asked
) -> None:
    """It had claimed a slot, and died before its waiter was released."""
    (job,) = fill(pika_emulator, 1)
    key = Claimant(line_digest(CONN, ""), "dead").claim([job], first_since=None, now=clock.time())
    asked.variables.values[key] = ""

    async def one() -> None:
        assert await Triggerers(clock, 1).wait(0, [job], clock.time())

    run_leaping(one(), clock)
    assert 150 <= clock.passed <= 30 + 120 + 30
