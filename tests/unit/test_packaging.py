"""What an installed package promises."""

from __future__ import annotations

import re
from importlib.metadata import metadata, requires
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import airflow_provider_pika

REQUIREMENTS = [Requirement(text) for text in requires("airflow-provider-pika") or []]
ROOT = Path(__file__).parents[2]


def plain() -> dict[str, Requirement]:
    return {each.name: each for each in REQUIREMENTS if not (each.marker and "extra" in str(each.marker))}


def test_the_package_needs_airflow_and_the_four_it_names() -> None:
    assert set(plain()) == {"apache-airflow", "pendulum", "requests", "requests-toolbelt", "tenacity"}


@pytest.mark.parametrize(
    ("airflow", "taken"),
    [("2.11.0", False), ("3.1.6", False), ("3.1.7", True), ("3.1.8", True), ("3.3.2", True), ("4.0.0", False)],
)
def test_the_first_airflow_taken_is_the_one_that_honours_an_operators_reschedule_date(
    airflow: str, taken: bool
) -> None:
    assert (airflow in plain()["apache-airflow"].specifier) is taken


def test_the_emulator_is_an_extra() -> None:
    extra = {each.name for each in REQUIREMENTS if each.marker and each.marker.evaluate({"extra": "emulator"})} - set(
        plain()
    )
    assert {"starlette", "uvicorn", "python-multipart"} <= extra


def test_the_oldest_python_is_3_10() -> None:
    assert metadata("airflow-provider-pika")["Requires-Python"] == ">=3.10"


def test_the_licence_is_apache() -> None:
    about = metadata("airflow-provider-pika")
    assert about["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_version_is_a_proper_one() -> None:
    assert str(Version(airflow_provider_pika.__version__)) == airflow_provider_pika.__version__


def test_types_are_shipped() -> None:
    assert (files("airflow_provider_pika") / "py.typed").is_file()


def test_the_package_imports_airflow_from_public_places_only() -> None:
    """`airflow.sdk` and the triggers' base; the exceptions of Airflow 3.1 stand in compat.py alone.

    The receiver works inside the api-server, on Airflow's own tables, and the commands inside Airflow's own command
    line: the one module of each that does is looked at apart.
    """
    package = ROOT / "airflow_provider_pika"
    apart = {package / name for name in ("compat.py", "cli.py", "callbacks/mailbox.py")}
    public = re.compile(r"^\s*(?:from|import) (airflow(?:\.[\w.]+)?)\b(?!_)", re.MULTILINE)
    found = {
        (path.name, module)
        for path in package.rglob("*.py")
        for module in public.findall(path.read_text())
        if not module.startswith("airflow.sdk") and path not in apart
    }
    assert {module for _, module in found} <= {"airflow.triggers.base", "airflow.plugins_manager"}, found


def test_airflow_finds_the_plugin() -> None:
    from airflow import plugins_manager

    from airflow_provider_pika.api.callback import CALLBACK_PATH
    from airflow_provider_pika.callbacks.plugin import receiver

    apps, _ = plugins_manager.get_fastapi_plugins() if hasattr(plugins_manager, "get_fastapi_plugins") else _of_3_1()
    (ours,) = (app for app in apps if app["name"] == "Pika callbacks")
    # Airflow 3.4 adds keys of its own.
    assert (ours["app"], ours["url_prefix"]) == (receiver, CALLBACK_PATH)


def _of_3_1() -> tuple[list[dict[str, object]], None]:
    from airflow import plugins_manager

    plugins_manager.initialize_fastapi_plugins()
    return plugins_manager.fastapi_apps, None
