"""What a submit remembers, while it is moved, overtaken or read late: no attempt is without it, and none pays again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_pika.compat import AirflowRescheduleException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.store import SUBMIT_KEY
from tests.support.submits import Lives, asked, crash_after_store, crash_before_answer, jobids, record, submit
from tests.support.task_context import Clock, Store, TaskDeferred
from tests.support.variables import Variables


def test_no_two_late_writes_together_cover_an_intent(pika_emulator: EmulatorClient, life: Lives) -> None:
    """Both copies of "nothing is under way" arrive while the next submit is under way; then its process dies."""
    pika_emulator.configure(seconds=3600)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit())
    writes: list[tuple[str, Any]] = []
    task.store.fails_on = lambda place, value: writes.append((place, value))
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    late = [(place, value) for place, value in writes if place.startswith(SUBMIT_KEY) and not value["reply_ref"]]
    assert len(late) == 2
    task.store.fails_on = lambda place, value: False
    task.reschedules = 1
    crash_before_answer(task)
    task.store.values |= {place: json.dumps(value) for place, value in late}

    assert [task.retry().value] == jobids(pika_emulator)


def test_a_jobid_unknown_half_an_hour_after_its_submit_is_still_taken_for_one_not_known_yet(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    pika_emulator.configure(seconds=7200)
    task = life(submit())
    crash_after_store(task)
    clock.leap(1800)
    pika_emulator.fault("job", "not_found")

    assert [task.retry().value] == jobids(pika_emulator)


def test_what_moves_to_the_new_store_is_there_before_it_leaves_the_old_one(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """An upgrade to 3.3 between two tries, whose first write fails."""
    pika_emulator.configure(seconds=100)
    task = life(submit(), stored=False)
    crash_after_store(task)
    task.store = Store()
    task.store.fails_on = lambda key, value: True
    assert task.retry().state == "up_for_retry"
    task.store.fails_on = lambda key, value: False

    assert [task.retry().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_task_in_line_keeps_its_record_over_an_upgrade(
    pika_emulator: EmulatorClient, life: Lives, variables: Variables
) -> None:
    """Released after the upgrade, it is in the same try: what it remembers of a lost answer moves along."""
    pika_emulator.configure(seconds=7200)
    task = life(submit(deferrable=True), stored=False)
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault("submit", "queue_full")
    with pytest.raises(TaskDeferred) as deferred:
        task.leg()
    assert record(task)["is_given_up"]
    task.store = Store()

    task.leg((deferred.value.method_name, {**(deferred.value.kwargs or {}), "event": {"outcome": "released"}}))

    assert not variables.under(SUBMIT_KEY), "it has moved"


def test_below_3_3_an_intent_that_another_attempt_has_taken_back_is_not_written_anew(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, variables: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = life(submit(), stored=False)
    send = PikaHook.send
    gone: list[Any] = []

    def late(self: PikaHook, *args: Any, **about: Any) -> Any:
        ask = about.pop("before_body")

        def asked_late() -> None:
            if not gone:
                gone.append(dict(variables.values))
                variables.values.clear()  # the other one met a full queue
                clock.leap(300)
            ask()

        return send(self, *args, before_body=asked_late, **about)

    monkeypatch.setattr(PikaHook, "send", late)

    assert "another attempt" in str(task.run().error)
    assert asked(pika_emulator) == 0


def test_below_3_3_a_retry_whose_run_was_started_anew_is_a_retry(pika_emulator: EmulatorClient, life: Lives) -> None:
    pika_emulator.configure(seconds=30)
    task = life(submit(), stored=False)
    crash_after_store(task)
    task.clock.leap(300)
    task.ti.id, task.run_started = "that of the retry", task.clock.now()

    assert [task.retry().value] == jobids(pika_emulator)


def test_below_3_3_a_run_made_again_waits_for_a_job_of_its_own(pika_emulator: EmulatorClient, life: Lives) -> None:
    pika_emulator.configure(seconds=30)
    before = life(submit(wait_for_completion=True), stored=False).run()
    again = life(submit(wait_for_completion=True), stored=False, id="made again")
    again.clock.leap(200)
    again.run_started = again.clock.now()

    assert again.run().value not in (before.value, None)
