"""The shared polls: the list is a hint, the job the truth; all who wait on a connection ask through one poller."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MAX_BACKOFF
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaError, PikaRateLimitedError, PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers import async_hook, job_waiter, poller
from airflow_provider_pika.triggers.async_hook import AsyncHook
from airflow_provider_pika.triggers.pika import PikaJobTrigger, PikaQueueTrigger
from tests.support.task_context import Clock, Log, events_of, run_leaping

LIST = "/v1/pika/jobs"


def job_of(emulator: EmulatorClient, lasts: float, *faults: str, channel: str | None = None, **about: Any) -> str:
    emulator.configure(seconds=lasts)
    for kind in faults:
        emulator.fault("submit", kind, **about)
    return PikaHook().encrypt_text(message="HI", prompt="waves", channel=channel).jobid


def watcher(jobid: str, clock: Clock, **about: Any) -> PikaJobTrigger:
    kwargs = {"pika_conn_id": "pika_default", "poll_interval": 30.0, "deadline": clock.time() + 9000, **about}
    trigger = PikaJobTrigger(jobid=jobid, **kwargs)
    trigger._log = Log()
    return trigger


def in_queue(clock: Clock, since: float, jobs: list[str], **about: Any) -> PikaQueueTrigger:
    now = clock.time()
    trigger = PikaQueueTrigger(
        **{
            "pika_conn_id": "pika_default",
            "channel": "",
            "executing_jobs": jobs,
            "rejected_at": now,
            "not_before": now,
            "queued_since": since,
            "deadline": now + 9000,
            **about,
        }
    )
    trigger._log = Log()
    return trigger


async def outcomes(triggers: list[Any]) -> list[str]:
    events = await asyncio.gather(*(events_of(trigger) for trigger in triggers))
    return [mine["outcome"] for (mine,) in events]


def lists(clock: Clock) -> int:
    return len(clock.polls().get(LIST, []))


def test_while_nothing_ends_all_wait_for_one_list_an_interval(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """Eleven jobs of 280 s at 30 s polls: about ten lists, each with a read of one job that is on it."""
    pika_emulator.configure(channels={"1" * 19: 10, "2" * 19: 10})
    jobids = [job_of(pika_emulator, 280, channel=str(1 + number % 2) * 19) for number in range(11)]
    assert set(run_leaping(outcomes([watcher(jobid, clock) for jobid in jobids]), clock)) == {"ended"}
    assert lists(clock) <= 11
    assert pika_emulator.counters()["polls"]["total"] <= 11 + 10


def test_while_few_wait_a_listed_job_is_read_once_a_minute(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """The list tells nothing of its progress."""
    jobid = job_of(pika_emulator, 400)
    trigger = watcher(jobid, clock)
    assert run_leaping(outcomes([trigger]), clock) == ["ended"]
    (reads,) = (times for target, times in clock.polls().items() if target != LIST)
    assert 6 <= len(reads) <= 8
    assert min(later - earlier for earlier, later in pairwise(reads[:-1])) >= 59
    told = trigger._log.of("info")
    assert sum("is progress (" in line for line in told) >= 4
    assert len(told) == len(set(told)) <= len(reads)


def test_a_job_read_as_ended_by_who_waits_for_it_frees_its_slot_in_the_queue(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list may name it for a minute more."""
    jobid = job_of(pika_emulator, 50)
    monkeypatch.setattr(PikaHook, "list_jobs", lambda hook: [jobid])
    ended: dict[str, float] = {}

    async def timed(trigger: Any) -> None:
        ((event),) = await events_of(trigger)
        ended[event["outcome"]] = clock.time()

    async def both() -> None:
        await asyncio.gather(timed(watcher(jobid, clock)), timed(in_queue(clock, clock.time(), [jobid])))

    run_leaping(both(), clock)
    assert ended["released"] - ended["ended"] <= 1


def test_an_unforeseen_error_of_the_polls_themselves_is_no_timeout_of_the_queue(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its kind, the trigger fails of it; as a timeout it would end the task for good, and name the queue."""

    async def broken(hook: async_hook.AsyncHook) -> None:
        raise TimeoutError("a bug")

    monkeypatch.setattr(async_hook.AsyncHook, "connect", broken)
    with pytest.raises(TimeoutError, match="a bug"):
        run_leaping(outcomes([in_queue(clock, clock.time(), ["a", "b"])]), clock)


def test_an_unforeseen_error_of_the_list_ends_nobody(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobids = [job_of(pika_emulator, 150) for _ in range(3)]

    def broken(hook: PikaHook) -> list[str]:
        raise KeyError("user:1-token")

    monkeypatch.setattr(PikaHook, "list_jobs", broken)
    assert set(run_leaping(outcomes([watcher(jobid, clock) for jobid in jobids]), clock)) == {"ended"}
    assert "KeyError" in caplog.text
    assert "token" not in caplog.text


def test_the_pause_after_a_failed_read_counts_from_its_answer(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read hangs for 25 s and fails."""
    pika_emulator.fault("list", "route_missing", times=10_000)
    began: list[float] = []
    answered: list[float] = []

    def hangs(hook: PikaHook, jobid: str) -> Any:
        began.append(clock.time())
        clock.leap(25)
        answered.append(clock.time())
        raise PikaUnavailableError("no answer in time")

    monkeypatch.setattr(PikaHook, "get_job", hangs)
    trigger = watcher("job:1", clock, poll_interval=10.0, deadline=clock.time() + 200)
    assert run_leaping(outcomes([trigger]), clock) == ["timeout"]
    assert len(began) >= 3
    assert min(after - before for before, after in zip(answered, began[1:], strict=False)) >= 9.99


def test_without_a_list_the_jobs_in_the_way_are_read_together(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("list", "route_missing", times=10_000)
    all_at_once = threading.Barrier(4, timeout=5)

    def ended(hook: PikaHook, jobid: str) -> Job:
        all_at_once.wait()
        return Job(jobid, "completed", {})

    monkeypatch.setattr(PikaHook, "get_job", ended)
    blockers = [f"job:{number}" for number in range(4)]
    assert run_leaping(outcomes([in_queue(clock, clock.time(), blockers)]), clock) == ["released"]
    assert not all_at_once.broken


def test_who_waits_in_a_queue_is_told_the_place_when_it_changes(pika_emulator: EmulatorClient, clock: Clock) -> None:
    blockers = [job_of(pika_emulator, 100 + 100 * n) for n in range(3)]
    start = clock.time()
    triggers = [in_queue(clock, start + place, blockers, channel="7" * 19) for place in range(3)]
    run_leaping(outcomes(triggers), clock)
    told = [line for line in triggers[2]._log.of("info") if "in line" in line]
    assert told[0].startswith(
        f"Waiting to submit: 3rd in line for channel {'7' * 19} among those in this triggerer, 3 j"
    )
    assert [line.split()[3] for line in told] == ["3rd", "2nd", "1st"]


def test_without_a_list_route_each_job_is_read_spread_over_the_interval(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    pika_emulator.fault("list", "route_missing", times=10_000)
    jobids = [job_of(pika_emulator, 200) for _ in range(5)]
    assert set(run_leaping(outcomes([watcher(jobid, clock) for jobid in jobids]), clock)) == {"ended"}
    assert clock.smallest_gap() >= 9.99
    reads = sorted(at for target, times in clock.polls().items() if target != LIST for at in times)
    # Five jobs in 30 s make one in 6 s; two may meet where one round passes into the next.
    assert min(third - first for first, third in zip(reads, reads[2:], strict=False)) > 5
    # The missing list is asked for ever more rarely.
    assert lists(clock) <= 4


@pytest.mark.parametrize("kind", ["server_error", "html", "list_instead", "cut", "drop_before"])
def test_a_list_that_fails_ends_nobody(pika_emulator: EmulatorClient, clock: Clock, kind: str) -> None:
    pika_emulator.fault("list", kind, times=10_000, **({"status": 503} if kind == "server_error" else {}))
    jobids = [job_of(pika_emulator, 150) for _ in range(3)]
    assert set(run_leaping(outcomes([watcher(jobid, clock) for jobid in jobids]), clock)) == {"ended"}
    assert clock.ahead < 600


def test_a_job_that_is_not_listed_yet_is_not_lost(pika_emulator: EmulatorClient, clock: Clock) -> None:
    jobid = job_of(pika_emulator, 120, "late_listing", seconds=60)
    assert run_leaping(outcomes([watcher(jobid, clock)]), clock) == ["ended"]


def test_a_list_that_still_names_an_ended_job_is_not_believed_for_ever(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = job_of(pika_emulator, 60)

    def lying(hook: PikaHook) -> list[str]:
        return [jobid]

    monkeypatch.setattr(PikaHook, "list_jobs", lying)
    assert run_leaping(outcomes([watcher(jobid, clock)]), clock) == ["ended"]
    assert clock.ahead <= MAX_BACKOFF + 60


def test_before_a_listed_job_times_out_it_is_read_once_more(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = job_of(pika_emulator, 60)

    def lying(hook: PikaHook) -> list[str]:
        return [jobid]

    monkeypatch.setattr(PikaHook, "list_jobs", lying)
    assert run_leaping(outcomes([watcher(jobid, clock, deadline=clock.time() + 100)]), clock) == ["ended"]


def test_a_pause_that_a_429_asks_for_holds_the_whole_connection(pika_emulator: EmulatorClient, clock: Clock) -> None:
    pika_emulator.fault("list", "rate_limit", retry_after=500)
    jobids = [job_of(pika_emulator, 60) for _ in range(3)]
    start = clock.time()
    assert set(run_leaping(outcomes([watcher(jobid, clock) for jobid in jobids]), clock)) == {"ended"}
    asked = sorted(at - start for times in clock.polls().values() for at in times)
    assert asked[1] - asked[0] >= 499


def test_when_the_last_one_leaves_nothing_is_left(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """The loop ends, its threads end, and a later waiter starts anew."""

    async def twice() -> list[Any]:
        seen = []
        for _ in range(2):
            assert await outcomes([watcher(job_of(pika_emulator, 30), clock)]) == ["ended"]
            await asyncio.sleep(1)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            seen.append((dict(poller._pollers[asyncio.get_running_loop()]), others))
        return seen

    assert run_leaping(twice(), clock) == [({}, set())] * 2
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("pika-pika_default")]
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


def test_a_changed_connection_is_noticed(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that was wrong when the wait began and was put right since is used without a restart."""
    jobid = job_of(pika_emulator, 400)
    good = dict(pika_emulator.connection)
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_OTHER", json.dumps({**good, "extra": {"timeout": 5}}))

    async def changed() -> list[str]:
        waiting = asyncio.ensure_future(outcomes([watcher(jobid, clock, pika_conn_id="pika_other")]))
        await asyncio.sleep(45)
        (shared,) = poller._pollers[asyncio.get_running_loop()].values()
        before = shared._hook._hook.settings
        monkeypatch.setenv("AIRFLOW_CONN_PIKA_OTHER", json.dumps({**good, "extra": {"timeout": 7}}))
        result = await waiting
        assert (before.timeout, shared._hook._hook.settings.timeout) == (5, 7)
        return result

    assert run_leaping(changed(), clock) == ["ended"]


def test_the_queue_is_served_first_come_first_served(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """Whoever queued first goes first, whatever the order in which triggers join after a restart."""
    blockers = [job_of(pika_emulator, 50 + 60 * n) for n in range(3)]
    start = clock.time()
    went: list[int] = []

    async def wait(place: int) -> None:
        await events_of(in_queue(clock, start + place, blockers, rejected_at=start))
        went.append(place)

    async def all_wait() -> None:
        await asyncio.gather(*(wait(place) for place in (2, 0, 1)))

    run_leaping(all_wait(), clock)
    assert went == [0, 1, 2]
    assert clock.passed >= 150


def test_without_a_list_the_jobs_in_the_way_are_read(pika_emulator: EmulatorClient, clock: Clock) -> None:
    pika_emulator.fault("list", "route_missing", times=10_000)
    blockers = [job_of(pika_emulator, 100) for _ in range(2)]
    start = clock.time()
    assert run_leaping(outcomes([in_queue(clock, start + n, blockers) for n in range(2)]), clock) == ["released"] * 2
    assert 95 <= clock.passed <= 200


def test_the_queue_has_a_deadline(pika_emulator: EmulatorClient, clock: Clock) -> None:
    blocker = job_of(pika_emulator, 5000)
    waiter = in_queue(clock, clock.time(), [blocker], deadline=clock.time() + 300)
    assert run_leaping(outcomes([waiter]), clock) == ["timeout"]
    assert 295 <= clock.passed <= 330


def test_a_token_that_has_been_replaced_ends_nobody(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old token is refused while the connection has the new one already: nobody is told of the 401."""
    jobid = job_of(pika_emulator, 200)
    good = dict(pika_emulator.connection)
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_OTHER", json.dumps(good))

    async def rotated() -> list[str]:
        waiting = asyncio.ensure_future(outcomes([watcher(jobid, clock, pika_conn_id="pika_other")]))
        await asyncio.sleep(45)
        (shared,) = poller._pollers[asyncio.get_running_loop()].values()
        stale = PikaHook("pika_other")
        stale.__dict__["settings"] = replace(shared._hook._hook.settings, token="user:1-replaced")
        shared._hook._hook = stale
        return await waiting

    assert run_leaping(rotated(), clock) == ["ended"]
    assert [asked["status"] for asked in pika_emulator.requests()].count(401) == 1


def test_a_connection_that_cannot_be_read_anew_ends_nobody(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid = job_of(pika_emulator, 500)
    get = PikaHook.get_connection
    seen: list[float] = []

    def once(self: PikaHook, conn_id: str) -> Any:
        seen.append(clock.time())
        if len(seen) == 2:
            raise RuntimeError("the backend is away")
        return get(conn_id)

    monkeypatch.setattr(PikaHook, "get_connection", once)
    assert run_leaping(outcomes([watcher(jobid, clock)]), clock) == ["ended"]
    assert len(seen) >= 2


def test_a_deadline_is_kept_while_the_api_asks_for_quiet(pika_emulator: EmulatorClient, clock: Clock) -> None:
    jobid = job_of(pika_emulator, 10_000)
    pika_emulator.fault("list", "rate_limit", retry_after=7200)
    waiter = watcher(jobid, clock, deadline=clock.time() + 300)
    assert run_leaping(outcomes([waiter]), clock) == ["timeout"]
    assert 290 <= clock.passed <= 300 + job_waiter.LAST_POLL_GRACE + 20


def test_a_job_that_has_completed_is_read_at_the_deadline_although_the_api_asks_for_quiet(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    """As in the other modes: a wait does not time out over a job that has long ended."""
    done, runs = job_of(pika_emulator, 100), job_of(pika_emulator, 10_000)
    pika_emulator.fault("list", "rate_limit", retry_after=3600)
    start = clock.time()
    waiters = [watcher(jobid, clock, deadline=start + 300) for jobid in (done, runs)]
    assert run_leaping(outcomes(waiters), clock) == ["ended", "timeout"]
    asked = sorted(at - start for times in clock.polls().values() for at in times)
    assert len(asked) == 3
    assert min(asked[1:]) >= 299


@pytest.mark.parametrize("others", [1, 3])
def test_a_wait_that_joins_in_a_pause_is_read_at_its_deadline_too(
    pika_emulator: EmulatorClient, clock: Clock, others: int
) -> None:
    done = job_of(pika_emulator, 100)
    running = [job_of(pika_emulator, 100_000) for _ in range(others)]
    pika_emulator.fault("job", "rate_limit", retry_after=3600)

    async def joined() -> Any:
        first = [asyncio.ensure_future(events_of(watcher(jobid, clock))) for jobid in running]
        await asyncio.sleep(200)
        events = await events_of(watcher(done, clock, deadline=clock.time() + 300))
        for wait in first:
            wait.cancel()
        return events

    (event,) = run_leaping(joined(), clock)
    assert event["outcome"] == "ended"


def test_a_wait_that_joins_in_a_short_pause_is_polled_when_it_is_over(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    """The loop sleeps until somebody's next poll, which may be long after the pause."""
    running, ending = job_of(pika_emulator, 100_000), job_of(pika_emulator, 650)
    pika_emulator.fault("job", "rate_limit", retry_after=30)
    start = clock.time()

    async def joined() -> None:
        first = asyncio.ensure_future(events_of(watcher(running, clock, poll_interval=600, deadline=start + 90_000)))
        await asyncio.sleep(620)
        await events_of(watcher(ending, clock, poll_interval=10, deadline=start + 3600))
        first.cancel()

    run_leaping(joined(), clock)
    assert clock.time() - start < 720


def test_reads_stop_when_one_of_them_is_asked_to_pause(pika_emulator: EmulatorClient, clock: Clock) -> None:
    pika_emulator.configure(channels={str(number) * 19: 10 for number in (1, 2, 3)})
    jobids = [job_of(pika_emulator, 50, channel=str(1 + number % 3) * 19) for number in range(24)]
    pika_emulator.fault("job", "rate_limit", retry_after=120)
    assert set(run_leaping(outcomes([watcher(jobid, clock) for jobid in jobids]), clock)) == {"ended"}
    reads = sorted(at for target, times in clock.polls().items() if target != LIST for at in times)
    # Those under way when the answer came are done, and now and then one whose turn came just before it.
    assert sum(at < reads[0] + 119 for at in reads) <= 2 * async_hook.THREADS


def test_a_job_is_read_for_its_waiter_and_for_the_queue_at_once(pika_emulator: EmulatorClient, clock: Clock) -> None:
    pika_emulator.fault("list", "route_missing", times=10_000)
    jobid = job_of(pika_emulator, 100)
    waiters = [watcher(jobid, clock), in_queue(clock, clock.time(), [jobid])]
    assert run_leaping(outcomes(waiters), clock) == ["ended", "released"]
    assert clock.smallest_gap() >= 9.99


def test_nobody_asks_while_all_are_held_by_discord(pika_emulator: EmulatorClient, clock: Clock) -> None:
    waiter = in_queue(clock, clock.time(), [], not_before=clock.time() + 600)
    assert run_leaping(outcomes([waiter]), clock) == ["released"]
    assert lists(clock) <= 2


@pytest.mark.parametrize("seed", range(8))
def test_an_end_is_noticed_within_the_interval_by_waiters_that_joined_at_different_moments(
    pika_emulator: EmulatorClient, clock: Clock, seed: int
) -> None:
    """Within two seconds more, and no job is read twice within 10 s."""
    dice = random.Random(seed)
    pika_emulator.configure(max_jobs=10)
    lengths = [dice.uniform(15, 80) for _ in range(10)]
    start = clock.time()
    jobids = [job_of(pika_emulator, length) for length in lengths]
    late: list[float] = []

    async def wait(jobid: str, length: float, joins: float) -> None:
        await asyncio.sleep(joins)
        await events_of(watcher(jobid, clock, poll_interval=10.0))
        late.append(clock.time() - start - max(length, joins))

    async def all_wait() -> None:
        await asyncio.gather(*(wait(jobid, lengths[n], dice.uniform(0, 60)) for n, jobid in enumerate(jobids)))

    run_leaping(all_wait(), clock)
    assert max(late) <= 12
    assert clock.smallest_gap() >= 9.99
    assert lists(clock) <= clock.ahead / 10 + 1


def test_a_waiter_that_joins_between_two_polls_needs_no_second_list(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    """The list shows its job gone before it may be read: it is read as soon as it may."""
    long, short = job_of(pika_emulator, 300), job_of(pika_emulator, 20)
    start = clock.time()
    noticed: list[float] = []

    async def joins(jobid: str, after: float, interval: float) -> None:
        await asyncio.sleep(after)
        await events_of(watcher(jobid, clock, poll_interval=interval))
        noticed.append(clock.time() - start)

    async def both() -> None:
        await asyncio.gather(joins(long, 0, 30.0), joins(short, 25, 30.0))

    run_leaping(both(), clock)
    assert 35 <= noticed[0] <= 36.5


def test_a_deadline_is_met_to_the_second_between_two_polls(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """The last read needs no list, so it waits for none."""
    jobids = [job_of(pika_emulator, 10_000) for _ in range(2)]
    start = clock.time()
    ended: list[float] = []

    async def wait(jobid: str, seconds: float) -> None:
        (event,) = await events_of(watcher(jobid, clock, deadline=start + seconds))
        ended.append(clock.time() - start)
        assert event["outcome"] == "timeout"

    async def both() -> None:
        await asyncio.gather(wait(jobids[0], 90.0), wait(jobids[1], 94.0))

    run_leaping(both(), clock)
    assert ended == pytest.approx([90, 94], abs=1.5)


def test_two_waiters_of_one_job_share_its_reads_whenever_they_joined(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    pika_emulator.fault("list", "route_missing", times=10_000)
    jobid = job_of(pika_emulator, 200)

    async def joins(after: float) -> None:
        await asyncio.sleep(after)
        await events_of(watcher(jobid, clock, poll_interval=10.0))

    async def all_wait() -> None:
        await asyncio.gather(*(joins(after) for after in (0, 4, 13, 41)))

    run_leaping(all_wait(), clock)
    assert clock.smallest_gap() >= 9.99


def test_a_pause_before_the_queue_is_kept_while_slots_are_free(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """``Retry-After: 120`` on a queue-full 429: the list shows room at once, and nobody is released before."""
    start = clock.time()
    waiter = in_queue(clock, start, ["job:ended"], not_before=start + 120)
    assert run_leaping(outcomes([waiter]), clock) == ["released"]
    assert 120 <= clock.time() - start <= 135


def test_a_queues_deadline_passes_while_a_429_asks_for_a_longer_pause(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    start = clock.time()
    waiter = in_queue(clock, start, ["job:ended"], not_before=start + 3600, deadline=start + 300)
    assert run_leaping(outcomes([waiter]), clock) == ["timeout"]
    assert 300 <= clock.time() - start <= 301


def test_a_later_fault_does_not_shorten_a_pause(pika_emulator: EmulatorClient) -> None:
    """A 429 asked for ten minutes of quiet; a 503 that comes after it, of a read under way, asks for none."""

    def fail(error: PikaError) -> None:
        raise error

    async def both() -> bool:
        hook = AsyncHook("pika_default")
        for error in (PikaRateLimitedError("Wait", retry_after=600.0), PikaUnavailableError("No")):
            with pytest.raises(type(error)):
                await hook._ask(fail, error)
        return hook.is_paused

    assert asyncio.run(both())
