"""
Airflow's own database as the judge of a test.

The journal is a table filled by the database's triggers on ``task_instance``: unlike samples, it misses no change of
state however short, and it stays when Airflow overwrites or deletes the row.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

COLUMNS = "dag_id, run_id, task_id, map_index, state, try_number"
_NOW = "(julianday('now') - 2440587.5) * 86400.0"
_JOURNAL = f"""
CREATE TABLE IF NOT EXISTS dev_journal (id INTEGER PRIMARY KEY, at REAL, {COLUMNS});
CREATE TRIGGER IF NOT EXISTS dev_journal_insert AFTER INSERT ON task_instance BEGIN
  INSERT INTO dev_journal (at, {COLUMNS}) VALUES ({_NOW}, %(new)s);
END;
CREATE TRIGGER IF NOT EXISTS dev_journal_update AFTER UPDATE OF state, try_number ON task_instance
WHEN NEW.state IS NOT OLD.state OR NEW.try_number IS NOT OLD.try_number BEGIN
  INSERT INTO dev_journal (at, {COLUMNS}) VALUES ({_NOW}, %(new)s);
END;
"""


def clean_env() -> dict[str, str]:
    """Return this process's environment without anything that would steer an Airflow, or send loopback to a proxy."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW"))}
    # Where it is set, every process would compile our modules anew: an import took 37 ms in the place of 17.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    for key in ("NO_PROXY", "no_proxy"):
        env[key] = ",".join(filter(None, [env.get(key), "127.0.0.1", "localhost"]))
    return env


def cache_of(what: str) -> Path:
    """Return where a freshly migrated database is kept: inside the environment's folder, one for each version."""
    cached = Path(sys.prefix, "dev-cache", what.format(version("apache-airflow-core")))
    cached.parent.mkdir(exist_ok=True)
    return cached


def migrate(home: str, url: str | None = None) -> None:
    """Let Airflow lay its tables, in a SQLite file of that home unless there is a URL."""
    env = {**clean_env(), "AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    if url:
        env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], env=env, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"airflow db migrate failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def migrated_database(target: Path) -> None:
    """
    Put a freshly migrated database at ``target``.

    ``airflow db migrate`` runs once for each environment and Airflow version; its result is copied from then on.
    """
    cached = cache_of("airflow-{}.db")
    if not cached.exists():
        with tempfile.TemporaryDirectory(dir=cached.parent) as home:
            migrate(home)
            Path(home, "airflow.db").replace(cached)  # whole or not at all, should two do it at once
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cached, target)


@dataclass(frozen=True)
class Change:
    """One change of a task instance, as the database saw it."""

    at: float
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int

    @property
    def key(self) -> tuple[str, int]:
        """Return what tells the tasks of one run apart."""
        return self.task_id, self.map_index


class AirflowDb(ABC):
    """Questions to the database of a running Airflow, the same whichever database that is."""

    url: str

    @abstractmethod
    def prepare(self) -> None:
        """Have the tables of that environment's Airflow, and let the database keep the journal from now on."""

    @abstractmethod
    def sql(self, query: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts; its parameters stand as ``?`` or as ``:name``."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Return the names of all tables."""

    def dump(self) -> Iterator[tuple[str, str]]:
        """Yield (table, text) for every row there is, to look for what must not be in it."""
        for table in self.tables():
            for row in self.sql(f'SELECT * FROM "{table}"'):
                yield table, " ".join(_text(value) for value in row.values())

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run as they stand."""
        columns, only = ("*", "") if self._has_map_index() else ("*, region_index AS map_index", "AND working_set = 1")
        return self.sql(
            f"SELECT {columns} FROM task_instance WHERE dag_id = ? AND run_id = ? {only} ORDER BY task_id, map_index",
            (dag_id, run_id),
        )

    def _has_map_index(self) -> bool:
        """Airflow 3.4 names it otherwise, and keeps earlier tries in the same table."""
        return True

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any] | None:
        """Return one task instance, None when there is none yet."""
        rows = [row for row in self.tasks(dag_id, run_id) if (row["task_id"], row["map_index"]) == (task_id, map_index)]
        return rows[0] if rows else None

    def journal(self, dag_id: str, run_id: str | None = None, task_id: str | None = None) -> list[Change]:
        """Return all changes of state or try number, oldest first."""
        rows = self.sql(
            f"SELECT at, {COLUMNS} FROM dev_journal WHERE dag_id = :dag"
            " AND (:run IS NULL OR run_id = :run) AND (:task IS NULL OR task_id = :task) ORDER BY id",
            {"dag": dag_id, "run": run_id, "task": task_id},
        )
        return [Change(**row) for row in rows]

    def worker_starts(self, dag_id: str, run_id: str | None = None, task_id: str | None = None) -> int:
        """Count how often a worker began a leg of a task: every change to *running* is one."""
        return sum(change.state == "running" for change in self.journal(dag_id, run_id, task_id))

    def spells(self, state: str, dag_id: str, run_id: str, task_id: str | None = None) -> list[tuple[Change, float]]:
        """Return every stay in a state with its seconds; one that still lasts counts up to now."""
        found: list[tuple[Change, float]] = []
        entered: dict[tuple[str, int], Change] = {}
        for change in self.journal(dag_id, run_id, task_id):
            begun = entered.get(change.key)
            if begun and change.state != state:
                found.append((entered.pop(change.key), change.at - begun.at))
            elif not begun and change.state == state:
                entered[change.key] = change
        return found + [(begun, time.time() - begun.at) for begun in entered.values()]


class SqliteDb(AirflowDb):
    """Airflow's database as a file, which is made when it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # SQLite lets one write at a time; better to wait for the turn than to fail with "database is locked". But
        # not for long: where the api-server's event loop waits for a write whose commit needs that very loop, both
        # stand still until this is over (seen at clears), and then the loser is simply asked again.
        self.url = f"sqlite:///{path}?timeout=10"

    def prepare(self) -> None:
        """Lay the tables unless they are there, and the journal with them."""
        if self.path.exists():
            return
        migrated_database(self.path)
        with closing(sqlite3.connect(self.path)) as connection:
            columns = ", ".join(f"NEW.{name}" for name in COLUMNS.split(", "))
            if not self._has_map_index():
                columns = columns.replace("map_index", "region_index")
            connection.executescript(_JOURNAL % {"new": columns})

    def sql(self, query: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, params)]

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        return [row["name"] for row in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def _has_map_index(self) -> bool:
        return bool(self.sql("SELECT 1 FROM pragma_table_info('task_instance') WHERE name = 'map_index'"))


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
