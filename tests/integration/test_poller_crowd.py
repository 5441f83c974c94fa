"""Many who wait on one connection: whoever comes, leaves or is read costs the others nothing, nor the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers import poller
from tests.integration.test_poller import job_of, lists, outcomes, watcher
from tests.support.task_context import Clock, events_of, run_leaping

CROWD = 60


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many waited each time that all of them were seen through for who is due."""
    seen: list[int] = []
    next_request = poller.SharedPoller._next_request

    def noted(self: poller.SharedPoller) -> float:
        seen.append(len(self._jobs))
        return next_request(self)

    monkeypatch.setattr(poller.SharedPoller, "_next_request", noted)
    return seen


def test_thousands_that_join_one_by_one_do_not_have_all_others_seen_through_each_time(
    pika_emulator: EmulatorClient, clock: Clock, looks: list[int]
) -> None:
    jobid = job_of(pika_emulator, 60)

    async def join() -> list[str]:
        waits = []
        for _ in range(CROWD):
            waits.append(asyncio.ensure_future(outcomes([watcher(jobid, clock)])))
            # As Airflow does between two triggers.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len(looks) <= 3
        return [outcome for wait in waits for outcome in await wait]

    assert run_leaping(join(), clock) == ["ended"] * CROWD
    assert lists(clock) <= 3


def test_who_joins_with_a_shorter_interval_is_not_kept_waiting_by_the_others(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    slow, quick = job_of(pika_emulator, 900), job_of(pika_emulator, 15)
    start = clock.time()
    ended: list[float] = []

    async def both() -> None:
        waiting = asyncio.ensure_future(events_of(watcher(slow, clock, poll_interval=300.0)))
        await asyncio.sleep(5)
        await events_of(watcher(quick, clock, poll_interval=12.0))
        ended.append(clock.time() - start)
        await waiting

    run_leaping(both(), clock)
    assert ended[0] <= 5 + 12 + 2


def test_of_many_that_end_at_once_few_are_begun_to_be_read_at_a_time(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with the earliest deadline first; each is read once all the same."""
    monkeypatch.setattr(poller, "MOST_READS", 5)
    monkeypatch.setattr(PikaHook, "list_jobs", lambda hook: [])
    lock = threading.Lock()
    read: list[str] = []

    def ended(hook: PikaHook, jobid: str) -> Job:
        with lock:
            read.append(jobid)
        (shared,) = poller._pollers[loops[0]].values()
        most.append(len(shared._under_way))
        return Job(jobid, "completed", {})

    monkeypatch.setattr(PikaHook, "get_job", ended)
    loops: list[asyncio.AbstractEventLoop] = []
    most: list[int] = []
    jobids = [f"job:{number}" for number in range(CROWD)]
    deadline = clock.time() + 9000

    async def all_wait() -> list[str]:
        loops.append(asyncio.get_running_loop())
        late_first = [watcher(jobid, clock, deadline=deadline - number) for number, jobid in enumerate(jobids)]
        return await outcomes(late_first)

    assert run_leaping(all_wait(), clock) == ["ended"] * CROWD
    assert sorted(read) == sorted(jobids)
    assert set(read[:5]) == set(jobids[-5:])
    # The list, or what is left of it, may be one of those under way.
    assert max(most) <= 5 + 1
    assert clock.passed <= 30 + CROWD / 5 + 15
