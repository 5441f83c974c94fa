"""Telling the API's answers apart: every row of the contract's tables, for a submit and for a read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from airflow_provider_pika.api import commands, errors, reading
from airflow_provider_pika.api.advice import Root
from airflow_provider_pika.api.answers import Answer, is_apis, is_transient_status, retry_after
from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaJobFailedError,
    PikaModeratedError,
    PikaNotFoundError,
    PikaPaymentError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)

URL = "http://127.0.0.1:8300"
ROOT = Root(URL, "films")
SUBMIT = commands.prepare(commands.ENCRYPT_TEXT, message="HI", prompt="waves")
READ = commands.get_job("job:1")
CANCEL = commands.cancel_job("job:1")
LIST = commands.list_jobs()
ACCOUNTS = commands.list_accounts()
CHECK = commands.check_token()
ACCOUNT = commands.get_account("42")
JOB = {"jobid": "job:1", "status": "started", "code": 200}
HTML = "<!DOCTYPE html><html><body><h1>Just a moment…</h1></body></html>"


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, text)


def refusal(call: commands.Call, given: Answer, read: Any = reading.read_job) -> PikaError:
    with pytest.raises(PikaError) as caught:
        read(call, ROOT, given)
    return caught.value


ROWS = [
    pytest.param(400, {"error": "E", "code": 400}, PikaRequestError, id="400"),
    pytest.param(401, {"error": "Unauthorized", "code": 401}, PikaAuthError, id="401"),
    pytest.param(402, {"error": "expired", "code": 402}, PikaPaymentError, id="402"),
    pytest.param(403, {"error": "E"}, PikaRequestError, id="403"),
    pytest.param(404, {"error": "Unable to locate job job:1", "code": 404}, PikaNotFoundError, id="404"),
    pytest.param(
        422, {"error": "E", "errorDetails": "D", "jobid": "job:9", "status": "moderated"}, PikaModeratedError, id="422"
    ),
    pytest.param(422, {"error": "E", "jobid": "job:9"}, PikaModeratedError, id="422 without details"),
    pytest.param(429, {"error": "E", "executingJobs": ["job:1"]}, PikaQueueFullError, id="429 queue full"),
    pytest.param(429, {"error": "E", "errorDetails": '{"retry_after": 2}'}, PikaRateLimitedError, id="429 Discord"),
    pytest.param(429, {"error": "E"}, PikaRateLimitedError, id="429 of no form"),
]


@pytest.mark.parametrize("call", [SUBMIT, READ, CANCEL, LIST, CHECK], ids=lambda call: call.purpose)
@pytest.mark.parametrize(("status", "body", "kind"), ROWS)
def test_a_refusal_is_of_the_kind_its_status_stands_for(
    call: commands.Call, status: int, body: dict[str, Any], kind: type[PikaError]
) -> None:
    error = refusal(call, answer(status, body))
    assert type(error) is kind
    assert error.status == status
    assert error.error == body["error"]
    assert error.details == body.get("errorDetails")
    assert error.jobid == (body.get("jobid") or call.jobid)


@pytest.mark.parametrize("body", [{"error": "broken", "code": 500}, HTML, "", "[]", '{"err'])
@pytest.mark.parametrize("status", [408, 425, 500, 501, 502, 503, 504, 520, 599])
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (SUBMIT, PikaUnknownOutcomeError),
        (READ, PikaUnavailableError),
        (LIST, PikaUnavailableError),
        (CANCEL, PikaUnavailableError),
    ],
)
def test_a_fault_of_the_server_leaves_a_submit_unknown_and_a_read_to_be_repeated(
    call: commands.Call, kind: type[PikaError], status: int, body: Any
) -> None:
    error = refusal(call, answer(status, body))
    assert type(error) is kind
    assert (error.status, error.jobid) == (status, call.jobid)


@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HTML, "HTML where JSON belongs: <!DOCTYPE html>"),
        ("", "an empty body"),
        (" \n", "an empty body"),
        ('{"jobid": "job:1", "sta', "cut short or broken"),
        ("[1, 2", "cut short or broken"),
        ("OK", "no JSON: OK"),
        ("null", "JSON of another shape: null"),
        ("[]", "a list where"),
        ('["job:1"]', "a list where"),
        ('"job:1"', "a str where"),
        ("7", "a int where"),
    ],
)
@pytest.mark.parametrize(("call", "kind"), [(SUBMIT, PikaUnknownOutcomeError), (READ, PikaUnavailableError)])
def test_a_body_that_is_no_job_is_told_apart_and_worded(
    call: commands.Call, kind: type[PikaError], text: str, told: str, status: int
) -> None:
    error = refusal(call, answer(status, text))
    assert type(error) is kind
    assert (error.status, error.jobid) == (status, call.jobid)
    assert told in str(error)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"code": ' + "9" * 6000 + "}"], ids=["nested", "digits"])
def test_json_that_python_refuses_to_read_is_an_unreadable_answer(text: str) -> None:
    assert type(refusal(READ, answer(200, text))) is PikaUnavailableError


def test_a_long_body_is_quoted_only_in_part() -> None:
    assert len(str(refusal(READ, answer(200, "<p>" + "x" * 100_000)))) < 800


@pytest.mark.parametrize(("text", "wrong"), [("{}", "cut short"), ('["a"]', "cut short"), ('"text"', "no JSON")])
def test_whole_json_in_a_refusal_is_not_called_broken(text: str, wrong: str) -> None:
    """A refusal whose body is valid JSON of another shape must not send the reader looking for a broken line."""
    assert wrong not in str(refusal(READ, answer(400, text)))


def test_a_submit_answered_without_a_jobid_is_of_unknown_outcome() -> None:
    error = refusal(SUBMIT, answer(200, {"status": "started"}))
    assert type(error) is PikaUnknownOutcomeError
    assert "without a jobid" in str(error)


def test_a_read_answered_without_a_jobid_is_about_the_job_asked_for() -> None:
    assert reading.read_job(READ, ROOT, answer(200, {"status": "progress"})) == Job(
        "job:1", "progress", {"status": "progress"}
    )


def test_a_submit_that_answers_200_failed_is_a_job_that_failed() -> None:
    """It is the job's status that decides, not the HTTP one."""
    job = reading.read_job(SUBMIT, ROOT, answer(200, {**JOB, "status": "failed"}))
    assert (job.status, job.is_final) == ("failed", True)


@pytest.mark.parametrize("status", [200, 201])
def test_any_2xx_with_a_job_is_one(status: int) -> None:
    assert reading.read_job(SUBMIT, ROOT, answer(status, JOB)) == Job("job:1", "started", JOB)


@pytest.mark.parametrize(("body", "jobids"), [([], []), (["job:1", "job:2"], ["job:1", "job:2"])])
def test_a_list_of_jobids_is_read(body: list[str], jobids: list[str]) -> None:
    assert reading.read_jobids(LIST, ROOT, answer(200, body)) == jobids


@pytest.mark.parametrize("body", [{"jobs": []}, [1], [None], [{"jobid": "job:1"}], HTML, "", "null"])
def test_what_is_no_list_of_jobids_is_unreadable(body: Any) -> None:
    """An empty list read out of rubbish would make a lost submit look as if it had never been made."""
    assert type(refusal(LIST, answer(200, body), reading.read_jobids)) is PikaUnavailableError


def test_accounts_are_read_by_channel() -> None:
    accounts = {"1": {"channel": "1", "maxJobs": 3}}
    assert reading.read_accounts(ACCOUNTS, ROOT, answer(200, accounts)) == accounts


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_404_with_an_empty_body_means_no_account(text: str) -> None:
    assert reading.read_accounts(ACCOUNTS, ROOT, answer(404, text)) == {}


@pytest.mark.parametrize(("body", "kind"), [(HTML, PikaUnavailableError), ({"error": "E"}, PikaNotFoundError)])
def test_a_404_that_says_something_is_no_empty_list_of_accounts(body: Any, kind: type[PikaError]) -> None:
    assert type(refusal(ACCOUNTS, answer(404, body), reading.read_accounts)) is kind


def test_accounts_that_are_a_list_are_unreadable() -> None:
    assert type(refusal(ACCOUNTS, answer(200, []), reading.read_accounts)) is PikaUnavailableError


@pytest.mark.parametrize(
    "body", [HTML, "", "nope", "[]", "null", '{"err', {"detail": "Not Found"}, {"error": {"a": 1}}]
)
@pytest.mark.parametrize("status", [301, 302, 400, 403, 404, 409, 418, 422, 451])
@pytest.mark.parametrize("call", [READ, CANCEL, LIST, CHECK], ids=lambda call: call.purpose)
def test_whatever_is_not_the_apis_json_is_a_transient_error_of_a_read(
    call: commands.Call, status: int, body: Any
) -> None:
    """A firewall's page about one read ended waits for good while the paid jobs ran on."""
    error = refusal(call, answer(status, body))
    assert type(error) is PikaUnavailableError
    assert (error.status, error.jobid) == (status, call.jobid)
    if call is CHECK and status >= 400 and body not in ("", '{"err'):
        advice = "Put the API's root URL into the host of the connection 'films', without a path as /v1/pika."
    else:
        advice = "s a proxy or firewall in between, or the root URL (host) of the connection 'films' wrong?"
    assert advice in str(error)


@pytest.mark.parametrize(("status", "kind"), [(401, PikaAuthError), (402, PikaPaymentError)])
@pytest.mark.parametrize("call", [SUBMIT, READ, LIST, CHECK], ids=lambda call: call.purpose)
@pytest.mark.parametrize("body", [HTML, "", {"detail": "E"}])
def test_a_refused_token_and_a_missing_subscription_are_final_in_any_form(
    call: commands.Call, status: int, kind: type[PikaError], body: Any
) -> None:
    assert type(refusal(call, answer(status, body))) is kind


@pytest.mark.parametrize("status", [403, 404])
def test_a_page_instead_of_a_submits_answer_means_no_job_was_made(status: int) -> None:
    error = refusal(SUBMIT, answer(status, HTML))
    assert not is_retryable(error)
    assert type(error) is not PikaUnknownOutcomeError
    assert str(error).startswith(f"Not an answer of the API (HTTP {status}): HTML")
    assert "Put the API's root URL into the host of the connection 'films'" in str(error)


@pytest.mark.parametrize("status", [200, 502])
def test_a_page_instead_of_a_reads_answer_is_not_taken_for_the_apis(status: int) -> None:
    message = str(refusal(READ, answer(status, HTML)))
    assert "HTML where JSON belongs: <!DOCTYPE html>" in message
    assert "Is a proxy or firewall in between" in message


@pytest.mark.parametrize("body", ["", '{"jobid": "job:1", "sta'])
def test_an_answer_that_was_cut_short_is_not_blamed_on_a_proxy(body: str) -> None:
    assert "proxy" not in str(refusal(READ, answer(200, body)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("call", "kind"), [(SUBMIT, PikaRequestError), (READ, PikaUnavailableError)])
def test_a_redirect_is_told_with_its_target_and_what_to_do(
    call: commands.Call, kind: type[PikaError], status: int
) -> None:
    error = refusal(call, answer(status, "", location="https://elsewhere.example/v1"))
    assert type(error) is kind
    assert f"Redirected (HTTP {status}) to https://elsewhere.example/v1" in str(error)
    assert "Redirects are not followed: put the final root URL into the host of the connection 'films'" in str(error)


def test_a_redirect_without_a_target_is_told_too() -> None:
    assert "Redirected (HTTP 307) to nowhere" in str(refusal(READ, answer(307)))


HEADLINES = {
    400: "Refused (HTTP 400): the words (more words). ",
    401: "API token refused (HTTP 401): the words (more words). ",
    402: "No valid subscription (HTTP 402): the words (more words). ",
    404: "Not found (HTTP 404): the words (more words). ",
    422: "Moderated (HTTP 422): the words (more words). ",
    429: "Rate limited (HTTP 429): the words (more words). ",
    500: "Server error",
    504: "Server error",
    307: "Redirected (HTTP 307) to nowhere. ",
}


@pytest.mark.parametrize("call", [SUBMIT, READ, CANCEL, LIST, CHECK, ACCOUNTS, ACCOUNT], ids=lambda call: call.purpose)
@pytest.mark.parametrize(("status", "headline"), HEADLINES.items())
def test_a_message_says_the_cause_first_what_to_do_next_and_the_call_last(
    call: commands.Call, status: int, headline: str
) -> None:
    message = str(refusal(call, answer(status, {"error": "the words", "errorDetails": "more words"})))
    assert message.startswith(headline)
    assert message.endswith(f"(asked to {call.purpose}: {call.method} {URL}{call.shown_target})")
    assert len(message) > len(headline) + len(call.target) + 60


def everything_that_can_be_said() -> Iterator[tuple[commands.Call, PikaError]]:
    bodies: list[Any] = [
        HTML,
        "",
        "[]",
        '{"err',
        {"error": "E."},
        {"error": "E", "errorDetails": "D", "jobid": "job:9"},
    ]
    bodies.append({"error": "E", "executingJobs": ["job:1"]})
    calls: list[tuple[commands.Call, Any]] = [(call, reading.read_job) for call in (SUBMIT, READ, CANCEL)]
    calls += [(LIST, reading.read_jobids), (ACCOUNTS, reading.read_accounts)]
    calls += [(CHECK, reading.read_object), (ACCOUNT, reading.read_object)]
    for call, read in calls:
        for status in (200, 204, 301, 307, 400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 501, 502, 504):
            for body in bodies:
                try:
                    read(call, ROOT, answer(status, body))
                except PikaError as error:
                    yield call, error
        for left in (True, False):
            for cut in (True, False):
                yield call, errors.lost(call, ROOT, "reset by peer", left=left, cut=cut)
    for status in ("failed", "moderated", "cancelled", "lost"):
        yield READ, errors.job_failed(Job("job:1", status, {"error": "E."}), ROOT)
    lost = refusal(SUBMIT, answer(501, HTML))
    assert isinstance(lost, PikaUnknownOutcomeError)
    for check in (answer(501, HTML), answer(404, {"detail": "Not Found"}), answer(200, "OK")):
        yield SUBMIT, errors.wrong_root(ROOT, lost, check)


def test_every_message_there_is_has_the_shape_a_reader_looks_for() -> None:
    """On a page 1400 pixels wide a message began with the question, and its cause was out of sight."""
    said = list(everything_that_can_be_said())
    assert {type(error) for _, error in said} == set(PikaError.__subclasses__())
    for call, error in said:
        message = str(error)
        assert re.match(r"[A-Z][A-Za-z' ]+( \(|: )|The root URL http", message), message
        assert not message.lower().startswith("asked"), message
        assert "job job:" not in message.lower(), message
        assert not call.jobid or message.count(call.jobid) == 1, message
        assert not re.search(r"\.\.|  |\{(conn|option)", message), message
        told = message.rpartition(" (asked to ")[0] or message
        if any(word in told for word in ("token", "host", "root URL", "setting", "subscription")):
            assert "the connection 'films'" in told, message
        if "airflow pika" in message:
            assert "--conn-id films" in message, message
        if "looks wrong: neither" not in message:
            assert message.endswith(f"(asked to {call.purpose}: {call.method} {URL}{call.shown_target})"), message


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, HTML), (404, HTML), (501, HTML), (404, {"detail": "Not Found"}), (404, "[]"), (200, "OK"), (501, "")],
)
def test_a_connection_that_leads_to_another_server_is_told_that_its_root_url_looks_wrong(
    status: int, body: Any
) -> None:
    found = answer(status, body)
    assert not is_apis(found)
    message = str(refusal(CHECK, found, reading.read_object))
    assert message.startswith(f"The root URL {URL} of the connection 'films' looks wrong (HTTP {status}): ")


def test_a_submit_at_a_wrong_root_url_says_what_was_found_there_and_speaks_of_no_paid_job() -> None:
    """Nobody who has just mistyped the host is to look for a paid job; the clear that makes one is what works."""
    lost = refusal(SUBMIT, answer(501, HTML))
    assert isinstance(lost, PikaUnknownOutcomeError)
    message = str(errors.wrong_root(ROOT, lost, answer(404, {"detail": "Not Found"})))
    assert "neither the submit (HTTP 501) nor GET /v2/account (HTTP 404: JSON of another shape: " in message
    assert "may have been made" not in message
    assert "Once the host is right, clear the task" in message


@pytest.mark.parametrize(
    "found",
    [
        answer(200, {}),
        answer(401, HTML),
        answer(402, ""),
        answer(404, {"error": "E"}),
        answer(429, HTML),
        answer(502, HTML),
        answer(503, ""),
        answer(200, ""),
        answer(200, '{"jobid": "jo'),
        answer(501, {"error": "E"}),
    ],
    ids=lambda found: f"{found.status} {found.text[:10]}",
)
def test_a_host_is_not_called_wrong_where_the_api_may_have_answered(found: Answer) -> None:
    assert is_apis(found)


@pytest.mark.parametrize(
    ("found", "foreign"),
    [
        (answer(200, HTML), True),
        (answer(501, ""), True),
        (answer(502, HTML), False),
        (answer(200, "[]"), True),
        (answer(500, {"detail": "E"}), False),
        (answer(500, {"error": "E"}), False),
        (answer(200, ""), False),
        (answer(200, '{"jobid": "jo'), False),
        (answer(200, {"status": "started"}), False),
    ],
    ids=lambda value: f"{value.status} {value.text[:10]}" if isinstance(value, Answer) else str(value),
)
def test_a_submit_remembers_whether_somebody_else_answered(found: Answer, foreign: bool) -> None:
    error = refusal(SUBMIT, found)
    assert isinstance(error, PikaUnknownOutcomeError)
    assert error.foreign is foreign


@pytest.mark.parametrize(
    ("status", "transient"), [(200, False), (400, False), (408, True), (425, True), (429, True), (500, True)]
)
def test_one_list_of_statuses_says_what_may_pass(status: int, transient: bool) -> None:
    assert is_transient_status(status) is transient


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "API token into the password"),
        (402, "subscription"),
        (422, "Change the message, the prompt or the image"),
        (429, "later"),
        (504, "before submitting again"),
        (500, "before submitting again"),
    ],
)
def test_the_advice_fits_the_refusal_of_a_submit(status: int, advice: str) -> None:
    assert advice in str(refusal(SUBMIT, answer(status, {"error": "E"})))


@pytest.mark.parametrize("call", [SUBMIT, LIST, CHECK], ids=lambda call: call.purpose)
def test_a_404_of_a_call_about_no_job_is_not_explained_by_an_old_job(call: commands.Call) -> None:
    """It is the root URL that is wrong, and that is what the reader must be sent to."""
    message = str(refusal(call, answer(404, HTML)))
    assert "31 days" not in message
    assert "host" in message


def test_a_404_of_a_read_is_explained() -> None:
    assert "31 days" in str(refusal(READ, answer(404, {"error": "E"})))


def test_a_refused_submit_names_the_job_it_made() -> None:
    assert "The job is job:9." in str(refusal(SUBMIT, answer(422, {"error": "E", "jobid": "job:9"})))


def test_a_full_queue_lists_the_jobs_in_the_way() -> None:
    error = refusal(SUBMIT, answer(429, {"error": "E", "executingJobs": ["job:1", "job:2"]}))
    assert isinstance(error, PikaQueueFullError)
    assert error.executing_jobs == ["job:1", "job:2"]
    assert "2 jobs running" in str(error)


def test_a_full_queue_of_no_jobs_is_one_all_the_same() -> None:
    assert type(refusal(SUBMIT, answer(429, {"executingJobs": []}))) is PikaQueueFullError


def test_executing_jobs_that_are_no_list_make_no_full_queue() -> None:
    assert type(refusal(SUBMIT, answer(429, {"executingJobs": "many"}))) is PikaRateLimitedError


@pytest.mark.parametrize(
    ("status", "body", "seconds"),
    [
        (503, HTML, 300),
        (403, HTML, 300),
        (429, HTML, 3600),
        (429, {"error": "E", "errorDetails": '{"retry_after": 1e9}'}, 3600),
    ],
)
@pytest.mark.parametrize("call", [READ, LIST], ids=lambda call: call.purpose)
def test_nobody_is_sent_away_for_a_day(call: commands.Call, status: int, body: Any, seconds: float) -> None:
    """A server under maintenance said ``Retry-After: 86400``, and every wait of the connection would have timed out."""
    assert refusal(call, answer(status, body, retry_after="86400")).retry_after == seconds


def test_a_429_with_html_is_a_rate_limit_that_says_so() -> None:
    error = refusal(READ, answer(429, HTML, retry_after="7"))
    assert isinstance(error, PikaRateLimitedError)
    assert error.retry_after == 7
    assert "HTML where JSON belongs" in str(error)


def test_error_details_that_are_no_text_are_told_as_json() -> None:
    assert refusal(SUBMIT, answer(400, {"error": {"a": 1}, "errorDetails": ["b"]})).details == '["b"]'


@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ('{"message": "You are being rate limited.", "retry_after": 3.5, "global": false}', 3.5),
        ('{"retry_after": 0}', 0),
        ('{"retry_after": "4"}', 4),
        ({"retry_after": 5}, 5),
        ('{"retry_after": 1e9}', 1e9),
        ('{"retry_after": -1}', None),
        ('{"retry_after": NaN}', None),
        ('{"retry_after": Infinity}', None),
        ('{"retry_after": 1e999}', None),
        ('{"retry_after": ' + "9" * 400 + "}", None),
        ('{"retry_after": true}', None),
        ('{"retry_after": null}', None),
        ('{"retry_after": "soon"}', None),
        ('{"retry_after": [1]}', None),
        ("{}", None),
        ("[3]", None),
        ("3", None),
        ("rate limited, slow down", None),
        ('{"retry_af', None),
        ("[" * 100_000, None),
        ("", None),
        (None, None),
        (3, None),
        ([1], None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_pause_is_read_out_of_the_json_within_the_details(details: Any, seconds: float | None) -> None:
    assert retry_after(details, {}, limit=2e9) == seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("2.5", 2.5),
        (" 7 ", 7),
        ("0", 0),
        ("-7", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("9" * 400, None),
    ],
    ids=lambda value: str(value)[:10],
)
def test_the_pause_is_read_out_of_the_header(header: str, seconds: float | None) -> None:
    assert retry_after(None, {"retry-after": header}, limit=2e9) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(3600, 3600), (86_400, 86_400), (-3600, 0)])
def test_the_header_may_be_an_http_date(ahead: int, seconds: float) -> None:
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=ahead), usegmt=True)
    assert retry_after(None, {"retry-after": date}, limit=2e9) == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("date", ["Wed, 31 Feb 2099 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 XXX", "21 Oct"])
def test_a_date_that_cannot_be_is_unreadable(date: str) -> None:
    assert retry_after(None, {"retry-after": date}, limit=2e9) is None


@pytest.mark.parametrize(("body", "header", "seconds"), [(3, "9", 9), (9, "3", 9), (3, "soon", 3), (-1, "4", 4)])
def test_the_longer_of_body_and_header_counts(body: float, header: str, seconds: float) -> None:
    assert retry_after(json.dumps({"retry_after": body}), {"retry-after": header}, limit=2e9) == seconds


@pytest.mark.parametrize(
    ("status", "body"), [(429, {"error": "E", "executingJobs": []}), (503, {"error": "E"})], ids=["queue full", "503"]
)
def test_a_retry_after_header_is_honoured_on_whatever_answer_it_comes(status: int, body: dict[str, Any]) -> None:
    """The contract: "none documented; honour one if it comes"; 503 is where HTTP itself has it."""
    error = refusal(READ, answer(status, body, retry_after="77"))
    assert getattr(error, "retry_after", None) == 77


@pytest.mark.parametrize(
    ("call", "left", "kind"),
    [
        (SUBMIT, True, PikaUnknownOutcomeError),
        (SUBMIT, False, PikaUnavailableError),
        (READ, True, PikaUnavailableError),
        (READ, False, PikaUnavailableError),
        (CANCEL, True, PikaUnavailableError),
    ],
)
def test_a_lost_call_is_unknown_only_if_it_is_a_submit_that_left(
    call: commands.Call, left: bool, kind: type[PikaError]
) -> None:
    error = errors.lost(call, ROOT, "reset by peer", left=left)
    assert type(error) is kind
    assert (error.status, error.error, error.details, error.jobid) == (None, None, None, call.jobid)
    assert "reset by peer" in str(error)
    assert f"{call.method} {URL}{call.shown_target}" in str(error)


def test_a_submit_that_may_have_made_a_job_says_so() -> None:
    assert "may have been made and paid for" in str(errors.lost(SUBMIT, ROOT, "reset", left=True))


def test_a_call_that_reached_nobody_sends_the_reader_to_the_host() -> None:
    assert "host of the connection 'films' right" in str(errors.lost(SUBMIT, ROOT, "refused", left=False))


def test_a_fault_without_words_is_told_by_its_type() -> None:
    assert "TimeoutError" in str(errors.lost(READ, ROOT, TimeoutError(), left=False))


@pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
def test_a_job_that_ended_badly_is_told_in_the_apis_words(status: str) -> None:
    job = Job.from_answer({"jobid": "job:1", "status": status, "error": "E", "errorDetails": "D", "content": "C"})
    error = errors.job_failed(job, ROOT)
    assert type(error) is PikaJobFailedError
    assert (error.error, error.details, error.jobid) == ("E", "D", "job:1")
    assert str(error).startswith(f"{status.capitalize()}: E: D: C. ")
    assert str(error).endswith(f"(asked to read the job: GET {URL}/v1/pika/jobs/?jobid=job:1)")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("failed", "clear the task that submitted it; or let one task submit and wait (wait_for_completion=True)"),
        ("moderated", "Change the message, the prompt or the image"),
        ("cancelled", "Clear the task that submitted it"),
    ],
)
def test_a_job_that_ended_badly_comes_with_what_can_be_done(status: str, advice: str) -> None:
    message = str(errors.job_failed(Job("job:1", status, {}), ROOT))
    assert advice in message
    assert ("retry_failed" in message) is (status == "failed")


def test_a_job_that_ended_badly_is_told_without_a_root_url_too() -> None:
    error = errors.job_failed(Job("job:1", "failed", {}), Root("", "films"))
    assert str(error).endswith("(asked to read the job: GET /v1/pika/jobs/?jobid=job:1)")


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (PikaRequestError, False),
        (PikaAuthError, False),
        (PikaPaymentError, False),
        (PikaNotFoundError, False),
        (PikaModeratedError, False),
        (PikaUnknownOutcomeError, False),
        (PikaJobFailedError, False),
        (PikaQueueFullError, True),
        (PikaRateLimitedError, True),
        (PikaUnavailableError, True),
        (PikaError, True),
    ],
)
def test_only_what_may_pass_is_worth_a_retry(kind: type[PikaError], retryable: bool) -> None:
    assert is_retryable(kind("said")) is retryable
