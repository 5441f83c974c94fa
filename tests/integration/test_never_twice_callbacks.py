"""
The service calls back: a job that ended before anybody saw the submit's answer is adopted, and nothing forged is.

The calls themselves are made by hand, as the api-server would put them into the mailbox; the receiver has tests of its
own. Jobs run for an hour, unless a test ends them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_pika.api.callback import mailbox_key, new_mailbox
from airflow_provider_pika.compat import AirflowFailException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaJobFailedError, PikaUnavailableError, PikaUnknownOutcomeError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor
from airflow_provider_pika.store import OPEN_KEY, SUBMIT_KEY
from tests.support.submits import (
    Lives,
    asked,
    call_back,
    crash_before_answer,
    end,
    forge,
    has_callbacks,
    jobids,
    mailboxes,
    record,
    reply_url_of,
    submit,
)
from tests.support.task_context import Clock, Life

pytestmark = pytest.mark.usefixtures("long_jobs")
MADE_UP = "job:20240101000000000-user:1-channel:1-bot:pika"


@pytest.fixture(autouse=True)
def _callbacks(pika_emulator: EmulatorClient, monkeypatch: pytest.MonkeyPatch) -> None:
    has_callbacks(monkeypatch, pika_emulator)


def lists_asked(emulator: EmulatorClient) -> int:
    return sum(entry["path"] == "/v1/pika/jobs" for entry in emulator.requests())


def killed_and_ended(task: Life, emulator: EmulatorClient, status: str = "completed") -> str:
    """Kill a task between POST and answer, and let its job end and be called back for; return the jobid."""
    crash_before_answer(task)
    jobid = jobids(emulator)[-1]
    end(emulator, jobid, status)
    call_back(task, jobid)
    return jobid


# What is opened, sent and kept


def test_the_mailbox_is_there_before_the_intent_and_the_intent_before_the_post(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    task = life(submit())
    written: list[tuple[int, str, Any]] = []
    task.store.fails_on = lambda key, value: written.append((asked(pika_emulator), key, value))  # type: ignore[func-returns-value]

    jobid = task.run().value

    # The record is written under two keys, the mailbox under one.
    (opened, key, empty), (intended, _, intent), _, (kept, _, made), _ = written
    assert (opened, intended, kept) == (0, 0, 1)
    assert empty == new_mailbox(intent["reply_ref"])
    assert intent["mailbox"] == made["mailbox"] == key
    url = reply_url_of(pika_emulator, jobid)
    address, _, token = url.partition("?token=")
    assert address == f"http://127.0.0.1:9/pika/callback/{task.ti.id}"
    assert mailbox_key(token) == key


def test_without_a_callback_url_no_reply_url_is_sent_and_no_mailbox_opened(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opt-in: nobody's service is to be told of an address, nor its calls to be waited for."""
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps(pika_emulator.connection))
    task = life(submit())
    assert task.run().state == "success"

    (jobid,) = jobids(pika_emulator)
    assert reply_url_of(pika_emulator, jobid) is None
    assert mailboxes(task) == {}
    assert (record(task) or {})["mailbox"] is None


def test_nothing_is_sent_when_the_mailbox_cannot_be_opened(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    task.store.fails_on = lambda key, value: key not in (SUBMIT_KEY, OPEN_KEY)

    assert task.run().state == "up_for_retry"
    assert asked(pika_emulator) == 0


def test_the_token_is_in_nothing_that_anybody_can_read(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    """The API echoes the replyUrl in each body of the job: to the sensor of another task, too."""
    pika_emulator.configure(seconds=20)
    task = life(submit(wait_for_completion=True, deferrable=True))
    ending = task.run()
    sensor = life(lambda: PikaJobSensor(task_id="wait", jobid=ending.value, deferrable=True), task_id="wait")
    waited = sensor.run()
    token = str(reply_url_of(pika_emulator, ending.value)).partition("?token=")[2]
    pika_emulator.fault("job", "html", status=503)
    hook = PikaHook()

    assert (ending.state, waited.state) == ("success", "success")
    assert len(token) == 32
    said = [ending, waited, task.store.values, task.log.text, sensor.log.text, hook.get_job, vars(task.make())]
    said += [pika_emulator.requests(), pika_emulator.counters()]
    with pytest.raises(PikaUnavailableError) as refused:
        hook.get_job(ending.value)
    said += [str(refused.value), refused.value.to_event(), hook.get_job(ending.value)]
    assert token not in repr(said)
    assert waited.xcoms["return_value"]["replyUrl"].startswith("http://127.0.0.1:9/pika/callback/")


def test_airflow_is_told_to_mask_the_token(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret, name=None: masked.append(secret))

    jobid = life(submit()).run().value

    assert str(reply_url_of(pika_emulator, jobid)).partition("?token=")[2] in masked


@pytest.mark.parametrize("form", ["plain", "percent", "escaped"])
def test_the_token_is_in_no_error_that_quotes_an_answer(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    jobid = life(submit()).run().value
    url = str(reply_url_of(pika_emulator, jobid))
    token = url.partition("?token=")[2]
    shown = {"plain": url, "percent": url.replace("/", "%2F").replace("=", "%3D"), "escaped": json.dumps(url)}[form]
    shown = shown.replace("/", "\\/").replace("=", "\\u003d") if form == "escaped" else shown
    hook = PikaHook()
    monkeypatch.setattr("airflow_provider_pika.hooks.transport.redact", lambda text, secrets: f"<p>no: {shown}")

    with pytest.raises(PikaUnavailableError) as refused:
        hook.get_job(jobid)

    assert "callback" in str(refused.value)
    assert token not in str(refused.value)


@pytest.mark.parametrize("kind", ["bad_request", "unauthorized", "payment", "moderated", "queue_full", "discord_429"])
def test_a_refusal_leaves_no_mailbox(pika_emulator: EmulatorClient, life: Lives, kind: str) -> None:
    pika_emulator.fault("submit", kind)
    task = life(submit())

    with pytest.raises(Exception):  # noqa: B017, PT011 - which one is another test's question
        task.leg()

    assert mailboxes(task) == {}
    assert record(task)["mailbox"] is None


def test_a_submit_that_never_left_leaves_no_mailbox(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = json.dumps({"callback_url": "http://127.0.0.1:9"})
    nobody = {**pika_emulator.connection, "host": "http://127.0.0.1:9", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps(nobody))
    task = life(submit())

    assert type(task.run().error) is PikaUnavailableError
    assert mailboxes(task) == {}


@pytest.mark.parametrize("held_up", [1, 3])
def test_an_intent_written_anew_keeps_its_mailbox(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, held_up: int
) -> None:
    """One submit, one mailbox: what was told in between must not be lost. Held up for good, none is left."""
    send, pauses, keys = PikaHook.send, iter([300.0] * held_up), []

    def late(self: PikaHook, *args: Any, **about: Any) -> Any:
        ask = about.pop("before_body")
        keys.append((record(task)["mailbox"], *mailboxes(task)))

        def asked_late() -> None:
            clock.leap(next(pauses, 0.0))
            ask()

        return send(self, *args, before_body=asked_late, **about)

    monkeypatch.setattr(PikaHook, "send", late)
    task = life(submit())

    ending = task.run()

    assert len(set(keys)) == 1
    assert keys[0][0] == keys[0][1]
    assert (ending.state, len(mailboxes(task))) == (("success", 1) if held_up == 1 else ("up_for_retry", 0))


def test_a_reply_url_of_the_users_own_wins_and_the_log_says_so(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit(reply_url="http://127.0.0.1:9/mine"))

    jobid = task.run().value

    assert reply_url_of(pika_emulator, jobid) == "http://127.0.0.1:9/mine"
    assert mailboxes(task) == {}
    assert len([text for text in task.log.of("info") if "polled for" in text]) == 1


def test_below_airflow_3_3_nothing_changes_and_the_log_says_so(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit(), stored=False)

    jobid = task.run().value

    assert reply_url_of(pika_emulator, jobid) is None
    assert len([text for text in task.log.of("info") if "3.3" in text]) == 1


def test_the_token_is_no_part_of_the_inputs(pika_emulator: EmulatorClient, life: Lives) -> None:
    """Else each clear would look like one of other inputs, and pay again for a job that runs."""
    task = life(submit())
    jobid = task.run().value

    assert task.clear().value == jobid
    assert asked(pika_emulator) == 1


# A later attempt


@pytest.mark.parametrize("later", [15, 65, 4000])
def test_a_job_that_ended_before_anybody_looked_is_adopted(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, later: float
) -> None:
    """A node dies between POST and answer, the job takes 8 s, the retry comes when it is on no list any more."""
    task = life(submit(wait_for_completion=True))
    jobid = killed_and_ended(task, pika_emulator)
    clock.leap(later - 15)

    ending = task.retry()

    assert (ending.state, ending.value, ending.legs) == ("success", jobid, 1)
    assert ending.xcoms["video_url"]
    assert asked(pika_emulator) == 1
    assert lists_asked(pika_emulator) == 0


def test_without_callbacks_the_same_ends_unknown(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", pika_emulator.conn_uri)
    task = life(submit())
    crash_before_answer(task)
    end(pika_emulator, *jobids(pika_emulator))

    assert type(task.retry().cause) is PikaUnknownOutcomeError


def test_a_call_that_comes_while_the_job_is_looked_for_is_heard(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = life(submit())
    crash_before_answer(task)
    (jobid,) = jobids(pika_emulator)
    end(pika_emulator, jobid)
    leap = clock.leap

    def calls_meanwhile(seconds: float) -> None:
        if len(clock.reschedules) == 3 and not any(mailboxes(task).values()):
            call_back(task, jobid)
        leap(seconds)

    monkeypatch.setattr(clock, "leap", calls_meanwhile)

    ending = task.retry()

    assert (ending.value, ending.legs) == (jobid, 4)
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize(("status", "retry_failed", "new"), [("failed", False, 0), ("failed", True, 1)])
def test_a_job_that_was_told_to_have_failed_goes_the_usual_way(
    pika_emulator: EmulatorClient, life: Lives, status: str, retry_failed: bool, new: int
) -> None:
    task = life(submit(retry_failed=retry_failed))
    jobid = killed_and_ended(task, pika_emulator, status)

    ending = task.retry()

    assert asked(pika_emulator) == 1 + new
    if new:
        assert (ending.state, len(mailboxes(task))) == ("success", 1)
        assert ending.value != jobid
    else:
        assert type(ending.error) is AirflowFailException
        assert type(ending.cause) is PikaJobFailedError
        assert ending.cause.jobid == jobid


def test_a_failed_job_of_this_very_try_is_left_to_its_retries(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer lost, it is told to have failed while a later leg looks for it: each retry makes one job, no leg."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504)
    task = life(submit(retry_failed=True))
    leap = clock.leap

    def fails_meanwhile(seconds: float) -> None:
        leap(seconds)
        if clock.reschedules and not any(mailboxes(task).values()):
            end(pika_emulator, *jobids(pika_emulator), "failed")
            call_back(task, *jobids(pika_emulator))

    monkeypatch.setattr(clock, "leap", fails_meanwhile)

    ending = task.run()

    assert type(ending.error) is PikaJobFailedError
    assert asked(pika_emulator) == 1


@pytest.mark.parametrize("status", ["moderated", "cancelled"])
def test_a_job_that_was_told_to_have_ended_badly_fails_the_task(
    pika_emulator: EmulatorClient, life: Lives, status: str
) -> None:
    task = life(submit(retry_failed=True))
    jobid = killed_and_ended(task, pika_emulator, status)

    ending = task.retry()

    assert type(ending.error) is AirflowFailException
    assert ending.xcoms == {"jobid": jobid}
    assert asked(pika_emulator) == 1


def test_a_read_that_fails_in_passing_is_a_poll_that_failed(pika_emulator: EmulatorClient, life: Lives) -> None:
    task = life(submit())
    jobid = killed_and_ended(task, pika_emulator)
    pika_emulator.fault("job", "server_error", status=503, times=2)

    ending = task.retry()

    assert (ending.value, ending.legs) == (jobid, 3)
    assert asked(pika_emulator) == 1


# Whose job it is


@pytest.mark.parametrize("by", ["the service", "anybody"])
def test_no_forged_call_hands_out_a_strangers_job_and_the_true_one_is_still_found(
    pika_emulator: EmulatorClient, life: Lives, by: str
) -> None:
    neighbour = life(submit(), task_id="a_neighbour").run().value
    task = life(submit())
    crash_before_answer(task)
    jobid = jobids(pika_emulator)[-1]
    end(pika_emulator, jobid)
    forge(task, neighbour, MADE_UP, "../account", "x" * 200, *[jobid] * (by == "anybody"))
    if by == "the service":
        call_back(task, neighbour, jobid)

    assert task.retry().value == jobid
    assert asked(pika_emulator) == 2


def test_forged_calls_change_nothing_but_a_few_reads(pika_emulator: EmulatorClient, life: Lives) -> None:
    """The task ends as without them; a stranger's job is read once, not by each leg anew."""
    neighbour = life(submit(), task_id="a_neighbour").run().value
    end(pika_emulator, neighbour)
    task = life(submit())
    crash_before_answer(task, made=False)
    forge(task, neighbour, MADE_UP, "None", "no jobid/at all")

    ending = task.retry()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert pika_emulator.counters()["polls"]["by_job"][neighbour]["count"] == 1
    assert task.clear().state == "success"
    assert asked(pika_emulator) == 2


@pytest.mark.parametrize("map_index", [-1, 3])
def test_a_reference_that_others_use_finds_ones_own_job_by_its_mailbox(
    pika_emulator: EmulatorClient, life: Lives, map_index: int
) -> None:
    """The neighbour's job carries the same reference, and a forged call names it first."""
    neighbour = life(submit(reply_ref="the campaign"), task_id="a_neighbour").run().value
    task = life(submit(reply_ref="the campaign"), map_index=map_index)
    crash_before_answer(task)
    jobid = jobids(pika_emulator)[-1]
    end(pika_emulator, jobid)
    forge(task, neighbour)
    call_back(task, jobid)

    assert task.retry().value == jobid
    assert asked(pika_emulator) == 2


def test_a_running_job_under_a_reference_that_others_use_is_found_too(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    life(submit(reply_ref="the campaign"), task_id="a_neighbour").run()
    task = life(submit(reply_ref="the campaign"))
    crash_before_answer(task)

    assert task.retry().value == jobids(pika_emulator)[-1]
    assert asked(pika_emulator) == 2


def test_under_a_reference_that_others_use_nothing_is_sent_once_more(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Whether the service tells the replyUrl of a job is not known, so not finding it proves nothing."""
    pika_emulator.fault("submit", "drop_before")

    ending = life(submit(reply_ref="the campaign")).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert asked(pika_emulator) == 1


# A lost answer, in the process that lost it


def test_a_job_that_ended_while_its_answer_was_lost_is_found_without_a_list(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "drop_after")
    send = PikaHook.send
    task = life(submit())

    def ends_meanwhile(self: PikaHook, *args: Any, **about: Any) -> Any:
        try:
            return send(self, *args, **about)
        finally:
            end(pika_emulator, *jobids(pika_emulator))
            call_back(task, *jobids(pika_emulator))

    monkeypatch.setattr(PikaHook, "send", ends_meanwhile)

    ending = task.run()

    assert (ending.state, [ending.value]) == ("success", jobids(pika_emulator))
    assert asked(pika_emulator) == 1
    assert lists_asked(pika_emulator) == 0


@pytest.mark.parametrize("sleep", [1, 6])
def test_a_call_that_comes_before_the_second_submit_saves_it(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch, sleep: int
) -> None:
    """A job that is never listed: without the call its task would have paid twice."""
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    task = life(submit())
    slept = clock.sleep

    def calls_meanwhile(seconds: float) -> None:
        slept(seconds)
        if len(clock.sleeps) == sleep:
            call_back(task, *jobids(pika_emulator))

    monkeypatch.setattr("airflow_provider_pika.operators.search.time.sleep", calls_meanwhile)

    ending = task.run()

    assert [ending.value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_a_call_that_comes_with_the_last_list_saves_the_second_submit(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "drop_after")
    task = life(submit())
    ask = PikaHook.list_jobs

    def calls_meanwhile(self: PikaHook) -> list[str]:
        if sum(clock.sleeps) >= 60 and not any(mailboxes(task).values()):
            call_back(task, *jobids(pika_emulator))
        return ask(self)

    monkeypatch.setattr(PikaHook, "list_jobs", calls_meanwhile)

    assert [task.run().value] == jobids(pika_emulator)
    assert asked(pika_emulator) == 1


def test_both_submits_of_a_try_report_to_one_mailbox(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job is called back for when the second submit has been lost as well: it is this task's, too."""
    pika_emulator.fault("submit", "drop_before", times=2)
    send, urls = PikaHook.send, []

    def noted(self: PikaHook, call: Any, *args: Any, **about: Any) -> Any:
        urls.append((call.fields["replyUrl"], *mailboxes(task)))
        return send(self, call, *args, **about)

    monkeypatch.setattr(PikaHook, "send", noted)
    task = life(submit())
    task.run()

    assert len(urls) == 2
    assert urls[0] == urls[1]


# A clear


@pytest.mark.parametrize(
    ("status", "on_clear", "prompt", "new"),
    [
        ("started", "new", "waves", False),
        ("started", "new", "clouds", True),
        ("completed", "new", "waves", True),
        ("completed", "keep", "waves", False),
        ("completed", "keep", "clouds", True),
        ("failed", "keep", "waves", True),
        ("moderated", "keep", "waves", True),
    ],
)
def test_a_clear_treats_a_job_out_of_the_mailbox_like_any_other(
    pika_emulator: EmulatorClient, life: Lives, status: str, on_clear: str, prompt: str, new: bool
) -> None:
    task = life(submit(on_clear=on_clear))
    jobid = killed_and_ended(task, pika_emulator, status)
    (old,) = mailboxes(task)

    ending = task.clear(submit(on_clear=on_clear, prompt=prompt))

    assert ending.state == "success"
    assert (ending.value != jobid, asked(pika_emulator)) == (new, 1 + new)
    # The one of before the clear is gone with its submit: a call to its old URL meets nothing.
    assert (old not in mailboxes(task), len(mailboxes(task))) == (new, 1)


def test_a_cleared_task_that_is_killed_again_adopts_only_the_new_job(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """With a reference of the user's own both jobs carry it; the mailbox tells them apart."""
    ref = "my_dag/manual__2026-01-02T03:04:05+00:00/submit"
    task = life(submit(reply_ref=ref))
    first = task.run().value
    task.ti.max_tries, task.ti.try_number = 3, 2
    task.make = submit(reply_ref=ref, prompt="other")
    second = killed_and_ended(task, pika_emulator)
    call_back(task, first)

    assert task.retry().value == second
    assert asked(pika_emulator) == 2


def test_a_record_from_before_callbacks_were_set_is_searched_for_as_ever(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", pika_emulator.conn_uri)
    task = life(lambda: EncryptTextOperator(task_id="submit", message="HELLO", prompt="waves"))
    crash_before_answer(task)
    has_callbacks(monkeypatch, pika_emulator)

    assert [task.retry().value] == jobids(pika_emulator)
    assert mailboxes(task) == {}
