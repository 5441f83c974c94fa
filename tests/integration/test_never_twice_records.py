"""Which record of a submit counts, and who may write it: attempts that overlap, writes that come late, upgrades."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from airflow_provider_pika.compat import AirflowRescheduleException, AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.memory import SubmitMemory
from airflow_provider_pika.store import OPEN_KEY, SUBMIT_KEY, forget_on_success
from tests.support.submits import Lives, asked, crash_before_answer, jobids, record, submit
from tests.support.task_context import Store, TaskDeferred, airflow_says
from tests.support.variables import Variables

# A user's own reference that names the task of these tests, so that its job is looked for by it.
OWN = "my_dag/manual__2026-01-02T03:04:05+00:00/submit"


@pytest.mark.parametrize("is_cleared", [False, True])
def test_below_3_3_a_process_thawed_after_another_attempt_has_succeeded_sends_nothing(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, is_cleared: bool
) -> None:
    """
    Frozen before its first write; meanwhile the other has removed its record, since it has succeeded.

    With a record from before, and without one.
    """
    pika_emulator.configure(seconds=50)
    first = life(submit(), stored=False)
    if is_cleared:
        first.run()
        first.clock.leap(100)
        first.ti.max_tries = first.ti.try_number + first.retries
        first.ti.try_number += 1
    second = life(submit(), stored=False, try_number=first.ti.try_number + 1, max_tries=first.ti.max_tries)
    prepare, others = PikaHook.prepare, []

    def frozen(*args: Any, **fields: Any) -> Any:
        if not others:
            others.append("")
            others[0] = second.run().value
            airflow_says(monkeypatch, "success")
            operator = second.make()
            forget_on_success(second.context(), operator)
            operator.on_success_callback[-1](second.context())
        return prepare(*args, **fields)

    monkeypatch.setattr(PikaHook, "prepare", frozen)

    assert "another attempt" in str(first.run().error)
    assert jobids(pika_emulator)[-1:] == others
    assert asked(pika_emulator) == 1 + is_cleared


@pytest.mark.parametrize("what", ["removal", "given up"])
def test_below_3_3_a_jobid_in_hand_does_not_yield_to_a_late_write_of_its_own_task(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What an earlier leg wrote is carried out while the next submit is answered: nobody else has a job."""
    pika_emulator.configure(seconds=3600)
    task = life(submit(resubmit_unknown=what == "given up"), stored=False)
    late: dict[str, str] = {}
    if what == "removal":
        pika_emulator.fault("submit", "queue_full")
        with pytest.raises(AirflowRescheduleException):
            task.leg()
        task.reschedules = 1
        task.clock.leap(20)
    else:
        crash_before_answer(task, made=False)
        task.ti.try_number += 1
        save = SubmitMemory.save

        def noted(memory: SubmitMemory, record: Any, **about: Any) -> Any:
            saved = save(memory, record, **about)
            if saved.is_given_up:
                late.update(variables.values)
            return saved

        monkeypatch.setattr(SubmitMemory, "save", noted)
    send, sent = PikaHook.send, []

    def sends(*args: Any, **about: Any) -> Any:
        job = send(*args, **about)
        if not sent:
            sent.append(job.jobid)
            variables.values.clear()
            variables.values.update(late)
        return job

    monkeypatch.setattr(PikaHook, "send", sends)

    assert [task.run().value] == sent == jobids(pika_emulator)


def test_below_3_3_a_late_intent_of_an_earlier_leg_does_not_cost_the_jobid(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.configure(seconds=100)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(), stored=False)
    late: dict[str, str] = {}
    save = SubmitMemory.save

    def noted(memory: SubmitMemory, record: Any, **about: Any) -> Any:
        saved = save(memory, record, **about)
        if saved.reply_ref and not late:
            late.update(variables.values)
        return saved

    monkeypatch.setattr(SubmitMemory, "save", noted)
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    task.reschedules = 1
    task.clock.leap(20)
    send = PikaHook.send

    def sends(*args: Any, **about: Any) -> Any:
        job = send(*args, **about)
        variables.values.update(late)
        return job

    monkeypatch.setattr(PikaHook, "send", sends)

    assert [task.run().value] == jobids(pika_emulator)


def test_below_3_3_a_lost_answer_is_searched_for_although_its_intent_was_removed_late(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue took the first intent back, and that removal meets the intent of the submit that has left since."""
    pika_emulator.configure(seconds=3600)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(), stored=False)
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    task.reschedules = 1
    task.clock.leap(20)
    pika_emulator.fault("submit", "drop_after")
    send, sent = PikaHook.send, []

    def sends(*args: Any, **about: Any) -> Any:
        try:
            return send(*args, **about)
        finally:
            if not sent:
                sent.append("")
                variables.values.clear()

    monkeypatch.setattr(PikaHook, "send", sends)

    assert [task.run().value] == jobids(pika_emulator)


def test_below_3_3_a_thawed_attempt_does_not_write_over_the_one_that_has_adopted_its_job(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same jobid, but an older try: the next leg would take it for another clear, of a job that has completed."""
    pika_emulator.configure(seconds=100)
    make = submit(wait_for_completion=True, deferrable=False, poll_interval=60)
    first = life(make, stored=False)
    cleared = life(make, stored=False, try_number=2, max_tries=3)
    adopt, frozen = SubmitMemory.adopt, []

    def thawed(memory: SubmitMemory, job: Any) -> Any:
        if not frozen:
            frozen.append(job.jobid)
            first.clock.leap(20)
            with pytest.raises(AirflowRescheduleException):
                cleared.leg()
        return adopt(memory, job)

    monkeypatch.setattr(SubmitMemory, "adopt", thawed)
    with pytest.raises(PikaUnavailableError, match="another attempt"):
        first.leg()
    first.clock.leap(120)
    cleared.reschedules = 1

    assert [cleared.run().value] == frozen == jobids(pika_emulator)


def test_no_two_late_writes_together_cover_a_jobid(pika_emulator: EmulatorClient, life: Lives) -> None:
    """An api-server that stood still may have held several; each pair of those that came before the jobid is tried."""
    pika_emulator.configure(seconds=3600)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(wait_for_completion=True, deferrable=False))
    writes: list[tuple[str, Any]] = []
    task.store.fails_on = lambda place, value: writes.append((place, value))  # type: ignore[func-returns-value]
    for leg in (0, 1):
        task.reschedules = leg
        with pytest.raises(AirflowRescheduleException):
            task.leg()
        task.clock.leap(20)
    (jobid,) = jobids(pika_emulator)
    in_the_end = dict(task.store.values)
    earlier = [(place, value) for place, value in writes if place.startswith(SUBMIT_KEY) and not value["jobid"]]
    assert len(earlier) == 6
    for late in combinations(earlier, 2):
        task.store.values = {**in_the_end, **{place: json.dumps(value) for place, value in late}}
        assert (record(task) or {})["jobid"] == jobid


@pytest.mark.parametrize("key", [SUBMIT_KEY, OPEN_KEY])
def test_a_late_intent_does_not_outlive_its_refusal(pika_emulator: EmulatorClient, life: Lives, key: str) -> None:
    """The submit was refused by a full queue: a task that took it for lost would fail for good."""
    pika_emulator.fault("submit", "queue_full")
    task = life(submit())
    writes: list[tuple[str, Any]] = []
    task.store.fails_on = lambda place, value: writes.append((place, value))  # type: ignore[func-returns-value]
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    intent = next(value for place, value in writes if place == key and value["reply_ref"])
    task.store.values[key] = json.dumps(intent)
    task.reschedules = 1
    task.clock.leap(20)

    assert task.run().value == jobids(pika_emulator)[0]


def test_a_job_that_was_ruled_out_is_not_taken_for_the_next_one_from_a_later_leg(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Cleared with other inputs while its job runs, then a full queue, then a lost answer, all under one reference."""
    pika_emulator.configure(seconds=3600)
    task = life(submit(prompt="one", reply_ref=OWN))
    task.run()
    pika_emulator.fault("submit", "queue_full")
    reschedule = task._reschedule

    def then_lose_the_answer(date: Any) -> None:
        pika_emulator.fault("submit", "drop_after")
        reschedule(date)
        task._reschedule = reschedule

    task._reschedule = then_lose_the_answer

    made = task.clear(submit(prompt="two", reply_ref=OWN)).value
    assert made == jobids(pika_emulator)[-1]
    assert len(jobids(pika_emulator)) == 2


def test_a_job_that_was_ruled_out_stays_so_over_another_clear(pika_emulator: EmulatorClient, life: Lives) -> None:
    pika_emulator.configure(seconds=3600)
    task = life(submit(prompt="one", reply_ref=OWN))
    task.run()
    task.clear(submit(prompt="two", reply_ref=OWN))
    pika_emulator.fault("submit", "drop_after")

    made = task.clear(submit(prompt="three", reply_ref=OWN)).value
    assert made == jobids(pika_emulator)[-1]
    assert len(jobids(pika_emulator)) == 3


def test_a_wait_that_began_before_an_upgrade_to_3_3_keeps_its_deadline(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    pika_emulator.configure(seconds=100_000)
    task = life(submit(wait_for_completion=True, deferrable=True), stored=False)
    with pytest.raises(TaskDeferred):
        task.leg()
    task.store = Store()
    task.clock.leap(2 * 3600)

    with pytest.raises(AirflowSensorTimeout):
        task.leg(("__fail__", {"error": "Trigger timeout"}))
    assert variables.values == {}
