"""Two rare events in one search, or a rare event and an option: still no job is paid for twice, nor sent for ever."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaError, PikaModeratedError, PikaRequestError, PikaUnknownOutcomeError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.memory import SubmitMemory
from tests.support.submits import (
    STORES,
    Lives,
    asked,
    call_back,
    crash_before_answer,
    end,
    has_callbacks,
    jobids,
    submit,
)
from tests.support.task_context import Clock, Life

LIST = "/v1/pika/jobs"


@STORES
def test_a_reference_that_others_use_is_not_resubmitted_without_end(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    """There is no search to slow it down: it would be one paid submit after the other."""
    pika_emulator.fault("submit", "drop_after", times=6)

    ending = life(submit(reply_ref="everybodys", resubmit_unknown=True), stored=stored).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 2


@STORES
def test_resubmit_unknown_sends_no_third_submit_in_a_try(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "unlisted", times=6)
    pika_emulator.fault("submit", "server_error", status=504, work=True, times=6)

    ending = life(submit(resubmit_unknown=True), stored=stored).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 2


@STORES
def test_a_full_queue_in_between_does_not_let_a_try_lose_a_third(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "drop_before")
    pika_emulator.fault("submit", "queue_full")
    pika_emulator.fault("submit", "drop_before", times=6)

    ending = life(submit(), stored=stored).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 3, "lost, refused, lost: and nothing more"


def test_a_proof_that_has_fallen_is_nobodys_word(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost, proved not made, a full queue; then the service calls back for the first, whose job cannot be read."""
    pika_emulator.configure(seconds=3600)
    has_callbacks(monkeypatch, pika_emulator)
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "late_read", reads=100)
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("submit", "queue_full")
    task = life(submit())
    reschedule = Life._reschedule
    legs: list[Any] = []

    def called(self: Life, date: Any) -> None:
        reschedule(self, date)
        legs.append(date)
        if len(legs) == 1:
            call_back(task, *jobids(pika_emulator))

    monkeypatch.setattr(Life, "_reschedule", called)

    assert type(task.run().cause) is PikaUnknownOutcomeError
    assert len(jobids(pika_emulator)) == 1


@STORES
def test_a_process_frozen_while_it_writes_its_intent_asks_anew(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """Another attempt may have read the intent meanwhile: its age counts from the beginning of its write."""
    task = life(submit(), stored=stored)
    save = SubmitMemory.save
    frozen: list[Any] = []

    def frozen_after_the_write(self: SubmitMemory, record: Any, **about: Any) -> Any:
        written = save(self, record, **about)
        if record.reply_ref and not frozen:
            frozen.append(record)
            clock.leap(300)
        return written

    monkeypatch.setattr(SubmitMemory, "save", frozen_after_the_write)

    assert task.run().state == "success"
    assert "held up" in task.log.text
    assert asked(pika_emulator) == 1


@STORES
def test_a_list_that_took_long_is_no_proof(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """Asked in time and answered late: a job could have come and gone before the list was made."""
    pika_emulator.fault("submit", "drop_before")
    ask = PikaHook.list_jobs

    def slowly(self: PikaHook) -> list[str]:
        if clock.passed >= 60:
            clock.leap(25)
        return ask(self)

    monkeypatch.setattr(PikaHook, "list_jobs", slowly)

    assert type(life(submit(), stored=stored).run().cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 1


@STORES
def test_a_list_is_as_old_as_its_question(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """One asked before 60 s have passed and answered after them proves nothing of what is listed by then."""
    pika_emulator.fault("submit", "drop_before")
    ask = PikaHook.list_jobs
    asked_at: list[float] = []

    def slowly(self: PikaHook) -> list[str]:
        asked_at.append(clock.passed)
        clock.leap(1.8)
        return ask(self)

    monkeypatch.setattr(PikaHook, "list_jobs", slowly)
    life(submit(), stored=stored).run()

    assert asked_at[-1] >= 60, asked_at


@pytest.mark.parametrize(
    ("how", "refusal"),
    [("called", PikaModeratedError("No", status=422)), ("listed", PikaRequestError("No", status=400))],
)
def test_a_job_that_cannot_be_read_once_is_not_paid_for_again(
    pika_emulator: EmulatorClient,
    life: Lives,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    refusal: PikaError,
) -> None:
    pika_emulator.configure(seconds=3600)
    has_callbacks(monkeypatch, pika_emulator)
    if how == "called":
        pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    ask, read = PikaHook.list_jobs, PikaHook.get_job
    refused: list[str] = []

    def called_meanwhile(self: PikaHook) -> list[str]:
        if how == "called" and len(clock.sleeps) == 2:
            call_back(task, *jobids(pika_emulator))
        return ask(self)

    def refused_once(self: PikaHook, jobid: str) -> Any:
        if not refused:
            refused.append(jobid)
            raise refusal
        return read(self, jobid)

    monkeypatch.setattr(PikaHook, "list_jobs", called_meanwhile)
    monkeypatch.setattr(PikaHook, "get_job", refused_once)
    task = life(submit())
    task.run()

    assert refused
    assert asked(pika_emulator) == 1


def test_a_call_is_waited_for_as_long_as_jobs_take(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is on no list, and ends nine minutes after its submit: then the service calls."""
    pika_emulator.configure(seconds=3600)
    has_callbacks(monkeypatch, pika_emulator)
    pika_emulator.fault("submit", "unlisted")
    task = life(submit())
    crash_before_answer(task)
    (made,) = jobids(pika_emulator)
    begun, leap = clock.time(), clock.leap
    ended: list[str] = []

    def ends_after_nine_minutes(seconds: float) -> None:
        leap(seconds)
        if clock.time() - begun >= 540 and not ended:
            ended.append(made)
            end(pika_emulator, made)
            call_back(task, made)

    monkeypatch.setattr(clock, "leap", ends_after_nine_minutes)

    assert task.retry().value == made
    assert jobids(pika_emulator) == [made]


def test_a_pause_asked_for_during_a_search_is_waited_out_without_a_worker(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    pika_emulator.configure(seconds=3600)
    pika_emulator.fault("submit", "drop_after")
    pika_emulator.fault("list", "rate_limit", retry_after=600)

    assert [life(submit()).run().value] == jobids(pika_emulator)

    assert sum(clock.sleeps) <= 15
    first, second = [at for at, target in clock.asked if target.startswith(LIST)][:2]
    assert second - first >= 600


@STORES
def test_what_came_back_is_told_by_whichever_attempt_gives_up(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """The process that lost the answer dies while it looks for the job; the next one says that it was a 504."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504, work=True)
    task = life(submit(), stored=stored)

    def dies(self: PikaHook) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(PikaHook, "list_jobs", dies)
        with pytest.raises(KeyboardInterrupt):
            task.leg()

    ending = task.retry()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert "504" in str(ending.error)
