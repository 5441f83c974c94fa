"""The secrets backend that the system tests let fail, as Airflow's processes configure it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dev.harness.failing_secrets import FailingSecrets, Secrets


def test_fails_only_while_told_to(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets", {"pika_default": {"conn_type": "pika", "host": "http://127.0.0.1:1"}})
    module, _, name = secrets.config["secrets.backend"].rpartition(".")
    assert (module, name) == (FailingSecrets.__module__, FailingSecrets.__name__)
    backend = FailingSecrets(**json.loads(secrets.config["secrets.backend_kwargs"]))
    assert json.loads(backend.get_conn_value("pika_default") or "")["host"] == "http://127.0.0.1:1"
    assert backend.get_conn_value("another") is None
    with secrets.failing():
        for ask in (backend.get_conn_value, backend.get_variable):
            with pytest.raises(ConnectionError):
                ask("pika_default")
    assert backend.get_variable("prompt") is None
    assert backend.get_conn_value("pika_default")
