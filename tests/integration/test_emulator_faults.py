"""Every scripted fault and every marker, as a client sees it over real connections."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import requests

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.client import EmulatorClient

CALLS = {
    "job": "/v1/pika/jobs/?jobid={jobid}",
    "list": "/v1/pika/jobs",
    "cancel": "/v1/pika/jobs/cancel/?jobid={jobid}",
    "account": "/v1/pika/account",
    "check": "/v2/account",
}


class Api:
    """One client for all the calls a fault can strike."""

    def __init__(self, emulator: EmulatorClient) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {emulator.token}"

    def submit(self, prompt: str = "waves", **more: Any) -> requests.Response:
        parts = {"message": (None, "HELLO"), "prompt": (None, prompt)}
        url = f"{self.emulator.url}/v1/pika/encrypt_text"
        return self.session.post(url, files=parts, timeout=10, allow_redirects=False, **more)

    def call(self, on: str, jobid: str = "") -> requests.Response:
        if on == "submit":
            return self.submit()
        if on == "attachment":
            return requests.get(self.link(jobid or self.made()), timeout=10, allow_redirects=False)
        target = CALLS[on].format(jobid=quote(jobid or self.made(), safe=""))
        return self.session.get(self.emulator.url + target, timeout=10, allow_redirects=False)

    def made(self, prompt: str = "waves") -> str:
        return str(self.submit(prompt).json()["jobid"])

    def status(self, jobid: str) -> str:
        return str(self.call("job", jobid).json()["status"])

    def link(self, jobid: str) -> str:
        return str(self.call("job", jobid).json()["attachments"][0]["url"])


@pytest.fixture
def api(pika_emulator: EmulatorClient) -> Api:
    return Api(pika_emulator)


def jobs_made(api: Api) -> int:
    return len(api.emulator.jobs())


EVERY_CALL = ["submit", "attachment", *CALLS]
JSON_CALLS = ["submit", *CALLS]


@pytest.mark.parametrize("on", EVERY_CALL)
class TestConnections:
    def test_drop_before_hangs_up_without_the_work(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "drop_before")
        with pytest.raises(requests.ConnectionError, match=r"RemoteDisconnected|Connection reset"):
            api.call(on, jobid)
        assert jobs_made(api) == 1
        assert api.call(on, jobid).status_code == 200

    def test_drop_after_hangs_up_when_the_work_is_done(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "drop_after")
        with pytest.raises(requests.ConnectionError, match=r"RemoteDisconnected|Connection reset"):
            api.call(on, jobid)
        assert jobs_made(api) == (2 if on == "submit" else 1)

    def test_cut_sends_less_than_it_announced(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "cut")
        with pytest.raises(
            (requests.exceptions.ChunkedEncodingError, requests.ConnectionError), match="IncompleteRead"
        ):
            api.call(on, jobid)
        assert jobs_made(api) == (2 if on == "submit" else 1)

    def test_slow_answers_late_but_well(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "slow", seconds=0.3)
        started = time.monotonic()
        assert api.call(on, jobid).status_code == 200
        assert time.monotonic() - started > 0.3


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("drop_before", (httpx.RemoteProtocolError, httpx.ReadError)),
        ("drop_after", (httpx.RemoteProtocolError, httpx.ReadError)),
        ("cut", (httpx.RemoteProtocolError,)),
    ],
)
def test_httpx_sees_broken_connections_as_what_they_are(api: Api, kind: str, error: Any) -> None:
    headers = {"Authorization": f"Bearer {api.emulator.token}"}
    with httpx.Client(base_url=api.emulator.url, headers=headers, trust_env=False) as client:
        assert client.get("/v2/account").status_code == 200
        api.emulator.fault("list", kind)
        with pytest.raises(error):
            client.get("/v1/pika/jobs")
        assert client.get("/v1/pika/jobs").json() == []


def test_a_drop_is_seen_on_the_bare_socket_without_a_byte(api: Api) -> None:
    api.emulator.fault("check", "drop_before")
    parts = urlsplit(api.emulator.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5) as connection:
        request = f"GET /v2/account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.emulator.token}\r\n\r\n"
        connection.sendall(request.encode())
        try:
            assert connection.recv(100) == b""
        except ConnectionResetError:
            pass


def test_a_cut_can_be_placed_to_the_byte(api: Api) -> None:
    api.emulator.fault("attachment", "cut", bytes=1000)
    answer = requests.get(api.link(api.made()), stream=True, timeout=10)
    chunks = answer.iter_content(100)
    assert sum(len(next(chunks)) for _ in range(10)) == 1000
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        next(chunks)


def test_a_slow_submit_has_made_its_job_before_the_client_gives_up(api: Api) -> None:
    api.emulator.fault("submit", "slow", seconds=2)
    with pytest.raises(requests.ReadTimeout):
        api.session.post(
            f"{api.emulator.url}/v1/pika/encrypt_text",
            files={"message": (None, "HELLO"), "prompt": (None, "waves")},
            timeout=0.3,
        )
    assert jobs_made(api) == 1


@pytest.mark.parametrize("on", JSON_CALLS)
class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "status"),
        [("bad_request", 400), ("unauthorized", 401), ("payment", 402), ("forbidden", 403), ("not_found", 404)],
    )
    def test_in_the_apis_form(self, api: Api, on: str, kind: str, status: int) -> None:
        jobid = api.made()
        api.emulator.fault(on, kind)
        answer = api.call(on, jobid)
        assert (answer.status_code, answer.json()["code"]) == (status, status)
        assert answer.json()["error"]
        assert jobs_made(api) == 1

    def test_throttled_by_discord_with_json_inside_a_string(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "discord_429", retry_after=17.5)
        answer = api.call(on, jobid)
        assert answer.status_code == 429
        assert "executingJobs" not in answer.json()
        details = json.loads(answer.json()["errorDetails"])
        assert (details["retry_after"], details["global"]) == (17.5, False)

    def test_throttled_by_discord_unreadably(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "discord_429", unreadable=True)
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(api.call(on, jobid).json()["errorDetails"])

    def test_throttled_plainly_with_and_without_a_header(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "rate_limit", retry_after=12)
        api.emulator.fault(on, "rate_limit")
        answers = [api.call(on, jobid) for _ in range(2)]
        assert [(answer.status_code, answer.headers.get("Retry-After")) for answer in answers] == [
            (429, "12"),
            (429, None),
        ]

    def test_a_list_and_an_object_take_each_others_place(self, api: Api, on: str) -> None:
        jobid = api.made()
        expected = type(api.call(on, jobid).json())
        api.emulator.fault(on, "list_instead")
        assert {type(api.call(on, jobid).json()), expected} == {list, dict}


@pytest.mark.parametrize("on", EVERY_CALL)
class TestOddAnswers:
    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_server_errors(self, api: Api, on: str, status: int) -> None:
        jobid = api.made()
        api.emulator.fault(on, "server_error", status=status)
        assert api.call(on, jobid).status_code == status
        assert jobs_made(api) == (2 if on == "submit" and status == 504 else 1)

    def test_html_and_nothing_where_json_belongs(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "html", status=503)
        api.emulator.fault(on, "html")
        api.emulator.fault(on, "empty")
        got = [api.call(on, jobid) for _ in range(3)]
        assert [(answer.status_code, answer.content[:9]) for answer in got] == [
            (503, b"<!DOCTYPE"),
            (200, b"<!DOCTYPE"),
            (200, b""),
        ]

    def test_the_route_itself_is_missing(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "route_missing")
        answer = api.call(on, jobid)
        assert answer.status_code == 404
        assert "Cannot " in answer.text

    def test_a_redirect_leads_to_where_it_is_noticed(self, api: Api, on: str) -> None:
        jobid = api.made()
        api.emulator.fault(on, "redirect")
        api.emulator.fault(on, "redirect", location="https://example.org/")
        answer = api.call(on, jobid)
        assert answer.status_code == 307
        assert requests.post(answer.headers["Location"], timeout=10).status_code == 200
        assert api.emulator.counters()["redirects_followed"] == 1
        assert api.call(on, jobid).headers["Location"] == "https://example.org/"


class TestSubmits:
    @pytest.mark.parametrize("kind", ["html", "server_error"])
    @pytest.mark.parametrize("work", [True, False])
    def test_whether_the_job_was_made_behind_an_error_can_be_chosen(self, api: Api, kind: str, work: bool) -> None:
        api.emulator.fault("submit", kind, work=work)
        api.submit()
        assert jobs_made(api) == work

    def test_a_full_queue_that_is_none(self, api: Api) -> None:
        api.emulator.fault("submit", "queue_full", times=2)
        for _ in range(2):
            answer = api.submit()
            assert answer.status_code == 429
            assert answer.json()["executingJobs"]
        assert api.submit().status_code == 200
        assert api.emulator.counters()["submits"] == {"asked": 3, "refused": {"429": 2}, "lost": 0}

    def test_moderation_leaves_an_ended_job(self, api: Api) -> None:
        api.emulator.fault("submit", "moderated", reason="No storms, please")
        answer = api.submit()
        body = answer.json()
        assert (answer.status_code, body["status"], body["errorDetails"]) == (422, "moderated", "No storms, please")
        assert api.status(body["jobid"]) == "moderated"

    def test_a_200_can_tell_of_a_job_that_has_failed(self, api: Api) -> None:
        api.emulator.fault("submit", "failed", reason="No bot")
        body = api.submit().json()
        assert (body["status"], body["error"]) == ("failed", "No bot")
        assert api.status(body["jobid"]) == "failed"

    def test_a_200_can_lack_the_jobid(self, api: Api) -> None:
        api.emulator.fault("submit", "no_jobid")
        answer = api.submit()
        assert (answer.status_code, "jobid" in answer.json()) == (200, False)
        assert jobs_made(api) == 1

    def test_a_fault_is_kept_for_a_submit_that_is_right_in_itself(self, api: Api) -> None:
        api.emulator.fault("submit", "server_error")
        assert api.submit("x" * 1501).status_code == 400
        assert api.submit().status_code == 500

    def test_lost_and_refused_submits_are_counted(self, api: Api) -> None:
        api.emulator.fault("submit", "drop_after")
        with pytest.raises(requests.ConnectionError):
            api.submit()
        api.emulator.fault("submit", "payment")
        api.submit()
        assert api.emulator.counters()["submits"] == {"asked": 2, "refused": {"402": 1}, "lost": 1}


class TestJobTraits:
    @pytest.mark.parametrize("status", ["failed", "moderated", "cancelled"])
    def test_a_job_ends_badly_with_a_reason(self, api: Api, status: str) -> None:
        api.emulator.fault("submit", "end_as", status=status, reason="because")
        jobid = api.made()
        assert api.call("job", jobid).json() | {"status": status, "error": "because"} == api.call("job", jobid).json()

    def test_a_stuck_unlisted_late_job(self, api: Api) -> None:
        api.emulator.configure(seconds=5)
        for kind in ("stuck", "unlisted", "late_read"):
            api.emulator.fault("submit", kind)
        jobid = api.made()
        api.emulator.advance(seconds=100)
        assert api.call("job", jobid).status_code == 404
        assert api.status(jobid) == "progress"
        assert api.call("list", jobid).json() == []

    def test_a_job_that_is_listed_late(self, api: Api) -> None:
        api.emulator.configure(seconds=100)
        api.emulator.fault("submit", "late_listing", seconds=20)
        jobid = api.made()
        assert api.call("list", jobid).json() == []
        api.emulator.advance(seconds=20)
        assert api.call("list", jobid).json() == [jobid]

    def test_no_video_at_all(self, api: Api) -> None:
        api.emulator.fault("submit", "no_video")
        body = api.call("job", api.made()).json()
        assert (body["status"], "attachments" in body) == ("completed", False)

    def test_only_the_first_link_has_expired(self, api: Api) -> None:
        api.emulator.fault("submit", "expired_link")
        jobid = api.made()
        answers = [requests.get(api.link(jobid), timeout=10).status_code for _ in range(2)]
        assert answers == [404, 200]

    def test_a_trait_can_be_given_to_a_job_that_runs_already(self, api: Api) -> None:
        api.emulator.configure(seconds=5)
        jobid, other = api.made(), api.made()
        api.emulator.fault("submit", "end_as", jobid=jobid, status="moderated")
        api.emulator.advance(seconds=5)
        assert (api.status(jobid), api.status(other)) == ("moderated", "completed")

    def test_the_server_can_ignore_ranges(self, api: Api) -> None:
        api.emulator.fault("attachment", "ignore_range")
        answer = requests.get(api.link(api.made()), headers={"Range": "bytes=0-1"}, timeout=10)
        assert (answer.status_code, len(answer.content) > 2) == (200, True)

    def test_a_link_can_be_forbidden_once(self, api: Api) -> None:
        jobid = api.made()
        api.emulator.fault("attachment", "forbidden", jobid=jobid)
        assert [api.call("attachment", jobid).status_code for _ in range(2)] == [403, 200]


class TestMarkers:
    @pytest.mark.parametrize(
        ("marker", "status"),
        [
            *[("400", 400), ("401", 401), ("402", 402), ("404", 404), ("422", 422)],
            *[("500", 500), ("502", 502), ("503", 503), ("504", 504)],
            *[("queue_full", 429), ("discord_429=20", 429), ("rate_limit=20", 429), ("moderated", 422)],
            *[("redirect", 307), ("route_missing", 404), ("slow=0.1", 200), ("html", 200), ("empty", 200)],
        ],
    )
    def test_a_submit_marker_strikes_the_first_submit_only(self, api: Api, marker: str, status: int) -> None:
        prompt = f"waves [emulator:{marker}]"
        assert [api.submit(prompt).status_code for _ in range(2)] == [status, 200]

    @pytest.mark.parametrize("marker", ["drop_before", "drop-after", "cut"])
    def test_a_marker_can_break_the_connection(self, api: Api, marker: str) -> None:
        prompt = f"[emulator:{marker}]"
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            api.submit(prompt)
        assert api.submit(prompt).status_code == 200
        assert jobs_made(api) == (1 if marker == "drop_before" else 2)

    @pytest.mark.parametrize(
        ("marker", "status"),
        [("failed", "failed"), ("late-moderated", "moderated"), ("cancelled", "cancelled"), ("stuck", "progress")],
    )
    def test_a_marker_decides_how_the_job_ends(self, api: Api, marker: str, status: str) -> None:
        assert api.status(api.made(f"waves [emulator:{marker}]")) == status

    def test_a_marker_decides_how_long_it_takes(self, api: Api) -> None:
        jobid = api.made("waves [emulator:seconds=40] [emulator:no_video]")
        api.emulator.advance(seconds=39)
        assert api.status(jobid) == "progress"
        api.emulator.advance(seconds=2)
        assert "attachments" not in api.call("job", jobid).json()

    def test_failed_at_once_is_told_in_the_answer_of_the_submit(self, api: Api) -> None:
        assert api.submit("[emulator:failed_at_once]").json()["status"] == "failed"
