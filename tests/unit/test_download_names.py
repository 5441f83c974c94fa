"""How the files of a job are called, and what happens where one of that name is already."""

from __future__ import annotations

import pytest

from airflow_provider_pika.exceptions import PikaRequestError
from airflow_provider_pika.files.transfer import Existing, existing_file, file_names, names_job, size_of

JOBID = "job:20241218021941022-user:1308-channel:42-bot:pika"
FILM = {"filename": "waves.mp4", "content_type": "video/mp4"}


def test_a_jobids_colons_do_not_reach_the_file_system():
    assert file_names("{jobid}_{index}{ext}", JOBID, [FILM, FILM]) == [
        "job_20241218021941022-user_1308-channel_42-bot_pika_0.mp4",
        "job_20241218021941022-user_1308-channel_42-bot_pika_1.mp4",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [("a:b", "a_b"), ("a/b", "a:b"), ("a\\b", "a/b"), ("../../etc/passwd", "..:..:etc:passwd"), ("x" * 300, "x" * 301)],
)
def test_different_jobids_never_share_a_file(one, other):
    (first,), (second,) = (file_names("{jobid}{ext}", jobid, [FILM]) for jobid in (one, other))

    assert first != second


@pytest.mark.parametrize(
    "jobid", ["../../etc/passwd", "/etc/passwd", "..", ".", "a\0b", "a\nb", "C:\\x", "é" * 300, "-rf"]
)
def test_no_jobid_leaves_its_folder(jobid):
    (name,) = file_names("{jobid}{ext}", jobid, [FILM])

    assert "/" not in name
    assert "\\" not in name
    assert not name.startswith(".")
    assert name.isprintable()
    assert len(name.encode()) <= 200


def test_files_of_one_job_never_share_a_name():
    names = file_names("film{ext}", JOBID, [FILM, {"filename": "other.MP4"}, {"filename": "still.png"}])

    assert names == ["film.mp4", "film_1.mp4", "film.png"]


@pytest.mark.parametrize(
    ("attachment", "ext"),
    [
        ({"filename": "a.MOV"}, ".mov"),
        ({"url": "https://cdn/attachments/1/b.webm?ex=1"}, ".webm"),
        ({"filename": "noext", "content_type": "video/mp4"}, ".mp4"),
        ({"filename": "evil.mp4/../x", "content_type": "video/mp4; codecs=avc1"}, ".mp4"),
        ({"filename": "a.b c"}, ".bin"),
        ({}, ".bin"),
    ],
)
def test_the_extension_comes_from_the_name_then_the_type(attachment, ext):
    assert file_names("x{ext}", JOBID, [attachment]) == [f"x{ext}"]


@pytest.mark.parametrize(
    "template",
    [
        "../{jobid}",
        "a/{jobid}",
        "a\\b",
        "",
        "..",
        "{other}",
        "{",
        "{}",
        "{jobid.__class__}",
        "{index!x}",
        "x" * 300,
        "a\nb",
    ],
)
def test_a_template_that_makes_no_file_name_is_refused(template):
    with pytest.raises(PikaRequestError, match="filename"):
        file_names(template, JOBID, [FILM])


def test_an_index_can_be_formatted():
    assert file_names("{index:03d}{ext}", JOBID, [FILM]) == ["000.mp4"]


@pytest.mark.parametrize(
    ("found", "size", "overwrite", "own", "verdict"),
    [
        (10, 10, False, True, Existing.SKIP),
        (10, 10, False, False, Existing.SKIP),
        (10, 10, True, True, Existing.REPLACE),
        (9, 10, False, True, Existing.REPLACE),
        (9, 10, False, False, Existing.REFUSE),
        (9, 10, True, False, Existing.REPLACE),
        (9, None, False, True, Existing.REPLACE),
        (9, None, False, False, Existing.REFUSE),
    ],
)
def test_what_is_there_already(found, size, overwrite, own, verdict):
    """The whole film is kept, a half one replaced; a file that may be another film is never lost unasked."""
    assert existing_file(found, size, overwrite=overwrite, own_name=own) is verdict


def test_a_name_with_the_jobid_is_the_jobs_own():
    assert names_job("{jobid}{ext}")
    assert not names_job("x_{jobid:.20}{ext}")
    assert not names_job("film{ext}")


@pytest.mark.parametrize(("size", "read"), [(5, 5), (0, None), (-1, None), (True, None), ("5", None), (None, None)])
def test_only_a_usable_size_counts(size, read):
    assert size_of({"size": size}) == read
