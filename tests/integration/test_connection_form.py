"""The connection form as Airflow serves it to its own page, asked of this very Airflow in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
from packaging.version import Version

from airflow_provider_pika.provider_info import CONNECTION_FIELDS

AIRFLOW = Version(version("apache-airflow-core"))
_ASK = """
import json, sys
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(form,) = [hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "pika"]
loaded = "airflow_provider_pika.hooks.pika" in sys.modules
print(json.dumps({"form": form.model_dump(by_alias=True), "loaded": loaded}, default=str))
"""
# What the page's Test button makes Airflow do, once it has decided that the person may.
_TEST_BUTTON = """
import os
from airflow.models import Connection
connection = Connection(conn_id="tried", conn_type="pika", host={url!r}, password={token!r}, extra={extra!r})
os.environ["AIRFLOW_CONN_TRIED"] = connection.get_uri()
print(connection.test_connection())
"""


def asked(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    complaints = [line for line in done.stderr.splitlines() if re.search(r"warning|error", line, re.IGNORECASE)]
    assert not [line for line in complaints if "pika" in line.lower()]
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked(_ASK))
    return found


def test_the_form_is_served_under_its_name(served: dict[str, Any]) -> None:
    form = served["form"]
    assert form["hook_name"] == "Pika"
    assert form["hook_class_name"].endswith("hooks.pika.PikaHook")


def test_the_password_is_labelled_api_token(served: dict[str, Any]) -> None:
    password = served["form"]["standard_fields"]["password"]
    assert (password["title"], password["hidden"]) == ("API token", False)


def test_the_host_is_labelled_and_says_what_to_put_there(served: dict[str, Any]) -> None:
    host = served["form"]["standard_fields"]["host"]
    assert host["title"] == "Root URL"
    assert "https://api.useapi.net" in host["placeholder"]


def test_the_login_is_hidden(served: dict[str, Any]) -> None:
    assert served["form"]["standard_fields"]["login"]["hidden"] is True


@pytest.mark.parametrize("name", CONNECTION_FIELDS)
def test_an_extra_is_served_as_it_was_declared(served: dict[str, Any], name: str) -> None:
    about = CONNECTION_FIELDS[name]
    field = served["form"]["extra_fields"][name]
    schema = field["schema"]
    assert schema["title"] == about["label"]
    assert about["description"] in (schema.get("description"), field.get("description"))
    assert schema["type"] == about["schema"]["type"]
    assert schema.get("format") == about["schema"].get("format")


def test_there_are_no_other_extras(served: dict[str, Any]) -> None:
    assert set(served["form"]["extra_fields"]) == set(CONNECTION_FIELDS)


@pytest.mark.skipif(Version("3.3") > AIRFLOW, reason="before 3.3 Airflow imports every hook for its form")
def test_the_form_is_served_without_importing_the_hook(served: dict[str, Any]) -> None:
    assert served["loaded"] is False


def test_the_test_button_asks_the_api(pika_emulator: Any) -> None:
    """The connection travels as a URI, in which host, token and extras are quoted."""
    extra = json.dumps({"channel": "1", "discord_token": "abc", "max_jobs": 3, "timeout": 5})
    said = asked(_TEST_BUTTON.format(url=pika_emulator.url, token=pika_emulator.token, extra=extra))
    assert said.startswith("(True, ")
    assert pika_emulator.url in said
    assert pika_emulator.counters()["requests"] == 1


def test_the_test_button_says_when_the_token_is_wrong(pika_emulator: Any) -> None:
    said = asked(_TEST_BUTTON.format(url=pika_emulator.url, token="user:1-wrong", extra=None))
    assert said.startswith("(False, ")
    assert "401" in said
