"""The emulator over HTTP, held to every row of the Pika API v1 contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_pika.api.commands import FONTS
from tests.support.plain_api import GOOD, Api, assert_error

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.client import EmulatorClient

PICTURE = ("a.png", b"\x89PNG picture", "image/png")
FIELDS_OF_EVERY_JOB = {
    *("jobid", "verb", "status", "created", "updated", "message", "prompt", "discord", "channel", "maxJobs"),
    *("messageId", "content", "timestamp", "code"),
}


@pytest.fixture
def api(pika_emulator: EmulatorClient) -> Api:
    return Api(pika_emulator)


class TestSubmit:
    def test_a_job_with_nothing_optional_is_started(self, api: Api) -> None:
        answer = api.submit()
        body = answer.json()
        assert answer.status_code == 200
        assert set(body) == FIELDS_OF_EVERY_JOB
        assert (body["verb"], body["status"], body["code"]) == ("pika-encrypt_text", "started", 200)
        assert (body["message"], body["prompt"], body["maxJobs"]) == ("HELLO", "waves", 10)

    def test_everything_given_comes_back_with_discord_masked(self, api: Api) -> None:
        asked = GOOD | {"font": "SANS SERIF", "discord": "somebody's own", "channel": "42", "maxJobs": "3"}
        asked |= {"replyUrl": "https://example.org/x", "replyRef": "mine"}
        body = api.submit(asked, image=PICTURE).json()
        assert set(body) == FIELDS_OF_EVERY_JOB | {"font", "image", "replyUrl", "replyRef"}
        expected = asked | {"discord": "<som…secured…own>", "maxJobs": 3, "image": {"size": 12, "type": "image/png"}}
        assert body | expected == body

    @pytest.mark.parametrize("font", FONTS)
    def test_every_documented_font_is_taken(self, api: Api, font: str) -> None:
        assert api.submit(GOOD | {"font": font}).status_code == 200

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"prompt": "waves"}, "message is missing"),
            ({"message": "HELLO"}, "prompt is missing"),
            (GOOD | {"message": ""}, "message is empty"),
            (GOOD | {"prompt": ""}, "prompt is empty"),
            (GOOD | {"message": "x" * 21}, "message is 21"),
            (GOOD | {"message": "🎬" * 11}, "message is 22"),
            (GOOD | {"prompt": "x" * 1501}, "prompt is 1501"),
            (GOOD | {"replyUrl": "x" * 1025}, "replyUrl is 1025"),
            (GOOD | {"replyRef": "x" * 1025}, "replyRef is 1025"),
            (GOOD | {"replyRef": ""}, "replyRef is empty"),
            (GOOD | {"font": "Comic"}, "font Comic is not one of allowed values MODERN, COMICS"),
            (GOOD | {"maxJobs": "0"}, "maxJobs"),
            (GOOD | {"maxJobs": "11"}, "maxJobs"),
            (GOOD | {"maxJobs": "many"}, "maxJobs"),
            (GOOD | {"discord": "somebody's own"}, "without field channel"),
            (GOOD | {"channel": "42"}, "not configured"),
            (GOOD | {"colour": "red"}, "Unknown field colour"),
            (GOOD | {"prompt": "[emulator:oops]"}, "unknown marker"),
        ],
    )
    def test_a_wrong_field_is_a_400_that_names_it(self, api: Api, fields: dict[str, str], said: str) -> None:
        assert_error(api.submit(fields), 400, said)

    @pytest.mark.parametrize(
        ("image", "said"),
        [
            ((None, "text"), "image must be a file part with a filename"),
            (("", b"bytes", "image/png"), "image must be a file part with a filename"),
            (("a.png", b"", "image/png"), "image is an empty file"),
            (("a.txt", b"bytes", "text/plain"), "image must have a Content-Type of image/*"),
            (("a.png", b"bytes"), None),
            (("a", b"bytes"), "image must have a Content-Type of image/*"),
        ],
    )
    def test_an_image_must_be_a_file_with_a_name_bytes_and_a_type(self, api: Api, image: Any, said: str | None) -> None:
        answer = requests.Request("POST", f"{api.url}/v1/pika/encrypt_text", files={"image": image}, data=GOOD)
        got = api.session.send(api.session.prepare_request(answer), timeout=10)
        assert_error(got, 400, said or "image must have a Content-Type of image/*")

    def test_limits_are_met_exactly_in_utf16_units(self, api: Api) -> None:
        longest = {"message": "🎬" * 10, "prompt": "x" * 1500, "replyUrl": "u" * 1024, "replyRef": "r" * 1024}
        assert api.submit(longest).json()["message"] == "🎬" * 10

    def test_a_text_with_a_filename_is_a_400(self, api: Api) -> None:
        assert_error(api.submit(GOOD, replyRef=("replyRef", "mine")), 400, "replyRef must be a plain text part")

    def test_a_field_given_twice_is_a_400(self, api: Api) -> None:
        parts = [("message", (None, "A")), ("message", (None, "B")), ("prompt", (None, "x"))]
        answer = api.session.post(f"{api.url}/v1/pika/encrypt_text", files=parts, timeout=10)
        assert_error(answer, 400, "message was given 2 times")

    @pytest.mark.parametrize("body", [{"json": GOOD}, {"data": GOOD}, {}])
    def test_anything_but_multipart_is_a_400(self, api: Api, body: dict[str, Any]) -> None:
        answer = api.session.post(f"{api.url}/v1/pika/encrypt_text", timeout=10, **body)
        assert_error(answer, 400, "multipart/form-data")

    @pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=other"])
    def test_an_unreadable_multipart_is_a_400(self, api: Api, content_type: str) -> None:
        headers = {"Content-Type": content_type}
        answer = api.session.post(f"{api.url}/v1/pika/encrypt_text", data=b"no parts", headers=headers, timeout=10)
        assert_error(answer, 400, "")

    def test_an_unknown_bot_parameter_is_a_422_with_the_jobid_of_an_ended_job(self, api: Api) -> None:
        answer = api.submit(GOOD | {"prompt": "waves -camera zoom in -colour red"})
        assert_error(answer, 422, "Invalid parameter")
        assert answer.json()["errorDetails"] == "Unrecognized parameter(s): `colour`"
        assert answer.json()["status"] == "moderated"
        assert api.job(answer.json()["jobid"]).json()["status"] == "moderated"

    def test_known_bot_parameters_and_dashes_in_words_are_taken(self, api: Api) -> None:
        prompt = "a well-lit bay - calm -camera zoom in -fps 24 -motion 2 -gs 12 -neg fog -ar 16:9 -seed 7 -w 3 -size 2"
        assert api.submit(GOOD | {"prompt": prompt}).status_code == 200

    def test_a_full_channel_is_a_429_with_the_jobs_in_the_way(self, api: Api, pika_emulator: EmulatorClient) -> None:
        pika_emulator.configure(seconds=30, max_jobs=2)
        jobids = [api.made(), api.made()]
        answer = api.submit()
        assert_error(answer, 429, "")
        assert answer.json()["executingJobs"] == jobids
        pika_emulator.advance(seconds=30)
        assert api.submit().status_code == 200
        assert pika_emulator.counters()["submits"] == {"asked": 4, "refused": {"429": 1}, "lost": 0}
        assert len(pika_emulator.jobs()) == 3

    def test_without_a_channel_the_configured_ones_are_filled(self, api: Api, pika_emulator: EmulatorClient) -> None:
        pika_emulator.configure(seconds=30, channels={"1": 1, "2": 2})
        assert sorted(api.submit().json()["channel"] for _ in range(3)) == ["1", "2", "2"]
        assert api.submit(GOOD | {"channel": "1"}).status_code == 429
        assert api.submit(GOOD | {"channel": "1", "maxJobs": "2"}).status_code == 200


class TestJobs:
    def test_a_job_moves_on_and_completes_with_a_video(self, api: Api, pika_emulator: EmulatorClient) -> None:
        pika_emulator.configure(seconds=30)
        jobid = api.made()
        states = []
        for _ in range(3):
            states.append(api.job(jobid).json()["status"])
            pika_emulator.advance(seconds=15)
        assert states == ["started", "progress", "completed"]
        body = api.job(jobid).json()
        assert body["buttons"] == ["retry"]
        (attachment,) = body["attachments"]
        assert set(attachment) == {
            *("id", "filename", "size", "url", "proxy_url", "width", "height", "content_type"),
        }
        assert (attachment["content_type"], attachment["filename"]) == ("video/mp4", "waves.mp4")

    def test_a_running_job_has_neither_attachments_nor_buttons(self, api: Api, pika_emulator: EmulatorClient) -> None:
        pika_emulator.configure(seconds=30)
        assert set(api.job(api.made()).json()) == FIELDS_OF_EVERY_JOB

    def test_jobs_by_reads_end_with_the_nth(self, api: Api, pika_emulator: EmulatorClient) -> None:
        pika_emulator.configure(reads=2)
        jobid = api.made()
        assert [api.job(jobid).json()["status"] for _ in range(2)] == ["started", "completed"]

    def test_a_read_without_or_with_an_unknown_jobid(self, api: Api) -> None:
        assert_error(api.get("/v1/pika/jobs/"), 400, "Query param jobid not provided")
        assert_error(api.job("job:unknown"), 404, "Unable to locate job job:unknown")

    def test_the_list_is_a_bare_array_of_running_jobs(self, api: Api, pika_emulator: EmulatorClient) -> None:
        assert api.get("/v1/pika/jobs").json() == []
        pika_emulator.configure(seconds=30, channels={"1": 5, "2": 5})
        jobids = [api.made(channel="1"), api.made(channel="2")]
        assert api.get("/v1/pika/jobs").json() == jobids

    def test_cancel_ends_a_running_job(self, api: Api, pika_emulator: EmulatorClient) -> None:
        pika_emulator.configure(seconds=30)
        jobid = api.made()
        assert api.cancel(jobid).json() == {"jobid": jobid, "status": "cancelled", "code": 200}
        assert api.job(jobid).json()["status"] == "cancelled"
        assert pika_emulator.counters()["cancels"] == {jobid: 1}

    def test_cancel_of_an_ended_job_tells_its_state_and_of_none_refuses(self, api: Api) -> None:
        assert api.cancel(api.made()).json()["status"] == "completed"
        assert_error(api.get("/v1/pika/jobs/cancel/"), 400, "Query param jobid not provided")
        assert_error(api.cancel("job:unknown"), 404, "Unable to locate job")

    @pytest.mark.parametrize("path", ["/v1/pika/jobs/cancel?jobid=x", "/v1/pika", "/v1/pika/encrypt_text/", "/<img>"])
    def test_a_slash_too_many_or_too_few_is_the_frameworks_404(self, api: Api, path: str) -> None:
        answer = api.get(path)
        assert answer.status_code == 404
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "<img" not in answer.text


def test_the_credential_check_answers_200(api: Api, pika_emulator: EmulatorClient) -> None:
    assert api.get("/v2/account").status_code == 200
    assert pika_emulator.counters()["checks"] == 1


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "user:1000-emulator", "Basic dXNlcg=="])
def test_every_call_needs_the_token(api: Api, authorization: str | None) -> None:
    api.session.headers.clear()
    if authorization:
        api.session.headers["Authorization"] = authorization
    paths = [
        "/v1/pika/jobs",
        "/v1/pika/jobs/?jobid=x",
        "/v1/pika/jobs/cancel/?jobid=x",
        "/v1/pika/account",
        "/v2/account",
    ]
    for answer in [api.submit(), *map(api.get, paths)]:
        assert_error(answer, 401, "Unauthorized")


class TestFilm:
    def test_it_is_as_long_as_told_and_readable_with_the_link_alone(self, api: Api) -> None:
        attachment = api.job(api.made()).json()["attachments"][0]
        answer = requests.get(attachment["url"], timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "video/mp4"
        assert int(answer.headers["Content-Length"]) == len(answer.content) == attachment["size"]

    @pytest.mark.parametrize(
        ("asked", "status", "start", "end"),
        [
            ("bytes=0-9", 206, 0, 10),
            ("bytes=100-", 206, 100, None),
            ("bytes=-5", 206, -5, None),
            ("bytes=10-99999999", 206, 10, None),
            ("bytes=0-1,5-6", 200, 0, None),
            ("lines=1-2", 200, 0, None),
        ],
    )
    def test_ranges(self, api: Api, asked: str, status: int, start: int, end: int | None) -> None:
        url = api.film_url()
        whole = requests.get(url, timeout=10).content
        answer = requests.get(url, headers={"Range": asked}, timeout=10)
        assert (answer.status_code, answer.content) == (status, whole[start:end])
        if status == 206:
            first = start % len(whole)
            assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"

    def test_a_range_outside_is_a_416_and_of_another_version_the_whole(self, api: Api) -> None:
        url = api.film_url()
        assert requests.get(url, headers={"Range": "bytes=9999999-"}, timeout=10).status_code == 416
        answer = requests.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}, timeout=10)
        assert answer.status_code == 200
        same = {"Range": "bytes=0-1", "If-Range": answer.headers["ETag"]}
        assert requests.get(url, headers=same, timeout=10).status_code == 206

    def test_head_tells_the_size_without_the_bytes(self, api: Api) -> None:
        url = api.film_url()
        answer = requests.head(url, timeout=10)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["Content-Length"]) == len(requests.get(url, timeout=10).content)

    def test_past_its_time_the_link_is_dead_and_a_read_gives_a_fresh_one(
        self, api: Api, pika_emulator: EmulatorClient
    ) -> None:
        jobid = api.made()
        old = api.job(jobid).json()["attachments"][0]["url"]
        pika_emulator.advance(seconds=24 * 3600 + 1)
        fresh = api.job(jobid).json()["attachments"][0]["url"]
        dead = requests.get(old, timeout=10)
        assert (dead.status_code, dead.text) == (404, "This content is no longer available.")
        assert requests.get(fresh, timeout=10).status_code == 200

    @pytest.mark.parametrize("spoil", ["without the query", "with another signature", "for a later time"])
    def test_a_link_that_was_not_signed_so_is_dead(self, api: Api, spoil: str) -> None:
        url = api.film_url()
        path, _, query = url.partition("?")
        spoilt = {
            "without the query": path,
            "with another signature": url[:-4] + "0000",
            "for a later time": f"{path}?ex=ffffffff&{query.partition('&')[2]}",
        }[spoil]
        assert requests.get(spoilt, timeout=10).status_code == 404

    def test_the_api_token_brought_along_is_answered_and_flagged(self, api: Api, pika_emulator: EmulatorClient) -> None:
        url = api.film_url()
        assert pika_emulator.counters()["token_leaks"] == 0
        assert api.session.get(url, timeout=10).status_code == 200
        assert (pika_emulator.counters()["attachments"], pika_emulator.counters()["token_leaks"]) == (1, 1)
