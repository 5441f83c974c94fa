"""
Airflow as those run it who outgrew one machine: PostgreSQL, CeleryExecutor on Redis, and several of each process.

All of it on this machine and on loopback. Each worker is a host of its own as far as names and paths go: it has its
own host name, home, temporary folder and working folder. Task logs lie in one folder, as with remote logging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dev.harness import hosts
from dev.harness.airflow_api import AirflowApi
from dev.harness.airflow_db import clean_env
from dev.harness.failing_secrets import ROOT
from dev.harness.local_airflow import LocalAirflow, environment, kind_of, numbered
from dev.harness.postgres import Postgres, PostgresDb
from dev.harness.processes import Family, tail, wait_until
from dev.harness.redis_server import Redis

OF_EACH = 2
# Six tasks at once do not fit on one host.
PER_WORKER = 5
_STARTING = 240.0


class Fleet(LocalAirflow):
    """
    Two schedulers, two api-servers behind one address, two triggerers, two Celery workers, one DAG processor.

    What has a name can be killed and started again by it: ``scheduler-2``, ``worker``, … A worker's name is its host's,
    and a queue's that it alone serves besides ``default``.

    :param home: its folder, made if missing; see :class:`LocalAirflow` for all other parameters
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        config: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.services = Family(home.resolve() / "process-logs", clean_env())
        self.postgres = Postgres(self.services)
        self.redis = Redis(self.services, home.resolve() / "redis")
        super().__init__(
            home,
            dags=dags,
            config={
                "core.executor": "CeleryExecutor",
                "core.hostname_callable": f"{hosts.__name__}.{hosts.host_name.__name__}",
                "celery.broker_url": self.redis.url,
                "celery.result_backend": f"db+{self.postgres.url}",
                "celery.worker_concurrency": str(PER_WORKER),
                # A process for each task to be sent is not worth its start here.
                "celery.sync_parallelism": "1",
                # A task whose message was lost with the broker's memory is queued anew after this.
                "scheduler.task_queued_timeout": "60",
                "scheduler.task_queued_timeout_check_interval": "10",
                **(config or {}),
            },
            env={"PYTHONPATH": str(ROOT), **(env or {})},
            db=PostgresDb(self.postgres),
            schedulers=OF_EACH,
            api_servers=OF_EACH,
            triggerers=OF_EACH,
            **options,
        )
        self._extra: dict[str, tuple[str, dict[str, str]]] = {}
        self._read: dict[str, int] = {}
        self.workers = numbered("worker", OF_EACH)
        self.names += self.workers

    def host(self, worker: str) -> Path:
        """Return the folder in which a worker works: relative paths of its tasks lead there and nowhere else."""
        return self.home / "hosts" / worker

    def start(self, timeout: float = _STARTING) -> None:
        """Start all, and wait until all are at work; on any error nothing is left running."""
        try:
            self.redis.start()
            super().start(timeout)
            for worker in self.workers:
                self._wait_ready(worker, "", timeout)
        except BaseException:
            self.stop(grace=3)
            raise

    def stop(self, grace: float = 10) -> None:
        """End all processes, those that serve the others last."""
        super().stop(grace)
        self.services.stop(grace)
        self.postgres.remove()

    def start_process(self, name: str, *, wait: bool = True, timeout: float = 120) -> None:
        """Start one process, one that was killed or a further one of its kind."""
        super().start_process(name, wait=wait, timeout=timeout)

    def add_workers(self, names: Sequence[str], queue: str, config: Mapping[str, str]) -> None:
        """Start further workers, ``worker-3``, …, which serve this queue alone and have options of their own."""
        self._extra |= {name: (queue, environment(config)) for name in names}
        for name in names:
            self._launch(name)
        for name in names:
            self._wait_ready(name, "", _STARTING)

    def restart_postgres(self) -> None:
        """Let PostgreSQL end at once, as ``pg_ctl restart -m immediate`` does, and start it again."""
        self.postgres.stop(immediate=True)
        self.postgres.start()

    def restart_redis(self) -> None:
        """Kill Redis and start it again; it remembers what it held."""
        self.redis.stop()
        self.redis.start()

    def mend(self) -> list[str]:
        """Start again what has ended, as a service manager does; return the names, and wait for nothing."""
        ended = [name for name in self.names if not self.family.alive(name)]
        for name in ended:
            self._launch(name)
        return ended

    def is_whole(self, timeout: float = 120) -> None:
        """Wait until all processes run, workers take tasks, and both api-servers serve them and know a scheduler."""

        def check() -> bool:
            told = [AirflowApi(url).health() or {} for url in self.urls]
            at_work = [health.get("scheduler", {}).get("status") == "healthy" for health in told]
            at_work += [AirflowApi(url).serves_tasks() for url in self.urls]
            return all(at_work) and all(self.family.alive(name) for name in self.names)

        wait_until(check, "the fleet to be whole", timeout)
        for worker in self.workers:
            self._wait_ready(worker, "", timeout)

    def worker_pids(self) -> list[int]:
        """Return the pids of all processes below the workers: those of the pool, idle or busy, and their tasks."""
        alive = [name for name in self.family.names() if kind_of(name) == "worker" and self.family.alive(name)]
        return [process.pid for worker in alive for process in self.family.tree(worker)]

    def _launch(self, name: str) -> None:
        env = {hosts.NAME: name}
        if kind_of(name) != "worker":
            self._start_airflow(name, env)
            return
        host = self.host(name)
        (host / "tmp").mkdir(parents=True, exist_ok=True)
        (host / "airflow.cfg").touch()
        # Left behind by one that was killed; its number may be anybody's by now.
        (host / "airflow-worker.pid").unlink(missing_ok=True)
        own = {"HOME": host, "AIRFLOW_HOME": host, "TMPDIR": host / "tmp"}
        log = self.family.log(name)
        self._read[name] = len(log.read_text(errors="replace")) if log.exists() else 0
        env |= {key: str(value) for key, value in own.items()}
        if name in self._extra:
            env |= self._extra[name][1]
        self._start_airflow(name, env, cwd=host)

    def _arguments(self, name: str) -> list[str]:
        if kind_of(name) != "worker":
            return super()._arguments(name)
        queues = self._extra[name][0] if name in self._extra else f"default,{name}"
        return ["celery", "worker", "--celery-hostname", f"celery@{name}", "--queues", queues, "--skip-serve-logs"]

    def _wait_ready(self, name: str, since: str, timeout: float, count: int = 1) -> None:
        if kind_of(name) != "worker":
            super()._wait_ready(name, since, timeout, count)
            return

        def check() -> bool:
            self.family.check()
            return f"celery@{name} ready." in self.family.log(name).read_text(errors="replace")[self._read[name] :]

        wait_until(check, f"{name} to be at work", timeout, detail=lambda: tail(self.family.log(name)))
