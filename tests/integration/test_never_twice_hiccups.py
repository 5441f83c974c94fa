"""A store that is slow, late or fails once, and a run made again: neither a second payment nor a false alarm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import DeleteVariable, ErrorResponse, GetVariable, PutVariable

from airflow_provider_pika.compat import AirflowRescheduleException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.submits import (
    STORES,
    Lives,
    asked,
    crash_after_store,
    crash_before_answer,
    jobids,
    record,
    submit,
)
from tests.support.task_context import Clock, Life, Store
from tests.support.variables import Variables


def answers_badly_once(monkeypatch: pytest.MonkeyPatch, variables: Variables, kind: type) -> None:
    """Let the first request of a kind be carried out and answered with an error, as a slow api-server does."""
    ask, failed = variables.ask, []

    def asked(message: Any) -> Any:
        answer = ask(message)
        if isinstance(message, kind) and not failed:
            failed.append(message)
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 504}))
        return answer

    monkeypatch.setattr("airflow_provider_pika.compat._ask_supervisor", asked)


@STORES
def test_a_refused_submit_whose_intent_cannot_be_taken_back_at_once_just_waits_for_room(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, stored: bool
) -> None:
    """Nothing was made, and this process knows it; a later attempt would search in vain and fail for good."""
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(), stored=stored)
    failed: list[Any] = []

    def away_once(of_closing: bool) -> bool:
        if of_closing and not failed:
            failed.append(True)
            return True
        return False

    if stored:
        task.store.fails_on = lambda key, value: away_once(
            key.startswith("pika_submit") and not (value["reply_ref"] or value["jobid"])
        )
    variables.fails_on = lambda message: away_once(isinstance(message, DeleteVariable))

    assert [task.run().value] == jobids(pika_emulator)
    assert failed
    assert asked(pika_emulator) == 2


@STORES
def test_a_slow_api_server_of_airflow_is_no_process_that_was_held_up(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, clock: Clock, stored: bool
) -> None:
    """Each of its answers takes seconds."""
    task = life(submit(), stored=stored)
    seconds = 2.0
    if stored:
        get, put = task.store.get, task.store.set
        task.store.get = lambda *args, **about: (clock.leap(seconds), get(*args, **about))[1]
        task.store.set = lambda *args, **about: (clock.leap(seconds), put(*args, **about))[1]

    def slow(message: Any) -> bool:
        clock.leap(seconds * isinstance(message, (GetVariable, PutVariable)))
        return False

    variables.fails_on = slow

    assert task.run().state == "success"
    assert asked(pika_emulator) == 1


def test_below_3_3_an_intent_that_is_written_but_answered_with_an_error_is_taken_back(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent under it, so the retry submits."""
    task = life(submit(), stored=False)
    answers_badly_once(monkeypatch, variables, PutVariable)

    assert task.run().state == "up_for_retry"
    assert variables.values == {}
    assert [task.retry().value] == jobids(pika_emulator)


def test_below_3_3_an_intent_that_is_removed_late_during_its_search_is_searched_for_all_the_same(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first leg met a full queue; an api-server that stood still carries out its removal two legs later."""
    pika_emulator.configure(seconds=3600)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(), stored=False)
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    task.reschedules = 1
    clock.leap(20)
    pika_emulator.fault("submit", "drop_after")
    listed, late = PikaHook.list_jobs, []

    def list_jobs(hook: PikaHook) -> list[str]:
        if late:
            return listed(hook)
        late.append(dict(variables.values))
        variables.values.clear()
        clock.leap(25)  # too long ago to prove anything, and nothing is listed yet
        return []

    monkeypatch.setattr(PikaHook, "list_jobs", list_jobs)

    assert [task.run().value] == jobids(pika_emulator)
    assert late[0]


@pytest.mark.parametrize("is_cleared", [False, True])
def test_a_record_of_version_0_1_is_no_other_attempts_after_an_upgrade_to_3_3(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, is_cleared: bool
) -> None:
    """It was not counted; the try that took it along went on to fail for a reason that was none."""
    pika_emulator.configure(seconds=5)
    task = life(submit(resubmit_unknown=True), stored=False)
    if is_cleared:
        task.run()
        task.clock.leap(60)
    else:
        crash_before_answer(task, made=False)
    for name, text in variables.values.items():
        old = json.loads(text)
        del old["written"]
        variables.values[name] = json.dumps(old)
    task.store = Store()

    ending = task.clear() if is_cleared else task.retry()

    assert ending.value == jobids(pika_emulator)[-1]
    assert len(jobids(pika_emulator)) == 1 + is_cleared


@STORES
@pytest.mark.parametrize("crash", [crash_before_answer, crash_after_store])
def test_a_first_leg_that_airflow_starts_twice_pays_once(
    pika_emulator: EmulatorClient, life: Lives, crash: Callable[[Life], None], stored: bool
) -> None:
    """
    The same task instance, its first try, nothing rescheduled; the job has ended meanwhile.

    So it is where the scheduler puts a task that was long in the queue back into it, just as a worker takes it.
    """
    pika_emulator.configure(seconds=60)
    task = life(submit(), stored=stored)
    crash(task)
    task.clock.leap(300)

    ending = task.run()

    assert ending.state == ("success" if crash is crash_after_store else "failed")
    assert len(jobids(pika_emulator)) == 1


@pytest.mark.parametrize("lasts", [100, 3600])
def test_below_3_3_a_run_that_was_deleted_and_made_again_begins_as_after_a_clear(
    pika_emulator: EmulatorClient, life: Lives, lasts: float
) -> None:
    """Its Variable is still there. A job that runs is used if it was asked for the same; else a new one is made."""
    pika_emulator.configure(seconds=lasts)
    task = life(submit(), stored=False)
    before = task.run().value
    task.clock.leap(200)

    again = life(submit(), stored=False, id="made again").run().value

    assert (again == before) is (lasts > 200)
    assert life(submit(prompt="another"), stored=False, id="once more").run().value not in (before, again)


@STORES
def test_a_retry_that_is_run_as_a_first_try_is_no_run_made_again(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    """A task that is up for retry has a new id and is still at its first try: ``airflow tasks test`` runs it so."""
    pika_emulator.configure(seconds=60)
    task = life(submit(), stored=stored)
    crash_after_store(task)
    task.clock.leap(300)
    task.ti.id = "that of the retry"

    assert [task.run().value] == jobids(pika_emulator)


def test_below_3_3_a_run_made_again_never_hands_on_the_old_ones_film_whatever_its_first_try_meets(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write fails, and so does the try before its own intent; the retry finds a record of as many tries."""
    pika_emulator.configure(seconds=10)
    task = life(submit(), stored=False)
    before = task.run().value
    task.clock.leap(200)
    again = life(submit(prompt="another"), stored=False, id="made again")
    open_files, failed = PikaHook.open_files, []

    def away_once(hook: PikaHook, call: Any) -> Any:
        if not failed:
            failed.append(call)
            raise PikaUnavailableError("the image could not be fetched just now")
        return open_files(hook, call)

    monkeypatch.setattr(PikaHook, "open_files", away_once)
    unwritten: list[Any] = []

    def fails_once(message: Any) -> bool:
        if isinstance(message, PutVariable) and not unwritten:
            unwritten.append(message)
            return True
        return False

    variables.fails_on = fails_once

    assert again.run().state == "up_for_retry"
    assert again.retry().value not in (before, None)


def test_below_3_3_a_run_made_again_has_a_deadline_of_its_own(pika_emulator: EmulatorClient, life: Lives) -> None:
    """It adopts the job that still runs; the old run's wait had timed out long ago."""
    pika_emulator.configure(seconds=900)
    about = {"wait_for_completion": True, "deferrable": False, "poll_interval": 30, "timeout": 600}
    task = life(submit(**about), stored=False)
    assert task.run().state == "failed"
    task.clock.leap(100)

    assert [life(submit(**about), stored=False, id="made again").run().value] == jobids(pika_emulator)


def test_below_3_3_a_removal_that_is_answered_with_an_error_is_no_other_attempt(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(), stored=False)
    answers_badly_once(monkeypatch, variables, DeleteVariable)

    assert task.run().state == "success"
    assert "another attempt" not in task.log.text


@STORES
def test_a_job_that_has_run_for_long_does_not_use_up_the_queue_timeout_of_the_next(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    """It never queued, and its retry met a single full queue."""
    pika_emulator.configure(seconds=700)
    about = {"wait_for_completion": True, "deferrable": False, "poll_interval": 60, "retry_failed": True}
    task = life(submit(queue_timeout=600, prompt="waves [emulator:failed]", **about), stored=stored)
    assert task.run().state == "up_for_retry"
    pika_emulator.fault("submit", "queue_full")

    task.retry(submit(queue_timeout=600, prompt="waves [emulator:failed]", **about))

    assert len(jobids(pika_emulator)) == 2
    assert record(task)["jobid"] == jobids(pika_emulator)[-1]
