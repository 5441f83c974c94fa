"""
A real Airflow on this machine, as real processes on loopback, in a folder of its own.

For system tests, benchmarks and the demo. Everything is configured by environment variables, nothing of the
outer environment's Airflow shines through, and however its owner ends, no process stays behind.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from dev.harness.airflow_api import AirflowApi
from dev.harness.airflow_db import AirflowDb, SqliteDb, clean_env
from dev.harness.network import Network
from dev.harness.processes import Family, free_port, tail, wait_until
from dev.harness.runs import Runs

JOB_TYPES = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}
# Airflow serves task logs on all interfaces; here all processes share a folder, so nobody need serve them.
COMMANDS = {
    "api-server": ["api-server"],
    "execution-api": ["api-server", "--apps", "execution"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
# For tests that kill: Airflow takes minutes to believe in a death; these make it half a minute, by the same code.
QUICK_TO_NOTICE = {
    "scheduler.scheduler_health_check_threshold": "15",
    "scheduler.orphaned_tasks_check_interval": "5",
    "scheduler.task_instance_heartbeat_timeout": "20",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "5",
    # A task that is marked or cleared hears of it when it next says that it is alive.
    "workers.min_heartbeat_interval": "2",
    "triggerer.triggerer_health_check_threshold": "15",
}


class LocalAirflow:
    """
    One Airflow: one api-server or more, scheduler with LocalExecutor, DAG processor, one triggerer or more, SQLite.

    :class:`dev.harness.fleet.Fleet` is one with PostgreSQL, Celery and several of each.

    ``url`` is the first api-server, ``urls`` are all of them. ``front`` is the one address before them all, at which
    the connections go to each in turn; every process and the tests' own API client use it.

    :param home: its folder, made if missing; database, logs and configuration live there.
    :param dags: the folder with DAG files.
    :param config: Airflow options by ``section.option``, over the defaults in :meth:`options`.
    :param connections: Airflow connections by id, as dicts; every process gets them by environment.
    :param env: further environment variables for every process.
    :param triggerers: how many triggerers to start: ``triggerer``, ``triggerer-2``, …
    :param called_back: those of the connections whose service is to report the ends of jobs to this Airflow.
    :param api_servers: how many api-servers to start, each at a port of its own: ``api-server``, ``api-server-2``, …
    :param execution_api: serve tasks and triggerers by a process of its own, ``execution-api``. In one process with the
        public API each write by REST may hold up a task's write, and be held up by it, until SQLite gives one of them
        up after its timeout; now and then that is a task, or the scheduler.
    :param schedulers: how many schedulers to start; SQLite bears one.
    :param db: its database, a SQLite file in its folder by default.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        config: Mapping[str, str] | None = None,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        env: Mapping[str, str] | None = None,
        triggerers: int = 1,
        api_servers: int = 1,
        execution_api: bool = False,
        schedulers: int = 1,
        called_back: Sequence[str] = (),
        db: AirflowDb | None = None,
    ) -> None:
        self.home = home.resolve()
        self.db = db or SqliteDb(self.home / "airflow.db")
        self.dags = dags.resolve()
        self.urls = [f"http://127.0.0.1:{free_port()}" for _ in range(api_servers)]
        self.url = self.urls[0]
        self._balancer = Network(*self.urls) if api_servers > 1 else None
        self.front = self._balancer.url if self._balancer else self.url
        self.logs = self.home / "logs"
        self._servers = dict(zip(numbered("api-server", api_servers), self.urls, strict=True))
        self._executions = {"execution-api": f"http://127.0.0.1:{free_port()}"} if execution_api else {}
        self.names = [
            *self._servers,
            *self._executions,
            *numbered("scheduler", schedulers),
            "dag-processor",
            *numbered("triggerer", triggerers),
        ]
        options = {**self.options(), **(config or {})}
        reached = {"extra": {"callback_url": self.front}}
        known = {
            name: {**about, **(reached if name in called_back else {})} for name, about in (connections or {}).items()
        }
        self.family = Family(
            self.home / "process-logs",
            {
                **clean_env(),
                "AIRFLOW_HOME": str(self.home),
                "PYTHONUNBUFFERED": "1",
                **environment(options),
                **{f"AIRFLOW_CONN_{key.upper()}": json.dumps(value) for key, value in known.items()},
                **(env or {}),
            },
        )
        self.api = AirflowApi(self.front)
        self.runs = Runs(self.api, self.db, self.logs)

    def options(self) -> dict[str, str]:
        """Return the configuration every instance starts from."""
        return {
            "core.dags_folder": str(self.dags),
            "core.plugins_folder": str(self.home / "plugins"),
            "core.executor": "LocalExecutor",
            "core.parallelism": "16",  # LocalExecutor forks them all at the first task
            "core.load_examples": "False",
            "core.dags_are_paused_at_creation": "False",
            "core.simple_auth_manager_all_admins": "True",
            "core.test_connection": "Enabled",
            "core.fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "core.execution_api_server_url": f"{self._executions.get('execution-api', self.front)}/execution/",
            "core.min_serialized_dag_update_interval": "5",
            "database.sql_alchemy_conn": self.db.url,
            "api.host": "127.0.0.1",
            "api.base_url": self.front,
            "api.workers": "1",
            "api.secret_key": secrets.token_hex(16),
            "api_auth.jwt_secret": secrets.token_hex(32),
            "dag_processor.refresh_interval": "5",
            "logging.base_log_folder": str(self.logs),
            "logging.dag_processor_child_process_log_directory": str(self.home / "logs-dag-processor"),
            "logging.colored_console_log": "False",
            # Nobody serves logs (see COMMANDS): a port that refuses at once, not some other Airflow's server.
            "logging.worker_log_server_port": "9",
            "logging.trigger_log_server_port": "9",
            "scheduler.scheduler_idle_sleep_time": "0.5",
            "usage_data_collection.enabled": "False",
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 120) -> None:
        """Start all processes at once and wait until all are at work; on any error nothing is left running."""
        try:
            self.db.prepare()
            # Without it, four starting processes would each write a commented configuration here.
            (self.home / "airflow.cfg").touch()
            if self._balancer:
                self._balancer.__enter__()
            since = now()
            for name in self.names:
                self._launch(name)
            for name in (*self._servers, *self._executions):
                self._wait_ready(name, since, timeout)
            for kind in JOB_TYPES:
                self._wait_ready(kind, since, timeout, count=sum(kind_of(name) == kind for name in self.names))
        except BaseException:
            self.stop(grace=3)
            raise

    def stop(self, grace: float = 10) -> None:
        """End all processes: SIGTERM, and SIGKILL for what is left after the grace."""
        self.family.stop(grace)
        if self._balancer:
            self._balancer.__exit__(None, None, None)

    def start_process(self, name: str, *, wait: bool = True, timeout: float = 60) -> None:
        """Start one process, one that was killed or a further triggerer (``triggerer-2``)."""
        since = now()
        self._launch(name)
        if wait:
            self._wait_ready(name, since, timeout)

    def kill(self, name: str, sig: int = signal.SIGKILL, *, tree: bool | None = None, grace: float = 30) -> None:
        """Send a signal to a process; SIGKILL takes its descendants along unless ``tree=False``."""
        self.family.kill(name, sig, tree=tree, grace=grace)

    def restart(self, name: str, sig: int = signal.SIGTERM, *, timeout: float = 60) -> None:
        """End a process by a signal and start it again."""
        self.kill(name, sig)
        self.start_process(name, timeout=timeout)

    def kill_node(self) -> None:
        """SIGKILL scheduler and all its workers, as when a machine dies; start again with ``start_process``."""
        self.kill("scheduler", signal.SIGKILL, tree=True)

    def worker_pids(self) -> list[int]:
        """Return the pids of all processes below the scheduler: executor workers, idle or busy, and their tasks."""
        return [process.pid for process in self.family.tree("scheduler")]

    def _launch(self, name: str) -> None:
        self._start_airflow(name)

    def _start_airflow(self, name: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.family.start(name, [sys.executable, "-m", "airflow", *self._arguments(name)], env, cwd=cwd)

    def _arguments(self, name: str) -> list[str]:
        arguments = list(COMMANDS[kind_of(name)])
        if name in self._servers and self._executions:
            arguments += ["--apps", "core"]
        if url := {**self._servers, **self._executions}.get(name):
            arguments += ["--port", url.rpartition(":")[2]]
        return arguments

    def _wait_ready(self, name: str, since: str, timeout: float, count: int = 1) -> None:
        kind = kind_of(name)

        def check() -> bool:
            self.family.check()
            if name in self._executions:
                return AirflowApi(self._executions[name]).serves_tasks()
            if kind == "api-server":
                api = AirflowApi(self._servers[name])
                return api.health() is not None and (bool(self._executions) or api.serves_tasks())
            rows = self.db.sql(
                "SELECT 1 FROM job WHERE job_type = ? AND state = 'running' AND start_date >= ?",
                (JOB_TYPES[kind], since),
            )
            return len(rows) >= count

        wait_until(check, f"{name} to be at work", timeout, detail=lambda: tail(self.family.log(name)))


def environment(options: Mapping[str, str]) -> dict[str, str]:
    """Return Airflow options, by ``section.option``, as environment variables."""
    return {f"AIRFLOW__{key.replace('.', '__', 1).upper()}": value for key, value in options.items()}


def kind_of(name: str) -> str:
    """Return the kind of process a name stands for: ``triggerer-2`` is a triggerer."""
    head, _, number = name.rpartition("-")
    return head if number.isdecimal() else name


def numbered(kind: str, count: int) -> list[str]:
    """Return the names of so many processes of a kind."""
    return [kind, *(f"{kind}-{number}" for number in range(2, count + 1))]


def now() -> str:
    """Return the time as Airflow writes it to SQLite, and as PostgreSQL reads it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
