"""Reading a job out of the API's answer."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_pika.api.job import FINAL_STATES, RUNNING_STATES, Job

MP4 = {"content_type": "video/mp4", "url": "http://cdn/a.mp4?ex=1", "filename": "a.mp4"}


def completed(*attachments: Any) -> Job:
    return Job.from_answer({"jobid": "job:1", "status": "completed", "attachments": list(attachments)})


@pytest.mark.parametrize(
    ("status", "final", "known"),
    [
        ("created", False, True),
        ("started", False, True),
        ("progress", False, True),
        ("completed", True, True),
        ("moderated", True, True),
        ("failed", True, True),
        ("cancelled", True, True),
        ("upscaling", False, False),
        ("Completed", False, False),
        ("", False, False),
    ],
)
def test_a_state_is_running_unless_it_is_known_to_be_final(status: str, final: bool, known: bool) -> None:
    job = Job.from_answer({"jobid": "job:1", "status": status})
    assert (job.is_final, job.is_known) == (final, known)


def test_there_are_three_running_and_four_final_states() -> None:
    assert (len(RUNNING_STATES), len(FINAL_STATES)) == (3, 4)


@pytest.mark.parametrize("body", [{}, {"status": None, "jobid": None}, {"status": "", "attachments": None}])
def test_a_job_without_any_field_is_running_and_has_the_jobid_asked_for(body: dict[str, Any]) -> None:
    job = Job.from_answer(body, "job:7")
    assert (job.jobid, job.status, job.is_final, job.attachments, job.video_url) == ("job:7", "", False, [], None)


def test_the_jobid_of_the_answer_comes_before_the_one_asked_for() -> None:
    assert Job.from_answer({"jobid": "job:2"}, "job:1").jobid == "job:2"


def test_raw_is_the_answer_as_it_came() -> None:
    body = {"jobid": "job:1", "status": "started", "code": 200, "discord": "<ABC…xyz>"}
    assert Job.from_answer(body).raw == body


@pytest.mark.parametrize(
    "status", ["created", "started", "progress", "failed", "moderated", "cancelled", "strange", ""]
)
def test_attachments_count_only_once_the_job_has_completed(status: str) -> None:
    job = Job.from_answer({"jobid": "job:1", "status": status, "attachments": [MP4]})
    assert (job.attachments, job.videos, job.video_url) == ([], [], None)


def test_attachments_are_the_apis_dicts_as_they_came() -> None:
    assert completed(MP4, {"odd": 1}).attachments == [MP4, {"odd": 1}]


@pytest.mark.parametrize("attachments", [None, "text", {"url": "x"}, 5])
def test_attachments_that_are_no_list_are_none(attachments: Any) -> None:
    job = Job.from_answer({"jobid": "job:1", "status": "completed", "attachments": attachments})
    assert (job.attachments, job.video_url) == ([], None)


@pytest.mark.parametrize(
    ("attachments", "url"),
    [
        ([MP4], "http://cdn/a.mp4?ex=1"),
        (
            [
                {"content_type": "image/png", "url": "http://cdn/p.mp4"},
                {"content_type": "video/webm", "url": "http://cdn/v"},
            ],
            "http://cdn/v",
        ),
        ([{"url": "http://cdn/A.MP4?ex=1&hm=2"}], "http://cdn/A.MP4?ex=1&hm=2"),
        ([{"filename": "a.mp4", "url": "http://cdn/x"}], "http://cdn/x"),
        ([{"content_type": None, "filename": "a.mp4", "url": "http://cdn/x"}], "http://cdn/x"),
        ([{"url": "http://cdn/a.png?name=.mp4"}], None),
        ([{"content_type": "video/mp4"}], None),
        (
            [{"content_type": "video/mp4", "url": None}, {"content_type": "video/mp4", "url": "http://cdn/2"}],
            "http://cdn/2",
        ),
        ([{}], None),
        ([None, "x", 3, MP4], "http://cdn/a.mp4?ex=1"),
        ([], None),
    ],
)
def test_the_video_is_found_by_content_type_else_by_mp4(attachments: list[Any], url: str | None) -> None:
    assert completed(*attachments).video_url == url


def test_a_typed_video_hides_those_that_are_only_named_so() -> None:
    named = {"filename": "preview.mp4", "url": "http://cdn/preview.mp4"}
    assert completed(named, MP4).videos == [MP4]


def test_public_leaves_out_code_and_discord_and_nothing_else() -> None:
    body = {"jobid": "job:1", "status": "completed", "attachments": [MP4], "new": {"a": 1}}
    assert Job.from_answer({**body, "code": 200, "discord": "<ABC…xyz>"}).public() == body


@pytest.mark.parametrize("body", [{}, {"jobid": None}, {"jobid": ""}])
def test_public_always_holds_the_jobid(body: dict[str, Any]) -> None:
    assert Job.from_answer(body, "job:1").public()["jobid"] == "job:1"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"error": "E", "errorDetails": "D", "content": "C"}, "E: D: C"),
        ({"content": "C"}, "C"),
        ({"error": None}, "the API gave no reason"),
        ({"errorDetails": {"a": 1}}, "{'a': 1}"),
        ({"error": "The bot is ill.", "content": "**waves**: the bot  is ill"}, "The bot is ill."),
        ({"error": "Job failed: the bot is ill", "content": "The bot is ill."}, "Job failed: the bot is ill"),
        ({"error": "E", "errorDetails": "The bot is ill", "content": "The bot is ill"}, "E: The bot is ill"),
        ({"error": "Job failed", "content": "Over quota"}, "Job failed: Over quota"),
    ],
)
def test_words_are_what_the_api_said_about_the_end(raw: dict[str, Any], words: str) -> None:
    assert Job.from_answer(raw, "job:1").reason == words
