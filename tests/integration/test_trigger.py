"""The triggers themselves: their wire format, their one event, and the event loop they share with everybody else's."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.ending import ended_job
from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor
from airflow_provider_pika.triggers import pika as pika_triggers
from airflow_provider_pika.triggers.pika import PikaJobTrigger, PikaQueueTrigger
from airflow_provider_pika.waiting import JobWait
from tests.support.task_context import (
    Clock,
    Life,
    Log,
    TaskInstance,
    airflow_says,
    events_of,
    run_leaping,
    run_trigger,
)

# What versions up to this one have stored in people's databases. Never change a line, only add one.
FROZEN = [
    (
        '["airflow_provider_pika.triggers.pika.PikaJobTrigger", {"pika_conn_id": "pika_default", "jobid": "job:1",'
        ' "poll_interval": 30.0, "deadline": 1795354556.37, "cancel_on_kill": false}]'
    ),
    (
        '["airflow_provider_pika.triggers.pika.PikaJobTrigger", {"pika_conn_id": "pika_default", "jobid": "job:1",'
        ' "poll_interval": 30.0, "deadline": 1795354556.37, "cancel_on_kill": true, "end_from_trigger": null}]'
    ),
    (
        '["airflow_provider_pika.triggers.pika.PikaQueueTrigger", {"pika_conn_id": "pika_default", "channel": "",'
        ' "executing_jobs": ["job:1"], "rejected_at": 1795354556.37, "not_before": 1795354556.37,'
        ' "queued_since": 1795354556.37, "deadline": 1795440956.37, "releases": 0}]'
    ),
]


def job_of(emulator: EmulatorClient, *faults: str, **pace: Any) -> str:
    emulator.configure(**pace or {"seconds": 100})
    for kind in faults:
        emulator.fault("submit", kind)
    return PikaHook().encrypt_text(message="HI", prompt="waves").jobid


def trigger_of(jobid: str, clock: Clock, **about: Any) -> PikaJobTrigger:
    kwargs = {"pika_conn_id": "pika_default", "poll_interval": 30.0, "deadline": clock.time() + 3600, **about}
    trigger = PikaJobTrigger(jobid=jobid, **kwargs)
    trigger._log = Log()
    return trigger


# The wire format


@pytest.mark.parametrize("stored", FROZEN)
def test_what_an_earlier_version_stored_is_still_accepted(stored: str) -> None:
    path, kwargs = json.loads(stored)
    module, _, name = path.rpartition(".")

    trigger = getattr(importlib.import_module(module), name)(**kwargs)

    again = trigger.serialize()
    assert again[0] == path
    assert kwargs.items() <= json.loads(json.dumps(again[1])).items()


@pytest.mark.parametrize("kind", [PikaJobTrigger, PikaQueueTrigger])
def test_todays_arguments_are_frozen_too_and_all_of_them_are_serialized(kind: type) -> None:
    """Add today's kwargs to FROZEN whenever a trigger gets a new argument, which needs a default."""
    mine = [json.loads(stored)[1] for stored in FROZEN if stored.startswith(f'["{kind.__module__}.{kind.__name__}"')]
    parameters = inspect.signature(kind).parameters
    assert set(mine[-1]) == set(parameters)
    assert {name for name, p in parameters.items() if p.default is p.empty} <= set(mine[0])
    assert set(kind(**mine[-1]).serialize()[1]) == set(parameters)


def test_an_event_of_an_unknown_kind_is_an_error_that_may_be_retried() -> None:
    from airflow_provider_pika.exceptions import PikaError

    with pytest.raises(PikaError, match="'paused'"):
        ended_job({"outcome": "paused"}, hook=PikaHook(), jobid="job:1", cancel_on_timeout=False, log=Log())


def test_an_event_with_keys_and_kinds_of_a_later_version_is_read(pika_emulator: EmulatorClient) -> None:
    from airflow_provider_pika.exceptions import PikaError

    event = {"outcome": "error", "jobid": "j", "error": {"kind": "PikaSunspotError", "message": "sunspots", "size": 3}}
    with pytest.raises(PikaError, match="sunspots"):
        ended_job(event, hook=PikaHook(), jobid="j", cancel_on_timeout=False, log=Log())


# Who defers


def test_default_deferrable_decides_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(**about: Any) -> bool:
        return PikaJobSensor(task_id="wait", jobid="j", **about).deferrable

    assert of() is False
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert of() is True
    assert of(deferrable=False) is False


def test_a_task_says_what_it_waits_for_before_it_defers(
    pika_emulator: EmulatorClient, life: Callable[..., Life], clock: Clock
) -> None:
    jobid = job_of(pika_emulator)
    task = life(lambda: PikaJobSensor(task_id="wait", jobid=jobid, deferrable=True, timeout=3600))
    assert task.run().state == "success"
    (line,) = [line for line in task.log.of("info") if line.startswith("Waiting for")]
    assert line.startswith(f"Waiting for {jobid} until 20")
    assert line.endswith(" UTC, polling every 30 s.")


def test_a_poll_is_told_with_the_jobid_once(pika_emulator: EmulatorClient, life: Callable[..., Life]) -> None:
    jobid = job_of(pika_emulator)
    task = life(lambda: PikaJobSensor(task_id="wait", jobid=jobid))
    assert task.run().state == "success"
    assert f"Polled: {jobid} is completed" in task.log.of("info")


# The events


def test_each_outcome_is_one_event(pika_emulator: EmulatorClient, clock: Clock) -> None:
    jobid = job_of(pika_emulator)
    event = run_trigger(trigger_of(jobid, clock), clock)
    assert (event["outcome"], event["jobid"], event["job"]["status"]) == ("ended", jobid, "completed")

    jobid = job_of(pika_emulator, "stuck")
    event = run_trigger(trigger_of(jobid, clock, deadline=clock.time() + 60), clock)
    assert (event["outcome"], event["jobid"]) == ("timeout", jobid)

    event = run_trigger(trigger_of("job:nobody", clock), clock)
    assert (event["outcome"], event["error"]["kind"]) == ("error", "PikaNotFoundError")


def test_the_first_event_comes_no_sooner_than_10_s_even_past_the_deadline(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    """Airflow may take a sooner event for the old leg's end."""
    jobid = job_of(pika_emulator, seconds=0)
    before = clock.time()

    run_trigger(trigger_of(jobid, clock, deadline=before - 100), clock)

    assert clock.time() - before >= 10


def test_a_trigger_that_is_run_anew_asks_again_and_submits_nothing(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """What a restarted triggerer does."""
    jobid = job_of(pika_emulator, seconds=300)

    async def killed_midway() -> None:
        task = asyncio.ensure_future(events_of(trigger_of(jobid, clock)))
        await asyncio.sleep(100)
        task.cancel()

    run_leaping(killed_midway(), clock)
    event = run_trigger(trigger_of(jobid, clock), clock)

    assert event["outcome"] == "ended"
    assert pika_emulator.counters()["submits"]["asked"] == 1
    assert pika_emulator.counters()["cancels"] == {}


def test_a_trigger_that_joins_the_queue_asks_nothing_before_10_s(pika_emulator: EmulatorClient, clock: Clock) -> None:
    """The 429 that sent it there was the last poll; every worker leg begins such a wait anew."""
    start = clock.time()
    trigger = PikaQueueTrigger(
        pika_conn_id="pika_default",
        channel="",
        executing_jobs=["job:1"],
        rejected_at=start,
        not_before=start,
        queued_since=start,
        deadline=start + 3600,
    )

    assert run_trigger(trigger, clock) == {"outcome": "released"}
    assert clock.asked[0][0] - start >= 9.9


# Sharing


def test_many_triggers_of_one_connection_share_their_polls(pika_emulator: EmulatorClient, clock: Clock) -> None:
    jobids = [job_of(pika_emulator, seconds=100 + 50 * n) for n in range(6)]

    async def together() -> list[Any]:
        return await asyncio.gather(*(events_of(trigger_of(jobid, clock)) for jobid in jobids))

    events = run_leaping(together(), clock)

    assert [[event["jobid"] for event in mine] for mine in events] == [[jobid] for jobid in jobids]
    counted = pika_emulator.counters()
    # At most one read a minute of a job that is on the list, and one or two when it is gone from it.
    assert counted["polls"]["total"] <= sum(2 + (100 + 50 * n) // 60 for n in range(6))
    assert counted["lists"] <= (clock.ahead / 10) + 1
    assert clock.smallest_gap() >= 9.99


def test_two_triggers_on_one_job_both_end(pika_emulator: EmulatorClient, clock: Clock) -> None:
    jobid = job_of(pika_emulator)

    async def together() -> list[Any]:
        return await asyncio.gather(*(events_of(trigger_of(jobid, clock)) for _ in range(2)))

    assert [len(mine) for mine in run_leaping(together(), clock)] == [1, 1]
    assert clock.smallest_gap() >= 9.99


def test_a_trigger_that_is_cancelled_leaves_its_neighbours_waiting(pika_emulator: EmulatorClient, clock: Clock) -> None:
    first, second = (job_of(pika_emulator, seconds=200) for _ in range(2))

    async def one_goes() -> list[Any]:
        gone = asyncio.ensure_future(events_of(trigger_of(first, clock)))
        stays = asyncio.ensure_future(events_of(trigger_of(second, clock)))
        await asyncio.sleep(75)
        gone.cancel()
        return await stays

    (event,) = run_leaping(one_goes(), clock)
    assert event["jobid"] == second


def test_one_jobs_faults_and_unknown_jobs_do_not_end_the_neighbours_wait(
    pika_emulator: EmulatorClient, clock: Clock
) -> None:
    good, bad = job_of(pika_emulator, seconds=300), job_of(pika_emulator, "unlisted", seconds=300)
    pika_emulator.fault("job", "server_error", status=503, jobid=bad, times=10_000)

    async def together() -> list[Any]:
        lives = [trigger_of(good, clock), trigger_of(bad, clock, deadline=clock.time() + 9000), trigger_of("x", clock)]
        return await asyncio.gather(*(events_of(trigger) for trigger in lives))

    ((ended,), (gave_up,), (unknown,)) = run_leaping(together(), clock)
    assert ended["outcome"] == "ended"
    assert gave_up["error"]["kind"] == "PikaUnavailableError"
    assert unknown["error"]["kind"] == "PikaNotFoundError"


def test_a_broken_connection_is_told_in_the_event(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_TOKENLESS", json.dumps({"conn_type": "pika", "host": pika_emulator.url}))

    event = run_trigger(trigger_of("job:1", clock, pika_conn_id="pika_tokenless"), clock)

    with pytest.raises(Exception, match="no API token") as caught:
        ended_job(event, hook=PikaHook(), jobid="job:1", cancel_on_timeout=False, log=Log())
    assert type(caught.value.__cause__) is PikaRequestError


# The loop


def test_nothing_blocks_the_triggerers_loop(pika_emulator: EmulatorClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, with the pauses cut short; a slow answer and a failing one among them."""
    from airflow_provider_pika.api import polling
    from airflow_provider_pika.triggers import job_waiter, poller

    for module in (polling, poller, job_waiter):
        monkeypatch.setattr(module, "MIN_POLL_INTERVAL", 0.1)
    longest = []
    # A busy machine makes anybody late once in a while; what blocks does so every time.
    while len(longest) < 4 and min(longest, default=1) >= 0.2:
        longest.append(_longest_pause_of_the_loop(pika_emulator))

    assert min(longest) < 0.2


def _longest_pause_of_the_loop(pika_emulator: EmulatorClient) -> float:
    jobids = [job_of(pika_emulator, "unlisted", seconds=1.2) for _ in range(5)]
    gaps: list[float] = []

    async def heartbeat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    async def together() -> list[Any]:
        # The first trigger of a process pays for imports, which is Airflow's business.
        kwargs = {"pika_conn_id": "pika_default", "poll_interval": 0.1, "deadline": time.time() + 60}
        await asyncio.to_thread(PikaHook().get_job, jobids[0])
        beating = asyncio.ensure_future(heartbeat())
        try:
            return await asyncio.gather(*(events_of(PikaJobTrigger(jobid=jobid, **kwargs)) for jobid in jobids))
        finally:
            beating.cancel()

    pika_emulator.fault("job", "slow", seconds=0.4, after=1)
    events = asyncio.run(asyncio.wait_for(together(), 30))
    assert [event["outcome"] for (event,) in events] == ["ended"] * 5
    assert len(gaps) > 20
    return max(gaps)


# Kill: for each of the three, only a task read back as failed, and only with the flag, is cancelled


class Killed(BaseException):
    pass


def die(*_: Any, **__: Any) -> None:
    raise Killed


def kill_sensor(life: Callable[..., Life], jobid: str, flag: bool) -> None:
    sensor = PikaJobSensor(task_id="wait", jobid=jobid, cancel_on_kill=flag)
    _kill(life(lambda: sensor), sensor)


def kill_operator(life: Callable[..., Life], jobid: str, flag: bool) -> None:
    operator = EncryptTextOperator(
        task_id="film", message="HI", prompt="waves", wait_for_completion=True, cancel_on_kill=flag
    )
    # Between two polls it is on no worker, and nobody can kill it.
    _kill(life(lambda: operator), operator, JobWait, "poll")


def _kill(task: Life, operator: Any, place: Any = Clock, name: str = "leap") -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, die)
        with pytest.raises(Killed):
            task.leg()
    operator.on_kill()


def kill_trigger(life: Callable[..., Life], jobid: str, flag: bool) -> None:
    trigger = PikaJobTrigger(
        pika_conn_id="pika_default", jobid=jobid, poll_interval=30, deadline=time.time() + 60, cancel_on_kill=flag
    )
    if not hasattr(type(trigger).__mro__[2], "on_kill"):
        pytest.skip("this Airflow's triggers have no on_kill")
    trigger.task_instance = TaskInstance()
    with contextlib.suppress(RuntimeError):  # Airflow logs what a trigger's on_kill raises
        asyncio.run(trigger.on_kill())


@pytest.mark.parametrize("kill", [kill_sensor, kill_operator, kill_trigger])
@pytest.mark.parametrize(
    ("state", "flag", "cancelled"),
    [
        ("failed", True, True),
        ("failed", False, False),
        ("success", True, False),
        ("running", True, False),
        ("restarting", True, False),
        ("deferred", True, False),
        ("up_for_retry", True, False),
        ("up_for_reschedule", True, False),
        ("queued", True, False),
        ("scheduled", True, False),
        ("skipped", True, False),
        ("upstream_failed", True, False),
        ("removed", True, False),
        (None, True, False),
        (RuntimeError("no supervisor"), True, False),
    ],
)
def test_only_a_task_marked_as_failed_cancels_and_only_with_the_flag(
    pika_emulator: EmulatorClient,
    life: Callable[..., Life],
    monkeypatch: pytest.MonkeyPatch,
    kill: Callable[..., None],
    state: Any,
    flag: bool,
    cancelled: bool,
) -> None:
    airflow_says(monkeypatch, state)
    pika_emulator.configure(seconds=600)
    jobid = job_of(pika_emulator, seconds=600) if kill is not kill_operator else ""

    kill(life, jobid, flag)

    (job,) = pika_emulator.jobs()
    assert pika_emulator.counters()["cancels"] == ({job["jobid"]: 1} if cancelled else {})
    assert job["status"] == ("cancelled" if cancelled else "started")


@pytest.mark.parametrize("kill", [kill_sensor, kill_trigger])
def test_a_task_that_is_cleared_right_after_its_mark_keeps_its_job(
    pika_emulator: EmulatorClient, life: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, kill: Callable[..., None]
) -> None:
    """Reading the connection may take seconds: the state is asked for before and after, since the new try goes on."""
    jobid = job_of(pika_emulator, seconds=600)
    airflow_says(monkeypatch, "failed", "running")

    kill(life, jobid, flag=True)

    assert pika_emulator.counters()["cancels"] == {}


def test_a_connection_that_cannot_be_read_in_time_cancels_nothing(
    pika_emulator: EmulatorClient, life: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is read a person may have cleared the task, and nobody could ask any more."""
    airflow_says(monkeypatch, "failed")
    monkeypatch.setattr("airflow_provider_pika.kill._ASK_TIMEOUT", 0.2)
    jobid = job_of(pika_emulator, seconds=600)
    sensor = PikaJobSensor(task_id="wait", jobid=jobid, cancel_on_kill=True)
    get = PikaHook.get_connection

    def slow(conn_id: str) -> Any:
        time.sleep(1)
        return get(conn_id)

    kill = sensor.on_kill

    def killed() -> None:
        monkeypatch.setattr(PikaHook, "get_connection", staticmethod(slow))
        kill()

    sensor.on_kill = killed
    _kill(life(lambda: sensor), sensor)
    assert pika_emulator.counters()["cancels"] == {}


def test_a_cancel_that_fails_on_kill_is_logged_and_never_raised(
    pika_emulator: EmulatorClient, life: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_says(monkeypatch, "failed")
    pika_emulator.fault("cancel", "drop_before", times=5)
    jobid = job_of(pika_emulator, seconds=600)

    kill_sensor(life, jobid, flag=True)

    assert list(pika_emulator.counters()["cancels"]) == [jobid]


def test_a_sensor_killed_before_it_polled_anything_does_nothing(pika_emulator: EmulatorClient) -> None:
    PikaJobSensor(task_id="wait", jobid="job:1", cancel_on_kill=True).on_kill()
    EncryptTextOperator(task_id="s", message="HI", prompt="x", cancel_on_kill=True).on_kill()

    assert pika_emulator.counters()["requests"] == 0


def test_a_kill_that_airflow_interrupts_still_cancels_the_job(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow cancels a killed trigger again every second, while the answer about its state may take six."""
    jobid = job_of(pika_emulator, seconds=600)
    trigger = trigger_of(jobid, clock, cancel_on_kill=True)
    if not hasattr(type(trigger).__mro__[2], "on_kill"):
        pytest.skip("this Airflow's triggers have no on_kill")
    airflow_says(monkeypatch, "failed")
    trigger.task_instance = TaskInstance()

    async def interrupted() -> None:
        kill = asyncio.ensure_future(trigger.on_kill())
        await asyncio.sleep(0)
        for _ in range(3):
            kill.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await kill
        await asyncio.gather(*pika_triggers._kills)

    asyncio.run(interrupted())
    assert pika_emulator.counters()["cancels"] == {jobid: 1}
