"""EncryptTextOperator(wait_for_completion=True): one task that submits and waits, in each way there is to wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_pika.api.polling import TRANSIENT_LIMIT
from airflow_provider_pika.compat import AirflowFailException, AirflowRescheduleException, AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaJobFailedError, PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from tests.support.submits import submit
from tests.support.task_context import Clock, Life, TaskDeferred

pytestmark = pytest.mark.usefixtures("polite")

Tasks = Callable[..., Life]
WAYS = {
    "deferrable": ({"deferrable": True}, True),
    "deferrable-storeless": ({"deferrable": True}, False),
    "reschedule": ({}, True),
    "reschedule-storeless": ({}, False),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def film(life: Callable[..., Life], way: str) -> Tasks:
    def make(**about: Any) -> Life:
        kwargs, stored = WAYS[way]
        kwargs = {
            "task_id": "film",
            "message": "HI",
            "prompt": "waves",
            "wait_for_completion": True,
            **kwargs,
            **about,
        }
        return life(lambda: EncryptTextOperator(**kwargs), stored=stored)

    return make


def asked(emulator: EmulatorClient) -> int:
    return emulator.counters()["submits"]["asked"]


def only_job(emulator: EmulatorClient) -> str:
    (job,) = emulator.jobs()
    return job["jobid"]


def test_it_returns_the_jobid_and_pushes_the_finished_job_and_its_video(
    pika_emulator: EmulatorClient, film: Tasks, clock: Clock, way: str
) -> None:
    pika_emulator.configure(seconds=100)

    ending = film().run()

    jobid = only_job(pika_emulator)
    assert ending.state == "success", ending.error
    assert ending.value == jobid
    assert ending.xcoms.keys() == {"return_value", "jobid", "job", "status", "video_url"}
    assert ending.xcoms["return_value"] == ending.xcoms["jobid"] == jobid
    assert ending.xcoms["job"]["status"] == "completed"
    assert ending.xcoms["job"].keys().isdisjoint({"code", "discord"})
    assert ending.xcoms["job"]["attachments"][0]["url"] == ending.xcoms["video_url"]
    assert asked(pika_emulator) == 1
    assert bool(clock.reschedules) == way.startswith("reschedule")
    assert clock.sleeps == [], "a worker was held"
    assert len(ending.triggers) == way.startswith("deferrable")


def test_without_do_xcom_push_nothing_is_pushed(pika_emulator: EmulatorClient, film: Tasks) -> None:
    pika_emulator.configure(seconds=100)

    ending = film(do_xcom_push=False).run()

    assert (ending.state, ending.xcoms) == ("success", {})


def test_the_jobid_is_there_while_the_job_still_runs(pika_emulator: EmulatorClient, film: Tasks, way: str) -> None:
    pika_emulator.configure(seconds=100)
    task = film()
    for _ in range(2 if way.startswith("reschedule") else 1):
        with pytest.raises((AirflowRescheduleException, BaseException)) as left:
            task.leg()
        assert type(left.value).__name__ in ("AirflowRescheduleException", "TaskDeferred")
        assert task.ti.xcoms == {"jobid": only_job(pika_emulator)}
        task.clock.leap(30)


@pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
def test_a_job_that_ends_badly_fails_the_task_without_retries_and_its_jobid_is_kept(
    pika_emulator: EmulatorClient, film: Tasks, status: str
) -> None:
    pika_emulator.configure(seconds=100)
    pika_emulator.fault("submit", "end_as", status=status, reason="the bot is asleep")

    ending = film().run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaJobFailedError
    assert "the bot is asleep" in str(ending.error)
    assert ending.xcoms == {"jobid": only_job(pika_emulator)}


@pytest.mark.parametrize("cancel", [False, True])
def test_the_timeout_leaves_the_job_alone_unless_told_to_cancel(
    pika_emulator: EmulatorClient, film: Tasks, clock: Clock, cancel: bool
) -> None:
    pika_emulator.configure(seconds=100_000)

    ending = film(timeout=200, cancel_on_timeout=cancel).run()

    jobid = only_job(pika_emulator)
    assert type(ending.error) is AirflowSensorTimeout
    assert ending.xcoms == {"jobid": jobid}
    assert pika_emulator.counters()["cancels"] == ({jobid: 1} if cancel else {})
    assert 199 <= clock.passed <= 235


def test_execution_timeout_bounds_the_wait(pika_emulator: EmulatorClient, film: Tasks, clock: Clock) -> None:
    pika_emulator.configure(seconds=100_000)

    assert type(film(execution_timeout=timedelta(seconds=90)).run().error) is AirflowSensorTimeout
    assert 89 <= clock.passed <= 125


def test_time_spent_in_the_queue_is_not_time_spent_waiting_for_the_job(
    pika_emulator: EmulatorClient, film: Tasks, clock: Clock
) -> None:
    """``timeout`` is of the wait: a task that queued for hours must not give up the job it has just paid for."""
    pika_emulator.configure(seconds=100)
    pika_emulator.fault("submit", "queue_full", times=30)

    ending = film(timeout=300).run()

    assert ending.state == "success", ending.error
    assert clock.ahead > 400
    assert len(pika_emulator.jobs()) == 1


def test_a_run_of_transient_errors_may_be_retried_and_the_retry_goes_on_with_the_job(
    pika_emulator: EmulatorClient, film: Tasks, way: str
) -> None:
    pika_emulator.configure(seconds=8_000)
    pika_emulator.fault("job", "server_error", status=503, times=TRANSIENT_LIMIT)
    # A trigger asks for the list meanwhile, how often is not certain; one answer would tell that the job runs.
    pika_emulator.fault("list", "server_error", status=503, times=3 * TRANSIENT_LIMIT)
    task = film(timeout=50_000, poll_interval=100)

    ending = task.run()
    assert type(ending.error) is PikaUnavailableError, ending
    jobid = only_job(pika_emulator)
    assert ending.xcoms == {"jobid": jobid}

    while task.retry().state != "success":
        # What is left of the errors strikes a storeless try's search for its job.
        assert task.ti.try_number < 3 * TRANSIENT_LIMIT + 5
    assert task.ti.xcoms["return_value"] == jobid
    assert asked(pika_emulator) == 1


def test_a_lost_answer_is_adopted_and_then_waited_for(pika_emulator: EmulatorClient, film: Tasks) -> None:
    pika_emulator.configure(seconds=100)
    pika_emulator.fault("submit", "drop_after")

    ending = film().run()

    assert ending.value == only_job(pika_emulator)
    assert ending.xcoms["job"]["status"] == "completed"


def test_a_job_that_has_ended_with_its_submit_needs_no_wait(pika_emulator: EmulatorClient, film: Tasks) -> None:
    """At once: the submit says started, the first poll says completed."""
    ending = film().run()

    assert ending.xcoms["job"]["status"] == "completed"
    assert pika_emulator.counters()["polls"]["total"] <= 1


@pytest.mark.parametrize("made", ["crash", "timeout"])
def test_a_later_try_waits_for_the_same_job(
    pika_emulator: EmulatorClient, film: Tasks, clock: Clock, made: str
) -> None:
    pika_emulator.configure(seconds=400)
    task = film(timeout=300 if made == "timeout" else 3600)
    if made == "timeout":
        assert type(task.run().error) is AirflowSensorTimeout
    else:

        class Killed(BaseException):
            pass

        def kill(*_: Any) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "leap", kill)
            with pytest.raises(Killed):
                task.run()
    jobid = only_job(pika_emulator)
    clock.leap(30)

    ending = task.retry()

    assert ending.xcoms["jobid"] == jobid
    assert asked(pika_emulator) == 1
    if made == "crash":
        assert ending.state == "success"


def test_an_interval_below_the_floor_is_raised_with_exactly_one_warning(
    pika_emulator: EmulatorClient, film: Tasks, clock: Clock, way: str
) -> None:
    pika_emulator.configure(seconds=100)
    task = film(poll_interval=1)

    assert task.run().state == "success"
    assert len([text for text in task.log.of("warning") if "raised to" in text]) == 1


def test_a_completed_job_without_a_video_is_a_success_with_a_warning(
    pika_emulator: EmulatorClient, film: Tasks
) -> None:
    pika_emulator.configure(seconds=100)
    pika_emulator.fault("submit", "no_video")
    task = film()

    ending = task.run()

    assert ending.state == "success"
    assert ending.xcoms["video_url"] is None
    assert any("no video" in text for text in task.log.of("warning"))


def test_a_clear_after_success_makes_and_waits_for_a_new_job(
    pika_emulator: EmulatorClient, film: Tasks, way: str
) -> None:
    pika_emulator.configure(seconds=100)
    task = film()
    first = task.run().value

    ending = task.clear()

    assert ending.state == "success"
    assert ending.value != first
    assert ending.xcoms["job"]["jobid"] == ending.value
    assert asked(pika_emulator) == 2


def test_a_clear_while_the_job_runs_starts_the_wait_over(
    pika_emulator: EmulatorClient, film: Tasks, clock: Clock
) -> None:
    pika_emulator.configure(seconds=400)
    task = film(timeout=300)
    assert type(task.run().error) is AirflowSensorTimeout

    ending = task.clear()

    assert ending.state == "success"
    assert len(pika_emulator.jobs()) == 1


# A full queue, in the triggerer


@pytest.fixture(params=[True, False], ids=["store", "storeless"])
def queued(request: pytest.FixtureRequest, life: Callable[..., Life]) -> Tasks:
    def make(**about: Any) -> Life:
        kwargs = {"task_id": "submit", "message": "HI", "prompt": "waves", "deferrable": True, **about}
        return life(lambda: EncryptTextOperator(**kwargs), stored=request.param)

    return make


def test_a_deferrable_task_waits_in_the_triggerer_for_a_slot(
    pika_emulator: EmulatorClient, queued: Tasks, clock: Clock
) -> None:
    pika_emulator.configure(seconds=100, max_jobs=1)
    first = PikaHook().encrypt_text(message="HI", prompt="first").jobid

    ending = queued().run()

    assert ending.state == "success"
    assert [job["jobid"] for job in pika_emulator.jobs()] == [first, ending.value]
    assert asked(pika_emulator) == 3  # the first, one rejected, and one that finds room
    assert (ending.legs, clock.reschedules) == (2, [])
    assert ending.xcoms == {"jobid": ending.value, "return_value": ending.value}
    assert pika_emulator.token not in json.dumps([ending.triggers, ending.events])


def test_past_queue_timeout_the_queue_ends_with_the_last_answer(
    pika_emulator: EmulatorClient, queued: Tasks, clock: Clock
) -> None:
    pika_emulator.configure(seconds=100_000, max_jobs=1)
    PikaHook().encrypt_text(message="HI", prompt="first")

    ending = queued(queue_timeout=200).run()

    assert type(ending.error) is AirflowSensorTimeout
    assert "jobs executing in parallel supported" in str(ending.error)
    assert "queue_timeout of 3 minutes 20 seconds" in str(ending.error)
    assert 199 <= clock.passed <= 240
    assert len(pika_emulator.jobs()) == 1


def test_a_discord_429_is_waited_out_in_the_triggerer(
    pika_emulator: EmulatorClient, queued: Tasks, clock: Clock
) -> None:
    pika_emulator.fault("submit", "discord_429", retry_after=77)

    ending = queued().run()

    assert ending.state == "success"
    assert 77 <= clock.passed <= 140
    assert asked(pika_emulator) == 2


def test_queue_timeout_counts_over_all_turns(pika_emulator: EmulatorClient, queued: Tasks, clock: Clock) -> None:
    pika_emulator.fault("submit", "queue_full", times=10_000)

    ending = queued(queue_timeout=600).run()

    assert type(ending.error) is AirflowSensorTimeout
    assert 550 <= clock.passed <= 760


def test_a_deferrable_second_try_whose_search_was_turned_away_searches_again(
    pika_emulator: EmulatorClient, queued: Tasks, clock: Clock
) -> None:
    """Being refused the list is not the same as having found nothing."""
    pika_emulator.configure(seconds=600)
    task = queued()
    jobid = task.run().value
    for on in ("list", "job"):
        pika_emulator.fault(on, "rate_limit", retry_after=20)

    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("stored", [True, False])
def test_a_wait_whose_triggerer_was_away_polls_once_more(
    pika_emulator: EmulatorClient, life: Callable[..., Life], stored: bool
) -> None:
    """Airflow resumes such a task only to fail it, long after its job has completed."""
    pika_emulator.configure(seconds=100)
    task = life(submit(wait_for_completion=True, deferrable=True), stored=stored)
    with pytest.raises(TaskDeferred):
        task.leg()
    task.clock.leap(2 * 3600)

    assert task.leg(("__fail__", {"error": "Trigger timeout"})) == only_job(pika_emulator)
    assert task.ti.xcoms["video_url"]


@pytest.mark.parametrize("stored", [True, False])
def test_a_queue_whose_triggerer_was_away_past_its_deadline_submits_nothing(
    pika_emulator: EmulatorClient, life: Callable[..., Life], stored: bool
) -> None:
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(wait_for_completion=True, deferrable=True), stored=stored)
    with pytest.raises(TaskDeferred):
        task.leg()
    task.clock.leap(25 * 3600)

    with pytest.raises(AirflowSensorTimeout, match=r"queue_timeout of 1 d.*, because no triggerer was there"):
        task.leg(("__fail__", {"error": "Trigger timeout"}))
    assert pika_emulator.jobs() == []


def test_the_job_of_a_retry_has_a_deadline_of_its_own(pika_emulator: EmulatorClient, film: Tasks) -> None:
    """With the first job's it would time out at once, and be cancelled."""
    pika_emulator.configure(seconds=3000)
    pika_emulator.fault("submit", "end_as", status="failed")
    task = film(retry_failed=True, timeout=3600, cancel_on_timeout=True)
    assert task.run().state == "up_for_retry"

    ending = task.retry()

    assert ending.state == "success", ending.error
    assert pika_emulator.counters()["cancels"] == {}


def test_the_last_leg_before_a_deadline_is_no_shorter_than_airflow_bears(
    pika_emulator: EmulatorClient, life: Tasks, clock: Clock
) -> None:
    """A leg that comes back within 15 s may be taken for one that has failed."""
    pika_emulator.configure(seconds=3600)
    about = {"wait_for_completion": True, "deferrable": False, "poll_interval": 30, "timeout": 71}

    assert life(submit(**about)).run().state == "failed"

    assert min(clock.reschedules) >= 14.9


def test_a_triggerer_that_is_gone_holds_no_task_for_ever(
    pika_emulator: EmulatorClient, life: Tasks, clock: Clock
) -> None:
    """Airflow's own timeout of the deferral comes some minutes after the trigger's deadline, which words it better."""
    pika_emulator.configure(seconds=3600)
    task = life(submit(wait_for_completion=True, deferrable=True, timeout=1800))

    with pytest.raises(TaskDeferred) as deferred:
        task.leg()

    assert timedelta(minutes=35) <= deferred.value.timeout <= timedelta(minutes=45)
