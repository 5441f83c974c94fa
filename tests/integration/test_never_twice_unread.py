"""Callbacks in bad weather: what cannot be read yet, what is refused, and what somebody else has put in the mailbox."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_pika.api.answers import Answer
from airflow_provider_pika.compat import AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaUnavailableError, PikaUnknownOutcomeError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.hooks.transport import Transport
from airflow_provider_pika.operators.sending import Sending
from tests.support.submits import (
    asked,
    call_back,
    crash_before_answer,
    end,
    forge,
    has_callbacks,
    jobids,
    mailboxes,
    record,
    submit,
)
from tests.support.task_context import Clock, Life

pytestmark = pytest.mark.usefixtures("long_jobs")


@pytest.fixture(autouse=True)
def _callbacks(pika_emulator: EmulatorClient, monkeypatch: pytest.MonkeyPatch) -> None:
    has_callbacks(monkeypatch, pika_emulator)


def call_back_with_the_last_list(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, task: Life, emulator: EmulatorClient
) -> None:
    ask = PikaHook.list_jobs

    def list_jobs(self: PikaHook) -> list[str]:
        if sum(clock.sleeps) >= 60 and not any(mailboxes(task).values()):
            call_back(task, *jobids(emulator))
        return ask(self)

    monkeypatch.setattr(PikaHook, "list_jobs", list_jobs)


def test_a_job_that_is_called_back_for_and_not_to_be_read_yet_is_not_paid_for_again(
    pika_emulator: EmulatorClient, life: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "late_read", reads=1)
    pika_emulator.fault("submit", "drop_after")
    task = life(submit())
    call_back_with_the_last_list(monkeypatch, clock, task, pika_emulator)
    assert [task.run().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_failed_read_of_what_was_called_back_for_uses_no_try(
    pika_emulator: EmulatorClient, life: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    task = life(submit())
    pika_emulator.fault("job", "server_error", status=503)
    call_back_with_the_last_list(monkeypatch, clock, task, pika_emulator)
    assert [task.run().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_refused_second_submit_does_not_forget_the_first(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first made a job that no list ever named and that held the only slot; it is called back for as it ends."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "queue_full")
    task = life(submit())
    reschedule = Life._reschedule
    legs = []

    def end_meanwhile(self: Life, date: Any) -> None:
        legs.append(date)
        reschedule(self, date)
        if len(legs) == 1:
            end(pika_emulator, jobids(pika_emulator)[0])
            call_back(task, jobids(pika_emulator)[0])

    monkeypatch.setattr(Life, "_reschedule", end_meanwhile)
    assert [task.run().value] == jobids(pika_emulator)


def test_a_second_submit_that_was_killed_before_its_first_byte_does_not_forget_the_first(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    task = life(submit())
    may_leave = Sending._may_leave
    submits = []

    def killed_at_the_second(self: Sending) -> None:
        submits.append(self)
        self._search.killed = len(submits) == 2
        may_leave(self)

    monkeypatch.setattr(Sending, "_may_leave", killed_at_the_second)
    task.run()
    (made,) = jobids(pika_emulator)
    end(pika_emulator, made)
    call_back(task, made)
    assert task.retry().value == made
    assert jobids(pika_emulator) == [made]


@pytest.mark.parametrize("by", [call_back, forge])
def test_what_was_given_up_by_a_word_is_not_paid_for_again_because_of_one_failed_read(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch, by: Any
) -> None:
    """While the submit in its place waited before a full queue, the service called back for its job."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504, work=True)
    pika_emulator.fault("submit", "queue_full")
    task = life(submit(resubmit_unknown=True))
    reschedule = Life._reschedule

    def end_while_in_line(self: Life, date: datetime) -> None:
        reschedule(self, date)
        if pika_emulator.counters()["submits"]["refused"].get("429") and not any(mailboxes(task).values()):
            end(pika_emulator, *jobids(pika_emulator))
            by(task, *jobids(pika_emulator))
            pika_emulator.fault("job", "server_error", status=503)

    monkeypatch.setattr(Life, "_reschedule", end_while_in_line)
    assert [task.run().value] == jobids(pika_emulator)


def test_a_forged_jobid_holds_back_for_one_search_what_a_word_has_given_up(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "server_error", status=504, work=False)
    pika_emulator.fault("submit", "queue_full", times=3)
    task = life(submit(resubmit_unknown=True))
    reschedule = Life._reschedule

    def forge_while_in_line(self: Life, date: datetime) -> None:
        reschedule(self, date)
        if pika_emulator.counters()["submits"]["refused"].get("429") and not any(mailboxes(task).values()):
            forge(task, "job:poison")

    monkeypatch.setattr(Life, "_reschedule", forge_while_in_line)
    ending = task.run()
    assert [ending.value] == jobids(pika_emulator)
    assert ending.legs <= 20


@pytest.mark.parametrize("word", ["resubmit_unknown", "clear"])
def test_a_refused_submit_does_not_forget_the_unknown_one_it_was_to_replace(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """The first job held the very slot for which the second submit waited; called back for, it was paid for again."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504, work=True)
    task = life(submit(resubmit_unknown=word == "resubmit_unknown"))
    if word == "clear":
        task.run()
    pika_emulator.fault("submit", "queue_full")
    reschedule = Life._reschedule

    def end_while_in_line(self: Life, date: datetime) -> None:
        reschedule(self, date)
        if pika_emulator.counters()["submits"]["refused"].get("429") and (record(task) or {})["reply_ref"]:
            for jobid in jobids(pika_emulator):
                end(pika_emulator, jobid)
                call_back(task, jobid)

    monkeypatch.setattr(Life, "_reschedule", end_while_in_line)
    ending = task.clear() if word == "clear" else task.run()

    assert [ending.value] == jobids(pika_emulator)


@pytest.mark.parametrize("in_queue", [200.0, 600.0])
def test_a_cleared_task_waits_in_the_queue_no_longer_than_its_timeout(
    pika_emulator: EmulatorClient, life: Any, in_queue: float
) -> None:
    """After a submit that was proved to have made no job each leg was taken for the first one of a new clear."""
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault("submit", "queue_full", times=1000)
    task = life(submit(queue_timeout=in_queue))
    assert type(task.run().error) is AirflowSensorTimeout

    ending = task.clear()

    assert type(ending.error) is AirflowSensorTimeout
    assert ending.legs <= in_queue / 15 + 1


def test_a_clear_with_other_inputs_never_goes_on_with_what_was_given_up(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504, work=True)
    task = life(submit())
    task.run()
    (old,) = jobids(pika_emulator)
    pika_emulator.fault("submit", "queue_full")

    ending = task.clear(submit(prompt="a beach"))

    assert ending.state == "success"
    assert [old, ending.value] == jobids(pika_emulator)


@pytest.mark.parametrize("status", [403, 405, 409])
def test_a_called_back_job_whose_read_is_refused_once_is_adopted_all_the_same(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It was ruled out for good, as if it had been no jobid at all."""
    task = life(submit())
    crash_before_answer(task)
    (made,) = jobids(pika_emulator)
    end(pika_emulator, made)
    call_back(task, made)
    refused: list[str] = []
    send = Transport.send

    def refusing_once(self: Transport, call: Any, *args: Any, **about: Any) -> Answer:
        if "jobid=" in call.target and not refused:
            refused.append(call.target)
            return Answer(status, {}, json.dumps({"error": "Forbidden", "code": status}))
        return send(self, call, *args, **about)

    monkeypatch.setattr(Transport, "send", refusing_once)
    assert [task.retry().value] == jobids(pika_emulator)
    assert refused


def test_a_lost_answer_that_made_no_job_and_a_full_queue_end_in_one_job(
    pika_emulator: EmulatorClient, life: Any
) -> None:
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault("submit", "queue_full", times=2)
    task = life(submit())
    assert [task.run().value] == jobids(pika_emulator)
    assert record(task)["is_given_up"] is False


def test_what_a_forger_put_into_the_mailbox_does_not_hide_the_list(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall before the API answers such a jobid with a page of its own, which is transient."""
    task = life(submit())
    crash_before_answer(task)
    forge(task, "<script>alert(1)</script>")
    read = PikaHook.get_job

    def behind_a_firewall(self: PikaHook, jobid: str) -> Any:
        if "<script>" in jobid:
            raise PikaUnavailableError("A page of a firewall.")
        return read(self, jobid)

    monkeypatch.setattr(PikaHook, "get_job", behind_a_firewall)
    assert [task.retry().value] == jobids(pika_emulator)


@pytest.mark.parametrize("status", [403, 422, 503])
def test_a_forged_jobid_that_cannot_be_read_neither_fails_a_search_nor_keeps_it_from_its_end(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A 422 failed the task for good before the true jobid was read; what a firewall refuses made each poll fail."""
    poison = "job:poison"
    send = Transport.send

    def refusing(self: Transport, call: Any, *args: Any, **about: Any) -> Answer:
        if poison.replace(":", "%3A") in call.target or poison in call.target:
            return Answer(status, {}, json.dumps({"error": "No", "code": status}))
        return send(self, call, *args, **about)

    monkeypatch.setattr(Transport, "send", refusing)
    found = life(submit(), task_id="found")
    crash_before_answer(found)
    (made,) = jobids(pika_emulator)
    end(pika_emulator, made)
    forge(found, poison, made)
    assert found.retry().value == made

    lost = life(submit(), task_id="lost")
    crash_before_answer(lost, made=False)
    forge(lost, poison)
    assert type(lost.retry().cause) is PikaUnknownOutcomeError
    assert lost.clear().state == "success"
    assert len(jobids(pika_emulator)) == 2


def test_what_was_found_unread_is_named_by_the_error(pika_emulator: EmulatorClient, life: Any) -> None:
    """Whoever reads it is about to clear the task, and to pay."""
    task = life(submit())
    crash_before_answer(task, made=False)
    call_back(task, "job:not-known-yet")
    cause = task.retry().cause
    assert type(cause) is PikaUnknownOutcomeError
    assert "job:not-known-yet" in str(cause)


@pytest.mark.parametrize("known", ["no reference", "elsewhere"])
def test_a_mailbox_that_knows_no_reference_is_believed_as_ever(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """Of an earlier version, or of workers that keep their state elsewhere: an unread job fails the poll."""
    task = life(submit())
    crash_before_answer(task)
    (made,) = jobids(pika_emulator)
    end(pika_emulator, made)
    key = record(task)["mailbox"]
    task.store.set(key, {"jobids": []})
    call_back(task, made) if known == "elsewhere" else forge(task, made)
    pika_emulator.fault("job", "server_error", status=503, times=10)
    assert type(task.retry().error) is PikaUnavailableError
    assert task.retry().value == made


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("by", [call_back, forge])
def test_a_called_back_job_read_without_a_reference_is_not_paid_for_again(
    pika_emulator: EmulatorClient, life: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch, by: Any, is_listed: bool
) -> None:
    """Every field of the API is optional. It was ruled out, and the submit sent once more beside its job."""
    if not is_listed:
        pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    read, nameless = PikaHook.get_job, 3

    def without_reference(self: PikaHook, jobid: str) -> Any:
        nonlocal nameless
        job = read(self, jobid)
        nameless -= 1
        return replace(job, raw={**job.raw, "replyRef": None}) if nameless >= 0 else job

    monkeypatch.setattr(PikaHook, "get_job", without_reference)
    ask = PikaHook.list_jobs

    def called_meanwhile(self: PikaHook) -> list[str]:
        if not any(mailboxes(task).values()) and (not is_listed or sum(clock.sleeps) >= 60):
            by(task, *jobids(pika_emulator))
        return ask(self)

    monkeypatch.setattr(PikaHook, "list_jobs", called_meanwhile)
    task = life(submit())
    assert [task.run().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("legs", [1, 20])
def test_what_was_given_up_and_is_called_back_for_unread_is_not_paid_for_again(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch, legs: int
) -> None:
    """The submit in its place waited before a full queue; the API did not know the first one's job for a moment."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "late_read", reads=2)
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "queue_full", times=legs)
    task = life(submit(resubmit_unknown=legs > 1))
    reschedule, left = Life._reschedule, []

    def end_meanwhile(self: Life, date: Any) -> None:
        reschedule(self, date)
        left.append(date)
        if len(left) == legs:
            end(pika_emulator, jobids(pika_emulator)[0])
            call_back(task, jobids(pika_emulator)[0])

    monkeypatch.setattr(Life, "_reschedule", end_meanwhile)
    assert [task.run().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1 + legs, "all others met a full queue"


def test_a_mailbox_that_cannot_be_read_for_a_moment_does_not_hide_the_list(
    pika_emulator: EmulatorClient, life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "drop_after")
    task = life(submit())
    get = type(task.store).get
    failed = []

    def away_once(self: Any, key: str, default: Any = None) -> Any:
        if key.startswith("pika_callback") and not failed:
            failed.append(key)
            raise RuntimeError("API_SERVER_ERROR")
        return get(self, key, default)

    monkeypatch.setattr(type(task.store), "get", away_once)
    assert [task.run().value] == jobids(pika_emulator)
    assert failed


@pytest.mark.parametrize("url", ["None", "", None])
def test_a_reply_url_that_a_template_has_left_empty_is_none_of_the_users(
    pika_emulator: EmulatorClient, life: Any, url: str | None
) -> None:
    task = life(submit(reply_url=url))
    assert task.run().state == "success"
    assert len(mailboxes(task)) == 1


@pytest.mark.parametrize("ref", ["None", "", None])
def test_a_reply_ref_that_a_template_has_left_empty_is_one_of_the_providers_own(
    pika_emulator: EmulatorClient, life: Any, ref: str | None
) -> None:
    """Sent as it is, "None" would be the reference of every such task, and so one that nobody's job is known by."""
    assert life(submit(reply_ref=ref)).run().state == "success"
    (job,) = pika_emulator.jobs()
    assert re.fullmatch(r"airflow-[0-9a-f]{32}", job["replyRef"])


def test_after_a_full_queue_a_cleared_task_still_knows_the_job_it_does_not_want(
    pika_emulator: EmulatorClient, life: Any
) -> None:
    """Its reply_ref is its own, so both jobs carry it, and only what was ruled out tells them apart."""
    task = life(submit())
    own = f"{task.ti.dag_id}/{task.ti.run_id}/{task.ti.task_id}"
    task = life(submit(reply_ref=own))
    unwanted = task.run().value
    pika_emulator.fault("submit", "queue_full")
    pika_emulator.fault("submit", "drop_before")
    assert task.clear(submit(reply_ref=own, prompt="clouds")).value != unwanted


def test_a_reply_ref_that_is_a_number_is_not_taken_for_the_providers_own(
    pika_emulator: EmulatorClient, life: Any
) -> None:
    """Two tasks whose native template makes the same number of it: neither takes the other's job."""
    life(submit(reply_ref=20260101), task_id="neighbour").run()
    pika_emulator.fault("submit", "drop_before")
    assert life(submit(reply_ref=20260101)).run().value != jobids(pika_emulator)[0]
