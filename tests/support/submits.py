"""What the tests of never-twice share: a submit, a crash in the middle of it, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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
