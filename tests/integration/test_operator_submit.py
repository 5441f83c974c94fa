"""EncryptTextOperator submits once: what is sent, what is pushed, and how each answer of the API ends the task."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_pika.compat import AirflowFailException, AirflowRescheduleException, AirflowSensorTimeout
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.settings import DEFAULT_CHANNEL
from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaJobFailedError,
    PikaModeratedError,
    PikaPaymentError,
    PikaRequestError,
    PikaUnavailableError,
)
from airflow_provider_pika.operators.pika import EncryptTextOperator
from tests.support.submits import STORES, Lives, submit
from tests.support.task_context import Clock


@STORES
def test_the_jobid_is_the_result_and_the_xcom_jobid(pika_emulator: EmulatorClient, life: Lives, stored: bool) -> None:
    ending = life(submit(), stored=stored).run()

    (job,) = pika_emulator.jobs()
    assert ending.state == "success"
    assert ending.xcoms == {"return_value": job["jobid"], "jobid": job["jobid"]}


@STORES
def test_without_do_xcom_push_nothing_is_pushed(pika_emulator: EmulatorClient, life: Lives, stored: bool) -> None:
    task = life(submit(do_xcom_push=False), stored=stored)

    assert task.run().xcoms == {}
    assert task.retry().xcoms == {}
    assert len(pika_emulator.jobs()) == 1 or not stored


def test_without_do_xcom_push_the_jobid_of_a_refused_job_is_not_pushed(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    pika_emulator.fault("submit", "moderated")

    assert life(submit(do_xcom_push=False)).run().xcoms == {}


def test_all_nine_fields_reach_the_api(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    picture = tmp_path / "frame.png"
    picture.write_bytes(b"\x89PNG" + b"x" * 1000)
    connection = {**pika_emulator.connection, "extra": {"discord_token": "abcdefghijklmnopqrstuvwxyz"}}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps(connection))
    jobid = (
        life(
            submit(
                font="RETRO",
                image=str(picture),
                channel="2000000000000000002",
                max_jobs="3",
                reply_url="http://127.0.0.1:9/hook",
                reply_ref="order 7",
            )
        )
        .run()
        .value
    )

    from airflow_provider_pika.hooks.pika import PikaHook

    got = PikaHook().get_job(jobid).raw
    wanted = {
        "message": "HELLO",
        "prompt": "waves",
        "font": "RETRO",
        "image": {"size": 1004, "type": "image/png"},
        "discord": "<abc…secured…xyz>",
        "channel": "2000000000000000002",
        "maxJobs": 3,
        "replyUrl": "http://127.0.0.1:9/hook",
        "replyRef": "order 7",
    }
    assert {name: got.get(name) for name in wanted} == wanted


def test_every_field_of_the_api_and_the_connection_can_be_templated() -> None:
    fields = {"message", "prompt", "font", "image", "channel", "max_jobs", "reply_url", "reply_ref", "pika_conn_id"}
    assert fields <= set(EncryptTextOperator.template_fields)


# The queue


@STORES
def test_a_full_queue_reschedules_by_15_to_30_s_and_makes_no_job(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, stored: bool
) -> None:
    pika_emulator.fault("submit", "queue_full", times=1)
    task = life(submit(), stored=stored)

    with pytest.raises(AirflowRescheduleException) as caught:
        task.leg()

    date = caught.value.reschedule_date
    assert date.utcoffset() == timedelta(0)
    assert 14.5 <= (date - clock.now()).total_seconds() <= 30
    assert pika_emulator.jobs() == []
    assert task.run().state == "success"
    assert pika_emulator.counters()["submits"]["asked"] == 2


def test_many_waits_for_the_queue_use_no_try_and_grow_but_stay_bounded(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    pika_emulator.fault("submit", "queue_full", times=40)

    ending = life(submit()).run()

    assert (ending.state, ending.legs) == ("success", 41)
    assert len(pika_emulator.jobs()) == 1
    assert min(clock.reschedules) >= 14.9
    assert max(clock.reschedules) <= 600


@pytest.mark.parametrize(
    ("said", "least", "most"), [(3.5, 14.9, 31), (47, 46.9, 63), (400, 399.9, 416)], ids=["short", "47", "400"]
)
def test_a_discord_429_is_waited_out_and_never_under_15_s(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, said: float, least: float, most: float
) -> None:
    pika_emulator.fault("submit", "discord_429", retry_after=said)

    assert life(submit()).run().state == "success"

    (wait,) = clock.reschedules
    assert least <= wait <= most


@pytest.mark.parametrize(("kind", "params"), [("discord_429", {"unreadable": True}), ("rate_limit", {})])
def test_a_429_that_names_no_pause_is_waited_out_like_a_full_queue(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, kind: str, params: dict[str, Any]
) -> None:
    pika_emulator.fault("submit", kind, **params)

    assert life(submit()).run().state == "success"

    (wait,) = clock.reschedules
    assert 14.9 <= wait <= 30
    assert len(pika_emulator.jobs()) == 1


@STORES
def test_past_queue_timeout_the_task_times_out_and_names_the_last_answer(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock, stored: bool
) -> None:
    pika_emulator.fault("submit", "queue_full", times=1000)

    ending = life(submit(queue_timeout=timedelta(seconds=100)), stored=stored).run()

    assert isinstance(ending.error, AirflowSensorTimeout)
    assert "queue_timeout" in str(ending.error)
    assert "HTTP 429" in str(ending.error)
    assert "jobs executing in parallel supported" in str(ending.error)
    assert 70 <= clock.passed <= 130
    assert pika_emulator.jobs() == []


def test_a_pause_longer_than_what_is_left_of_queue_timeout_ends_at_once(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    pika_emulator.fault("submit", "discord_429", retry_after=3600)

    ending = life(submit(queue_timeout=600)).run()

    assert isinstance(ending.error, AirflowSensorTimeout)
    assert clock.reschedules == []


def test_queue_timeout_counts_over_retries_and_starts_over_with_a_clear(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    """With a store: from the first attempt since the last clear."""
    pika_emulator.fault("submit", "queue_full", times=1)
    task = life(submit(queue_timeout=1000))
    with pytest.raises(AirflowRescheduleException):
        task.leg()
    clock.leap(990)
    pika_emulator.fault("submit", "queue_full", times=1000)

    task.ti.try_number = 2
    assert isinstance(task.run().error, AirflowSensorTimeout)
    assert clock.reschedules == []

    asked = clock.passed
    assert isinstance(task.clear().error, AirflowSensorTimeout)
    assert 950 <= clock.passed - asked <= 1050


def test_without_a_store_queue_timeout_counts_from_the_first_leg_of_a_try(
    pika_emulator: EmulatorClient, life: Lives, clock: Clock
) -> None:
    pika_emulator.fault("submit", "queue_full", times=1000)
    task = life(submit(queue_timeout=300), stored=False)

    for attempt in (task.run, task.retry):
        before = clock.passed
        assert isinstance(attempt().error, AirflowSensorTimeout)
        # A storeless retry looks for an earlier job for half a minute first.
        assert 250 <= clock.passed - before <= 365


# Refusals

REFUSALS: list[tuple[str, dict[str, Any], type[PikaError], str]] = [
    ("bad_request", {}, PikaRequestError, "HTTP 400"),
    ("unauthorized", {}, PikaAuthError, "HTTP 401"),
    ("payment", {}, PikaPaymentError, "HTTP 402"),
    ("moderated", {"reason": "no swans"}, PikaModeratedError, "no swans"),
    ("redirect", {}, PikaRequestError, "redirect"),
]


@STORES
@pytest.mark.parametrize(("kind", "params", "error", "words"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_what_no_retry_can_mend_fails_at_once_with_the_pika_error_as_its_cause(
    pika_emulator: EmulatorClient,
    life: Lives,
    kind: str,
    params: dict[str, Any],
    error: type[PikaError],
    words: str,
    stored: bool,
) -> None:
    pika_emulator.fault("submit", kind, **params)

    ending = life(submit(), stored=stored).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is error
    assert words in str(ending.error)
    assert f"{pika_emulator.url}/v1/pika/encrypt_text" in str(ending.error)
    assert str(ending.error) == str(ending.cause)
    assert pika_emulator.counters()["submits"]["asked"] == 1


def test_a_moderated_submit_tells_its_jobid(pika_emulator: EmulatorClient, life: Lives) -> None:
    pika_emulator.fault("submit", "moderated")

    ending = life(submit()).run()

    (job,) = pika_emulator.jobs()
    assert ending.xcoms == {"jobid": job["jobid"]}
    assert ending.cause.jobid == job["jobid"]
    assert job["jobid"] in str(ending.error)


@STORES
def test_a_submit_answered_200_but_failed_fails_the_task_and_tells_its_jobid(
    pika_emulator: EmulatorClient, life: Lives, stored: bool
) -> None:
    pika_emulator.fault("submit", "failed", reason="the bot is asleep")

    ending = life(submit(), stored=stored).run()

    (job,) = pika_emulator.jobs()
    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaJobFailedError
    assert "the bot is asleep" in str(ending.error)
    assert ending.xcoms == {"jobid": job["jobid"]}
    assert ending.cause.jobid == job["jobid"]


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"message": ""}, "message"),
    ({"message": None}, "message"),
    ({"message": "x" * 21}, "21"),
    ({"message": "😀" * 11}, "22"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": "x" * 1501}, "1501"),
    ({"font": "COMIC SANS"}, "font"),
    ({"max_jobs": 11}, "max_jobs"),
    ({"max_jobs": "many"}, "max_jobs"),
    ({"reply_url": "http://" + "x" * 1024}, "reply_url"),
    ({"reply_ref": "x" * 1025}, "reply_ref"),
    ({"image": "/no/such/picture.png"}, "/no/such/picture.png"),
    ({"image": "/"}, "folder"),
]


@pytest.mark.parametrize(("about", "word"), BAD_INPUT, ids=[f"{next(iter(a))}-{w[-9:]}" for a, w in BAD_INPUT])
def test_bad_input_fails_without_retries_and_nothing_is_sent(
    pika_emulator: EmulatorClient, life: Lives, about: dict[str, Any], word: str
) -> None:
    ending = life(submit(**about)).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaRequestError
    assert word in str(ending.error)
    assert pika_emulator.counters()["requests"] == 0


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ({"password": None}, "no API token"),
        ({"host": "http://a b"}, "no usable host"),
        ({"host": "http://"}, "no usable host"),
        ({"extra": {"discord_token": "a" * 30}}, "without a channel"),
    ],
    ids=["tokenless", "nonsense", "hostless", "discord_alone"],
)
def test_an_unusable_connection_fails_without_retries_and_is_named(
    pika_emulator: EmulatorClient,
    life: Lives,
    monkeypatch: pytest.MonkeyPatch,
    connection: dict[str, Any],
    words: str,
) -> None:
    about = {name: value for name, value in {**pika_emulator.connection, **connection}.items() if value}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_OTHER", json.dumps(about))

    ending = life(submit(pika_conn_id="pika_other")).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaRequestError
    assert words in str(ending.error)
    assert "pika_other" in str(ending.error) or words == "without a channel"
    assert pika_emulator.counters()["requests"] == 0


def test_a_connection_that_cannot_be_read_may_be_retried_and_says_what_to_put_where(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """Airflow hands a failing secrets backend over as "not found", so a missing connection is not final."""
    ending = life(submit(pika_conn_id="pika_other")).run()

    assert ending.state == "up_for_retry"
    assert type(ending.error) is PikaUnavailableError
    for words in ("'pika_other'", "does not exist or could not be read", "password", "host"):
        assert words in str(ending.error)
    assert pika_emulator.counters()["requests"] == 0


def test_a_submit_that_certainly_never_left_may_be_retried(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens there: no job was made, so the next try may simply submit."""
    about = {**pika_emulator.connection, "host": "http://127.0.0.1:9"}
    task = life(submit())
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps(about))
    ending = task.run()
    assert ending.state == "up_for_retry"
    assert type(ending.error) is PikaUnavailableError

    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", pika_emulator.conn_uri)
    assert task.retry().state == "success"
    assert pika_emulator.counters()["lists"] == 0
    assert len(pika_emulator.jobs()) == 1


def test_no_secret_is_in_what_a_task_says_stores_or_pushes(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "abcdefghijklmnopqrstuvwxyz.discord"
    about = {**pika_emulator.connection, "extra": {"discord_token": secret, "channel": DEFAULT_CHANNEL}}
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps(about))
    pika_emulator.fault("submit", "server_error", status=500, work=True)
    pika_emulator.configure(seconds=30)
    task = life(submit(wait_for_completion=True, deferrable=True))

    ending = task.run()

    assert ending.state == "success"
    everything = task.log.text + repr(task.store.values) + repr(ending)
    assert pika_emulator.token not in everything
    assert secret not in everything
