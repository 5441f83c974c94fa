"""The names by which a callback finds its task and its waiters."""

import json
from urllib.parse import quote

import pytest

from airflow_provider_pika.api.callback import (
    MAILBOX_LIMIT,
    RINGS_LIMIT,
    Call,
    Ring,
    bell_key,
    hide_token,
    job_digest,
    mailbox_key,
    mailbox_of,
    new_mailbox,
    new_token,
    read_bell,
    read_call,
    reply_url,
    with_call,
    with_jobid,
)


def call(jobid, *, ref=None, **more):
    """Return what is kept of a call."""
    body = {"jobid": jobid, **more} | ({"replyRef": ref} if ref else {})
    return read_call(json.dumps(body).encode())


def test_the_url_carries_the_token_and_the_mailbox_only_its_hash():
    token = new_token()
    url = reply_url("https://airflow.example/root", "0191-ti", token)
    assert url == f"https://airflow.example/root/pika/callback/0191-ti?token={token}"
    assert len(token) == 32
    assert token not in mailbox_key(token)
    assert mailbox_key(token) == mailbox_key(token) != mailbox_key(new_token())


def test_a_bell_names_its_job_to_those_who_know_it():
    key = bell_key(1_790_000_000.5, "job:1")
    assert read_bell(key) == Ring(1_790_000_000.5, job_digest("job:1"))
    assert "job:1" not in key
    assert bell_key(1_790_000_000.5, "job:1") != key


@pytest.mark.parametrize(
    "key", ["", "pika_ended:", "pika_ended:x:1:2", "pika_ended:1", "pika_ended:1:2", "other:1:2:3"]
)
def test_no_other_key_is_taken_for_a_bell(key):
    assert read_bell(key) is None


@pytest.mark.parametrize(
    ("jobids", "jobid", "after"),
    [
        ([], "a", ["a"]),
        (["a"], "b", ["a", "b"]),
        (["a"], "a", ["a"]),
        (list("abcdefgh"), "new", [*"abcd", *"fgh", "new"]),
        (list("abcdefgh"), "a", list("abcdefgh")),
    ],
)
def test_a_mailbox_takes_each_jobid_once_and_only_so_many(jobids, jobid, after):
    assert with_jobid(jobids, jobid) == after
    assert len(after) <= MAILBOX_LIMIT


@pytest.mark.parametrize(("before", "behind"), [(0, 100), (3, 100), (8, 0), (100, 0), (100, 3)])
def test_forged_calls_neither_shut_the_true_one_out_nor_push_it_out(before, behind):
    """Of calls that name no reference, which every field of the API allows."""
    mailbox = new_mailbox("mine")
    calls = [*(f"foreign:{n}" for n in range(before)), "true", *(f"more:{n}" for n in range(behind))]
    rung = 0
    for jobid in calls:
        mailbox, rings = with_call(mailbox, call(jobid)) or (mailbox, False)
        rung += rings
    assert "true" in mailbox["jobids"]
    assert len(mailbox["jobids"]) <= MAILBOX_LIMIT
    assert len(mailbox["calls"]) == rung <= RINGS_LIMIT


@pytest.mark.parametrize(("before", "behind"), [(4, 4), (8, 8), (100, 100)])
@pytest.mark.parametrize("forged_ref", [None, "another's"])
def test_whatever_is_forged_a_call_that_names_the_reference_is_kept_and_rings(before, behind, forged_ref):
    """Who has read the URL in some log pushed the true jobid out by eight calls, and silenced its end by sixteen."""
    mailbox = new_mailbox("mine")
    names = [*(f"foreign:{n}" for n in range(before)), *(f"more:{n}" for n in range(behind))]
    calls = [call(name, ref=forged_ref) for name in names]
    rung = []
    for each in [
        *calls[:before],
        call("true", ref="mine"),
        *calls[before:],
        call("true", ref="mine", status="completed"),
    ]:
        mailbox, rings = with_call(mailbox, each) or (mailbox, False)
        rung += [each.jobid] * rings
    assert mailbox["own"]["jobids"] == ["true"]
    assert "true" not in mailbox["jobids"]
    assert rung.count("true") == 2
    assert len(rung) <= RINGS_LIMIT + 2


def test_the_service_may_call_of_progress_as_often_as_it_likes():
    """Each bell is a row in Airflow's table of Variables: two hundred jobs that tell of each second would be 60,000."""
    mailbox = new_mailbox("mine")
    for percent in range(100):
        mailbox, rings = with_call(mailbox, call("job:1", ref="mine", status="progress", content=f"{percent}%")) or (
            mailbox,
            False,
        )
        assert not rings
    assert mailbox["own"]["jobids"] == ["job:1"]
    mailbox, rings = with_call(mailbox, call("job:1", ref="mine", status="completed"))
    assert rings


def test_who_guesses_a_reference_rings_no_more_bells_than_anybody():
    mailbox, rung = new_mailbox("campaign-1"), 0
    for number in range(100):
        mailbox, rings = with_call(mailbox, call("job:1", ref="campaign-1", number=number)) or (mailbox, False)
        rung += rings
    assert rung == RINGS_LIMIT


@pytest.mark.parametrize("status", ["completed", "failed", "moderated", "cancelled", "a new one", None, 7])
def test_whatever_may_be_an_end_rings(status):
    assert with_call({"jobids": []}, call("job:1", status=status))[1]


def test_a_mailbox_without_a_reference_takes_calls_as_ever():
    """One that workers keep elsewhere, or that was opened by an earlier version."""
    mailbox, rings = with_call({"jobids": []}, call("job:1", ref="mine"))
    assert rings
    assert mailbox["jobids"] == ["job:1"]


def test_a_mailbox_gives_nothing_of_its_reference_away():
    assert "mine-0123" not in json.dumps(new_mailbox("mine-0123"))


def test_the_same_call_again_has_no_effect_and_another_one_rings_again():
    """A call that came early, or was forged, does not silence the one at the job's end."""
    early, ended = call("a", status="completed"), call("a", status="completed", attachments=[])
    mailbox, rings = with_call({"jobids": []}, early)
    assert rings
    assert with_call(mailbox, early) is None
    mailbox, rings = with_call(mailbox, ended)
    assert rings
    assert mailbox["jobids"] == ["a"]
    assert with_call(mailbox, early) is with_call(mailbox, ended) is None


@pytest.mark.parametrize(
    ("body", "jobid"),
    [
        (b'{"jobid": "user:1-job", "status": "completed"}', "user:1-job"),
        (b"", None),
        (b"jobid", None),
        (b"\xff\xfe\xfd", None),
        (b'["jobid"]', None),
        (b'"jobid"', None),
        (b"{}", None),
        (b'{"jobid": null}', None),
        (b'{"jobid": 7}', None),
        (b'{"jobid": ""}', None),
        (b'{"jobid": "' + b"x" * 201 + b'"}', None),
        (b"[" * 60_000, None),
        (b'{"jobid": ' + b"9" * 5000 + b"}", None),
    ],
)
def test_only_an_object_with_a_jobid_is_a_call(body, jobid):
    read = read_call(body)
    assert (read and read.jobid) == jobid


@pytest.mark.parametrize("ref", [None, 7, ["mine"], {"a": 1}])
def test_a_reference_that_is_no_text_is_none(ref):
    read = read_call(json.dumps({"jobid": "job:1", "replyRef": ref}).encode())
    assert isinstance(read, Call)
    assert read.ref is None


TOKEN = "aZ09-_" * 5 + "xy"
URL = reply_url("https://airflow.example/root", "01998f3e-0000-7000-8000-000000000001", TOKEN)
EVERY = [URL, URL.replace("/", "\\/"), URL.replace("=", "\\u003d")]
EVERY += [quote(URL, safe=""), quote(quote(URL, safe=""), safe="")]


@pytest.mark.parametrize("echoed", EVERY)
def test_a_token_is_hidden_in_whatever_form_it_is_echoed(echoed):
    text = f'{{"replyUrl": "{echoed}", "replyRef": "mine"}} and {echoed}, {echoed}'
    hidden = hide_token(text)
    assert TOKEN not in hidden
    assert hidden == text.replace(TOKEN, mailbox_key(TOKEN))
    assert hide_token(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    ["", "no URL", f"https://example.org/hook?token={TOKEN}", f"token={TOKEN}", "job:1-bot:pika callback token=short"],
)
def test_nothing_else_is_hidden(text):
    assert hide_token(text) == text
    assert mailbox_of(text) is None


def test_a_jobs_reply_url_tells_its_mailbox_hidden_or_not():
    assert mailbox_of(URL) == mailbox_of(hide_token(URL)) == mailbox_key(TOKEN)
    assert mailbox_of(None) is None


@pytest.mark.parametrize("jobid", ["\\ud800", "a\\nb", "\\u0000", ""])
def test_what_could_not_be_read_again_is_no_jobid(jobid):
    assert read_call(f'{{"jobid": "{jobid}"}}'.encode()) is None


def test_a_repeated_call_brings_back_a_jobid_that_was_pushed_out():
    mailbox: dict = {"jobids": []}
    for name in ["a", "b", "c", "d", "true", "e", "f", "g", "h"]:
        mailbox, _ = with_call(mailbox, call(name)) or (mailbox, False)
    assert "true" not in mailbox["jobids"]
    mailbox, rings = with_call(mailbox, call("true"))
    assert "true" in mailbox["jobids"]
    assert not rings


def test_a_time_that_is_none_is_no_bell():
    assert read_bell(f"pika_ended:{'9' * 400}:1:2") is None
