"""The names by which a callback finds its task and its waiters."""

from urllib.parse import quote

import pytest

from airflow_provider_pika.api.callback import (
    MAILBOX_LIMIT,
    RINGS_LIMIT,
    Ring,
    bell_key,
    hide_token,
    job_digest,
    mailbox_key,
    mailbox_of,
    new_token,
    read_bell,
    read_jobid,
    reply_url,
    with_call,
    with_jobid,
)


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
    mailbox = {"jobids": []}
    calls = [*(f"foreign:{n}" for n in range(before)), "true", *(f"more:{n}" for n in range(behind))]
    rung = 0
    for jobid in calls:
        mailbox, rings = with_call(mailbox, jobid, jobid.encode()) or (mailbox, False)
        rung += rings
    assert "true" in mailbox["jobids"]
    assert len(mailbox["jobids"]) <= MAILBOX_LIMIT
    assert len(mailbox["calls"]) == rung <= RINGS_LIMIT


def test_the_same_call_again_has_no_effect_and_another_one_rings_again():
    """A call that came early, or was forged, does not silence the one at the job's end."""
    early, ended = b'{"jobid": "a", "status": "progress"}', b'{"jobid": "a", "status": "completed"}'
    mailbox, rings = with_call({"jobids": []}, "a", early)
    assert rings
    assert with_call(mailbox, "a", early) is None
    mailbox, rings = with_call(mailbox, "a", ended)
    assert rings
    assert mailbox["jobids"] == ["a"]
    assert with_call(mailbox, "a", early) is with_call(mailbox, "a", ended) is None


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
    assert read_jobid(body) == jobid


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
    assert read_jobid(f'{{"jobid": "{jobid}"}}'.encode()) is None


def test_a_repeated_call_brings_back_a_jobid_that_was_pushed_out():
    mailbox: dict = {"jobids": []}
    for name in ["a", "b", "c", "d", "true", "e", "f", "g", "h"]:
        mailbox, _ = with_call(mailbox, name, name.encode()) or (mailbox, False)
    assert "true" not in mailbox["jobids"]
    mailbox, rings = with_call(mailbox, "true", b"true")
    assert "true" in mailbox["jobids"]
    assert not rings


def test_a_time_that_is_none_is_no_bell():
    assert read_bell(f"pika_ended:{'9' * 400}:1:2") is None
