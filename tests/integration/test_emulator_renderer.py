"""A renderer of one's own behind the API: its film is served, its words are told, and it never outlives its job."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import requests
from PIL import Image

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.server import running_emulator
from airflow_provider_pika.emulator.settings import Settings
from tests.support.plain_api import GOOD, Api

# Notes its pid and what it was told, then does as its prompt says.
PROGRAM = """
import json, os, subprocess, sys, time
job = json.load(sys.stdin)
folder = os.path.dirname(__file__)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) if "child" in job["prompt"] else None
note = {"pid": os.getpid(), "child": child and child.pid, "job": job, "film": sys.argv[1]}
if "image" in job:
    note["image"] = len(open(job["image"], "rb").read())
path = os.path.join(folder, job["message"] + ".json")
open(path + "~", "w").write(json.dumps(note))
os.rename(path + "~", path)
print("33%", flush=True)
if "hang" in job["prompt"]:
    time.sleep(60)
if "fail" in job["prompt"]:
    print("a warning\\nthe model is out of memory", file=sys.stderr)
    sys.exit(3)
if "quiet" in job["prompt"]:
    sys.exit(3)
if "nothing" not in job["prompt"]:
    open(sys.argv[1], "wb").write(b"a film of " + job["message"].encode())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def emulator(program: Path) -> Iterator[EmulatorClient]:
    settings = Settings(renderer=(sys.executable, "-S", str(program)), renderer_limit=30, channels={"1": 2})
    with running_emulator(settings) as client:
        yield client


@pytest.fixture
def api(emulator: EmulatorClient) -> Api:
    return Api(emulator)


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


def ended(api: Api, jobid: str) -> dict[str, Any]:
    body: dict[str, Any] = wait_for(lambda: (b := api.job(jobid).json())["status"] not in ("started", "progress") and b)
    return body


def note(program: Path, message: str) -> dict[str, Any]:
    path = program.with_name(f"{message}.json")
    wait_for(path.exists)
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def is_gone(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        # Somebody's zombie has ended, too.
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    return True


def test_its_film_is_what_the_attachment_serves(api: Api, program: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    jobid = api.submit(GOOD | {"font": "RETRO"}, image=("a.png", picture.getvalue())).json()["jobid"]
    body = ended(api, jobid)
    (attachment,) = body["attachments"]
    assert (body["status"], attachment["size"]) == ("completed", len(b"a film of HELLO"))
    assert requests.get(attachment["url"], timeout=10).content == b"a film of HELLO"
    told = note(program, "HELLO")
    assert told["image"] == len(picture.getvalue())
    assert told["job"]["image"].endswith("-image.png")
    del told["job"]["image"]
    assert told["job"] == GOOD | {"font": "RETRO", "jobid": jobid, "verb": "pika-encrypt_text", "take": 0}


@pytest.mark.parametrize(
    ("name", "content_type", "suffix"),
    [
        ("a", "image/jpeg", ".jpg"),
        ("a.png", "image/webp", ".webp"),
        ("a.WebP", None, ".png"),
        ("a.heic", "image/x-unknown", ".heic"),
        ("a", "image/x-unknown", ""),
        ("a.p n/g", "image/x-unknown", ""),
        ("../../a.b/c", "image/x-unknown", ""),
    ],
)
def test_a_picture_has_the_suffix_that_programs_tell_it_by(
    api: Api, program: Path, name: str, content_type: str | None, suffix: str
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    upload = (name, picture.getvalue()) if content_type is None else (name, picture.getvalue(), content_type)
    assert api.submit(GOOD, image=upload).status_code == 200
    path = Path(note(program, "HELLO")["job"]["image"])
    assert (path.stem.partition("-")[2], path.suffix) == ("image", suffix)


def test_its_lines_become_the_jobs_content_while_it_runs(api: Api, program: Path) -> None:
    jobid = api.made(prompt="hang")
    note(program, "HELLO")
    body = wait_for(lambda: (b := api.job(jobid).json())["status"] == "progress" and b)
    assert body["content"] == "**hang** - `HELLO` (33%)"
    assert api.get("/v1/pika/jobs").json() == [jobid]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("fail", "the model is out of memory"),
        ("quiet", "The renderer ended with exit code 3"),
        ("nothing", "The renderer made no film"),
    ],
)
def test_one_that_fails_fails_the_job_with_its_last_words(api: Api, prompt: str, said: str) -> None:
    body = ended(api, api.made(prompt=prompt))
    assert (body["status"], body["error"]) == ("failed", said)
    assert "attachments" not in body


@pytest.mark.parametrize(("marker", "end"), [("failed", "failed"), ("late_moderated", "moderated")])
def test_a_marker_has_the_last_word_on_the_end(api: Api, marker: str, end: str) -> None:
    jobid = api.submit(GOOD | {"prompt": f"waves [emulator:{marker}]"}).json()["jobid"]
    assert ended(api, jobid)["status"] == end


def test_a_stuck_job_outlives_its_program(api: Api, program: Path) -> None:
    jobid = api.submit(GOOD | {"prompt": "waves [emulator:stuck]"}).json()["jobid"]
    pid = note(program, "HELLO")["pid"]
    wait_for(lambda: is_gone(pid))
    time.sleep(1)  # for its end to be heard of
    assert api.job(jobid).json()["status"] == "progress"


def test_one_that_hangs_is_killed_with_all_it_started_and_its_job_has_failed(program: Path) -> None:
    settings = Settings(renderer=(sys.executable, "-S", str(program)), renderer_limit=1)
    with running_emulator(settings) as client:
        api = Api(client)
        body = ended(api, api.made(prompt="hang child"))
        assert (body["status"], body["error"]) == ("failed", "The renderer took longer than 1 s")
        told = note(program, "HELLO")
        wait_for(lambda: is_gone(told["pid"]) and is_gone(told["child"]))


@pytest.mark.parametrize("by", ["cancel", "reset"])
def test_one_whose_job_is_cancelled_is_killed(api: Api, emulator: EmulatorClient, program: Path, by: str) -> None:
    jobid = api.made(prompt="hang child")
    told = note(program, "HELLO")
    if by == "cancel":
        assert api.cancel(jobid).json()["status"] == "cancelled"
    else:
        emulator.reset()
    wait_for(lambda: is_gone(told["pid"]) and is_gone(told["child"]))
    if by == "cancel":
        assert api.job(jobid).json()["status"] == "cancelled"


def test_what_it_leaves_running_does_not_hold_up_its_job(api: Api, program: Path) -> None:
    assert ended(api, api.made(prompt="child"))["status"] == "completed"
    told = note(program, "HELLO")
    wait_for(lambda: is_gone(told["child"]))


def test_no_more_run_at_once_than_the_channel_may(api: Api, program: Path) -> None:
    jobids = [api.made(prompt="hang", message=message) for message in ("A", "B")]
    answer = api.submit(GOOD | {"message": "C"})
    assert (answer.status_code, answer.json()["executingJobs"]) == (429, jobids)
    assert note(program, "A")["pid"] != note(program, "B")["pid"]
    assert not program.with_name("C.json").exists()


def test_none_outlives_the_emulator(program: Path) -> None:
    with running_emulator(Settings(renderer=(sys.executable, "-S", str(program)))) as client:
        Api(client).made(prompt="hang child")
        told = note(program, "HELLO")
    assert is_gone(told["pid"])
    wait_for(lambda: is_gone(told["child"]))
    assert not Path(told["film"]).parent.exists()


def test_one_that_does_not_exist_fails_the_job_and_says_so() -> None:
    with running_emulator(Settings(renderer=("/no/such/program",))) as client:
        api = Api(client)
        body = ended(api, api.made())
    assert body["status"] == "failed"
    assert "cannot be started" in body["error"]
    assert "/no/such/program" in body["error"]


def test_a_refused_prompt_is_not_rendered(api: Api, program: Path) -> None:
    assert api.submit(GOOD | {"prompt": "waves -colour red"}).status_code == 422
    assert ended(api, api.made(message="B"))["status"] == "completed"
    assert not program.with_name("HELLO.json").exists()


def test_the_example_makes_the_emulators_own_film() -> None:
    command = [sys.executable, "-m", "airflow_provider_pika.emulator.render"]
    with running_emulator(Settings(renderer=tuple(command))) as client:
        api = Api(client)
        url = ended(api, api.made())["attachments"][0]["url"]
        with av.open(io.BytesIO(requests.get(url, timeout=10).content), "r") as film:
            assert film.streams.video[0].frames == 72


def test_the_command_line_takes_a_renderer(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_pika.emulator.__main__ import _settings, _welcome, main

    command = [sys.executable, "a b.py"]
    settings, _ = _settings(["--renderer", shlex.join(command), "--renderer-limit", "5"])
    assert (settings.renderer, settings.renderer_limit) == (tuple(command), 5)
    assert f"with their renderer, {shlex.join(command)};" in _welcome("http://127.0.0.1:8300", settings)
    with pytest.raises(SystemExit):
        main(["--renderer-limit", "-1"])
    assert "renderer-limit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--renderer", "no-such-program --fast"])
    assert "--renderer names no program that can be run: 'no-such-program'" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value"), [("--port", "70000"), ("--port", "-5"), ("--channel", "=3")])
def test_the_command_line_refuses_what_cannot_be(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_pika.emulator.__main__ import main

    with pytest.raises(SystemExit) as ended:
        main([f"{flag}={value}"])
    assert ended.value.code == 2
    assert value in capsys.readouterr().err


def test_the_page_shows_the_whole_command(emulator: EmulatorClient, program: Path) -> None:
    page = requests.get(emulator.url, timeout=10).text
    assert f"Films are made by {sys.executable} -S {program}" in page
