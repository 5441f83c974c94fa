"""The Airflow connection, as the hook gets it: what is missing, what fails for a while, what is unusable."""

from __future__ import annotations

import re
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.compat import AirflowNotFoundException
from airflow_provider_pika.exceptions import PikaJobFailedError, PikaRequestError, PikaUnavailableError
from airflow_provider_pika.hooks.pika import PikaHook
from tests.support.hook_tools import ASKS, TOKEN, connect, read

MISSING = (
    r"'pika_default' does not exist or could not be read \(\w+\): .*type 'pika'.*API token.*password.*host.*backend"
)


class Backend:
    """A secrets backend behind ``get_connection`` that fails until it is told not to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.error: Exception | None = error
        self.asked = 0
        monkeypatch.setattr(PikaHook, "get_connection", self.get)

    def get(self, conn_id: str) -> Connection:
        self.asked += 1
        if self.error:
            raise self.error
        return Connection(conn_id=conn_id, conn_type="pika", host="http://127.0.0.1:9", password=TOKEN)


def test_the_connection_test_of_a_missing_connection_says_no() -> None:
    ok, said = PikaHook("pika_nowhere").test_connection()
    assert not ok
    assert "'pika_nowhere' does not exist or could not be read" in said


@pytest.mark.parametrize("ask", ASKS)
def test_a_missing_connection_may_be_there_later(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_PIKA_DEFAULT", raising=False)
    error = ask()
    assert type(error) is PikaUnavailableError
    assert re.search(MISSING, str(error))
    assert "Nothing was sent" in str(error)


@pytest.mark.parametrize(
    "failure",
    [
        AirflowNotFoundException("pika_default"),
        ConnectionRefusedError(111, "refused"),
        RuntimeError(f"no such port: {TOKEN}"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_secrets_backend_that_fails_may_pass(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    Backend(monkeypatch, failure)
    with pytest.raises(PikaUnavailableError, match=MISSING) as caught:
        PikaHook().get_job("job:1")
    assert caught.value.__cause__ is failure
    assert TOKEN not in str(caught.value)


def test_a_failing_secrets_backend_is_asked_again() -> None:
    """A hook that remembered the failure would fail for as long as it lives."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        backend = Backend(monkeypatch, AirflowNotFoundException("pika_default"))
        hook = PikaHook()
        with pytest.raises(PikaUnavailableError):
            hook.get_conn()
        backend.error = None
        assert hook.settings.token == TOKEN
        assert hook.settings.token == TOKEN
        assert backend.asked == 2


def test_a_failed_job_stays_one_while_the_connection_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Backend(monkeypatch, AirflowNotFoundException("pika_default"))
    error = PikaHook().job_failed(Job("job:1", "failed", {"error": "The bot is ill"}))
    assert type(error) is PikaJobFailedError
    assert "Failed: The bot is ill. " in str(error)


@pytest.mark.parametrize(("host", "password"), [("not a host", "token"), ("http://127.0.0.1:1", "")])
def test_an_unusable_connection_is_a_clear_error(host: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, host, password)
    error = read("job")
    assert type(error) is PikaRequestError
    assert "'pika_default'" in str(error)
