"""``airflow pika`` and ``python -m airflow_provider_pika``: one parser behind two doors, against the emulator."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_provider_pika import __main__, cli
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import TOKEN, connect, http, recorder

CHANNEL = "1000000000000000001"
AIRFLOW = Path(sys.executable).with_name("airflow")
TAKES_COMMANDS = tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 2)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The commands tell Airflow that they are no task; the tests after them are tasks again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "")
        yield


@pytest.fixture
def jobid(pika_emulator: EmulatorClient) -> str:
    """A job that runs."""
    pika_emulator.configure(seconds=3600)
    prompt = "waves [bold] at dawn"
    return PikaHook().encrypt_text(message="HI", prompt=prompt, reply_ref="films/manual__1/submit").jobid


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command in this process; return what it printed."""
    __main__.main(argv)
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    return json.loads(run(capsys, *argv, "--output", "json"))


def test_the_running_jobs_are_listed_with_what_tells_whose_they_are(
    jobid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = told(capsys, "jobs")
    assert re.fullmatch(r"\d+ (second|minute)s?", row.pop("age"))
    assert row == {
        "jobid": jobid,
        "status": "started",
        "command": "encrypt_text",
        "prompt": "waves [bold] at dawn",
        "channel": CHANNEL,
        "reply_ref": "films/manual__1/submit",
    }


def test_a_prompt_in_brackets_is_shown_in_the_table_as_it_is(jobid: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = run(capsys, "jobs")
    assert "[bold]" in table
    assert "reply_ref" in table


@pytest.mark.usefixtures("pika_emulator")
def test_no_running_job_is_said_and_is_an_empty_list_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "jobs") == "No job runs.\n"
    assert told(capsys, "jobs") == []


def test_one_job_is_shown_without_what_is_nobodys_business(jobid: str, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = told(capsys, "job", jobid)
    assert (job["jobid"], job["prompt"]) == (jobid, "waves [bold] at dawn")
    assert "discord" not in job
    assert "waves [bold] at dawn" in run(capsys, "job", jobid)


def test_cancelling_says_what_came_of_it(
    pika_emulator: EmulatorClient, jobid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "cancel", jobid) == f"Asked the API to cancel {jobid}: it is cancelled.\n"
    assert [job["status"] for job in pika_emulator.jobs()] == ["cancelled"]


def test_the_accounts_are_listed_with_their_tokens_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accounts = {CHANNEL: {"channel": CHANNEL, "discord": "MTE.whole-token", "maxJobs": 3}, "2": {"channel": "2"}}
    with recorder(http(200, accounts)) as server:
        connect(monkeypatch, server.url)
        rows = told(capsys, "accounts")
    assert rows == [
        {"channel": CHANNEL, "max_jobs": "3", "discord": "MTE…ken"},
        {"channel": "2", "max_jobs": None, "discord": "***"},
    ]


@pytest.mark.parametrize("argv", [("jobs",), ("job", "job:1"), ("cancel", "job:1"), ("accounts",)])
@pytest.mark.parametrize("host", ["http://127.0.0.1:9", ""])
def test_an_error_is_one_line_and_the_exit_code_1(
    argv: tuple[str, ...], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host:
        connect(monkeypatch, host)
    else:
        argv = (*argv, "--conn-id", "nowhere")
    with pytest.raises(SystemExit) as exit_:
        __main__.main(argv)
    # A text is what Python prints to stderr before it exits with 1.
    message = exit_.value.code
    assert isinstance(message, str)
    assert "\n" not in message
    assert ("nowhere" in message) is (not host)
    assert TOKEN not in message


def test_a_job_nobody_knows_is_said(pika_emulator: EmulatorClient) -> None:
    with pytest.raises(SystemExit, match=r"^Not found \(HTTP 404\): .*31 days"):
        __main__.main(["job", "job:never"])


def test_both_doors_lead_to_the_same_commands() -> None:
    (group,) = cli.pika_commands()
    (choices,) = [
        action.choices for action in __main__.parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    assert list(choices) == [command.name for command in group.subcommands] == ["jobs", "job", "cancel", "accounts"]


DOORS = [
    pytest.param((sys.executable, "-m", "airflow_provider_pika"), id="python -m"),
    pytest.param(
        (str(AIRFLOW), "pika"),
        id="airflow",
        marks=pytest.mark.skipif(not TAKES_COMMANDS, reason="Airflow takes commands of providers from 3.2 on"),
    ),
]


@pytest.mark.parametrize("door", DOORS)
def test_each_door_works_in_a_process_of_its_own(door: tuple[str, ...], jobid: str) -> None:
    done = subprocess.run(  # noqa: S603
        [*door, "jobs", "-o", "json"], capture_output=True, text=True, timeout=100, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert [row["jobid"] for row in json.loads(done.stdout)] == [jobid]
