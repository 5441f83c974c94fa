"""Every snippet of the README is run, and every target and file it names exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [code for language, code in SNIPPETS if language == "python"]
CONSOLE = [
    line.partition("   #")[0].strip()
    for language, code in SNIPPETS
    if language == "console"
    for line in code.splitlines()
    if line.strip()
]


def dag_of(code: str) -> DAG:
    """Run a snippet as a DAG file and return its DAG."""
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102
    dag: DAG = names["submit"].dag
    return dag


def test_there_are_the_snippets_that_these_tests_run() -> None:
    assert [language for language, _ in SNIPPETS].count("python") == 2
    assert {"make demo", "make test"} <= set(CONSOLE)
    assert len(PYTHON[0].strip().splitlines()) <= 15


def test_the_dag_runs_to_a_video(pika_emulator: Any, run_dag: Any) -> None:
    run = run_dag(dag_of(PYTHON[0]))
    assert run.state == "success"
    assert [job["status"] for job in pika_emulator.jobs()] == ["completed"]


@pytest.mark.timeout(120)
def test_the_test_of_ones_own_dag_passes(pika_emulator: Any, run_dag: Any) -> None:
    """The README's test is called as pytest would, with the README's DAG as the user's own."""

    class MyDag:
        def test(self) -> Any:
            return run_dag(dag_of(PYTHON[0]))

    names: dict[str, Any] = {"my_dag": MyDag()}
    exec(compile(PYTHON[1], "README.md", "exec"), names)  # noqa: S102
    names["test_my_dag"](pika_emulator)


def test_make_has_every_target_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"make ([a-z][a-z-]+)", README))
    assert {"demo", "test", "ui", "help"} <= named <= targets


def test_the_connection_line_reaches_the_emulator(pika_emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported connection is one the hook accepts, with the emulator's own token."""
    from airflow_provider_pika.hooks.pika import PikaHook

    (line,) = [line for line in CONSOLE if line.startswith("export AIRFLOW_CONN_PIKA_DEFAULT=")]
    (_, assignment) = shlex.split(line)
    connection = json.loads(assignment.partition("=")[2])
    assert connection["password"] == pika_emulator.token
    assert connection["host"] == "http://127.0.0.1:8300"
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", json.dumps({**connection, "host": pika_emulator.url}))
    assert PikaHook().test_connection()[0]


def test_the_emulators_line_is_one_it_understands() -> None:
    from airflow_provider_pika.emulator.__main__ import _settings

    (line,) = [line for line in CONSOLE if line.startswith("python -m airflow_provider_pika.emulator")]
    assert _settings(shlex.split(line)[3:])[1].port == 8300


def test_the_pool_line_is_one_airflow_understands() -> None:
    from airflow.cli.cli_parser import get_parser

    (line,) = [line for line in CONSOLE if line.startswith("airflow pools set")]
    asked = get_parser().parse_args(shlex.split(line)[1:])
    assert (asked.pool, asked.slots, asked.include_deferred) == ("pika", 10, True)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_every_local_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_argument_in_the_tables_exists() -> None:
    """What the README calls an argument of an operator or sensor is one."""
    from airflow_provider_pika.operators.pika import EncryptTextOperator

    table = README[README.index("**`EncryptTextOperator`**") : README.index("With `wait_for_completion=True` it is")]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(named) > 12
    operator = EncryptTextOperator(task_id="x", message="m", prompt="p")
    assert [name for name in named if not hasattr(operator, name)] == []
