"""A thousand jobs waiting in two triggerers on PostgreSQL: what they cost the database and ask of the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from dev.bench.report import Row, Section, at_most
from dev.bench.thousand import CHANNEL_LIMIT, INTERVAL
from dev.harness import postgres
from dev.harness.airflow_db import clean_env
from dev.harness.emulator import local_emulator
from dev.harness.failing_secrets import ROOT
from dev.harness.processes import Family, wait_until

# A whole number of polls, or one more at its edges would count as several a minute.
WINDOW = 3 * INTERVAL
# The second one asks for callbacks.
CONN, HEARD = "pika_bench", "pika_heard"
TRIGGERERS = ("triggerer", "triggerer-2")
# BEGIN and COMMIT are transactions, which are counted by themselves.
_COST = """
SELECT sum(calls), sum(rows),
(SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database())
FROM pg_stat_statements WHERE query NOT IN ('BEGIN', 'COMMIT', 'ROLLBACK')
"""
_TAKEN = "SELECT count(*) FROM trigger WHERE triggerer_id IS NOT NULL GROUP BY triggerer_id"
Minute = dict[str, float]


class Waiting:
    """The database, the triggerers and the emulator; what waits is put in their way phase by phase."""

    def __init__(self, home: Path, emulator: EmulatorClient) -> None:
        self.emulator = emulator
        env = {
            **clean_env(),
            "AIRFLOW_HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": "bench",
        }
        # Or each process would make one with a key of its own.
        (home / "airflow.cfg").touch()
        self.family = Family(home / "process-logs", env)
        self.postgres = postgres.Postgres(self.family)
        self.family.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = self.postgres.url

    def start(self) -> None:
        """Start the database and both triggerers, with nobody waiting."""
        self.postgres.prepare()
        self.ask("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        self.postgres.stop()
        self.postgres.start()
        self.ask("CREATE EXTENSION pg_stat_statements")
        known = dict(self.emulator.connection)
        called = {**known, "extra": {"callback_url": "http://127.0.0.1:9"}}
        self._rows({"prepare": {CONN: known, HEARD: called}})
        for name in TRIGGERERS:
            self.family.start(name, [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"])
        alive = "SELECT count(*) FROM job WHERE job_type = 'TriggererJob' AND latest_heartbeat IS NOT NULL"
        wait_until(lambda: self.ask(alive)[0][0] == len(TRIGGERERS), "two triggerers", 120)

    def stop(self) -> None:
        """End all."""
        self.family.stop(grace=5)
        self.postgres.remove()

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        connection = psycopg2.connect(self.postgres.dsn)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def submit(self, count: int) -> list[str]:
        """Make as many jobs that never end."""
        os.environ[f"AIRFLOW_CONN_{CONN.upper()}"] = self.emulator.conn_uri
        hook = PikaHook(CONN)
        prompts = [f"film {number} [emulator:stuck]" for number in range(count)]
        channels = [f"1{number // CHANNEL_LIMIT:018d}" for number in range(count)]
        return [
            hook.encrypt_text(message="WAIT", prompt=prompt, channel=channel).jobid
            for prompt, channel in zip(prompts, channels, strict=True)
        ]

    def minute(self, conn_id: str, jobs: Sequence[str], sleepers: int, settle: float, window: float) -> Minute:
        """Let these wait in the place of all others, and return what a minute of it costs."""
        count = len(jobs) + sleepers
        self._rows({"conn_id": conn_id, "jobs": list(jobs), "sleepers": sleepers, "interval": INTERVAL})
        wait_until(lambda: sum(row[0] for row in self.ask(_TAKEN)) == count, "all to be taken", 180)
        time.sleep(settle)
        self.family.check()
        shares = [row[0] for row in self.ask(_TAKEN)]
        before, at = self._cost(), time.time()
        time.sleep(window)
        after, minutes = self._cost(), (time.time() - at) / 60
        found = {name: (after[name] - before[name]) / minutes for name in before}
        print(f"  {conn_id}: {len(jobs)} jobs, {sleepers} asleep, {shares} in the triggerers: {found}", flush=True)
        return found

    def _cost(self) -> Minute:
        ((statements, rows, transactions),) = self.ask(_COST)
        server = self._times(postgres.NAME)
        triggerers = [times for name in TRIGGERERS for times in self._times(name)]
        return {
            "requests": float(self.emulator.counters()["requests"]),
            "statements": float(statements),
            "rows": float(rows),
            "transactions": float(transactions),
            # Of sessions that have ended the server itself tells.
            "cpu": _seconds(server) + server[0].children_user + server[0].children_system,
            "triggerers": _seconds(triggerers),
        }

    def _times(self, name: str) -> list[Any]:
        """Return the CPU times of a process and then of all below it."""
        return [process.cpu_times() for process in (psutil.Process(self.family.pid(name)), *self.family.tree(name))]

    def _rows(self, asked: dict[str, Any]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dev.bench.waiting_rows"],
            env=self.family.env,
            input=json.dumps(asked),
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the rows could not be written:\n{done.stderr[-3000:]}")


def _seconds(times: Sequence[Any]) -> float:
    return sum(each.user + each.system for each in times)


def run(*, count: int = 1000, settle: float = 75.0, window: float = WINDOW) -> Section:
    """Run it, and return the table."""
    channels = [f"--channel=1{number:018d}" for number in range(-(-count // CHANNEL_LIMIT))]
    with (
        tempfile.TemporaryDirectory(prefix="pika-bench-") as home,
        local_emulator(Path(home), "--quiet", "--seconds", "1000000", *channels) as emulator,
    ):
        waiting = Waiting(Path(home), emulator)
        jobs = waiting.submit(count)
        try:
            waiting.start()
            idle = waiting.minute(CONN, [], 0, 15.0, window)
            asleep = waiting.minute(CONN, [], count, settle, window)
            ours = waiting.minute(CONN, jobs, 0, settle, window)
            heard = waiting.minute(HEARD, jobs, 0, settle, window)
        finally:
            waiting.stop()
    return _section(count, window, idle=idle, asleep=asleep, ours=ours, heard=heard)


def _section(count: int, window: float, *, idle: Minute, asleep: Minute, ours: Minute, heard: Minute) -> Section:
    rows = [at_most("API requests a minute in all, while nothing ends", ours["requests"], 8, "{:.1f}")]
    rows.append(at_most("the same, where the service calls back", heard["requests"], 8, "{:.1f}"))
    for name, figure in (
        ("statements", "statements a minute"),
        ("transactions", "transactions a minute"),
        ("rows", "rows read or written a minute"),
        ("cpu", "CPU of PostgreSQL, s a minute"),
        ("triggerers", "CPU of both triggerers, s a minute"),
    ):
        form = "{:.2f}" if name in {"cpu", "triggerers"} else "{:.0f}"
        nobody, sleepers = form.format(idle[name]), form.format(asleep[name])
        rows.append(Row(figure, form.format(ours[name]), f"{sleepers} (nobody waits: {nobody})"))
        rows.append(Row(f"{figure}, where the service calls back", form.format(heard[name])))
    # The question goes from a trigger's process to its supervisor, which asks the database: the ear costs both.
    ear = 100 * (heard["triggerers"] - ours["triggerers"]) / len(TRIGGERERS) / 60
    rows.append(at_most("the ear, % of a core in each triggerer", ear, 3, "{:.1f}"))
    return Section(
        name="database",
        about=(
            f"{count:,} tasks deferred in a PostgreSQL with two triggerers, {INTERVAL:g} s polls, in the place of as"
            f" many that only sleep. Counted over {window:g} s while nothing ends; no other part of Airflow runs."
        ),
        other="only sleeping",
        rows=rows,
    )
