"""
Intent, then jobid: what a submit leaves behind at each moment, and when it may no longer leave at all.

The emulator's count of jobs is the judge. A "crash" is a store that fails, or an attempt whose process ends between
two steps; jobs run for an hour unless a test says otherwise, so that the list shows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_pika.compat import AirflowRescheduleException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.store import OPEN_KEY, SUBMIT_KEY, task_store
from tests.support.submits import STORES, Lives, asked, crash_after_store, jobids, record, submit
from tests.support.task_context import Clock, airflow_says
from tests.support.variables import Variables

pytestmark = pytest.mark.usefixtures("long_jobs")


def test_nothing_is_sent_when_the_intent_cannot_be_stored(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    task.store.fails_on = lambda key, value: True

    assert task.run().state == "up_for_retry"
    assert pika_emulator.counters()["requests"] == 0


def test_the_intent_is_there_before_the_post_and_the_jobid_after_it(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    written: list[tuple[int, dict[str, Any]]] = []
    task.store.fails_on = lambda key, value: written.append((asked(pika_emulator), value))  # type: ignore[func-returns-value]

    ending = task.run()

    # Each is written under two keys.
    (before, intent), second, (after, kept), last = written
    (job,) = pika_emulator.jobs()
    assert (before, after) == (0, 1)
    assert second == (0, intent)
    assert last == (1, kept)
    assert intent["jobid"] is None
    assert intent["reply_ref"] == job["replyRef"]
    assert kept["jobid"] == ending.value == job["jobid"]


@STORES
def test_what_is_sent_and_stored_leaks_no_names_and_no_inputs(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, stored: bool
) -> None:
    task = life(submit(message="TOPSECRET", prompt="a merger"), stored=stored, task_id="secret_task")
    task.run()

    (job,) = pika_emulator.jobs()
    said = job["replyRef"] + repr(record(task)) + repr(variables.values)
    for name in ("my_dag", "manual__", "secret_task", "TOPSECRET", "merger"):
        assert name not in said


def test_a_store_that_fails_after_the_answer_still_leaves_the_jobid_in_the_log_and_is_found_again(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    task.store.fails_on = lambda key, value: bool(value.get("jobid"))

    assert task.run().state == "up_for_retry"
    (jobid,) = jobids(pika_emulator)
    assert jobid in task.log.text

    task.store.fails_on = lambda key, value: False
    assert task.retry().value == jobid
    assert jobids(pika_emulator) == [jobid]


def test_a_jobid_is_recorded_in_the_same_try_once_the_store_is_back(pika_emulator: EmulatorClient, life: Lives) -> None:
    """A database that is restarted as the API answers: a job that has ended before a retry would be found by nobody."""
    task = life(submit())
    failed: list[str] = []

    def away(key: str, value: Any) -> bool:
        if value.get("jobid") and len(failed) < 5:
            failed.append(key)
            return True
        return False

    task.store.fails_on = away
    assert task.run().value == jobids(pika_emulator)[0]
    assert len(failed) == 5
    assert asked(pika_emulator) == 1


def test_a_write_that_failed_and_was_carried_out_all_the_same_is_no_other_attempts(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    write, failed = task.store.set, []

    def answer_lost(key: str, value: Any, **about: Any) -> None:
        write(key, value, **about)
        if value.get("jobid") and not failed:
            failed.append(key)
            raise ConnectionError("the answer was lost")

    task.store.set = answer_lost
    assert task.run().value == jobids(pika_emulator)[0]
    assert failed
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("key", [OPEN_KEY, SUBMIT_KEY])
def test_an_intent_that_was_written_in_part_is_taken_back(pika_emulator: EmulatorClient, life: Lives, key: str) -> None:
    """Nothing has left: the retry submits, and need not search for a job first, nor say that there may be one."""
    task = life(submit())
    failed: list[str] = []

    def away(place: str, value: Any) -> bool:
        if place == key and value["reply_ref"] and not failed:
            failed.append(place)
            return True
        return False

    task.store.fails_on = away
    assert task.run().state == "up_for_retry"
    assert asked(pika_emulator) == 0
    assert task.retry().value == jobids(pika_emulator)[0]
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("late", ["during the POST", "after the jobid"])
def test_a_late_write_that_nothing_is_under_way_does_not_cover_what_is(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """A full queue took the first intent back, and that write is carried out when the second submit has left."""
    pika_emulator.configure(seconds=600)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(wait_for_completion=True, deferrable=False))
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    taken_back = task.store.values[SUBMIT_KEY]
    task.reschedules = 1
    send = PikaHook.send

    def sends(*args: Any, **about: Any) -> Any:
        job = send(*args, **about)
        task.store.values[SUBMIT_KEY] = taken_back
        return job

    with monkeypatch.context() as patch:
        if late == "during the POST":
            patch.setattr(PikaHook, "send", sends)
        with pytest.raises(AirflowRescheduleException):
            task.leg()
    if late == "after the jobid":
        task.store.values[SUBMIT_KEY] = taken_back
    task.clock.leap(40)
    task.reschedules = 2
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    assert len(jobids(pika_emulator)) == 1


def test_a_write_that_is_carried_out_late_does_not_cover_what_was_written_since(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Airflow's client repeats a write; an api-server that stood still carries the first one out half a minute on."""
    pika_emulator.fault("submit", "queue_full")
    task = life(submit())
    writes: list[tuple[str, Any]] = []
    task.store.fails_on = lambda key, value: writes.append((key, value))  # type: ignore[func-returns-value]
    jobid = task.run().value
    task.store.fails_on = lambda key, value: False
    in_the_end = dict(task.store.values)
    # An intent that a full queue took back, another intent, the jobid; each under two keys.
    assert len(writes) == 8

    for key, value in writes:
        task.store.values = {**in_the_end, key: json.dumps(value)}
        assert task.retry().value == jobid
    assert asked(pika_emulator) == 2
    assert jobids(pika_emulator) == [jobid]


@pytest.mark.parametrize("kind", ["bad_request", "unauthorized", "payment", "moderated", "queue_full", "discord_429"])
def test_a_refusal_clears_the_intent(pika_emulator: EmulatorClient, life: Lives, kind: str) -> None:
    pika_emulator.fault("submit", kind)
    task = life(submit())

    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is another test's question
        task.leg()

    assert record(task)["reply_ref"] is None
    assert record(task)["jobid"] is None


def test_a_crash_between_the_stored_jobid_and_xcom_costs_nothing(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    crash_after_store(task)
    (jobid,) = jobids(pika_emulator)

    assert task.retry().xcoms == {"jobid": jobid, "return_value": jobid}
    assert asked(pika_emulator) == 1


def test_what_fails_before_the_post_leaves_no_intent(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secrets backend that fails once: the retry, however late, submits as if nothing had been."""
    task = life(submit())
    with monkeypatch.context() as broken:
        broken.setattr(PikaHook, "get_connection", lambda *_: (_ for _ in ()).throw(RuntimeError("no backend")))
        assert "no backend" in str(task.run().error.__cause__)

    assert task.retry().state == "success"
    assert asked(pika_emulator) == 1


def test_a_task_that_is_being_killed_submits_nothing_more(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow lets a killed process go on for some seconds; in them it must not pay."""
    operator = submit()()
    airflow_says(monkeypatch, "failed")
    pika_emulator.fault("submit", "drop_before")
    sleep = clock.sleep

    def killed_meanwhile(seconds: float) -> None:
        operator.on_kill()
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", killed_meanwhile)
    monkeypatch.setattr("airflow_provider_pika.operators.search.time.sleep", killed_meanwhile)

    assert "being killed" in str(life(lambda: operator).run().error)
    assert asked(pika_emulator) == 1
    assert pika_emulator.jobs() == []


# Between the intent and the request's first byte


def held_up(monkeypatch: pytest.MonkeyPatch, before_body: Callable[[], None]) -> None:
    """Let something happen between the intent and the first byte of the request."""
    send = PikaHook.send

    def late(self: PikaHook, *args: Any, **about: Any) -> Any:
        ask = about.pop("before_body")

        def asked_late() -> None:
            before_body()
            ask()

        return send(self, *args, before_body=asked_late, **about)

    monkeypatch.setattr(PikaHook, "send", late)


@STORES
def test_a_process_killed_before_the_first_byte_sends_nothing_and_takes_its_intent_back(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    airflow_says(monkeypatch, "failed")
    operator = submit()()
    task = life(lambda: operator, stored=stored)
    held_up(monkeypatch, operator.on_kill)

    assert "being killed" in str(task.run().error)
    assert asked(pika_emulator) == 0
    assert not (record(task) or {}).get("reply_ref")


@STORES
def test_a_process_held_up_before_the_first_byte_writes_its_intent_anew(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    pauses = iter([300.0])
    held_up(monkeypatch, lambda: clock.leap(next(pauses, 0.0)))
    task = life(submit(), stored=stored)

    assert task.run().state == "success"
    assert asked(pika_emulator) == len(pika_emulator.jobs()) == 1
    assert "held up" in task.log.text


@STORES
def test_a_process_thawed_after_another_attempt_has_begun_sends_nothing(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """Seen with a worker frozen between intent and POST: 7 jobs for 6, one lost."""
    task = life(submit(), stored=stored)

    def another_attempt() -> None:
        clock.leap(300)
        store = task_store(task.context())
        store.set(SUBMIT_KEY, {**record(task), "reply_ref": "airflow-another", "try_number": 2})

    held_up(monkeypatch, another_attempt)

    ending = task.run()

    assert "another attempt" in str(ending.error)
    assert asked(pika_emulator) == 0
    assert record(task)["reply_ref"] == "airflow-another", "what the other attempt remembers is its own"


@STORES
def test_a_process_frozen_before_its_intent_and_thawed_after_another_has_submitted_sends_nothing(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """Below Airflow 3.3 nothing but the record itself tells it so."""
    first, second = life(submit(), stored=stored), life(submit(), stored=stored, try_number=2)
    second.store = first.store
    prepare = PikaHook.prepare
    made: list[str] = []

    def frozen(self: PikaHook, *args: Any, **fields: Any) -> Any:
        if not made:
            made.append("")
            made[0] = second.run().value
        return prepare(self, *args, **fields)

    monkeypatch.setattr(PikaHook, "prepare", frozen)

    assert "another attempt" in str(first.run().error)
    assert jobids(pika_emulator) == made
    assert record(first)["jobid"] == made[0]


def test_a_task_killed_before_it_has_read_its_record_sends_nothing(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow calls on_kill and lets the process go on, whatever it was at."""
    airflow_says(monkeypatch, "failed")
    operator = submit()()
    operator.on_kill()

    assert "being killed" in str(life(lambda: operator).run().error)
    assert asked(pika_emulator) == 0


def test_a_fenced_process_cannot_write_its_intent_anew_and_sends_nothing(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3 gives each attempt an id of its own; the store refuses the writes of an old one."""
    task = life(submit())

    def fenced() -> None:
        clock.leap(300)
        task.store.fails_on = lambda key, value: True

    held_up(monkeypatch, fenced)

    assert "state store" in str(task.run().error)
    assert asked(pika_emulator) == 0


def test_an_api_that_is_never_reached_in_time_is_an_error_that_may_be_retried(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up(monkeypatch, lambda: clock.leap(6))

    ending = life(submit()).run()

    assert type(ending.error) is PikaUnavailableError
    assert asked(pika_emulator) == 0


# What the metrics say


def test_a_made_submit_is_counted_once_its_jobid_is_kept(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(
        "airflow_provider_pika.operators.sending.count_submit", lambda outcome, **_: counted.append(outcome)
    )
    task = life(submit())
    task.store.fails_on = lambda key, value: bool(value.get("jobid"))
    task.run()
    assert counted == []

    life(submit(), task_id="another").run()
    assert counted == ["made"]
