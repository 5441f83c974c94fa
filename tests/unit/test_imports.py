"""What it costs to parse a DAG file: the imports of operator and sensor, measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from airflow_provider_pika import api

_SERVERS = {"requests", "urllib3", "httpx", "httpcore", "starlette", "fastapi", "uvicorn", "multipart"}
_HEAVY = _SERVERS | {"av", "PIL", "numpy", "fsspec", "upath", "wtforms"}
_DAG_FILE = ("airflow_provider_pika.operators.pika", "airflow_provider_pika.sensors.pika")


@cache
def loaded_after(*statements: str) -> list[frozenset[str]]:
    """Run statements one after the other in a fresh Python; return what was loaded after each of them."""
    code = "import json, sys\nfound = []\n"
    code += "".join(f"{statement}\nfound.append(sorted(sys.modules))\n" for statement in statements)
    command = [sys.executable, "-c", f"{code}print(json.dumps(found))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    return [frozenset(names) for names in json.loads(done.stdout.splitlines()[-1])]


def roots(names: frozenset[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def added_by(module: str) -> frozenset[str]:
    """Return what a DAG file's imports, up to this one, have loaded beyond what every operator needs anyhow."""
    before, *after = loaded_after("from airflow.sdk import BaseOperator", *(f"import {name}" for name in _DAG_FILE))
    return after[_DAG_FILE.index(module)] - before


@pytest.mark.parametrize("module", _DAG_FILE)
def test_a_dag_file_pays_for_no_http_library_server_or_encoder(module: str) -> None:
    assert roots(added_by(module)) & _HEAVY == set()


@pytest.mark.parametrize("module", _DAG_FILE)
def test_a_dag_file_does_not_load_the_emulator_or_the_trigger(module: str) -> None:
    ours = {name for name in added_by(module) if name.startswith("airflow_provider_pika")}
    assert module in ours
    assert not {name for name in ours if ".emulator" in name or ".triggers." in name}


def test_what_airflow_is_told_costs_nothing_but_itself() -> None:
    """Airflow loads every provider's info at each start of each of its commands."""
    before, after = loaded_after("pass", "import airflow_provider_pika.provider_info")
    assert roots(after - before) - set(sys.stdlib_module_names) == {"airflow_provider_pika"}


def test_the_contract_knows_neither_airflow_nor_a_network() -> None:
    """`api/` and `exceptions` serve a notebook as well."""
    parts = sorted(path.stem for path in Path(api.__path__[0]).glob("[a-z]*.py"))
    assert "errors" in parts
    (after,) = loaded_after("import " + ", ".join(f"airflow_provider_pika.api.{part}" for part in parts))
    assert roots(after) & {"airflow", "requests", "httpx", "urllib3", "asgiref"} == set()


def test_pytest_in_somebodys_project_pays_for_no_emulator() -> None:
    """The fixture's plugin is loaded in every run of everybody who has the provider installed."""
    before, after = loaded_after("import pytest", "import airflow_provider_pika.emulator.pytest_plugin")
    assert roots(after - before) & (_HEAVY | {"airflow"}) == set()


def test_a_tasks_process_pays_next_to_nothing_for_the_plugin() -> None:
    """Each imports every plugin; what the route needs of Airflow's server it imports when it is called."""
    airflow = "from airflow.sdk.execution_time import task_runner; import airflow.plugins_manager"
    before, after = loaded_after(airflow, "import airflow_provider_pika.callbacks.plugin")
    assert roots(after - before) - set(sys.stdlib_module_names) == {"airflow_provider_pika"}
    ours = {name.removeprefix("airflow_provider_pika") for name in after - before} - {""}
    assert ours == {".callbacks", ".callbacks.plugin"}
