"""The emulator against the API's own page: its samples are taken, and what it refuses is refused in its words."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from airflow_provider_pika.emulator.client import EmulatorClient
from tests.support.plain_api import GOOD, Api

FONTS = "MODERN, COMICS, SANS SERIF, BAUHAUS, RETRO"
# The shape of the page's samples, with a host, a token and a font that exist.
NODE = """
const main = async () => {
    const apiUrl = process.argv[1] + "/v1/pika/encrypt_text";
    const data = { method: 'POST', headers: { 'Authorization': `Bearer ${process.argv[2]}` } };
    const formData = new FormData();
    formData.append("message", "Pika message");
    formData.append("prompt", "Pika prompt");
    formData.append("font", "SANS SERIF");
    formData.append("discord", "Discord token");
    formData.append("channel", "Discord channel");
    const fsp = require('fs').promises;
    const blob = new Blob([await fsp.readFile(process.argv[3])]);
    formData.append("image", blob);
    data.body = formData;
    const response = await fetch(apiUrl, data);
    console.log(JSON.stringify(await response.json()));
};
main();
"""


@pytest.fixture
def api(pika_emulator: EmulatorClient) -> Api:
    return Api(pika_emulator)


@pytest.fixture
def webp(tmp_path: Path) -> Path:
    path = tmp_path / "pika.webp"
    Image.new("RGB", (64, 36), "orange").save(path)
    return path


def check(body: dict[str, Any], image: int) -> None:
    told = {name: body[name] for name in ("status", "message", "prompt", "font", "discord", "channel", "image", "code")}
    assert told == {
        "status": "started",
        "message": "Pika message",
        "prompt": "Pika prompt",
        "font": "SANS SERIF",
        "discord": "<Dis…secured…ken>",
        "channel": "Discord channel",
        "image": {"size": image, "type": "image/webp"},
        "code": 200,
    }


class TestSamples:
    @pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
    def test_curl(self, pika_emulator: EmulatorClient, webp: Path) -> None:
        command = ["curl", "-sS", "--noproxy", "*", "-m", "20", "-H", "Accept: application/json"]
        command += ["-H", f"Authorization: Bearer {pika_emulator.token}"]
        command += ["-X", "POST", f"{pika_emulator.url}/v1/pika/encrypt_text"]
        command += ["-F", "discord=Discord token", "-F", "channel=Discord channel", "-F", "message=Pika message"]
        command += ["-F", "prompt=Pika prompt", "-F", "font=SANS SERIF", "-F", f'image=@"{webp}"']
        check(json.loads(output(command)), webp.stat().st_size)

    @pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
    def test_node_with_a_blob_of_a_file(self, pika_emulator: EmulatorClient, webp: Path) -> None:
        said = output(["node", "-e", NODE, pika_emulator.url, pika_emulator.token, str(webp)])
        check(json.loads(said), webp.stat().st_size)

    @pytest.mark.parametrize(
        "image", [("blob", None, "application/octet-stream"), ("pika.webp", None), ("blob", None, "image/webp")]
    )
    def test_the_bytes_of_a_blob_of_a_nameless_file_and_of_a_fetched_blob(
        self, api: Api, webp: Path, image: tuple[Any, ...]
    ) -> None:
        name, _, *content_type = image
        body = api.submit(TEXTS, image=(name, webp.read_bytes(), *content_type)).json()
        check(body, webp.stat().st_size)

    @pytest.mark.parametrize("with_image", [False, True])
    def test_python(self, pika_emulator: EmulatorClient, webp: Path, with_image: bool) -> None:
        files: dict[str, Any] = {name: (None, text) for name, text in TEXTS.items()}
        if with_image:
            with webp.open("rb") as image_file:
                files["image"] = ("pika.webp", image_file.read(), "image/webp")
        headers = {"Authorization": f"Bearer {pika_emulator.token}"}
        answer = requests.post(f"{pika_emulator.url}/v1/pika/encrypt_text", headers=headers, files=files, timeout=10)
        if with_image:
            check(answer.json(), webp.stat().st_size)
        assert answer.json()["status"] == "started"


TEXTS = {
    "message": "Pika message",
    "prompt": "Pika prompt",
    "font": "SANS SERIF",
    "discord": "Discord token",
    "channel": "Discord channel",
}


def output(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout  # noqa: S603 - our own


MISSING = "message, prompt, discord or channel value is missing"
TOO_LONG = "message, prompt, replyRef or replyUrl is too long"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"prompt": "waves"}, MISSING),
        ({"message": "HELLO"}, MISSING),
        (GOOD | {"message": ""}, MISSING),
        (GOOD | {"discord": "somebody's own"}, MISSING),
        (GOOD | {"channel": "42"}, MISSING),
        (GOOD | {"message": "x" * 21}, TOO_LONG),
        (GOOD | {"prompt": "x" * 1501}, TOO_LONG),
        (GOOD | {"replyUrl": "x" * 1025}, TOO_LONG),
        (GOOD | {"replyRef": "x" * 1025}, TOO_LONG),
        (GOOD | {"font": "Comic"}, f"font Comic is not one of allowed values {FONTS}"),
        (GOOD | {"image": "a.png"}, "image is not File or Blob"),
    ],
)
def test_a_400_says_what_the_page_says_and_more_in_its_details(api: Api, fields: dict[str, str], error: str) -> None:
    answer = api.submit(fields)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert answer.json().keys() <= {"error", "errorDetails", "code"}


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("create", "prompt, discord or channel value is missing"),
        ("animate", "image, discord or channel value is missing"),
        ("button", "jobid or button value is missing"),
    ],
)
def test_the_other_commands_name_their_own_fields(api: Api, command: str, error: str) -> None:
    assert api.submit({"replyRef": "a form needs a part"}, command).json()["error"] == error


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("unauthorized", 401, "Unauthorized"),
        ("payment", 402, "Account has no subscription or subscription expired"),
        ("moderated", 422, "Sorry, your input may be inconsistent with server rules."),
        ("queue_full", 429, "Maximum of 1 jobs executing in parallel supported"),
        ("discord_429", 429, "Discord /interactions failed with HTTP status 429"),
    ],
)
def test_every_other_refusal_of_the_page_is_in_its_words(
    api: Api, pika_emulator: EmulatorClient, kind: str, status: int, error: str
) -> None:
    pika_emulator.fault("submit", kind)
    answer = api.submit()
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_discords_limit_is_told_as_javascript_writes_it(api: Api, pika_emulator: EmulatorClient) -> None:
    pika_emulator.fault("submit", "discord_429", retry_after=10)
    details = api.submit().json()["errorDetails"]
    assert details == '{"global":false,"message":"You are being rate limited.","retry_after":10}'


def test_a_full_channel_names_its_limit(api: Api, pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30, max_jobs=2)
    api.made()
    api.made()
    assert api.submit().json()["error"] == "Maximum of 2 jobs executing in parallel supported"


def test_unknown_parameters_are_named_together(api: Api) -> None:
    body = api.submit(GOOD | {"prompt": "waves -colour red -w 3 -sizes 2"}).json()
    assert (body["error"], body["errorDetails"]) == (
        "Invalid parameter",
        "Unrecognized parameter(s): `colour`, `sizes`",
    )
    read = api.job(body["jobid"]).json()
    assert (read["error"], read["errorDetails"]) == (body["error"], body["errorDetails"])


def test_the_content_of_a_job_is_worded_as_the_bot_does(api: Api, pika_emulator: EmulatorClient, webp: Path) -> None:
    pika_emulator.configure(seconds=30)
    user = "<@1100000000000000000>"
    plain = api.submit().json()["content"]
    assert plain == f"{user} Creation job queued. (Prompt: waves  Message: HELLO  Author: {user})"
    body = api.submit(GOOD | {"font": "RETRO"}, image=("pika.webp", webp.read_bytes())).json()
    parts = ["Prompt: waves", "Message: HELLO (Font: RETRO)", "Image: 1 Attachment", f"Author: {user}"]
    assert body["content"] == f"{user} Creation job queued. ({'  '.join(parts)})"
    pika_emulator.advance(15)
    assert "(50%)" in api.job(body["jobid"]).json()["content"]
