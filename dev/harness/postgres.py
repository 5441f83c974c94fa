"""A PostgreSQL of our own: a cluster in a temporary folder, a server on a free loopback port, and Airflow's tables."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

from dev.harness.airflow_db import COLUMNS, AirflowDb, cache_of, migrate
from dev.harness.processes import Family, free_port, tail, wait_until

NAME = "postgres"
# Longer than it takes to come back after a restart.
_PATIENCE = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    # What the server has written survives its death all the same: only the machine's own would lose it.
    "fsync": "off",
    # Many short changes of few rows: the planner's figures and dead rows are to be looked after soon.
    "autovacuum_naptime": "15s",
}
_JOURNAL = f"""
CREATE TABLE IF NOT EXISTS dev_journal (
  id BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION,
  dag_id TEXT, run_id TEXT, task_id TEXT, map_index INTEGER, state TEXT, try_number INTEGER
);
CREATE OR REPLACE FUNCTION dev_journal_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO dev_journal (at, {COLUMNS})
  VALUES (extract(epoch FROM clock_timestamp()), {", ".join(f"NEW.{name}" for name in COLUMNS.split(", "))});
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER dev_journal_insert AFTER INSERT ON task_instance
FOR EACH ROW EXECUTE FUNCTION dev_journal_note();
CREATE OR REPLACE TRIGGER dev_journal_update AFTER UPDATE OF state, try_number ON task_instance
FOR EACH ROW WHEN (NEW.state IS DISTINCT FROM OLD.state OR NEW.try_number IS DISTINCT FROM OLD.try_number)
EXECUTE FUNCTION dev_journal_note();
"""


class Postgres:
    """
    The server. Its cluster lies in a folder of the system's temporary one, where its own user may go.

    :param family: the processes it lives and dies with
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._port = free_port()
        self._folder: Path | None = None
        # It refuses root, and Debian's package brings a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        self.dsn = f"host=127.0.0.1 port={self._port} dbname=postgres user=airflow"
        self.url = f"postgresql+psycopg2://airflow@127.0.0.1:{self._port}/postgres"

    def prepare(self) -> None:
        """
        Start it on a cluster with Airflow's tables.

        As with SQLite, ``airflow db migrate`` runs once for each environment and version, and is copied from then on.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="pika-postgres-"))
        if self._user:
            about = pwd.getpwnam(self._user)
            os.chown(self._folder, about.pw_uid, about.pw_gid)
        cached = cache_of(f"airflow-{{}}-{_programs().parent.name}")
        if cached.exists():
            self._copy(cached, self._data)
            self.start()
            return
        self._run(
            "initdb", "--pgdata", self._data, "--username=airflow", "--auth=trust", "--encoding=UTF8", "--locale=C"
        )
        self.start()
        migrate(str(self._folder), self.url)
        self.stop()
        with tempfile.TemporaryDirectory(dir=cached.parent) as whole:
            copy = Path(whole, "data")
            self._copy(self._data, copy)
            if not cached.exists():
                copy.rename(cached)
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {"port": str(self._port), **_SETTINGS}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [_programs() / "postgres", "-D", self._data, *flags]
        self._family.start(NAME, command, cwd=self._folder, user=self._user)

        def answers() -> bool:
            self._family.check()
            try:
                psycopg2.connect(self.dsn, connect_timeout=5).close()
            except psycopg2.OperationalError:
                return False
            return True

        wait_until(answers, "PostgreSQL to answer", _PATIENCE, detail=lambda: tail(self._family.log(NAME)))

    def stop(self, *, immediate: bool = False) -> None:
        """End it as ``pg_ctl stop -m fast`` does, or ``-m immediate``: as after a crash, without a word to anybody."""
        self._family.kill(NAME, signal.SIGQUIT if immediate else signal.SIGINT, grace=30)

    def remove(self) -> None:
        """Remove the cluster of a server that has ended."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        assert self._folder is not None
        return self._folder / "data"

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        subprocess.run(["cp", "-a", source, target], check=True)  # owner and modes too, which the server insists on

    def _run(self, program: str, *args: str | Path) -> None:
        done = subprocess.run(
            [_programs() / program, *args],
            cwd=self._folder,
            user=self._user,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


class PostgresDb(AirflowDb):
    """Questions to Airflow's database; one asked while the server is away is asked again."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.url

    def prepare(self) -> None:
        """Start the server on a new cluster, with the journal."""
        self._server.prepare()
        with closing(psycopg2.connect(self._server.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(_JOURNAL)

    def sql(self, query: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts."""
        spelled = re.sub(r"(?<!:):(\w+)", r"%(\1)s", query.replace("%", "%%").replace("?", "%s"))
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._ask(spelled, params)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        return [row["tablename"] for row in self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]

    def _ask(self, query: str, params: Sequence[Any] | dict[str, Any]) -> list[dict[str, Any]]:
        options = "-c timezone=UTC -c default_transaction_read_only=on"
        with (
            closing(
                psycopg2.connect(
                    self._server.dsn, connect_timeout=5, options=options, cursor_factory=psycopg2.extras.RealDictCursor
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query, params)
            return [dict(row) for row in cursor.fetchall()]


def _programs() -> Path:
    """Return the folder of the server's programs, which Debian keeps off the path, one for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    program = found[-1] if found else Path(shutil.which("initdb") or "")
    if not program.is_absolute():
        raise RuntimeError("PostgreSQL is missing: apt-get install postgresql")
    return program.parent
