"""The service has called: whoever waits for that job reads it at once, and nothing is believed but the job itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_pika import compat
from airflow_provider_pika.api.callback import BELL_PREFIX, bell_key
from airflow_provider_pika.callbacks import ear
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers.pika import PikaJobTrigger, PikaQueueTrigger
from tests.support.task_context import Clock, Log, events_of, run_leaping, smallest_gap

LIST = "/v1/pika/jobs"


class Bells:
    """The keys of Airflow's Variables, as an api-server tells them to a triggerer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.keys: list[str] = []
        self.asked: list[float] = []
        self.fails = False

    def ring(self, jobid: str) -> None:
        self.keys.append(bell_key(self.clock.time(), jobid))

    def ask(self, prefix: str) -> list[str]:
        if prefix == BELL_PREFIX:
            self.asked.append(self.clock.time())
        if self.fails:
            raise RuntimeError("the api-server is away")
        return sorted(key for key in self.keys if key.startswith(prefix))

    def set(self, key: str, *_: str) -> None:
        self.keys.append(key)


@pytest.fixture
def bells(pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Bells:
    """Let the service call back for ``pika_called``, on an Airflow that lists the keys of Variables."""
    bells = Bells(clock)
    monkeypatch.setattr(compat, "variable_keys", bells.ask)
    # Triggerers agree by Variables too on whom to release.
    monkeypatch.setattr(compat, "set_variable", bells.set)
    monkeypatch.setattr(compat, "delete_variable", bells.keys.remove)
    monkeypatch.setattr(compat, "has_variable_keys", lambda: True)
    about = {**pika_emulator.connection, "extra": {"callback_url": "http://127.0.0.1:9"}}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_CALLED", json.dumps(about))
    return bells


def job_of(emulator: EmulatorClient, seconds: float) -> str:
    emulator.configure(seconds=seconds)
    return PikaHook().encrypt_text(message="HI", prompt="waves").jobid


def watcher(jobid: str, clock: Clock, conn: str = "pika_called", **about: Any) -> PikaJobTrigger:
    kwargs = {"poll_interval": 300.0, "deadline": clock.time() + 9000, **about}
    trigger = PikaJobTrigger(pika_conn_id=conn, jobid=jobid, **kwargs)
    trigger._log = Log()
    return trigger


def in_queue(blocker: str, clock: Clock) -> PikaQueueTrigger:
    now = clock.time()
    trigger = PikaQueueTrigger(
        pika_conn_id="pika_called",
        channel="",
        executing_jobs=[blocker],
        rejected_at=now,
        not_before=now,
        queued_since=now,
        deadline=now + 9000,
    )
    trigger._log = Log()
    return trigger


def run(clock: Clock, trigger: Any, *later: tuple[float, Callable[[], None]]) -> tuple[dict[str, Any], float]:
    """Run a trigger, and meanwhile do things at their time; return its event and when it came, from the start."""
    start = clock.time()

    async def all_of_it() -> tuple[dict[str, Any], float]:
        for at, what in later:
            asyncio.get_running_loop().call_later(at, what)
        (event,) = await events_of(trigger)
        return event, clock.time() - start

    return run_leaping(all_of_it(), clock)


def reads(clock: Clock) -> list[float]:
    return sorted(at for target, times in clock.polls().items() if target != LIST for at in times)


def test_an_end_the_service_calls_about_is_read_within_two_seconds(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    jobid = job_of(pika_emulator, 40)
    trigger = watcher(jobid, clock)
    event, at = run(clock, trigger, (41.5, lambda: bells.ring(jobid)))
    assert event["outcome"] == "ended"
    assert 41.5 <= at <= 44
    (line,) = [line for line in trigger._log.of("info") if "told by the service" in line]
    assert f": {jobid} is completed, told by the service after " in line
    assert 0 <= float(line.split()[-2]) <= 2.5
    assert len(reads(clock)) == 1


def test_a_job_is_not_read_sooner_than_10_s_after_the_defer(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    """Airflow may take a sooner event for the old leg's end."""
    jobid = job_of(pika_emulator, 0)
    bells.ring(jobid)
    event, at = run(clock, watcher(jobid, clock))
    assert event["outcome"] == "ended"
    assert 10 <= at <= 11.5


def test_a_forged_call_has_the_job_read_and_the_wait_goes_on(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    jobid = job_of(pika_emulator, 310)
    event, at = run(clock, watcher(jobid, clock), (20, lambda: bells.ring(jobid)))
    assert event["outcome"] == "ended"
    assert at >= 310
    assert len([read for read in reads(clock) if read < clock.time() - 150]) == 1


def test_a_flood_of_calls_about_a_job_makes_one_read_beyond_the_10_s_rule(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    jobid = job_of(pika_emulator, 100)
    rings = [(12 + number / 2, lambda: bells.ring(jobid)) for number in range(100)]
    start = clock.time()
    run(clock, watcher(jobid, clock), *rings, (100.5, lambda: bells.ring(jobid)))
    assert (smallest_gap(reads(clock)[1:]) or 10) >= 10
    assert len(reads(clock)) >= 3, "or there is no gap to look at"
    assert len([read for read in reads(clock) if read < start + 63]) <= 2 + 50 / 10


def test_the_one_read_for_a_call_may_follow_a_poll_closely(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    """A poll sees the job run, two seconds later the service calls."""
    pika_emulator.fault("submit", "unlisted")
    jobid = job_of(pika_emulator, 61)
    _, at = run(clock, watcher(jobid, clock, poll_interval=60.0), (62, lambda: bells.ring(jobid)))
    first, second = reads(clock)
    assert second - first < 5
    assert at <= 64.5


def test_a_call_during_a_read_has_the_job_read_once_more(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read that is under way saw the job a moment before its end."""
    pika_emulator.fault("submit", "unlisted")
    jobid = job_of(pika_emulator, 61)
    get_job = PikaHook.get_job

    def slow(hook: PikaHook, jobid: str) -> Any:
        found = get_job(hook, jobid)
        if not bells.keys:
            clock.leap(2)
            bells.ring(jobid)
            rung, patience = clock.time(), time.monotonic() + 5
            while not [asked for asked in bells.asked if asked > rung] and time.monotonic() < patience:
                time.sleep(0.01)
        return found

    monkeypatch.setattr(PikaHook, "get_job", slow)
    event, at = run(clock, watcher(jobid, clock, poll_interval=60.0))
    assert event["outcome"] == "ended"
    assert at <= 66
    assert len(reads(clock)) == 2


def test_two_who_wait_for_one_job_share_the_read_a_call_makes(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    """The second has only just joined, and reads it 10 s after the first."""
    jobid = job_of(pika_emulator, 500)

    async def both() -> None:
        tasks = [asyncio.ensure_future(events_of(watcher(jobid, clock)))]
        await asyncio.sleep(15)
        tasks.append(asyncio.ensure_future(events_of(watcher(jobid, clock))))
        await asyncio.sleep(2)
        bells.ring(jobid)
        await asyncio.sleep(25)
        for task in tasks:
            task.cancel()

    run_leaping(both(), clock)
    assert len(reads(clock)) == 2
    assert smallest_gap(reads(clock)) >= 10


def test_a_slot_that_a_called_about_job_frees_is_given_at_once(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list may still name it for a minute: the job itself is read, once, whoever calls how often."""
    blocker = job_of(pika_emulator, 30)
    monkeypatch.setattr(PikaHook, "list_jobs", lambda hook: [blocker])
    calls = [(31.5 + number, lambda: bells.ring(blocker)) for number in range(3)]
    event, at = run(clock, in_queue(blocker, clock), *calls)
    assert event["outcome"] == "released"
    assert 31.5 <= at <= 34
    assert len(reads(clock)) == 1


def test_a_slot_whose_job_was_called_about_before_one_stood_in_line_is_given_as_soon_as_may_be(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended between the 429 and the trigger's start; the list that still named it was believed for a minute."""
    blocker, other = job_of(pika_emulator, 1), job_of(pika_emulator, 5000)
    monkeypatch.setattr(PikaHook, "list_jobs", lambda hook: [blocker, other])
    waited = []

    async def join_late() -> None:
        watching = asyncio.ensure_future(events_of(watcher(other, clock)))
        await asyncio.sleep(10)
        bells.ring(blocker)
        await asyncio.sleep(2)
        joined = clock.time()
        await asyncio.wait_for(events_of(in_queue(blocker, clock)), 120)
        waited.append(clock.time() - joined)
        watching.cancel()

    run_leaping(join_late(), clock)
    assert 10 <= waited[0] <= 22


def test_a_forged_call_about_a_job_in_the_way_releases_nobody(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    blocker = job_of(pika_emulator, 100)
    calls = [(15.0 + number, lambda: bells.ring(blocker)) for number in range(20)]
    event, at = run(clock, in_queue(blocker, clock), *calls)
    assert event["outcome"] == "released"
    assert at >= 100
    assert len(reads(clock)) == 3
    assert smallest_gap(reads(clock)) >= 9.99


def test_no_bell_has_a_job_in_the_way_read_sooner_than_ten_seconds_after_its_last_read(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a list the jobs in the way are read by themselves, too."""
    blocker = job_of(pika_emulator, 200)

    def no_list(hook: PikaHook) -> list[str]:
        raise PikaUnavailableError("no list")

    monkeypatch.setattr(PikaHook, "list_jobs", no_list)

    calls = [(at + 0.5, lambda: bells.ring(blocker)) for at in range(12, 200, 3)]
    event, at = run(clock, in_queue(blocker, clock), *calls)
    assert event["outcome"] == "released"
    assert at >= 200
    assert len(reads(clock)) >= 10
    assert smallest_gap(reads(clock)) >= 9.99


def test_old_bells_are_read_for_once_however_many_join(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each who joins is told of the bells of five minutes: one early call used up the reads that the true one needs."""
    blocker = job_of(pika_emulator, 60)
    monkeypatch.setattr(PikaHook, "list_jobs", lambda hook: [blocker])
    released = []

    async def wait(after: float) -> None:
        await asyncio.sleep(after)
        await events_of(in_queue(blocker, clock))
        released.append(clock.time())

    async def line() -> None:
        start = clock.time()
        for at in (15.0, 61.5):
            asyncio.get_running_loop().call_later(at, bells.ring, blocker)
        waiting = {asyncio.ensure_future(wait(2.0 * number)) for number in range(20)}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert 61.5 <= released[0] - start <= 64
        for each in waiting:
            each.cancel()

    run_leaping(line(), clock)
    assert len(reads(clock)) == 2


@pytest.mark.parametrize("early", ["forged", "unanswered"])
def test_a_job_in_the_way_is_read_again_when_it_is_called_about_again(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch, early: str
) -> None:
    """A call before the job's end, or a read that failed, made the queue deaf to the true one for a minute."""
    blocker = job_of(pika_emulator, 40)
    monkeypatch.setattr(PikaHook, "list_jobs", lambda hook: [blocker])
    if early == "unanswered":
        pika_emulator.fault("job", "server_error", status=503)
    calls = [(at, lambda: bells.ring(blocker)) for at in (15.0, 41.5)]
    event, at = run(clock, in_queue(blocker, clock), *calls)
    assert event["outcome"] == "released"
    assert 41.5 <= at <= 44


def test_calls_about_jobs_of_others_cost_the_api_nothing(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    blocker, jobid = job_of(pika_emulator, 60), job_of(pika_emulator, 60)

    async def both() -> None:
        for number in range(100):
            asyncio.get_running_loop().call_later(number / 2, bells.ring, f"job:of-others-{number}")
        await asyncio.gather(events_of(in_queue(blocker, clock)), events_of(watcher(jobid, clock)))

    run_leaping(both(), clock)
    assert clock.smallest_gap() >= 9.99
    assert len(reads(clock)) == 1


def test_a_pause_a_429_asks_for_holds_for_called_about_jobs_too(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells
) -> None:
    jobid = job_of(pika_emulator, 40)
    pika_emulator.fault("list", "rate_limit", retry_after=200)
    start = clock.time()
    run(clock, watcher(jobid, clock, poll_interval=20.0), (41, lambda: bells.ring(jobid)))
    assert reads(clock)[0] - start >= 219


def test_while_nobody_can_be_heard_polling_goes_on(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, caplog: pytest.LogCaptureFixture
) -> None:
    jobid = job_of(pika_emulator, 100)
    bells.fails = True
    event, at = run(clock, watcher(jobid, clock, poll_interval=30.0), (41, lambda: bells.ring(jobid)))
    assert event["outcome"] == "ended"
    assert at <= 125
    assert max(later - earlier for earlier, later in pairwise(bells.asked)) == pytest.approx(10, abs=0.5)
    assert len(bells.asked) <= 16
    assert caplog.text.count("cannot be heard (RuntimeError)") == 1


def test_the_ear_recovers(pika_emulator: EmulatorClient, clock: Clock, bells: Bells) -> None:
    jobid = job_of(pika_emulator, 100)
    bells.fails = True
    heals = (50.0, lambda: setattr(bells, "fails", False))
    _, at = run(clock, watcher(jobid, clock), heals, (101.5, lambda: bells.ring(jobid)))
    assert at <= 104


@pytest.mark.parametrize("why", ["no callback_url", "an Airflow below 3.3"])
def test_nobody_listens_where_nobody_calls(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "an Airflow below 3.3":
        monkeypatch.setattr(compat, "has_variable_keys", lambda: False)
    conn = "pika_default" if why == "no callback_url" else "pika_called"
    event, _ = run(clock, watcher(job_of(pika_emulator, 30), clock, conn, poll_interval=10.0))
    assert event["outcome"] == "ended"
    assert bells.asked == []


def test_all_connections_of_a_loop_share_one_ear_that_ends_with_the_last_wait(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {**pika_emulator.connection, "extra": {"callback_url": "http://127.0.0.1:9"}}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_TOO", json.dumps(about))
    jobids = [job_of(pika_emulator, 50) for _ in range(2)]
    start = clock.time()

    async def both() -> None:
        for jobid in jobids:
            asyncio.get_running_loop().call_later(51.5, bells.ring, jobid)
        await asyncio.gather(
            *(
                events_of(watcher(jobid, clock, conn))
                for jobid, conn in zip(jobids, ("pika_called", "pika_too"), strict=True)
            )
        )
        assert clock.time() - start <= 54
        assert min(later - earlier for earlier, later in pairwise(bells.asked)) >= 0.99
        asked = len(bells.asked)
        await asyncio.sleep(5)
        assert len(bells.asked) == asked
        assert asyncio.get_running_loop() not in ear._ears
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_leaping(both(), clock)


def test_who_joins_later_learns_what_was_heard_before(
    pika_emulator: EmulatorClient, clock: Clock, bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a connection whose poller is new too, and on one whose poller listens already."""
    about = {**pika_emulator.connection, "extra": {"callback_url": "http://127.0.0.1:9"}}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_TOO", json.dumps(about))
    long, short = job_of(pika_emulator, 5000), job_of(pika_emulator, 5)
    waited: list[float] = []

    async def all_wait() -> None:
        first = asyncio.ensure_future(events_of(watcher(long, clock)))
        await asyncio.sleep(10)
        bells.ring(short)
        await asyncio.sleep(10)
        for conn in ("pika_called", "pika_too"):
            before = clock.time()
            await events_of(watcher(short, clock, conn))
            waited.append(clock.time() - before)
        first.cancel()

    run_leaping(all_wait(), clock)
    assert max(waited) <= 11.5
