"""What the tests of never-twice share: a submit, a crash in the middle of it, and what was made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from airflow_provider_pika.api.callback import MAILBOX_PREFIX, read_call, with_call
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.store import SUBMIT_KEY, task_store
from tests.support.task_context import Life

Lives = Callable[..., Life]
# Airflow 3.3's task state store, and the Variables that stand in for it below.
STORES = pytest.mark.parametrize("stored", [True, False], ids=["store", "variables"])


def submit(**about: Any) -> Callable[[], EncryptTextOperator]:
    """Make the operator of a submit."""
    return lambda: EncryptTextOperator(**{"task_id": "submit", "message": "HELLO", "prompt": "waves", **about})


def asked(emulator: EmulatorClient) -> int:
    """Return how many submits the API was asked for."""
    return emulator.counters()["submits"]["asked"]


def jobids(emulator: EmulatorClient) -> list[str]:
    """Return the jobs made, oldest first."""
    return [job["jobid"] for job in emulator.jobs()]


def record(task: Life) -> dict[str, Any] | None:
    """Return what a task remembers of its submit."""
    return task_store(task.context()).get(SUBMIT_KEY)


class Killed(BaseException):
    """The end of the process."""


def kill(*_: Any, **__: Any) -> None:
    """End the process here."""
    raise Killed


def crash_before_answer(task: Life, *, made: bool = True) -> None:
    """End the process while the submit is under way: the intent is stored, the answer never seen."""
    send = PikaHook.send

    def send_and_die(self: PikaHook, *args: Any, **about: Any) -> None:
        if made:
            send(self, *args, **about)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PikaHook, "send", send_and_die)
        with pytest.raises(Killed):
            task.leg()
    assert record(task)["jobid"] is None
    assert record(task)["reply_ref"]


def crash_after_store(task: Life) -> None:
    """End the process after the jobid was stored and before anything was pushed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.ti, "xcom_push", kill)
        with pytest.raises(Killed):
            task.leg()


def has_callbacks(monkeypatch: pytest.MonkeyPatch, emulator: EmulatorClient) -> None:
    """Let the connection name a ``callback_url``; nobody is there, so each test makes the calls it is about."""
    extra = json.dumps({"callback_url": "http://127.0.0.1:9"})
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps({**emulator.connection, "extra": extra}))


def mailboxes(task: Life) -> dict[str, list[str]]:
    """Return the jobids in each mailbox of a task, by its key."""
    assert task.store is not None
    values = {key: json.loads(text) for key, text in task.store.values.items() if key.startswith(MAILBOX_PREFIX)}
    return {key: value.get("own", {}).get("jobids", []) + value["jobids"] for key, value in values.items()}


def call_back(task: Life, *jobids: str) -> None:
    """Do what the api-server does when the service calls for these jobs, whose JSON names the submit's reference."""
    _call(task, *({"jobid": jobid, "replyRef": (record(task) or {})["reply_ref"]} for jobid in jobids))


def forge(task: Life, *jobids: str) -> None:
    """Do what the api-server does when somebody else calls, who has read the URL of a task's submit in some log."""
    _call(task, *({"jobid": jobid} for jobid in jobids))


def _call(task: Life, *bodies: dict[str, Any]) -> None:
    assert task.store is not None
    key = (record(task) or {})["mailbox"]
    for body in bodies:
        call = read_call(json.dumps(body).encode())
        assert call is not None
        after = with_call(task.store.get(key), call)
        assert after is not None
        task.store.set(key, after[0])


def end(emulator: EmulatorClient, jobid: str, status: str = "completed") -> None:
    """Let a job end now."""
    emulator.advance(jobid=jobid, status=status)


def reply_url_of(emulator: EmulatorClient, jobid: str) -> str | None:
    """Return the ``replyUrl`` a job was submitted with, as the API tells it to anybody who has the API token."""
    headers = {"Authorization": f"Bearer {emulator.connection['password']}"}
    answer = requests.get(f"{emulator.url}/v1/pika/jobs/", params={"jobid": jobid}, headers=headers, timeout=10)
    return answer.json().get("replyUrl")
