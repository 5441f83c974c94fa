"""What Airflow is told of this provider."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any

import airflow
import jsonschema
import pytest

from airflow_provider_pika import __version__
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR, get_provider_info

INFO = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]
MODULES = [
    module
    for kind in ("operators", "sensors", "hooks", "triggers", "transfers")
    for entry in INFO.get(kind, [])
    for module in entry.get("python-modules", [entry.get("python-module")])
]
# What Airflow's field says, in WTForms' words.
WIDGETS = {"string": "StringField", "password": "PasswordField", "integer": "IntegerField"}


def airflow_file(name: str) -> dict[str, Any]:
    """Read a file that Airflow brings along; its package may lie in several folders."""
    (path, *_) = [Path(folder, name) for folder in airflow.__path__ if Path(folder, name).exists()]
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


def test_the_info_satisfies_airflows_own_schema() -> None:
    """The one `airflow providers` checks with, else every such command fails."""
    jsonschema.validate(INFO, airflow_file("provider_info.schema.json"))


def test_the_package_name_is_the_distributions() -> None:
    assert INFO["package-name"] == "airflow-provider-pika"


def test_the_version_is_the_installed_distributions() -> None:
    assert INFO["versions"] == [__version__] == [version("airflow-provider-pika")]


def test_airflow_finds_the_info_by_its_entry_point() -> None:
    (found,) = [
        each for each in entry_points(group="apache_airflow_provider") if each.value.startswith("airflow_provider_pika")
    ]
    assert found.name == "provider_info"
    assert found.load() is get_provider_info


def test_pytest_finds_the_emulators_fixture_by_its_entry_point() -> None:
    names = [each.value for each in entry_points(group="pytest11")]
    assert "airflow_provider_pika.emulator.pytest_plugin" in names


@pytest.mark.parametrize("module", MODULES)
def test_every_module_named_exists(module: str) -> None:
    importlib.import_module(module)


@pytest.mark.parametrize("path", [CONNECTION_TYPE["hook-class-name"], *INFO["extra-links"]])
def test_every_class_named_exists(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert inspect.isclass(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    "module",
    ["operators.pika", "sensors.pika", "hooks.pika", "triggers.pika", "transfers.pika"],
)
def test_every_public_module_is_named(module: str) -> None:
    assert f"airflow_provider_pika.{module}" in MODULES


def test_every_integration_named_is_described() -> None:
    described = {each["integration-name"] for each in INFO["integrations"]}
    assert {
        each["integration-name"] for kind in ("operators", "sensors", "hooks", "triggers") for each in INFO[kind]
    } == described


def test_the_connection_type_is_the_hooks() -> None:
    assert CONNECTION_TYPE["connection-type"] == PikaHook.conn_type == "pika"
    assert CONNECTION_TYPE["hook-name"] == PikaHook.hook_name
    assert CONNECTION_TYPE["hook-class-name"] == f"{PikaHook.__module__}.{PikaHook.__qualname__}"


def test_the_hooks_constructor_takes_what_conn_name_attr_says() -> None:
    parameter = inspect.signature(PikaHook).parameters[PikaHook.conn_name_attr]
    assert parameter.default == PikaHook.default_conn_name == "pika_default"


def test_the_form_holds_the_extras_and_relabels_the_password() -> None:
    assert list(CONNECTION_TYPE["conn-fields"]) == ["channel", "discord_token", "max_jobs", "timeout", "callback_url"]
    assert CONNECTION_TYPE["ui-field-behaviour"]["relabeling"]["password"] == "API token"


def test_only_the_discord_token_is_a_password() -> None:
    secret = [name for name, about in CONNECTION_FIELDS.items() if about["schema"].get("format") == "password"]
    assert secret == ["discord_token"]


def test_airflow_redacts_the_discord_token_by_its_key() -> None:
    """And no other extra: an extra's value is shown in clear unless its name sounds secret."""
    from airflow.sdk.log import redact

    extras = dict.fromkeys(CONNECTION_FIELDS, "value-of-it")
    assert redact(extras) == extras | {"discord_token": "***"}


def test_no_field_is_required() -> None:
    assert all("null" in about["schema"]["type"] for about in CONNECTION_FIELDS.values())


@pytest.fixture
def _wtforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """WTForms as far as Airflow 3.1 itself stands in for it: it is not installed there either."""

    def field(kind: str) -> type:
        def init(self: Any, label: str | None = None, validators: Any = None, description: str = "") -> None:
            self.label, self.validators, self.description = label, validators, description

        return type(kind, (), {"__init__": init})

    wtforms, validators = ModuleType("wtforms"), ModuleType("wtforms.validators")
    for kind in WIDGETS.values():
        setattr(wtforms, kind, field(kind))
    validators.Optional = type("Optional", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wtforms", wtforms)
    monkeypatch.setitem(sys.modules, "wtforms.validators", validators)


@pytest.mark.usefixtures("_wtforms")
@pytest.mark.parametrize("name", CONNECTION_FIELDS)
def test_the_form_of_airflow_3_1_describes_the_same_fields(name: str) -> None:
    widgets = PikaHook.get_connection_form_widgets()
    about = CONNECTION_FIELDS[name]
    kind = about["schema"].get("format") or about["schema"]["type"][0]
    assert list(widgets) == list(CONNECTION_FIELDS)
    assert type(widgets[name]).__name__ == WIDGETS[kind]
    assert (widgets[name].label, widgets[name].description) == (about["label"], about["description"])
    assert [type(each).__name__ for each in widgets[name].validators] == ["Optional"]


def test_the_behaviour_of_airflow_3_1s_form_is_the_same() -> None:
    behaviour = PikaHook.get_ui_field_behaviour()
    assert behaviour["hidden_fields"] == FIELD_BEHAVIOUR["hidden-fields"]
    assert behaviour["relabeling"] == FIELD_BEHAVIOUR["relabeling"]
    assert behaviour["placeholders"] == FIELD_BEHAVIOUR["placeholders"]


def test_airflow_accepts_the_behaviour() -> None:
    """Airflow's own schema for what the legacy method returns; what breaks it is left out of the form."""
    jsonschema.validate(PikaHook.get_ui_field_behaviour(), airflow_file("customized_form_field_behaviours.schema.json"))


def test_the_description_holds_nothing_that_airflow_takes_out_of_it() -> None:
    """``airflow providers list`` drops underscores and backticks, and `encrypt_text` reads as a product's name."""
    assert not set("_`") & set(INFO["description"])


def test_airflows_command_line_finds_the_commands() -> None:
    (path,) = INFO["cli"]
    module, _, name = path.rpartition(".")
    (group,) = getattr(importlib.import_module(module), name)()
    assert group.name == "pika"
