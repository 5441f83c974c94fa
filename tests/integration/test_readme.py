"""Every snippet of the README is run, and every target and file it names exists."""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from packaging.version import Version

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

HELLO, MANY, HOOK, TEST = PYTHON


def dag_of(code: str) -> DAG:
    """Run a snippet as a DAG file and return its DAG."""
    made: list[DAG] = []
    enter = DAG.__enter__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DAG, "__enter__", lambda dag: made.append(dag) or enter(dag))
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    (dag,) = made
    return dag


def states(run: Any) -> dict[tuple[str, int], str]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        tis = session.query(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id)
        return {(ti.task_id, ti.map_index): str(ti.state) for ti in tis}


def test_there_are_the_snippets_that_these_tests_run() -> None:
    assert [language for language, _ in SNIPPETS].count("python") == len(PYTHON) == 4
    assert {"make demo", "make test"} <= set(CONSOLE)
    assert len(HELLO.strip().splitlines()) <= 15
    assert len(README.splitlines()) <= 200


def test_a_reader_meets_the_connection_before_the_dag() -> None:
    assert README.index("AIRFLOW_CONN_PIKA_DEFAULT=") < README.index(HELLO)


def test_every_line_for_a_terminal_is_one_of_those_tested_here() -> None:
    known = ("make ", "pip ", "python -m airflow_provider_pika.emulator ", "export AIRFLOW_CONN_", "airflow pools set ")
    known += ("airflow pika jobs", "python -m airflow_provider_pika jobs")
    assert [line for line in CONSOLE if not line.startswith(known)] == []


def test_the_dag_runs_to_a_video(pika_emulator: Any, run_dag: Any) -> None:
    pika_emulator.skip_waits()
    run = run_dag(dag_of(HELLO))
    assert run.state == "success"
    assert [job["status"] for job in pika_emulator.jobs()] == ["completed"]


def test_the_mapped_dag_brings_every_good_film_home(pika_emulator: Any, run_dag: Any, tmp_path: Path) -> None:
    """One prompt of the three is moderated, as the text beside it tells."""
    pika_emulator.skip_waits()
    pika_emulator.configure(seconds=40)
    assert '"a paper boat"' in MANY
    assert '"/tmp/films"' in MANY
    code = MANY.replace('"a paper boat"', '"a boat [emulator:late-moderated]"').replace("/tmp/films", str(tmp_path))  # noqa: S108

    found = states(run_dag(dag_of(code)))

    assert [found["film.make", n] for n in range(3)] == ["success", "failed", "success"]
    assert [found["film.store", n] for n in range(3)] == ["success", "upstream_failed", "success"]
    assert len(list(tmp_path.glob("*.mp4"))) == 2


def test_the_hook_shows_what_runs_and_leaves_it_alone(pika_emulator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_pika.hooks.pika import PikaHook

    pika_emulator.configure(seconds=3600)
    job = PikaHook().encrypt_text(message="HI", prompt="waves")
    pika_emulator.advance(60)  # until the list shows it

    exec(compile(HOOK, "README.md", "exec"), {})  # noqa: S102

    assert f"{job.jobid} started" in capsys.readouterr().out
    assert [job["ended"] for job in pika_emulator.jobs()] == [None]


def test_the_test_of_ones_own_dag_passes(pika_emulator: Any, run_dag: Any) -> None:
    """The README's test is called as pytest would, with the README's DAG as the user's own."""

    class MyDag:
        def test(self) -> Any:
            return run_dag(dag_of(HELLO))

    names: dict[str, Any] = {"my_dag": MyDag()}
    exec(compile(TEST, "README.md", "exec"), names)  # noqa: S102
    names["test_my_dag"](pika_emulator)


def test_what_it_installs_is_what_a_clone_builds() -> None:
    """The wheel itself is built, installed and asked by ``make wheel-check``."""
    from airflow_provider_pika import __version__

    lines = [shlex.split(line) for line in CONSOLE if line.startswith("pip ")]
    assert lines == [
        ["pip", "install", ".[emulator]"],
        ["pip", "wheel", "--no-deps", "--wheel-dir", "dist", "."],
        ["pip", "install", f"dist/airflow_provider_pika-{__version__}-py3-none-any.whl[emulator]"],
    ]
    assert "\nemulator = [" in (ROOT / "pyproject.toml").read_text()


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


def test_the_commands_on_the_account_are_there(pika_emulator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from airflow.cli.cli_parser import get_parser

    from airflow_provider_pika.__main__ import main, parser

    assert "airflow pika jobs" in CONSOLE
    assert "python -m airflow_provider_pika jobs" in CONSOLE
    for command in (["jobs"], ["job", "x"], ["cancel", "x"], ["accounts"]):
        parser().parse_args(command)
        if Version(version("apache-airflow-core")) >= Version("3.2"):
            get_parser().parse_args(["pika", *command])
    main(["jobs"])


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)]*)\)", README))))
def test_every_local_link_leads_somewhere(link: str) -> None:
    path, _, heading = link.partition("#")
    page = ROOT / path if path else ROOT / "README.md"
    assert page.exists()
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE) if heading else []
    assert not heading or heading in {re.sub(r"\W+", "-", title.lower()) for title in headings}


def test_every_argument_in_the_tables_exists() -> None:
    """What the README calls an argument of an operator or sensor is one."""
    from airflow_provider_pika.operators.pika import EncryptTextOperator

    table = README[README.index("**`EncryptTextOperator`**") : README.index("With `wait_for_completion=True`, `jobid`")]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(named) > 12
    operator = EncryptTextOperator(task_id="x", message="m", prompt="p")
    assert [name for name in named if not hasattr(operator, name)] == []
