"""
PikaJobSensor gives the same results, errors and timeouts in poke, reschedule and deferrable mode.

Every outcome is one test over the three modes, each with Airflow 3.3's state store and without it, as below 3.3. The
fixture ``polite`` minds for each of them what was asked of the API: never the same job twice within 10 s.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_pika.api.polling import TRANSIENT_LIMIT
from airflow_provider_pika.compat import AirflowFailException, AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaJobFailedError,
    PikaNotFoundError,
    PikaRequestError,
    PikaUnavailableError,
)
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.sensors.pika import PikaJobSensor
from tests.support.task_context import Clock, Ending, Life

pytestmark = pytest.mark.usefixtures("polite")

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}
NOBODY = "job:20260101000000000-user:1-channel:1-bot:pika"


@pytest.fixture(params=[f"{mode}{store}" for mode in MODES for store in ("", "-storeless")])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


Sensors = Callable[..., Life]


@pytest.fixture
def sensor(life: Callable[..., Life], mode: str) -> Sensors:
    """Make the life of a sensor task in this test's mode: ``sensor(jobid, timeout=60)``."""

    def make(jobid: Any, **about: Any) -> Life:
        name, _, storeless = mode.partition("-")
        kwargs = {"task_id": "wait", "jobid": jobid, **MODES[name], **about}
        return life(lambda: PikaJobSensor(**kwargs), stored=not storeless, task_id="wait")

    return make


def job_of(emulator: EmulatorClient, *faults: dict[str, Any], **pace: Any) -> str:
    """Submit a job and return its jobid."""
    emulator.configure(**pace or {"seconds": 100})
    for fault in faults:
        emulator.fault("submit", **fault)
    return PikaHook().encrypt_text(message="HI", prompt="waves").jobid


def everywhere(emulator: EmulatorClient, kind: str, **about: Any) -> None:
    """Let the fault strike both the read of a job and the list, which a trigger prefers."""
    emulator.fault("job", kind, **about)
    emulator.fault("list", kind, **about)


def is_final(ending: Ending, cause: type[Exception]) -> None:
    assert type(ending.error) is AirflowFailException, ending
    assert type(ending.cause) is cause
    assert str(ending.error) == str(ending.cause)


def test_a_completed_job_is_returned_without_what_is_nobodys_business(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock
) -> None:
    jobid = job_of(pika_emulator)

    ending = sensor(jobid).run()

    clock.leap(60)
    job = PikaHook().get_job(jobid)
    # The link is signed anew with each read.
    assert ending.xcoms.keys() == {"return_value", "status", "video_url"}
    assert ending.value["jobid"] == jobid
    assert ending.value["status"] == "completed"
    assert ending.value["prompt"] == "waves"
    assert ending.value.keys() == job.raw.keys() - {"code", "discord"}
    assert ending.xcoms["video_url"] == ending.value["attachments"][0]["url"]
    assert ending.xcoms["video_url"].partition("?")[0] == job.video_url.partition("?")[0]


def test_a_job_that_ended_long_ago_is_returned_too(pika_emulator: EmulatorClient, sensor: Sensors) -> None:
    assert sensor(job_of(pika_emulator, seconds=0)).run().state == "success"
    assert pika_emulator.counters()["polls"]["total"] == 1


def test_without_do_xcom_push_nothing_is_pushed(pika_emulator: EmulatorClient, sensor: Sensors) -> None:
    ending = sensor(job_of(pika_emulator), do_xcom_push=False).run()

    assert (ending.state, ending.xcoms) == ("success", {})


def test_a_completed_job_without_a_video_is_a_success_with_a_warning(
    pika_emulator: EmulatorClient, sensor: Sensors
) -> None:
    jobid = job_of(pika_emulator, {"kind": "no_video"})
    task = sensor(jobid)

    ending = task.run()

    assert ending.state == "success"
    assert "video_url" in ending.xcoms
    assert ending.xcoms["video_url"] is None
    assert any("no video" in text and jobid in text for text in task.log.of("warning"))


@pytest.mark.parametrize(
    ("status", "soft_fail"), [("failed", False), ("moderated", False), ("cancelled", False), ("failed", True)]
)
def test_a_job_that_ends_badly_fails_the_task_without_retries_in_the_apis_words(
    pika_emulator: EmulatorClient, sensor: Sensors, status: str, soft_fail: bool
) -> None:
    jobid = job_of(pika_emulator, {"kind": "end_as", "status": status, "reason": "the bot is asleep"})

    ending = sensor(jobid, soft_fail=soft_fail).run()

    if soft_fail:
        assert ending.state == "skipped"
        assert isinstance(ending.cause, AirflowFailException)
        return
    is_final(ending, PikaJobFailedError)
    assert str(ending.error).startswith(f"{status.capitalize()}: ")
    assert "the bot is asleep" in str(ending.error)
    assert f"GET {pika_emulator.url}/v1/pika/jobs/?jobid={jobid}" in str(ending.error)
    assert ending.cause.jobid == jobid
    assert ending.xcoms == {}


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_jobid_that_never_existed_fails_after_a_few_polls(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock, soft_fail: bool
) -> None:
    ending = sensor(NOBODY, soft_fail=soft_fail).run()

    counted = pika_emulator.counters()
    assert 2 <= counted["polls"]["total"] <= 5
    assert counted["requests"] <= 10
    assert clock.ahead <= 150
    if soft_fail:
        assert ending.state == "skipped"
    else:
        is_final(ending, PikaNotFoundError)
        assert NOBODY in str(ending.error)


def test_a_jobid_unknown_at_first_is_tolerated(pika_emulator: EmulatorClient, sensor: Sensors) -> None:
    jobid = job_of(pika_emulator, {"kind": "late_read", "reads": 1}, {"kind": "unlisted"})

    assert sensor(jobid).run().value["jobid"] == jobid


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("server_error", {"status": 500}),
    ("server_error", {"status": 504}),
    ("html", {"status": 200}),
    ("cut", {}),
    ("drop_before", {}),
    ("list_instead", {}),
    ("empty", {"status": 200}),
    ("rate_limit", {"retry_after": 90}),
    ("discord_429", {"unreadable": True}),
]


@pytest.mark.parametrize(("kind", "params"), FAULTS, ids=[f"{kind}-{p.get('status', '')}" for kind, p in FAULTS])
def test_a_transient_error_only_makes_the_next_poll_later(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock, kind: str, params: dict[str, Any]
) -> None:
    jobid = job_of(pika_emulator, seconds=15)
    everywhere(pika_emulator, kind, **params)

    ending = sensor(jobid, poke_interval=15).run()

    assert ending.state == "success"
    assert clock.passed >= params.get("retry_after", 15) - 0.1


@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_run_of_transient_errors_ends_with_a_clear_error_that_may_be_retried_and_the_job_is_left_alone(
    pika_emulator: EmulatorClient, sensor: Sensors, mode: str, soft_fail: bool
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)
    everywhere(pika_emulator, "server_error", status=503, times=10_000)

    ending = sensor(jobid, soft_fail=soft_fail, timeout=6000).run()

    assert pika_emulator.counters()["cancels"] == {}
    if mode == "reschedule-storeless":
        # Each leg is a process of its own with nothing to remember by: the deadline is what ends it.
        assert ending.state == ("skipped" if soft_fail else "failed")
        assert isinstance(ending.cause if soft_fail else ending.error, AirflowSensorTimeout)
        assert "HTTP 503" in str(ending.cause if soft_fail else ending.error)
        return
    assert ending.state == "up_for_retry", ending
    assert type(ending.error) is PikaUnavailableError
    assert str(ending.error).startswith(f"Gave up polling {jobid} after {TRANSIENT_LIMIT} failed polls in a row")
    assert "HTTP 503" in str(ending.error)
    assert "left alone" in str(ending.error)
    assert pika_emulator.counters()["polls"]["total"] <= TRANSIENT_LIMIT


def test_a_retry_after_a_run_of_transient_errors_has_all_its_polls_again(
    pika_emulator: EmulatorClient, sensor: Sensors, mode: str
) -> None:
    if mode == "reschedule-storeless":
        pytest.skip("here errors are not counted over legs")
    jobid = job_of(pika_emulator, seconds=100_000)
    everywhere(pika_emulator, "server_error", status=503, times=10_000)
    task = sensor(jobid, timeout=7 * 24 * 3600)
    assert task.run().state == "up_for_retry"
    first = pika_emulator.counters()["polls"]["total"]

    assert task.retry().state == "up_for_retry"

    assert pika_emulator.counters()["polls"]["total"] >= 2 * first - 1


@pytest.mark.parametrize(("soft_fail", "cancel"), [(False, False), (False, True), (True, True)])
def test_the_timeout_fails_without_retries_and_cancels_only_on_its_flag(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock, soft_fail: bool, cancel: bool
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)
    begun = clock.time()

    ending = sensor(jobid, timeout=200, soft_fail=soft_fail, cancel_on_timeout=cancel).run()

    assert 200 <= clock.time() - begun <= 235
    assert pika_emulator.counters()["cancels"] == ({jobid: 1} if cancel else {})
    if soft_fail:
        assert ending.state == "skipped"
        return
    assert type(ending.error) is AirflowSensorTimeout
    assert str(ending.error).startswith(f"Timed out: {jobid} ")
    assert ("left alone" in str(ending.error)) is not cancel
    assert f"the last poll: {jobid} is " in str(ending.error)
    assert (type(ending.cause), ending.cause.jobid) == (PikaError, jobid), "what a failure callback reads"


def test_a_timeout_that_cancels_does_not_say_that_the_job_was_left_alone(
    pika_emulator: EmulatorClient, sensor: Sensors
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)

    message = str(sensor(jobid, timeout=60, cancel_on_timeout=True).run().error)

    assert f"cancel {jobid}" in message
    assert "left alone" not in message


def test_a_cancel_that_fails_at_the_timeout_is_logged_and_the_timeout_raised(
    pika_emulator: EmulatorClient, sensor: Sensors
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)
    pika_emulator.fault("cancel", "server_error", status=500)
    task = sensor(jobid, timeout=60, cancel_on_timeout=True)

    assert type(task.run().error) is AirflowSensorTimeout
    assert any("could not be cancelled" in text for text in task.log.of("warning"))


def test_a_timeout_shorter_than_the_interval_is_kept(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)

    ending = sensor(jobid, timeout=40, poke_interval=600).run()

    assert type(ending.error) is AirflowSensorTimeout
    assert clock.ahead <= 80


def test_the_last_poll_comes_at_the_deadline_so_a_job_that_ended_by_then_is_a_success(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock
) -> None:
    jobid = job_of(pika_emulator, seconds=110)

    assert sensor(jobid, timeout=120, poke_interval=100).run().state == "success"


@pytest.mark.parametrize("timeout", [63, 71])
def test_waits_are_never_under_the_floor_however_close_the_deadline_is(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock, timeout: float
) -> None:
    """The fixture ``polite`` judges: 10 s between polls, 15 s between the legs of a rescheduled task."""
    jobid = job_of(pika_emulator, seconds=100_000)

    assert type(sensor(jobid, timeout=timeout, poke_interval=20).run().error) is AirflowSensorTimeout
    assert clock.ahead <= timeout + 20


def test_execution_timeout_bounds_the_deadline(pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)

    ending = sensor(jobid, execution_timeout=timedelta(seconds=90)).run()

    assert type(ending.error) is AirflowSensorTimeout
    assert 89 <= clock.passed <= 125


@pytest.mark.parametrize(("jobid", "soft_fail"), [(None, False), ("None", False), ("", False), (" ", True)])
def test_a_missing_jobid_is_refused_and_nothing_is_asked(
    pika_emulator: EmulatorClient, sensor: Sensors, jobid: Any, soft_fail: bool
) -> None:
    ending = sensor(jobid, soft_fail=soft_fail).run()

    assert pika_emulator.counters()["requests"] == 0
    if soft_fail:
        assert ending.state == "skipped"
    else:
        is_final(ending, PikaRequestError)
        assert "jobid is missing" in str(ending.error)


def test_a_refused_token_fails_at_once(pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock) -> None:
    jobid = job_of(pika_emulator)
    everywhere(pika_emulator, "unauthorized", times=100)

    ending = sensor(jobid).run()

    is_final(ending, PikaAuthError)
    assert pika_emulator.counters()["requests"] <= 3
    assert clock.ahead <= 60


def test_a_missing_connection_is_told(pika_emulator: EmulatorClient, sensor: Sensors) -> None:
    assert "'pika_nowhere' does not exist" in str(sensor(NOBODY, pika_conn_id="pika_nowhere").run().error)
    assert pika_emulator.counters()["requests"] == 0


def test_a_connection_that_cannot_be_read_for_a_while_is_waited_out(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobid, get, back = job_of(pika_emulator), PikaHook.get_connection, clock.time() + 100

    def shaky(self: PikaHook, conn_id: str) -> Any:
        if clock.time() < back:
            raise PikaUnavailableError("the secrets backend is away")
        return get(conn_id)

    monkeypatch.setattr(PikaHook, "get_connection", shaky)
    assert sensor(jobid).run().state == "success"


def test_a_429_is_waited_out_for_as_long_as_it_asks(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock
) -> None:
    jobid = job_of(pika_emulator, seconds=30)
    everywhere(pika_emulator, "discord_429", retry_after=333)

    assert sensor(jobid).run().state == "success"

    times = sorted(at for polls in clock.polls().values() for at in polls)
    assert any(later - earlier >= 332.9 for earlier, later in itertools.pairwise(times))
    assert len(times) <= 8


@pytest.mark.parametrize("interval", [0, timedelta(seconds=9)])
def test_an_interval_below_the_floor_is_raised_with_exactly_one_warning(
    pika_emulator: EmulatorClient, sensor: Sensors, mode: str, interval: Any
) -> None:
    """Over all legs of a rescheduled sensor."""
    task = sensor(job_of(pika_emulator, seconds=100), poke_interval=interval)

    assert task.run().state == "success"

    raised = [text for text in task.log.of("warning") if "raised to" in text]
    assert len(raised) == 1
    assert ("15 s" if mode.startswith("reschedule") else "10 s") in raised[0]


def test_an_interval_at_the_floor_is_no_reason_to_warn(
    pika_emulator: EmulatorClient, sensor: Sensors, mode: str
) -> None:
    task = sensor(job_of(pika_emulator), poke_interval=15 if mode.startswith("reschedule") else 10)
    task.run()

    assert task.log.of("warning") == []


def test_an_unknown_state_is_taken_for_running(pika_emulator: EmulatorClient, sensor: Sensors) -> None:
    jobid = job_of(pika_emulator, {"kind": "unlisted"}, seconds=100)
    pika_emulator.advance(jobid=jobid, status="upscaling")
    task = sensor(jobid)

    assert task.run().state == "success"
    assert "upscaling" in task.log.text


def test_a_retry_keeps_the_deadline_and_a_clear_starts_it_over(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock, mode: str
) -> None:
    """With a store; without one, each try counts for itself."""
    jobid = job_of(pika_emulator, seconds=100_000)
    task = sensor(jobid, timeout=100)
    assert task.run().state == "failed"

    for attempt, spent in (
        (task.retry, 0 if task.store else 100),
        (task.clear, 100),
        (task.retry, 0 if task.store else 100),
    ):
        before = clock.passed
        assert type(attempt().error) is AirflowSensorTimeout
        assert spent - 1 <= clock.passed - before <= spent + 35


def test_a_retry_after_the_deadline_takes_a_job_that_has_completed_meanwhile(
    pika_emulator: EmulatorClient, sensor: Sensors
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)
    task = sensor(jobid, timeout=100)
    task.run()
    pika_emulator.advance(jobid=jobid, status="completed")

    assert task.retry().state == "success"


def test_silent_fail_does_not_make_the_polls_come_sooner(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock
) -> None:
    """The fixture ``polite`` judges: Airflow goes on after an error then, and knows no pause of ours."""
    jobid = job_of(pika_emulator, seconds=8_000)
    everywhere(pika_emulator, "server_error", status=503, times=TRANSIENT_LIMIT + 5)

    sensor(jobid, silent_fail=True, poke_interval=200, timeout=20_000).run()


def test_exponential_backoff_never_polls_sooner_than_the_api_allows(
    pika_emulator: EmulatorClient, sensor: Sensors, clock: Clock
) -> None:
    """The fixture ``polite`` judges."""
    jobid = job_of(pika_emulator, seconds=500)

    assert sensor(jobid, exponential_backoff=True, poke_interval=15).run().state == "success"


def test_the_job_of_an_event_is_plain_and_small(pika_emulator: EmulatorClient, sensor: Sensors, mode: str) -> None:
    """What a trigger stores and reports: numbers, ids and the job; no token, no masked token."""
    ending = sensor(job_of(pika_emulator)).run()

    if not mode.startswith("deferrable"):
        assert ending.triggers == []
        return
    stored = json.dumps([ending.triggers, ending.events])
    assert pika_emulator.token not in stored
    assert "secured" not in stored
    assert len(ending.events) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "params"),
    [
        ("end_as", "", {"status": "failed", "reason": "the bot is asleep"}),
        ("end_as", "", {"status": "moderated"}),
        ("stuck", "", {}),
        ("stuck", "unauthorized", {}),
        ("stuck", "server_error", {"status": 503}),
        ("stuck", "payment", {}),
        ("stuck", "html", {"status": 200}),
    ],
    ids=["failed", "moderated", "timeout", "401", "503", "402", "html"],
)
def test_an_error_is_worded_alike_in_all_modes(
    pika_emulator: EmulatorClient, life: Callable[..., Life], fault: str, kind: str, params: dict[str, Any]
) -> None:
    said = {}
    for name, about in MODES.items():
        pika_emulator.reset()
        jobid = job_of(pika_emulator, {"kind": fault, **({} if kind else params)}, {"kind": "unlisted"})
        if kind:
            everywhere(pika_emulator, kind, times=1000, **params)
        # A binding of its own for each operator: it is made anew for every leg.
        kwargs = {"task_id": "wait", "jobid": jobid, "timeout": 200 if not kind else 10**6, **about}
        ending = life(lambda kwargs=kwargs: PikaJobSensor(**kwargs), task_id="wait").run()
        text = str(ending.error).replace(jobid, "JOB").replace(quote(jobid, safe=""), "JOB")
        said[name] = re.sub(r"20[0-9-]+ [0-9:]+", "THEN", text), type(ending.error), type(ending.cause)

    assert said["reschedule"] == said["poke"]
    assert said["deferrable"] == said["poke"]
