"""``airflow pika`` and ``python -m airflow_provider_pika``: one parser behind two doors, against the emulator."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import airflow
import pytest
from airflow.sdk import DAG

from airflow_provider_pika import __main__, cli
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from tests.support.hook_tools import TOKEN, connect, http, recorder

CHANNEL = "1000000000000000001"
AIRFLOW = Path(sys.executable).with_name("airflow")
VERSION = tuple(map(int, airflow.__version__.split(".")[:2]))
TAKES_COMMANDS = VERSION >= (3, 2)
HAS_STORE = VERSION >= (3, 3)


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
        "task": "",
        "command": "encrypt_text",
        "prompt": "waves [bold] at dawn",
        "channel": CHANNEL,
        "reply_ref": "films/manual__1/submit",
    }


@pytest.fixture
def two_tasks(pika_emulator: EmulatorClient, run_dag: Callable[..., Any]) -> dict[str, str]:
    """Two jobs that run, submitted by a mapped task; what tells whose they are, by their prompt."""
    pika_emulator.configure(seconds=3600)
    with DAG("films", schedule=None) as dag:
        EncryptTextOperator.partial(task_id="submit", message="HI").expand(prompt=["waves", "dunes"])
    run_id = run_dag(dag).run_id
    return {"waves": f"films / {run_id} / submit[0]", "dunes": f"films / {run_id} / submit[1]"}


def told_here(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, str]:
    return {row["prompt"]: row["task"] for row in told(capsys, *argv)}


@pytest.mark.skipif(not HAS_STORE, reason="Airflow keeps what a task remembers from 3.3 on")
def test_a_job_is_listed_with_the_task_that_submitted_it(
    two_tasks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With twenty films under way the list told everything of a job but whose it is."""
    PikaHook().encrypt_text(message="HI", prompt="by hand")
    assert told_here(capsys, "jobs") == {**two_tasks, "by hand": ""}
    jobid = next(row["jobid"] for row in told(capsys, "jobs") if row["prompt"] == "dunes")
    assert told_here(capsys, "job", jobid) == {"dunes": two_tasks["dunes"]}
    assert "submit[1]" in run(capsys, "job", jobid)


@pytest.mark.skipif(not HAS_STORE, reason="Airflow keeps what a task remembers from 3.3 on")
def test_a_submit_whose_answer_has_not_come_yet_is_known_by_its_reference(
    two_tasks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    (jobid, reply_ref) = next(
        (row["jobid"], row["reply_ref"]) for row in told(capsys, "jobs") if row["prompt"] == "waves"
    )
    with create_session() as session:
        for row in session.query(TaskStateStoreModel).filter(TaskStateStoreModel.value.contains(jobid)):
            row.value = json.dumps({**json.loads(row.value), "jobid": None, "reply_ref": reply_ref})
    assert told_here(capsys, "jobs") == two_tasks


def test_without_a_database_the_jobs_are_listed_all_the_same(
    jobid: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sqlalchemy.exc import OperationalError

    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("no such table"))

    monkeypatch.setattr("airflow_provider_pika.compat.stored_values", away)
    __main__.main(("jobs", "--output", "json"))
    said = capsys.readouterr()
    assert [(row["jobid"], row["task"]) for row in json.loads(said.out)] == [(jobid, "")]
    assert said.err == "The column 'task' is left empty: Airflow's database cannot be read (OperationalError).\n"


def test_one_job_that_cannot_be_read_does_not_hide_the_others(
    pika_emulator: EmulatorClient, jobid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = PikaHook().encrypt_text(message="HI", prompt="dunes").jobid
    pika_emulator.fault("job", "server_error", jobid=broken)
    rows = {row["jobid"]: row for row in told(capsys, "jobs")}
    assert rows[jobid]["status"] == "started"
    assert re.match(r"Server error \(HTTP 5\d\d\)", rows[broken]["status"])
    assert rows[broken]["prompt"] == ""


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
