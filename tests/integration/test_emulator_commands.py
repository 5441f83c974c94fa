"""The emulator's five commands over HTTP: what each takes, refuses, answers and makes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import av
import pytest
import requests
from PIL import Image

from airflow_provider_pika.api.commands import COMMANDS
from tests.support.plain_api import Api, assert_error

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.client import EmulatorClient

COMMON = {"discord", "channel", "maxJobs"}
TEXTS = {
    "encrypt_text": {"message": "HELLO", "prompt": "waves"},
    "create": {"prompt": "waves"},
    "animate": {},
    "encrypt_image": {"prompt": "waves"},
}
FILES = {"encrypt_text": (), "create": (), "animate": ("image",), "encrypt_image": ("message",)}
OPTIONAL = {
    "encrypt_text": {"font": "RETRO", "image": "file"},
    "create": {"image": "file"},
    "animate": {"prompt": "waves"},
    "encrypt_image": {"image": "file"},
}
four_commands = pytest.mark.parametrize("command", TEXTS)


def png(colour: str = "orange") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (64, 36), colour).save(target, "PNG")
    return target.getvalue()


PICTURE = ("a.png", png(), "image/png")


@pytest.fixture
def api(pika_emulator: EmulatorClient) -> Api:
    return Api(pika_emulator)


def submit(api: Api, command: str, _leave_out: str = "", **more: Any) -> requests.Response:
    """Submit with all that is required and, of a command, as many more texts and files as given."""
    texts = TEXTS[command] | {name: value for name, value in more.items() if isinstance(value, str)}
    files = dict.fromkeys(FILES[command], PICTURE) | {name: v for name, v in more.items() if not isinstance(v, str)}
    texts.pop(_leave_out, None)
    files.pop(_leave_out, None)
    if not texts and not files:
        texts = {"replyRef": "a form needs a part"}
    return api.submit(texts, command, **files)


def press(api: Api, jobid: str, **more: str) -> requests.Response:
    return api.submit({"jobid": jobid, "button": "retry"} | more, "button")


class TestSubmit:
    @four_commands
    def test_with_nothing_optional_its_own_fields_come_back(self, api: Api, command: str) -> None:
        answer = submit(api, command)
        body = answer.json()
        assert (answer.status_code, body["verb"], body["status"]) == (200, f"pika-{command}", "started")
        told = {name: body[name] for name in ("message", "prompt", "font", "image", "button") if name in body}
        files = {name: {"size": len(PICTURE[1]), "type": "image/png"} for name in FILES[command]}
        assert told == TEXTS[command] | files
        assert set(body) >= COMMON

    @four_commands
    def test_everything_given_comes_back(self, api: Api, command: str) -> None:
        asked = {"discord": "somebody's own", "channel": "42", "maxJobs": "3", "replyUrl": "u", "replyRef": "r"}
        own = {name: PICTURE if value == "file" else value for name, value in OPTIONAL[command].items()}
        body = submit(api, command, **asked, **own).json()
        told = asked | {"discord": "<som…secured…own>", "maxJobs": 3} | TEXTS[command]
        for name, value in OPTIONAL[command].items():
            told[name] = {"size": len(PICTURE[1]), "type": "image/png"} if value == "file" else value
        assert body | told == body

    @pytest.mark.parametrize(
        ("command", "field"),
        [(name, spec.api_name) for name in TEXTS for spec in COMMANDS[name].fields if spec.required],
    )
    def test_a_required_field_that_is_missing_is_a_400(self, api: Api, command: str, field: str) -> None:
        assert_error(submit(api, command, field), 400, f"Required field {field} is missing")

    @pytest.mark.parametrize(
        ("command", "more", "said"),
        [
            ("create", {"prompt": "x" * 1501}, "prompt is 1501"),
            ("animate", {"prompt": "x" * 1501}, "prompt is 1501"),
            ("encrypt_image", {"prompt": "x" * 1501}, "prompt is 1501"),
            ("create", {"message": "HELLO"}, "Unknown field message"),
            ("animate", {"font": "RETRO"}, "Unknown field font"),
            ("encrypt_image", {"font": "RETRO"}, "Unknown field font"),
            ("create", {"maxJobs": "11"}, "maxJobs must be a whole number from 1 to 10"),
            ("animate", {"discord": "somebody's own"}, "without field channel"),
            ("animate", {"image": (None, "text")}, "image must be a file part"),
            ("encrypt_image", {"message": (None, "HELLO")}, "message must be a file part"),
            ("encrypt_image", {"message": ("m.txt", b"HELLO", "text/plain")}, "message must have a Content-Type"),
            ("encrypt_image", {"message": ("m.png", b"", "image/png")}, "message is an empty file"),
            ("animate", {"prompt": "[emulator:oops]"}, "unknown marker"),
        ],
    )
    def test_a_wrong_field_is_a_400_that_names_it(
        self, api: Api, command: str, more: dict[str, Any], said: str
    ) -> None:
        assert_error(submit(api, command, **more), 400, said)

    @pytest.mark.parametrize("command", ["animate", "encrypt_image"])
    def test_a_picture_that_says_nothing_of_its_type_is_taken_for_what_it_is(self, api: Api, command: str) -> None:
        """A browser's Blob and curl send ``application/octet-stream``."""
        (name,) = FILES[command]
        for untyped in (("blob", png(), "application/octet-stream"), ("blob", png())):
            assert submit(api, command, **{name: untyped}).json()[name]["type"] == "image/png"
        assert_error(submit(api, command, **{name: ("blob", b"junk", "application/octet-stream")}), 400, "be an image")

    @four_commands
    def test_a_job_of_every_command_takes_a_place_on_its_channel(
        self, api: Api, pika_emulator: EmulatorClient, command: str
    ) -> None:
        pika_emulator.configure(seconds=30, max_jobs=1)
        jobid = submit(api, command).json()["jobid"]
        assert submit(api, "create").json()["executingJobs"] == [jobid]

    @four_commands
    def test_its_film_is_served(self, api: Api, command: str) -> None:
        body = api.job(submit(api, command).json()["jobid"]).json()
        (attachment,) = body["attachments"]
        film = requests.get(attachment["url"], timeout=30).content
        assert len(film) == attachment["size"]
        with av.open(io.BytesIO(film), "r") as container:
            assert container.streams.video[0].frames == 72
        assert body["buttons"] == ["retry"]

    def test_a_created_film_begins_with_the_picture_that_was_sent(self, api: Api) -> None:
        jobid = submit(api, "create", image=("a.png", png("#2060c0"), "image/png")).json()["jobid"]
        film = requests.get(api.job(jobid).json()["attachments"][0]["url"], timeout=30).content
        with av.open(io.BytesIO(film), "r") as container:
            first = next(container.decode(video=0)).to_image()
        assert all(abs(is_ - was) < 12 for is_, was in zip(first.getpixel((320, 180)), (0x20, 0x60, 0xC0), strict=True))


class TestFaults:
    @pytest.mark.parametrize("command", [*TEXTS, "button"])
    def test_a_scripted_fault_strikes_the_submit_of_every_command(
        self, api: Api, pika_emulator: EmulatorClient, command: str
    ) -> None:
        parent = api.made()
        api.job(parent)
        pika_emulator.fault("submit", "queue_full")
        answers = [press(api, parent) if command == "button" else submit(api, command) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [429, 200]
        assert pika_emulator.counters()["submits"] == {"asked": 3, "refused": {"429": 1}, "lost": 0}

    @pytest.mark.parametrize("command", ["create", "animate", "encrypt_image"])
    def test_a_marker_works_in_every_prompt(self, api: Api, command: str) -> None:
        jobid = submit(api, command, prompt="waves [emulator:failed]").json()["jobid"]
        assert api.job(jobid).json()["status"] == "failed"
        assert submit(api, command, prompt="[emulator:503]").status_code == 503
        assert_error(submit(api, command, prompt="waves -colour red"), 422, "Unrecognized parameter(s): `colour`")


class TestButton:
    def test_retry_makes_a_new_job_of_its_parents_input(self, api: Api, pika_emulator: EmulatorClient) -> None:
        parent = submit(api, "encrypt_image", channel="42", discord="somebody's own").json()
        api.job(parent["jobid"])
        made = press(api, parent["jobid"], replyRef="mine", maxJobs="4").json()
        assert made["jobid"] != parent["jobid"]
        assert (made["verb"], made["button"], made["status"]) == ("pika-button", "retry", "started")
        assert (made["replyRef"], made["maxJobs"]) == ("mine", 4)
        for name in ("message", "prompt", "channel", "discord"):
            assert made[name] == parent[name]
        first, second = pika_emulator.jobs()
        assert (second["verb"], second["parent"]) == ("pika-button", first["jobid"])

    def test_it_may_bring_the_token_of_its_channels_account(self, api: Api) -> None:
        parent = submit(api, "create", channel="42", discord="somebody's own").json()
        api.job(parent["jobid"])
        made = press(api, parent["jobid"], discord="another of theirs").json()
        assert made["channel"] == "42"
        assert (made["discord"][:5], parent["discord"][:5]) == ("<ano…", "<som…")

    def test_its_film_is_another_take_and_can_be_retried_again(self, api: Api) -> None:
        jobids = [api.made()]
        films = set()
        for _ in range(3):
            attachment = api.job(jobids[-1]).json()["attachments"][0]
            films.add(requests.get(attachment["url"], timeout=30).content)
            jobids.append(press(api, jobids[-1]).json()["jobid"])
        assert len(films) == 3

    @pytest.mark.parametrize("status", ["started", "progress", "failed", "moderated", "cancelled"])
    def test_only_a_completed_job_has_it(self, api: Api, pika_emulator: EmulatorClient, status: str) -> None:
        pika_emulator.configure(seconds=30)
        jobid = api.made()
        pika_emulator.advance(jobid=jobid, status=status)
        assert_error(press(api, jobid), 400, f"is {status} and has no button retry")
        assert len(pika_emulator.jobs()) == 1

    def test_an_unknown_parent_is_a_404(self, api: Api) -> None:
        assert_error(press(api, "job:unknown"), 404, "Unable to locate job job:unknown")

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"button": "retry"}, "Required field jobid is missing"),
            ({"jobid": "job:1"}, "Required field button is missing"),
            ({"jobid": "job:1", "button": "remix"}, "button remix is not one of allowed values retry"),
            ({"jobid": "job:1", "button": "retry", "channel": "42"}, "Unknown field channel"),
            ({"jobid": "job:1", "button": "retry", "prompt": "waves"}, "Unknown field prompt"),
        ],
    )
    def test_a_wrong_field_is_a_400_that_names_it(self, api: Api, fields: dict[str, str], said: str) -> None:
        assert_error(api.submit(fields, "button"), 400, said)

    def test_an_answer_without_a_jobid_does_not_name_the_parent_in_its_place(
        self, api: Api, pika_emulator: EmulatorClient
    ) -> None:
        parent = api.made()
        api.job(parent)
        pika_emulator.fault("submit", "no_jobid")
        answer = press(api, parent)
        assert answer.status_code == 200
        assert parent not in answer.text
