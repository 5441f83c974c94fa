"""Every row of the contract's answer tables, from the emulator over HTTP."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaModeratedError,
    PikaNotFoundError,
    PikaPaymentError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import JOBID, READS, connect, read, submit

# name -> fault, its parameters, the error of a read, its status
READ_FAULTS: dict[str, tuple[str, dict[str, Any], type[PikaError], int | None]] = {
    "400": ("bad_request", {}, PikaRequestError, 400),
    "401": ("unauthorized", {}, PikaAuthError, 401),
    "402": ("payment", {}, PikaPaymentError, 402),
    "403": ("forbidden", {}, PikaRequestError, 403),
    "403 of a firewall": ("html", {"status": 403}, PikaUnavailableError, 403),
    "404 of a web server": ("html", {"status": 404}, PikaUnavailableError, 404),
    "302 to a login": ("html", {"status": 302}, PikaUnavailableError, 302),
    "401 of a gateway": ("html", {"status": 401}, PikaAuthError, 401),
    "404": ("not_found", {}, PikaNotFoundError, 404),
    "404 of the framework": ("route_missing", {}, PikaUnavailableError, 404),
    "429 Discord": ("discord_429", {"retry_after": 3.5}, PikaRateLimitedError, 429),
    "429 Discord unreadable": ("discord_429", {"unreadable": True}, PikaRateLimitedError, 429),
    "429 header": ("rate_limit", {"retry_after": 12}, PikaRateLimitedError, 429),
    "429 plain": ("rate_limit", {}, PikaRateLimitedError, 429),
    "500": ("server_error", {"status": 500}, PikaUnavailableError, 500),
    "502": ("server_error", {"status": 502}, PikaUnavailableError, 502),
    "503": ("server_error", {"status": 503}, PikaUnavailableError, 503),
    "504": ("server_error", {"status": 504}, PikaUnavailableError, 504),
    "HTML": ("html", {}, PikaUnavailableError, 200),
    "HTML of a gateway": ("html", {"status": 502}, PikaUnavailableError, 502),
    "empty": ("empty", {}, PikaUnavailableError, 200),
    "of another shape": ("list_instead", {}, PikaUnavailableError, 200),
    "redirect": ("redirect", {}, PikaUnavailableError, 307),
    "dropped before": ("drop_before", {}, PikaUnavailableError, None),
    "dropped after": ("drop_after", {}, PikaUnavailableError, None),
}
RETRY_AFTER = {"429 Discord": 3.5, "429 Discord unreadable": None, "429 header": 12, "429 plain": None}
# name -> fault, its parameters, the error, its status, how many jobs it left behind
SUBMIT_FAULTS: dict[str, tuple[str, dict[str, Any], type[PikaError], int | None, int]] = {
    "400": ("bad_request", {}, PikaRequestError, 400, 0),
    "401": ("unauthorized", {}, PikaAuthError, 401, 0),
    "402": ("payment", {}, PikaPaymentError, 402, 0),
    "403": ("forbidden", {}, PikaRequestError, 403, 0),
    "404 of the framework": ("route_missing", {}, PikaNotFoundError, 404, 0),
    "403 of a firewall": ("html", {"status": 403}, PikaRequestError, 403, 0),
    "404 of a web server": ("html", {"status": 404}, PikaNotFoundError, 404, 0),
    "422": ("moderated", {}, PikaModeratedError, 422, 1),
    "429 full": ("queue_full", {}, PikaQueueFullError, 429, 0),
    "429 Discord": ("discord_429", {"retry_after": 3.5}, PikaRateLimitedError, 429, 0),
    "429 Discord unreadable": ("discord_429", {"unreadable": True}, PikaRateLimitedError, 429, 0),
    "429 header": ("rate_limit", {"retry_after": 12}, PikaRateLimitedError, 429, 0),
    "429 plain": ("rate_limit", {}, PikaRateLimitedError, 429, 0),
    "500": ("server_error", {"status": 500}, PikaUnknownOutcomeError, 500, 0),
    "500 with a job": ("server_error", {"status": 500, "work": True}, PikaUnknownOutcomeError, 500, 1),
    "502": ("server_error", {"status": 502}, PikaUnknownOutcomeError, 502, 0),
    "503": ("server_error", {"status": 503}, PikaUnknownOutcomeError, 503, 0),
    "504": ("server_error", {"status": 504}, PikaUnknownOutcomeError, 504, 1),
    "HTML": ("html", {"work": True}, PikaUnknownOutcomeError, 200, 1),
    "empty": ("empty", {}, PikaUnknownOutcomeError, 200, 1),
    "of another shape": ("list_instead", {}, PikaUnknownOutcomeError, 200, 1),
    "no jobid": ("no_jobid", {}, PikaUnknownOutcomeError, 200, 1),
    "redirect": ("redirect", {}, PikaRequestError, 307, 0),
    "dropped before": ("drop_before", {}, PikaUnknownOutcomeError, None, 0),
    "dropped after": ("drop_after", {}, PikaUnknownOutcomeError, None, 1),
}


def polls(pika_emulator: Any) -> int:
    return int(pika_emulator.counters()["requests"])


@pytest.mark.parametrize("on", READS)
@pytest.mark.parametrize("row", READ_FAULTS)
def test_a_failed_read_is_told_after_one_request(pika_emulator: Any, on: str, row: str) -> None:
    fault, params, kind, status = READ_FAULTS[row]
    about = (submit().jobid,) if on in ("job", "cancel") else ()
    before = polls(pika_emulator)
    pika_emulator.fault(on, fault, times=2, **params)
    error = read(on, *about)
    assert polls(pika_emulator) == before + 1
    assert type(error) is kind
    assert error.status == status
    assert pika_emulator.url in str(error)
    assert error.jobid == (about[0] if about else None)
    if row in RETRY_AFTER:
        assert error.retry_after == RETRY_AFTER[row]


@pytest.mark.parametrize("on", ["job", "list", "cancel", "account"])
def test_a_read_that_is_cut_short_is_worded_so(pika_emulator: Any, on: str) -> None:
    if on in ("job", "cancel"):
        jobid = submit().jobid
    pika_emulator.fault(on, "cut")
    error = read(on, *([jobid] if on in ("job", "cancel") else []))
    assert type(error) is PikaUnavailableError
    assert "cut short" in str(error)
    assert "Is the host of the connection 'pika_default' right" not in str(error)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_who_was_connected_and_dropped_is_not_sent_to_check_the_host(pika_emulator: Any, fault: str) -> None:
    pika_emulator.fault("job", fault)
    assert "Is the host of the connection 'pika_default' right" not in str(read("job"))


def test_a_slow_read_ends_at_the_connections_timeout(pika_emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, pika_emulator.url, pika_emulator.token, timeout=0.4)
    pika_emulator.fault("list", "slow", seconds=1.2)
    error = read("list")
    assert type(error) is PikaUnavailableError
    assert (error.status, error.jobid) == (None, None)
    assert re.search("time", str(error), re.IGNORECASE)
    assert polls(pika_emulator) == 1


def test_a_read_that_comes_without_a_jobid_is_about_the_job_asked_for(pika_emulator: Any) -> None:
    jobid = submit().jobid
    pika_emulator.fault("job", "no_jobid")
    assert read("job", jobid).jobid == jobid


@pytest.mark.parametrize("on", ["job", "cancel"])
def test_a_jobid_that_does_not_exist_is_not_found(pika_emulator: Any, on: str) -> None:
    error = read(on)
    assert type(error) is PikaNotFoundError
    assert (error.status, error.error, error.jobid) == (404, f"Unable to locate job {JOBID}", JOBID)


@pytest.mark.parametrize("on", READS)
def test_a_wrong_token_is_refused(pika_emulator: Any, on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, pika_emulator.url, "user:1-wrong-token")
    error = read(on)
    assert type(error) is PikaAuthError
    assert (error.status, error.error) == (401, "Unauthorized")


@pytest.mark.parametrize("row", SUBMIT_FAULTS)
def test_a_submit_is_sent_once_and_its_answer_told(pika_emulator: Any, row: str) -> None:
    fault, params, kind, status, jobs = SUBMIT_FAULTS[row]
    pika_emulator.fault("submit", fault, **params)
    error = submit()
    assert type(error) is kind
    assert error.status == status
    assert f"POST {pika_emulator.url}/v1/pika/encrypt_text" in str(error)
    counters = pika_emulator.counters()
    assert (counters["requests"], counters["submits"]["asked"], len(counters["jobs"])) == (1, 1, jobs)
    if row in RETRY_AFTER:
        assert error.retry_after == RETRY_AFTER[row]
    if kind is PikaUnknownOutcomeError:
        assert "may have been made and paid for" in str(error)


def test_a_submit_that_is_cut_short_is_of_unknown_outcome_and_worded_so(pika_emulator: Any) -> None:
    pika_emulator.fault("submit", "cut")
    error = submit()
    assert type(error) is PikaUnknownOutcomeError
    assert re.search("cut short|IncompleteRead", str(error))
    assert len(pika_emulator.jobs()) == pika_emulator.counters()["submits"]["asked"] == 1


def test_a_submit_that_is_not_answered_in_time_is_of_unknown_outcome(
    pika_emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_pika.hooks.settings.SUBMIT_TIMEOUT", 0.4)
    connect(monkeypatch, pika_emulator.url, pika_emulator.token, timeout=0.1)
    pika_emulator.fault("submit", "slow", seconds=1.2)
    error = submit()
    assert type(error) is PikaUnknownOutcomeError
    assert pika_emulator.counters()["submits"]["asked"] == 1


def test_a_slow_submit_is_waited_for_longer_than_a_read(pika_emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, pika_emulator.url, pika_emulator.token, timeout=0.2)
    pika_emulator.fault("submit", "slow", seconds=0.7)
    assert isinstance(submit(), Job)


def test_a_moderated_submit_carries_its_job_and_the_bots_words(pika_emulator: Any) -> None:
    pika_emulator.fault("submit", "moderated", reason="No such thing")
    error = submit()
    (job,) = pika_emulator.jobs()
    assert (error.jobid, error.error, error.details) == (
        job["jobid"],
        "Sorry, your input may be inconsistent with server rules.",
        "No such thing",
    )
    assert job["jobid"] in str(error)


def test_a_bad_bot_parameter_is_a_422(pika_emulator: Any) -> None:
    error = submit(prompt="waves -nonsense 3")
    assert type(error) is PikaModeratedError
    assert (error.error, error.details) == ("Invalid parameter", "Unrecognized parameter(s): `nonsense`")


def test_a_full_queue_names_the_jobs_in_the_way(pika_emulator: Any) -> None:
    pika_emulator.configure(max_jobs=1, seconds=600)
    running = submit()
    error = submit()
    assert type(error) is PikaQueueFullError
    assert error.executing_jobs == [running.jobid]
    assert len(pika_emulator.jobs()) == 1


def test_max_jobs_of_the_request_goes_before_the_accounts(pika_emulator: Any) -> None:
    pika_emulator.configure(max_jobs=5, seconds=600)
    assert isinstance(submit(max_jobs="1"), Job)
    assert type(submit(max_jobs=1)) is PikaQueueFullError


def test_a_channel_that_is_not_configured_is_a_400(pika_emulator: Any) -> None:
    error = submit(channel="42")
    assert type(error) is PikaRequestError
    assert error.status == 400
    assert "42" in error.details


def test_a_submit_that_answers_200_failed_is_a_job_that_failed(pika_emulator: Any) -> None:
    pika_emulator.fault("submit", "failed", reason="The bot is ill")
    job = submit()
    assert (job.status, job.is_final, job.raw["code"]) == ("failed", True, 200)


def test_all_nine_fields_arrive(pika_emulator: Any, tmp_path: Any) -> None:
    """As they were given, and come back in the answer; `discord` masked."""
    image = tmp_path / "cat.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500_000))
    fields = {
        "message": "HÉLLO 🎬",
        "prompt": 'waves "at" dawn\nand\r\nöde & more',
        "font": "SANS SERIF",
        "channel": "77",
        "discord": "abcdefghijklmnop",
        "max_jobs": 4,
        "reply_url": "http://127.0.0.1:9/callback?a=b&c=d",
        "reply_ref": "réf 1",
    }
    raw = submit(image=str(image), **fields).raw
    names = {"max_jobs": "maxJobs", "reply_url": "replyUrl", "reply_ref": "replyRef"}
    arrived = {name: raw[names.get(name, name)] for name in fields}
    assert arrived == fields | {"discord": "<abc…secured…nop>"}
    assert raw["image"] == {"size": image.stat().st_size, "type": "image/png"}


def test_the_connections_extras_are_the_defaults_of_a_submit(
    pika_emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(
        monkeypatch, pika_emulator.url, pika_emulator.token, channel="55", discord_token="abcdefghijklmnop", max_jobs=2
    )
    raw = submit().raw
    assert (raw["channel"], raw["discord"], raw["maxJobs"]) == ("55", "<abc…secured…nop>", 2)


def test_an_argument_goes_before_the_connections_extra(pika_emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(
        monkeypatch, pika_emulator.url, pika_emulator.token, channel="55", discord_token="abcdefghijklmnop", max_jobs=2
    )
    raw = submit(channel="66", max_jobs=3).raw
    assert (raw["channel"], raw["maxJobs"]) == ("66", 3)


def test_a_job_is_followed_from_started_to_its_video(pika_emulator: Any) -> None:
    pika_emulator.configure(reads=3)
    job = submit()
    assert (job.status, job.video_url, ":" in job.jobid) == ("started", None, True)
    assert read("list") == [job.jobid]
    found = [read("job", job.jobid) for _ in range(3)]
    assert [each.status for each in found] == ["started", "progress", "completed"]
    assert found[-1].video_url.startswith(f"{pika_emulator.url}/attachments/")
    assert found[-1].attachments == found[-1].raw["attachments"]
    assert read("list") == []


@pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
def test_a_job_that_ended_badly_is_read_without_an_error(pika_emulator: Any, status: str) -> None:
    pika_emulator.fault("submit", "end_as", status=status, reason="the words")
    job = read("job", submit().jobid)
    assert (job.status, job.is_final) == (status, True)
    assert "the words" in job.reason


def test_an_unknown_state_is_read_as_running(pika_emulator: Any) -> None:
    pika_emulator.configure(seconds=600)
    jobid = submit().jobid
    pika_emulator.advance(jobid=jobid, status="upscaling")
    job = read("job", jobid)
    assert (job.status, job.is_final, job.is_known) == ("upscaling", False, False)


def test_a_running_job_is_cancelled(pika_emulator: Any) -> None:
    pika_emulator.configure(seconds=600)
    jobid = submit().jobid
    job = read("cancel", jobid)
    assert (job.jobid, job.status) == (jobid, "cancelled")
    assert pika_emulator.counters()["cancels"] == {jobid: 1}


def test_cancelling_an_ended_job_is_fine_and_tells_its_state(pika_emulator: Any) -> None:
    jobid = submit().jobid
    assert read("cancel", jobid).status == "completed"


def test_accounts_come_by_channel(pika_emulator: Any) -> None:
    pika_emulator.configure(channels={"11": 3, "22": 10})
    accounts = read("account")
    assert {channel: about["maxJobs"] for channel, about in accounts.items()} == {"11": 3, "22": 10}


def test_no_account_is_an_empty_dict(pika_emulator: Any) -> None:
    pika_emulator.configure(channels={})
    assert read("account") == {}


@pytest.mark.parametrize("jobid", [None, "None", "", ["job:1"]])
@pytest.mark.parametrize("on", ["job", "cancel"])
def test_a_jobid_that_is_none_is_refused_without_a_request(pika_emulator: Any, on: str, jobid: Any) -> None:
    assert type(read(on, jobid)) is PikaRequestError
    assert polls(pika_emulator) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"message": ""},
        {"message": "x" * 21},
        {"message": "🎬" * 10 + "x"},
        {"message": None},
        {"prompt": ""},
        {"prompt": "x" * 1501},
        {"font": "ARIAL"},
        {"max_jobs": 11},
        {"reply_url": "x" * 1025},
        {"reply_ref": "x" * 1025},
        {"discord": "secret"},
        {"prompt": "half \ud83c"},
    ],
    ids=lambda fields: ascii(fields)[:30],
)
def test_bad_input_is_refused_without_a_request(pika_emulator: Any, fields: dict[str, Any]) -> None:
    assert type(submit(**fields)) is PikaRequestError
    assert polls(pika_emulator) == 0


@pytest.mark.parametrize("make", ["missing", "folder", "empty"])
def test_a_bad_image_is_refused_by_its_path_without_a_request(pika_emulator: Any, tmp_path: Any, make: str) -> None:
    path = tmp_path / "cat.png"
    if make == "folder":
        path.mkdir()
    elif make == "empty":
        path.touch()
    error = submit(image=str(path))
    assert type(error) is PikaRequestError
    assert str(path) in str(error)
    assert polls(pika_emulator) == 0


def test_a_large_image_is_sent_whole_from_its_path(pika_emulator: Any, tmp_path: Any) -> None:
    image = tmp_path / "Käse 'n' \"ham\".jpg"
    image.write_bytes(b"\xff\xd8\xff" + bytes(5_000_000))
    assert submit(image=str(image)).raw["image"] == {"size": 5_000_003, "type": "image/jpeg"}


def test_the_connection_test_says_yes_and_asks_nothing_that_costs(pika_emulator: Any) -> None:
    ok, said = PikaHook().test_connection()
    assert ok
    assert pika_emulator.url in said
    (request,) = pika_emulator.requests()
    assert (request["method"], request["path"]) == ("GET", "/v2/account")


@pytest.mark.parametrize("fault", ["unauthorized", "html", "drop_before", "route_missing", "list_instead"])
def test_the_connection_test_says_no_and_why(pika_emulator: Any, fault: str) -> None:
    pika_emulator.fault("check", fault)
    ok, said = PikaHook().test_connection()
    assert not ok
    assert f"GET {pika_emulator.url}/v2/account" in said
