"""Runs of DAGs in a local Airflow: start, wait with a deadline, and say readably what went wrong."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dev.harness.airflow_api import AirflowApi
from dev.harness.airflow_db import AirflowDb
from dev.harness.processes import WaitError, wait_until

ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
BAD = frozenset({"failed", "up_for_retry", "upstream_failed"})


class RunFailed(WaitError):
    """A run or a task ended otherwise than awaited; the text has all states and the ends of the logs."""


@dataclass(frozen=True)
class TaskProcesses:
    """The two processes of a running task: the supervisor, and below it the one that runs the operator."""

    supervisor: int
    task: int


class Runs:
    """
    The runs of one Airflow.

    Waiting reads the database rather than the API, so it goes on while the api-server is being killed.
    """

    def __init__(self, api: AirflowApi, db: AirflowDb, logs: Path) -> None:
        self.api = api
        self.db = db
        self.logs = logs

    def wait_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until the DAG processor has read the DAG; a broken file raises with its traceback."""

        def check() -> bool:
            # A file that cannot be imported will not get better by waiting.
            broken = self.db.sql("SELECT filename, stacktrace FROM import_error")
            known = self.db.sql(
                "SELECT 1 FROM dag JOIN serialized_dag USING (dag_id) WHERE dag_id = ? AND NOT is_stale", (dag_id,)
            )
            if broken and not known:
                raise WaitError("\n".join(f"{row['filename']}:\n{row['stacktrace']}" for row in broken))
            return bool(known)

        wait_until(check, f"DAG {dag_id} to be known", timeout)

    def trigger(
        self, dag_id: str, *, conf: dict[str, Any] | None = None, run_id: str | None = None, timeout: float = 60
    ) -> str:
        """Start a run as soon as the DAG is known, and return the run's id."""
        self.wait_dag(dag_id, timeout)
        return self.api.trigger(dag_id, conf=conf, run_id=run_id)

    def run(self, dag_id: str, *, conf: dict[str, Any] | None = None, timeout: float = 120) -> str:
        """Start a run, see it succeed, and return its id."""
        run_id = self.trigger(dag_id, conf=conf)
        self.wait(dag_id, run_id, timeout=timeout)
        return run_id

    def state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run."""
        rows = self.db.sql("SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?", (dag_id, run_id))
        return rows[0]["state"] if rows else None

    def wait(self, dag_id: str, run_id: str, states: Collection[str] = ("success",), *, timeout: float = 120) -> str:
        """Wait until a run is in one of the states; if it ends in another, raise at once."""

        def check() -> str | None:
            state = self.state(dag_id, run_id)
            if state in {"success", "failed"} and state not in states:
                raise RunFailed(f"run {dag_id} {run_id} ended {state}\n{self.describe(dag_id, run_id)}")
            return state if state in states else None

        return self._wait(check, dag_id, run_id, f"run {dag_id} to be {' or '.join(states)}", timeout)

    def wait_task(  # the four that name a task, and what to wait for
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str],
        *,
        map_index: int = -1,
        timeout: float = 60,
    ) -> dict[str, Any]:
        """Wait until a task instance is in one of the states and return its row; if it ends in another, raise."""

        def check() -> dict[str, Any] | None:
            row = self.db.task(dag_id, run_id, task_id, map_index)
            if row and row["state"] in states:
                return row
            if row and row["state"] in ENDED:
                raise RunFailed(f"{task_id}[{map_index}] ended {row['state']}\n{self.describe(dag_id, run_id)}")
            return None

        return self._wait(check, dag_id, run_id, f"{task_id}[{map_index}] to be {' or '.join(states)}", timeout)

    def task_processes(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskProcesses:
        """Return the pids of a task that is running now."""
        row = self.db.task(dag_id, run_id, task_id, map_index)
        if not row or row["state"] != "running":
            raise WaitError(f"{task_id}[{map_index}] is not running\n{self.describe(dag_id, run_id)}")
        return TaskProcesses(supervisor=psutil.Process(row["pid"]).ppid(), task=row["pid"])

    def log_files(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[Path]:
        """Return the log files of a task instance, worker and triggerer, oldest try first."""
        folder = self.logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return sorted((folder / f"map_index={map_index}" if map_index >= 0 else folder).glob("attempt=*.log*"))

    def log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        """Return all that a task instance logged, read from the files, in lines a person can read."""
        lines = []
        for path in self.log_files(dag_id, run_id, task_id, map_index):
            lines.append(f"--- {path.name}")
            lines.extend(_plain(line) for line in path.read_text(errors="replace").splitlines())
        return "\n".join(lines)

    def describe(self, dag_id: str, run_id: str, lines: int = 25) -> str:
        """Return the states of all tasks of a run, and the end of the log of each that went wrong."""
        rows = self.db.tasks(dag_id, run_id)
        parts = [f"{_name(row)} {row['state']}, try {row['try_number']}, {row['duration'] or 0:.1f} s" for row in rows]
        for row in rows:
            if row["state"] in BAD:
                log = self.log(dag_id, run_id, row["task_id"], row["map_index"]).splitlines()
                parts += [f"log of {_name(row)}:", *log[-lines:]]
        return "\n".join(parts) or "(no tasks yet)"

    def _wait(self, check: Any, dag_id: str, run_id: str, what: str, timeout: float) -> Any:
        return wait_until(check, what, timeout, detail=lambda: self.describe(dag_id, run_id))


def _name(row: dict[str, Any]) -> str:
    return row["task_id"] if row["map_index"] < 0 else f"{row['task_id']}[{row['map_index']}]"


def _plain(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict):
        return line
    text = f"{str(entry.get('timestamp', ''))[11:19]} {entry.get('level', ''):7} {entry.get('event', '')}"
    for error in entry.get("error_detail") or []:
        text += f"\n    {error.get('exc_type')}: {error.get('exc_value')}"
    return text
