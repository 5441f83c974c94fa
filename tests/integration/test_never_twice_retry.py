"""A later attempt: it goes on with the job of the one before, or says that it cannot know; it never pays by itself."""

from __future__ import annotations

import contextlib
import json

import pytest
from airflow.sdk.execution_time.comms import PutVariable

from airflow_provider_pika.api.polling import TRANSIENT_LIMIT
from airflow_provider_pika.api.recovery import SEARCH_POLLS
from airflow_provider_pika.compat import AirflowFailException, AirflowRescheduleException, AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import (
    PikaJobFailedError,
    PikaNotFoundError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.operators.search import JobSearch
from airflow_provider_pika.store import OPEN_KEY, SUBMIT_KEY, task_store
from tests.support.submits import STORES, Lives, asked, crash_before_answer, jobids, record, submit
from tests.support.task_context import Clock, Store, TaskDeferred, airflow_says
from tests.support.variables import Variables

pytestmark = pytest.mark.usefixtures("long_jobs")


@STORES
def test_an_intent_whose_job_runs_is_adopted(pika_emulator: EmulatorClient, life: Lives, stored: bool) -> None:
    task = life(submit(), stored=stored)
    crash_before_answer(task)

    ending = task.retry()

    assert [ending.value] == jobids(pika_emulator)
    assert ending.xcoms["jobid"] == ending.value
    assert asked(pika_emulator) == 1


def test_an_old_intent_whose_job_still_runs_is_adopted(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    crash_before_answer(task)
    clock.leap(400)

    assert [task.retry().value] == jobids(pika_emulator)


@STORES
@pytest.mark.parametrize("later", [0, 700], ids=["young", "old"])
@pytest.mark.parametrize("made", [True, False])
def test_an_intent_without_a_job_is_never_submitted_again_whatever_its_age(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, made: bool, later: float, stored: bool
) -> None:
    """Seen with jobs of 6 s and a retry 15 s after the crash: nothing on the list, and 12 jobs for 6."""
    pika_emulator.configure(seconds=6)
    task = life(submit(), stored=stored)
    crash_before_answer(task, made=made)
    clock.leap(later)

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaUnknownOutcomeError
    assert "its answer is not known" in str(ending.error)
    assert "clearing the task means" in str(ending.error)
    assert asked(pika_emulator) == made
    assert clock.sleeps == [], "a worker was held"
    assert ending.legs == SEARCH_POLLS


@STORES
@pytest.mark.parametrize("ahead", [200, -200])
def test_the_clock_of_the_dead_worker_decides_nothing(
    pika_emulator: EmulatorClient, life: Lives, ahead: float, stored: bool
) -> None:
    """Seen with a clock 200 s ahead: the intent looked young for ever, and a second job was paid for."""
    pika_emulator.configure(seconds=6)
    task = life(submit(), stored=stored)
    crash_before_answer(task)
    store = task_store(task.context())
    store.set(SUBMIT_KEY, {**record(task), "asked_at": record(task)["asked_at"] + ahead})

    assert type(task.retry().cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 1


def test_a_job_that_the_api_takes_a_minute_to_take_and_another_to_list_is_still_found(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Seen with a worker killed while the API took 45 s to take a submit: 9 jobs for 6."""
    pika_emulator.fault("submit", "late_listing", seconds=110)
    task = life(submit())
    crash_before_answer(task)

    assert [task.retry().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_try_that_dies_during_the_search_leaves_a_whole_one_to_the_next(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    pika_emulator.configure(seconds=6)
    task = life(submit())
    crash_before_answer(task)
    clock.leap(15)
    task.ti.try_number += 1
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    assert record(task)["polls"] == 1

    assert task.retry().legs == SEARCH_POLLS


def test_an_old_intent_alone_is_submitted_again_with_resubmit_unknown(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit(resubmit_unknown=True))
    crash_before_answer(task)
    clock.leap(4000)

    assert task.retry().state == "success"
    assert asked(pika_emulator) == 2


@STORES
@pytest.mark.parametrize("resubmit_unknown", [True, False])
@pytest.mark.parametrize("on", ["list", "job"])
def test_when_polls_for_an_intent_keep_failing_the_try_may_be_retried_and_nothing_is_sent(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, on: str, resubmit_unknown: bool, stored: bool
) -> None:
    task = life(submit(resubmit_unknown=resubmit_unknown), stored=stored)
    crash_before_answer(task)
    pika_emulator.fault(on, "server_error", status=503, times=TRANSIENT_LIMIT)

    ending = task.retry()
    assert ending.state == "up_for_retry"
    assert type(ending.error) is PikaUnavailableError
    assert "HTTP 503" in str(ending.error)
    assert [task.retry().value] == jobids(pika_emulator)
    assert clock.sleeps == [], "a worker was held"


@pytest.mark.parametrize("kind", ["server_error", "drop_before", "html"])
def test_a_poll_for_an_intent_that_fails_once_is_repeated_in_the_same_try(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, kind: str
) -> None:
    task = life(submit())
    crash_before_answer(task)
    pika_emulator.fault("list", kind)

    assert [task.retry().value] == jobids(pika_emulator)
    (wait,) = clock.reschedules
    assert 14.9 <= wait <= 20


def test_a_429_to_the_poll_for_an_intent_is_waited_out(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    crash_before_answer(task)
    pika_emulator.fault("list", "rate_limit", retry_after=600)

    assert [task.retry().value] == jobids(pika_emulator)
    (wait,) = clock.reschedules
    assert wait >= 600


@pytest.mark.parametrize("status", ["started", "progress", "completed", "a_new_state"])
def test_a_retry_goes_on_with_a_job_that_runs_or_has_completed(
    pika_emulator: EmulatorClient, life: Lives, status: str
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.advance(jobid=jobid, status=status)

    ending = task.retry()

    assert ending.xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1
    assert pika_emulator.counters()["polls"]["total"] == 1


def test_a_retry_makes_a_new_job_where_the_first_one_failed_if_asked_to(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit(retry_failed=True))
    first = task.run().value
    pika_emulator.advance(jobid=first, status="failed")

    ending = task.retry()

    assert jobids(pika_emulator) == [first, ending.value]
    assert ending.xcoms == {"jobid": ending.value, "return_value": ending.value}


@pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
def test_a_retry_fails_where_the_first_job_ended_badly(pika_emulator: EmulatorClient, life: Lives, status: str) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.advance(jobid=jobid, status=status)

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaJobFailedError
    assert ending.cause.jobid == jobid
    assert ending.xcoms == {"jobid": jobid}
    assert asked(pika_emulator) == 1


def test_a_retry_with_changed_inputs_goes_on_with_a_warning(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    jobid = task.run().value

    assert task.retry(submit(prompt="clouds")).value == jobid
    assert any("inputs have changed" in text for text in task.log.of("warning"))
    assert asked(pika_emulator) == 1


def test_a_retry_whose_look_fails_in_passing_may_be_retried_and_submits_nothing(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.fault("job", "server_error", status=502, times=TRANSIENT_LIMIT)

    ending = task.retry()
    assert type(ending.error) is PikaUnavailableError
    assert ending.xcoms == {"jobid": jobid}
    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


def test_a_429_to_a_retrys_look_is_not_told_as_a_full_queue(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    """A retry the next day has its job already: what is throttled is a read, not a submit that timed out."""
    task = life(submit(queue_timeout=3600))
    jobid = task.run().value
    clock.leap(24 * 3600)
    pika_emulator.fault("job", "rate_limit", retry_after=20)

    ending = task.retry()

    assert not isinstance(ending.error, AirflowSensorTimeout), ending.error
    assert ending.xcoms["jobid"] == jobid
    assert asked(pika_emulator) == 1


def test_a_retry_waits_for_a_job_so_fresh_that_the_api_does_not_show_it_yet(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    jobid = task.run().value
    pika_emulator.fault("job", "not_found")

    assert task.retry().value == jobid
    assert asked(pika_emulator) == 1


def test_a_retry_whose_job_the_api_has_forgotten_fails(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    task = life(submit())
    jobid = task.run().value
    clock.leap(3600)
    pika_emulator.fault("job", "not_found")

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaNotFoundError
    assert ending.xcoms == {"jobid": jobid}
    assert asked(pika_emulator) == 1


def test_a_listed_job_that_cannot_be_read_yet_is_no_reason_to_give_up(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """A fresh jobid may answer 404 for a moment: it may be the very job that is looked for."""
    task = life(submit())
    crash_before_answer(task)
    pika_emulator.fault("job", "not_found", times=TRANSIENT_LIMIT - 1)

    assert [task.retry().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("clear", [False, True])
def test_a_retry_soon_after_a_crash_gives_the_service_time_to_list_the_job(
    pika_emulator: EmulatorClient, life: Lives, clear: bool
) -> None:
    """The job shows up 20 s late; a look at once would find nothing and pay again."""
    pika_emulator.fault("submit", "late_listing", seconds=20)
    task = life(submit())
    crash_before_answer(task)

    ending = task.clear() if clear else task.retry()

    assert [ending.value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_retry_after_a_504_never_submits_again_however_young_the_intent(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it polls for the job of a 504: the service lost track of that job, so no list proves anything."""
    task = life(submit())
    pika_emulator.fault("submit", "server_error", status=504, work=False)
    with monkeypatch.context() as dying:
        dying.setattr(JobSearch, "after_lost_answer", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with contextlib.suppress(KeyboardInterrupt):
            task.run()

    ending = task.retry()

    assert isinstance(ending.error.__cause__, PikaUnknownOutcomeError)
    assert asked(pika_emulator) == 1


# Below Airflow 3.3, where Variables stand in for the store


def test_the_variables_of_a_task_go_once_airflow_knows_of_its_success(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A process that died between their removal and the success would leave a retry that pays again.

    So would one whose success Airflow 3.2 refuses, because its task was cleared: the callback is run all the same.
    """
    operators: list[EncryptTextOperator] = []
    task = life(lambda: operators.append(submit()()) or operators[-1], stored=False)
    jobid = task.run().value

    (forget,) = operators[-1].on_success_callback
    for state in ("running", "restarting", "queued", None):
        airflow_says(monkeypatch, state)
        forget(task.context())
        assert [kept["jobid"] for kept in variables.under(SUBMIT_KEY)] == [jobid]
    airflow_says(monkeypatch, "success")
    forget(task.context())
    assert variables.values == {}


def test_a_record_is_not_taken_for_absent_while_airflows_database_is_away(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The api-server says "not found" then; the retry fails, and the next one finds the job."""
    task = life(submit(), stored=False)
    task.run()
    kept = dict(variables.values)
    variables.values.clear()
    airflow_says(monkeypatch, RuntimeError("the database is away"))
    assert task.retry().state == "up_for_retry"
    variables.values.update(kept)
    airflow_says(monkeypatch, "running")
    assert task.retry().value == pika_emulator.jobs()[0]["jobid"]
    assert pika_emulator.counters()["submits"]["asked"] == 1


def test_a_deferred_task_that_began_before_an_upgrade_to_3_3_goes_on_with_its_job(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    """No triggerer was up past its deadline; a deferral raises neither the try nor the count of reschedules."""
    pika_emulator.configure(seconds=100)
    task = life(submit(wait_for_completion=True, deferrable=True), stored=False)
    with pytest.raises(TaskDeferred):
        task.leg()
    task.store = Store()
    task.clock.leap(2 * 3600)

    assert task.leg(("__fail__", {"error": "Trigger timeout"})) == pika_emulator.jobs()[0]["jobid"]
    assert pika_emulator.counters()["submits"]["asked"] == 1


def test_a_record_of_an_earlier_version_counts_although_a_newer_one_left_a_copy(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Workers of two versions: a clear made a new job on the older one, which writes one key and counts nothing."""
    pika_emulator.configure(seconds=100)
    task = life(submit())
    task.run()
    copy = task.store.values[OPEN_KEY]
    task.clock.leap(200)
    jobid = task.clear().value
    old = json.loads(task.store.values[SUBMIT_KEY])
    del old["written"]
    task.store.values = {SUBMIT_KEY: json.dumps(old), OPEN_KEY: copy}

    assert task.retry().value == jobid
    assert pika_emulator.counters()["submits"]["asked"] == 2


def test_a_task_that_began_before_an_upgrade_to_3_3_goes_on_with_its_job(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    """Its record is in a Variable, and moves into the store that Airflow has now."""
    task = life(submit(), stored=False)
    jobid = task.run().value
    task.store = Store()

    assert task.retry().value == jobid
    assert pika_emulator.counters()["submits"]["asked"] == 1
    assert variables.values == {}
    assert task.store.get(SUBMIT_KEY)["jobid"] == jobid


def test_a_refused_submit_leaves_no_variable_behind(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    pika_emulator.fault("submit", "bad_request")
    life(submit(), stored=False).run()

    assert variables.values == {}


def test_a_variable_that_cannot_be_written_means_that_nothing_is_sent(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    variables.fails_on = lambda message: isinstance(message, PutVariable)

    assert life(submit(), stored=False).run().state == "up_for_retry"
    assert pika_emulator.counters()["requests"] == 0


def test_a_variable_that_cannot_be_read_is_not_an_absent_one(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    task = life(submit(), stored=False)
    jobid = task.run().value
    variables.fails_on = lambda _: True
    assert task.retry().state == "up_for_retry"
    assert asked(pika_emulator) == 1

    variables.fails_on = lambda _: False
    assert task.retry().value == jobid


def test_without_a_store_two_instances_never_take_over_each_others_job(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    lives = [life(submit(), stored=False, map_index=index) for index in range(3)]
    first = [task.run().value for task in lives]

    assert [task.retry().value for task in lives] == first
    assert len(pika_emulator.jobs()) == 3
