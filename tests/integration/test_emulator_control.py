"""The emulator's own side: counters, control routes, the page, the fixture and the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_pika.emulator.server import running_emulator
from airflow_provider_pika.emulator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_pika.emulator.client import EmulatorClient


def call(emulator: EmulatorClient, target: str, **more: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {emulator.token}", "User-Agent": "the-test/1"}
    return requests.get(emulator.url + target, headers=headers, timeout=10, **more)


def submit(emulator: EmulatorClient, prompt: str = "waves", **fields: str) -> str:
    parts = {"message": "HELLO", "prompt": prompt} | fields
    answer = requests.post(
        f"{emulator.url}/v1/pika/encrypt_text",
        files={name: (None, text) for name, text in parts.items()},
        headers={"Authorization": f"Bearer {emulator.token}"},
        timeout=10,
    )
    return str(answer.json()["jobid"])


def test_the_counters_tell_what_was_asked(pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30)
    jobid = submit(pika_emulator, replyRef="mine")
    for target in ("/v1/pika/jobs", "/v1/pika/account", "/v2/account", *[f"/v1/pika/jobs/?jobid={jobid}"] * 2):
        call(pika_emulator, target)
    counters = pika_emulator.counters()
    (job,) = counters.pop("jobs")
    assert job.pop("created") <= time.strftime("%Y-%m-%dT%H:%M:%S.999", time.gmtime())
    assert job == {
        "jobid": jobid,
        "verb": "pika-encrypt_text",
        "parent": None,
        "replyRef": "mine",
        "message": "HELLO",
        "prompt": "waves",
        "channel": "1000000000000000001",
        "status": "started",
        "ended": None,
        "seen": None,
    }
    gap = counters["polls"].pop("smallest_gap")
    assert 0 < gap < 1
    assert counters == {
        "requests": 6,
        "submits": {"asked": 1, "refused": {}, "lost": 0},
        "polls": {"total": 2, "by_job": {jobid: {"count": 2, "smallest_gap": gap}}},
        "cancels": {},
        "lists": 1,
        "accounts": 1,
        "checks": 1,
        "peak_running": {"1000000000000000001": 1},
        "attachments": 0,
        "token_leaks": 0,
        "redirects_followed": 0,
        "callbacks": {"delivered": 0, "failed": 0, "not_delivered": 0, "lost": 0, "retried": 0},
    }


def test_the_peak_is_right_under_many_submits_at_once(pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30)
    with ThreadPoolExecutor(8) as pool:
        jobids = set(pool.map(lambda _: submit(pika_emulator), range(8)))
    assert len(jobids) == 8
    assert pika_emulator.counters()["peak_running"] == {"1000000000000000001": 8}


def test_the_last_requests_are_told_without_the_token(pika_emulator: EmulatorClient) -> None:
    call(pika_emulator, "/v1/pika/jobs/?jobid=a%3Ab")
    pika_emulator.fault("list", "drop_before")
    with pytest.raises(requests.ConnectionError):
        call(pika_emulator, "/v1/pika/jobs")
    read, dropped = pika_emulator.requests()
    assert (read["method"], read["path"], read["status"]) == ("GET", "/v1/pika/jobs/?jobid=a%3Ab", 404)
    assert (read["user_agent"], dropped["status"]) == ("the-test/1", None)
    assert pika_emulator.token not in json.dumps([read, dropped])


def test_a_job_can_be_put_into_any_state(pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30)
    jobid = submit(pika_emulator)
    for status in ("warming_up", "failed"):
        pika_emulator.advance(jobid=jobid, status=status, content="by hand")
        body = call(pika_emulator, f"/v1/pika/jobs/?jobid={jobid}").json()
        assert (body["status"], body["content"]) == (status, "by hand")


def test_faults_that_have_not_struck_can_be_taken_back(pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30)
    pika_emulator.fault("list", "html", status=502, times=3)
    pika_emulator.fault("submit", "unlisted")
    assert call(pika_emulator, "/v1/pika/jobs").status_code == 502
    left = pika_emulator.faults()
    assert [(fault["on"], fault["kind"], fault["times"]) for fault in left] == [
        ("list", "html", 2),
        ("submit", "unlisted", 1),
    ]
    assert pika_emulator.take_back_faults() == left
    assert pika_emulator.faults() == []
    jobid = submit(pika_emulator)
    assert call(pika_emulator, "/v1/pika/jobs").json() == [jobid]


def test_a_job_keeps_what_has_befallen_it_when_faults_are_taken_back(pika_emulator: EmulatorClient) -> None:
    pika_emulator.configure(seconds=30)
    pika_emulator.fault("submit", "unlisted")
    submit(pika_emulator)
    assert pika_emulator.take_back_faults() == []
    assert call(pika_emulator, "/v1/pika/jobs").json() == []


def test_a_reset_forgets_everything(pika_emulator: EmulatorClient) -> None:
    submit(pika_emulator)
    pika_emulator.configure(max_jobs=1)
    pika_emulator.fault("list", "html")
    pika_emulator.reset()
    assert (pika_emulator.counters()["requests"], pika_emulator.jobs(), pika_emulator.requests()) == (0, [], [])
    assert call(pika_emulator, "/v1/pika/jobs").json() == []
    assert call(pika_emulator, "/v1/pika/account/1000000000000000001").json()["maxJobs"] == 10


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("faults", [{"on": "submit", "kind": "oops"}], "unknown kind"),
        ("faults", [1], "JSON object"),
        ("faults", {"on": "submit", "kind": "stuck", "jobid": "job:unknown"}, "Unable to locate job"),
        ("configure", {"colour": 1}, "colour"),
        ("advance", {"minutes": 1}, "seconds"),
        ("advance", {"jobid": "job:unknown", "status": "failed"}, "Unable to locate job"),
        ("advance", {"seconds": -1}, "at least 0"),
    ],
)
def test_a_wrong_wish_is_refused_in_words(pika_emulator: EmulatorClient, path: str, body: Any, said: str) -> None:
    answer = requests.post(f"{pika_emulator.url}/_emulator/{path}", json=body, timeout=10)
    assert answer.status_code in (400, 404)
    assert said in answer.json()["error"]


def test_no_json_is_refused_in_words(pika_emulator: EmulatorClient) -> None:
    assert requests.post(f"{pika_emulator.url}/_emulator/faults", data="no", timeout=10).status_code == 400


def test_the_client_tells_what_the_emulator_refused(pika_emulator: EmulatorClient) -> None:
    with pytest.raises(ValueError, match="unknown kind 'oops'"):
        pika_emulator.fault("submit", "oops")


def test_pending_faults_can_be_looked_at(pika_emulator: EmulatorClient) -> None:
    pika_emulator.fault("list", "html", times=3)
    (fault,) = requests.get(f"{pika_emulator.url}/_emulator/faults", timeout=10).json()
    assert (fault["kind"], fault["times"]) == ("html", 3)


def test_the_page_shows_jobs_with_their_films_and_escapes_what_they_say(pika_emulator: EmulatorClient) -> None:
    submit(pika_emulator, "<script>alert(1)</script>", replyRef='"><b>mine')
    submit(pika_emulator, "storm [emulator:stuck]")
    call(pika_emulator, "/v1/pika/jobs/?jobid=<img>")
    pika_emulator.fault("job", "not_found", jobid="<img>")
    answer = requests.get(pika_emulator.url, timeout=10)
    page = answer.text
    assert "&lt;script&gt;" in page
    assert page.count("<script") == 1
    assert not re.search(r"<img|<b>mine", page)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "storm" in page
    film = re.search(r'<video [^>]*poster="([^"]+)" src="([^"]+)"', page)
    assert film
    assert requests.get(film[2].replace("&amp;", "&"), timeout=10).headers["Content-Type"] == "video/mp4"
    still = requests.get(pika_emulator.url + film[1], timeout=10)
    assert (still.headers["Content-Type"], still.content[:2]) == ("image/jpeg", b"\xff\xd8")
    assert requests.get(f"{pika_emulator.url}/_emulator/still/999999", timeout=10).status_code == 404


def test_the_fixture_leads_the_default_connection_to_the_emulator(pika_emulator: EmulatorClient) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_PIKA_DEFAULT"])
    assert connection == pika_emulator.connection
    assert connection == {"conn_type": "pika", "host": pika_emulator.url, "password": "user:1000-emulator"}


def test_the_fixture_starts_each_test_anew(pika_emulator: EmulatorClient) -> None:
    assert pika_emulator.counters()["requests"] == 0


def test_an_emulator_of_ones_own_lives_as_long_as_its_block() -> None:
    with running_emulator(Settings(token="user:7-other")) as emulator:
        assert submit(emulator).endswith("-user:7-channel:1000000000000000001-bot:pika")
        connection = requests.Session()
        connection.get(emulator.url, timeout=10)
    with pytest.raises(requests.ConnectionError):
        requests.get(emulator.url, timeout=1)


class TestCommandLine:
    @pytest.fixture
    def started(self) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "airflow_provider_pika.emulator", "--port", "0", "--seconds", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
        yield process
        process.kill()
        process.communicate()

    @pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
    def test_it_says_where_it_is_what_it_does_and_goodbye(
        self, started: subprocess.Popen[str], ending: signal.Signals
    ) -> None:
        assert started.stdout
        welcome = "".join(started.stdout.readline() for _ in range(5))
        url = re.findall(r"http://127\.0\.0\.1:\d+", welcome)[0]
        assert "user:1000-emulator" in welcome
        assert "AIRFLOW_CONN_PIKA_DEFAULT=" in welcome
        with requests.Session() as kept_alive:
            kept_alive.headers["Authorization"] = "Bearer user:1000-emulator"
            kept_alive.get(f"{url}/v1/pika/jobs", timeout=10)
            started.send_signal(ending)
            said, errors = started.communicate(timeout=10)
        assert (started.returncode, errors) == (0, "")
        access, closing = said.splitlines()
        assert re.fullmatch(r"\d\d:\d\d:\d\d  GET  /v1/pika/jobs\s+200  \d+ ms  0 running", access)
        assert closing.startswith("Pika emulator ended: 1 requests, 0 submits")

    def test_a_client_stuck_in_a_slow_answer_does_not_hold_it_up(self, started: subprocess.Popen[str]) -> None:
        assert started.stdout
        url = re.findall(r"http://\S+", started.stdout.readline())[0]
        with ThreadPoolExecutor(1) as pool:
            requests.post(f"{url}/_emulator/faults", json={"on": "check", "kind": "slow", "seconds": 60}, timeout=10)
            waiting = pool.submit(
                requests.get, f"{url}/v2/account", headers={"Authorization": "Bearer user:1000-emulator"}, timeout=30
            )
            time.sleep(0.3)
            started.send_signal(signal.SIGINT)
            _, errors = started.communicate(timeout=10)
            assert (started.returncode, errors) == (0, "")
            assert waiting.exception() or waiting.result().status_code >= 500

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--max-jobs", "11"], "--max-jobs must be a whole number from 1 to 10"),
            (["--seconds", "-1"], "at least 0"),
            (["--reads", "2", "--seconds", "3"], "not allowed with"),
            (["--channel", "5=x"], "--channel 5: MAX_JOBS must be a whole number from 1 to 10, not 'x'"),
        ],
    )
    def test_wrong_flags_are_told(self, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        from airflow_provider_pika.emulator.__main__ import main

        with pytest.raises(SystemExit) as ended:
            main(flags)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err

    def test_a_taken_port_is_told_in_one_line(
        self, pika_emulator: EmulatorClient, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from airflow_provider_pika.emulator.__main__ import main

        assert main(["--port", pika_emulator.url.rpartition(":")[2]]) == 1
        assert "cannot listen" in capsys.readouterr().err

    def test_without_the_extras_packages_it_says_what_to_install(self, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nfor name in ('av', 'PIL'):\n    sys.modules[name] = None\n"
        )
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-m", "airflow_provider_pika.emulator"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment, check=False)  # noqa: S603 - our own
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert "pip install 'airflow-provider-pika[emulator]'" in ended.stderr

    def test_neither_the_emulator_imports_airflow_nor_the_pytest_plugin_a_server(self) -> None:
        script = (
            "import sys, airflow_provider_pika.emulator.pytest_plugin\n"
            "print([name for name in ('starlette', 'uvicorn', 'av', 'PIL', 'urllib.request') if name in sys.modules"
            " and name not in before])\n"
            "import airflow_provider_pika.emulator.server, airflow_provider_pika.emulator.__main__\n"
            "print([name for name in sys.modules if name.split('.')[0] == 'airflow'])\n"
        )
        script = "import sys, pytest; before = set(sys.modules)\n" + script
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - our own
        assert ended.stdout.split("\n") == ["[]", "[]", ""]
