"""What each answer of the CDN means for a file that has come so far."""

from __future__ import annotations

import pytest

from airflow_provider_pika.files.transfer import Part, Step, megabytes, read_answer, resume_wait

WHOLE = {"content-length": "100", "etag": '"v1"', "content-type": "video/mp4"}
REST = {"content-range": "bytes 40-99/100", "content-length": "60", "etag": '"v1"'}
HAVE = Part(40, 100, '"v1"')


@pytest.mark.parametrize(
    ("status", "headers", "part", "size", "step"),
    [
        # the first answer
        (200, WHOLE, Part(), 100, Step.APPEND),
        (200, WHOLE, Part(), None, Step.APPEND),
        (200, {}, Part(), None, Step.APPEND),
        (200, WHOLE, Part(), 99, Step.AGAIN),
        (200, {"content-length": "0"}, Part(), None, Step.AGAIN),
        (200, {"content-type": "text/html; charset=utf-8", "content-length": "100"}, Part(), 100, Step.AGAIN),
        (200, {"content-length": "55", "content-encoding": "gzip"}, Part(), 100, Step.APPEND),
        (401, {}, Part(), 100, Step.FRESH_LINK),
        (403, {}, Part(), 100, Step.FRESH_LINK),
        (404, {}, Part(), 100, Step.FRESH_LINK),
        (410, {}, Part(), 100, Step.FRESH_LINK),
        (429, {}, Part(), 100, Step.AGAIN),
        (500, {}, Part(), 100, Step.AGAIN),
        (503, {}, Part(), 100, Step.AGAIN),
        (400, {}, Part(), 100, Step.GIVE_UP),
        (204, {}, Part(), 100, Step.GIVE_UP),
        (206, {"content-range": "bytes 0-99/100"}, Part(), 100, Step.APPEND),
        (206, {"content-range": "bytes 5-99/100"}, Part(), 100, Step.AGAIN),
        # after a break
        (206, REST, HAVE, 100, Step.APPEND),
        (206, REST | {"etag": '"v2"'}, HAVE, 100, Step.AGAIN),
        (206, REST | {"content-range": "bytes 30-99/100"}, HAVE, 100, Step.AGAIN),
        (206, REST | {"content-range": "bytes 40-199/200"}, HAVE, None, Step.AGAIN),
        (206, REST | {"content-range": "nonsense"}, HAVE, 100, Step.AGAIN),
        (206, {"content-range": "bytes 40-99/*"}, Part(40), None, Step.AGAIN),
        (206, {"content-range": "bytes 40-99/100"}, Part(40, 100), None, Step.APPEND),
        (200, WHOLE, HAVE, 100, Step.REPEAT),
        (200, WHOLE | {"etag": '"v2"'}, HAVE, 100, Step.RESTART),
        (200, {}, Part(40), None, Step.RESTART),
        (416, {}, HAVE, 100, Step.AGAIN),
        (404, {}, HAVE, 100, Step.FRESH_LINK),
    ],
)
def test_the_step_an_answer_leads_to(status, headers, part, size, step):
    assert read_answer(status, headers, part, size=size).step is step


def test_a_rest_of_another_version_makes_the_file_begin_anew():
    assert read_answer(206, REST | {"etag": '"v2"'}, HAVE, size=None).part.offset == 0


def test_html_is_no_surprise_where_a_web_page_was_attached():
    headers = {"content-type": "text/html", "content-length": "10"}

    assert read_answer(200, headers, Part(), size=10, page=True).step is Step.APPEND


def test_the_rest_is_asked_for_on_the_condition_that_the_version_is_the_same():
    assert Part().headers == {}
    assert HAVE.headers == {"Range": "bytes=40-", "If-Range": '"v1"'}
    # HTTP allows no weak etag there.
    assert Part(40, 100, 'W/"v1"').headers == {"Range": "bytes=40-"}


def test_the_pauses_grow_and_stay_bounded():
    assert [resume_wait(breaks) for breaks in (1, 2, 3, 4, 9)] == [1, 2, 4, 8, 8]


def test_sizes_are_worded_for_people():
    assert megabytes(1536) == "1.5 KiB"
    assert megabytes(3 * 2**30) == "3,072.0 MiB"
