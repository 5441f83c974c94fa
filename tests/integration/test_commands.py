"""Every command has all that a paid submit has: one job whatever is lost, the queue, the waits, early refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_pika.api.commands import COMMANDS
from airflow_provider_pika.compat import AirflowFailException
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.exceptions import PikaNotFoundError, PikaRequestError, PikaUnknownOutcomeError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import (
    AnimateOperator,
    ButtonOperator,
    CreateOperator,
    EncryptImageOperator,
    EncryptTextOperator,
)
from tests.support.submits import Lives, asked, crash_before_answer, jobids

PICTURE = str(Path(__file__).parents[2] / "example_dags" / "pika_campaign_image.png")
Make = Callable[..., Callable[[], Any]]
OPERATORS: dict[str, tuple[type, dict[str, Any]]] = {
    "encrypt_text": (EncryptTextOperator, {"message": "HI", "prompt": "waves", "image": PICTURE}),
    "create": (CreateOperator, {"prompt": "waves", "image": PICTURE}),
    "animate": (AnimateOperator, {"image": PICTURE}),
    "encrypt_image": (EncryptImageOperator, {"message": PICTURE, "prompt": "waves"}),
    "button": (ButtonOperator, {}),
}


@pytest.fixture(params=OPERATORS)
def command(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(command: str, pika_emulator: EmulatorClient) -> Make:
    """Return what makes the command's operator; a button has a completed job to belong to."""
    kind, fields = OPERATORS[command]
    if command == "button":
        fields = {"jobid": PikaHook().create(prompt="the parent").jobid}
    return lambda **about: lambda: kind(**{"task_id": "submit", **fields, **about})


def own(emulator: EmulatorClient, command: str) -> list[dict[str, Any]]:
    return [job for job in emulator.jobs() if job["verb"] == f"pika-{command}"]


def test_it_submits_once_and_returns_its_jobid(
    pika_emulator: EmulatorClient, life: Lives, make: Make, command: str
) -> None:
    ending = life(make()).run()

    (job,) = own(pika_emulator, command)
    assert ending.value == job["jobid"]
    assert ending.xcoms == {"jobid": ending.value, "return_value": ending.value}


@pytest.mark.parametrize("deferrable", [True, False])
def test_it_waits_for_its_film(
    pika_emulator: EmulatorClient, life: Lives, make: Make, command: str, deferrable: bool
) -> None:
    operator = make(wait_for_completion=True, deferrable=deferrable)
    pika_emulator.configure(seconds=40)

    ending = life(operator).run()

    (job,) = own(pika_emulator, command)
    assert ending.value == ending.xcoms["job"]["jobid"] == job["jobid"]
    assert ending.xcoms["video_url"].startswith(pika_emulator.url)


def test_a_lost_answer_is_found_again(pika_emulator: EmulatorClient, life: Lives, make: Make, command: str) -> None:
    operator = make()
    pika_emulator.configure(seconds=600)
    pika_emulator.fault("submit", "drop_after")

    ending = life(operator).run()

    assert [ending.value] == [job["jobid"] for job in own(pika_emulator, command)]


def test_a_crash_before_the_answer_costs_nothing(
    pika_emulator: EmulatorClient, life: Lives, make: Make, command: str
) -> None:
    task = life(make())
    pika_emulator.configure(seconds=600)
    crash_before_answer(task)

    assert [task.retry().value] == [job["jobid"] for job in own(pika_emulator, command)]


def test_a_full_queue_uses_no_try(pika_emulator: EmulatorClient, life: Lives, make: Make, command: str) -> None:
    operator = make()
    pika_emulator.fault("submit", "queue_full", times=2)

    ending = life(operator).run()

    assert (ending.state, ending.legs) == ("success", 3)
    assert len(own(pika_emulator, command)) == 1


def test_bad_input_is_refused_before_anything_is_sent(
    pika_emulator: EmulatorClient, life: Lives, make: Make, command: str
) -> None:
    before = asked(pika_emulator)
    required = next(spec.name for spec in COMMANDS[command].fields if spec.required)

    ending = life(make(**{required: ""})).run()

    assert type(ending.error) is AirflowFailException
    assert type(ending.cause) is PikaRequestError
    assert required in str(ending.error)
    assert asked(pika_emulator) == before


@pytest.mark.parametrize("text", ["None", "\n  None\n"])
def test_a_field_that_a_template_renders_from_nothing_is_refused_before_anything_is_sent(
    pika_emulator: EmulatorClient, life: Lives, make: Make, command: str, text: str
) -> None:
    """``"None"`` is what the template of a skipped task's XCom becomes: a film of that word would be paid for."""
    before = asked(pika_emulator)
    for name in set(COMMANDS[command].arguments) - {"reply_url", "reply_ref"}:
        ending = life(make(**{name: text}), task_id=f"no_{name}").run()
        assert type(ending.error) is AirflowFailException
        assert type(ending.cause) is PikaRequestError
        assert f"{name} is missing" in str(ending.error)
    assert asked(pika_emulator) == before


def test_a_buttons_answer_without_a_jobid_never_makes_the_parent_the_new_job(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    """The parent has completed long ago: taken for the new job, it would be handed on as a film that nobody made."""
    parent = PikaHook().create(prompt="the parent").jobid
    pika_emulator.configure(seconds=600)
    pika_emulator.fault("submit", "no_jobid")

    ending = life(lambda: ButtonOperator(task_id="again", jobid=parent)).run()

    assert [parent, ending.value] == jobids(pika_emulator)


def test_a_button_whose_job_can_be_found_nowhere_is_of_unknown_outcome(
    pika_emulator: EmulatorClient, life: Lives
) -> None:
    parent = PikaHook().create(prompt="the parent").jobid
    pika_emulator.fault("submit", "unlisted")
    pika_emulator.fault("submit", "server_error", status=504)

    ending = life(lambda: ButtonOperator(task_id="again", jobid=parent)).run()

    assert type(ending.cause) is PikaUnknownOutcomeError
    assert parent not in ending.xcoms.values()


def test_a_button_under_a_job_nobody_knows_fails_without_retries(pika_emulator: EmulatorClient, life: Lives) -> None:
    ending = life(lambda: ButtonOperator(task_id="again", jobid="job:nobody")).run()

    assert type(ending.error) is AirflowFailException
    assert pika_emulator.jobs() == []


def test_a_button_brings_the_connections_own_discord_token(
    pika_emulator: EmulatorClient, life: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an account need not be configured at the service, and its token may have changed since the parent's job."""

    def connect(token: str) -> None:
        extra = {"channel": "777", "discord_token": f"{token}.somebodys-own-S3CRET"}
        monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps({**pika_emulator.connection, "extra": extra}))

    connect("MTE")
    parent = PikaHook().create(prompt="the parent").jobid
    connect("XYZ")

    jobid = life(lambda: ButtonOperator(task_id="submit", jobid=parent)).run().value

    job = PikaHook().get_job(jobid).raw
    assert (job["channel"], job["discord"][:4]) == ("777", "<XYZ")


def test_accounts_are_configured_read_and_forgotten_and_their_token_is_never_told(
    pika_emulator: EmulatorClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook = PikaHook()
    secret = "MTE.an-account-S3CRET"

    hook.set_account("2000", discord=secret, max_jobs=3)

    about = hook.get_account("2000")
    assert (about["channel"], about["maxJobs"]) == ("2000", 3)
    assert "2000" in hook.list_accounts()
    hook.delete_account("2000")
    with pytest.raises(PikaNotFoundError) as error:
        hook.get_account("2000")
    assert secret not in f"{about}{error.value}{caplog.text}"
    with pytest.raises(PikaRequestError, match="max_jobs"):
        hook.set_account("2000", discord=secret, max_jobs=11)
