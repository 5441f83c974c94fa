"""What docs/emulator.md says holds: its options, its markers, its lines for a terminal, and its renderer."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_pika.emulator import faults, markers
from airflow_provider_pika.emulator.__main__ import _settings
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.server import running_emulator
from airflow_provider_pika.emulator.settings import Settings
from tests.support.plain_api import GOOD, Api

GUIDE_PATH = Path(__file__).parents[2] / "docs" / "emulator.md"
GUIDE = GUIDE_PATH.read_text()
CONSOLE = [
    shlex.split(line)
    for block in re.findall(r"```console\n(.*?)```", GUIDE, flags=re.DOTALL)
    for line in block.splitlines()
]
(PROGRAM,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_every_option_is_told_and_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _settings(["--help"])
    there = set(re.findall(r"--[a-z-]+", capsys.readouterr().out.partition("options:")[2])) - {"--help"}
    rows = [line for line in GUIDE.splitlines() if line.startswith("| `--")]
    assert {name for row in rows for name in re.findall(r"--[a-z-]+", row.split("|")[1])} == there


def test_the_defaults_told_are_the_defaults() -> None:
    settings, options = _settings([])
    assert (options.port, settings.token, settings.pace.seconds) == (8300, "user:1000-emulator", 20)
    assert (settings.link_seconds, settings.renderer_limit) == (24 * 3600, 1800)


def test_its_lines_that_start_the_emulator_are_ones_it_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    lines = [line[3:] for line in CONSOLE if line[:3] == ["python", "-m", "airflow_provider_pika.emulator"]]
    assert [bool(_settings(line)[0].renderer) for line in lines] == [False, True, True]


def test_its_markers_and_calls_are_there() -> None:
    told = re.findall(r"\[emulator:[^\]]*\]", GUIDE)
    assert len(told) >= 6
    for marker in told:
        markers.read_markers(marker)
    calls = GUIDE.partition("There are faults of every call (")[2].partition(")")[0]
    assert tuple(re.findall(r"`(\w+)`", calls)) == faults.CALLS


def test_the_reference_has_all_faults_and_all_markers() -> None:
    reference = (GUIDE_PATH.parent / "reference" / "fixture.rst").read_text()
    for module in (faults, markers):
        assert f".. automodule:: {module.__name__}\n" in reference


def test_its_curl_lines_script_and_question_the_emulator(pika_emulator: EmulatorClient) -> None:
    for line in [line for line in CONSOLE if line[0] == "curl"]:
        url = next(part for part in line if part.startswith("http")).replace("http://127.0.0.1:8300", pika_emulator.url)
        data = line[line.index("-d") + 1] if "-d" in line else None
        # As curl sends it, which knows nothing of JSON.
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = requests.post(url, data, headers=form, timeout=10) if data else requests.get(url, timeout=10)
        assert answer.ok, answer.text
    assert Api(pika_emulator).submit(GOOD).status_code == 429


def test_its_renderer_makes_a_film_and_says_why_it_makes_none(tmp_path: Path) -> None:
    (tmp_path / "waves.mp4").write_bytes(b"waves")
    program = tmp_path / "my_renderer.py"
    program.write_text(PROGRAM.replace("waves.mp4", str(tmp_path / "waves.mp4")))
    with running_emulator(Settings(renderer=(sys.executable, "-S", str(program)))) as client:
        api = Api(client)
        good, bad = api.made(), api.made(prompt="lava")
        film = _ended(api, good)["attachments"][0]["url"]
        assert requests.get(film, timeout=10).content == b"waves"
        assert (_ended(api, bad)["status"], _ended(api, bad)["error"]) == ("failed", "No lava today")


def _ended(api: Api, jobid: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (body := json.loads(api.job(jobid).text))["status"] in ("started", "progress"):
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.05)
    return dict(body)
