"""The rows by which tasks wait in Airflow's database, in a process whose environment is that Airflow's."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from typing import Any

from airflow import settings
from airflow.models import Connection
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.types import DagRunType
from sqlalchemy import delete, insert, update

DAG, RUN = "films", "manual__2026-01-01T00:00:00+00:00"


def prepare(connections: dict[str, dict[str, Any]]) -> None:
    """Write the connections, and the DAG run in which all wait."""
    at = datetime.now(timezone.utc)
    with settings.Session() as session:
        session.add_all(Connection(conn_id=conn_id, **about) for conn_id, about in connections.items())
        session.add(DagBundleModel(name="dags-folder"))
        session.flush()
        session.execute(
            insert(DagModel).values(
                dag_id=DAG,
                bundle_name="dags-folder",
                max_active_tasks=10_000,
                max_consecutive_failed_dag_runs=0,
                has_task_concurrency_limits=False,
            )
        )
        session.add(DagVersion(dag_id=DAG, bundle_name="dags-folder"))
        run = DagRun(dag_id=DAG, run_id=RUN, run_type=DagRunType.MANUAL, run_after=at, start_date=at, state="running")
        session.add(run)
        session.commit()


def wait(triggers: list[tuple[str, dict[str, Any]]]) -> None:
    """Let a task wait for each of these triggers, in the place of all that waited before."""
    with settings.Session() as session:
        session.execute(update(TaskInstance).values(trigger_id=None, state="success"))
        session.execute(delete(Trigger))
        session.execute(delete(TaskInstance))
        (version,) = session.query(DagVersion.id).one()
        rows = [Trigger(classpath=classpath, kwargs=kwargs) for classpath, kwargs in triggers]
        session.add_all(rows)
        session.flush()
        shared = {"dag_id": DAG, "run_id": RUN, "task_id": "wait", "state": "deferred", "try_number": 1}
        shared |= {"pool": "default_pool", "queue": "default", "priority_weight": 1, "dag_version_id": version}
        own = [shared | {"map_index": number, "trigger_id": row.id} for number, row in enumerate(rows)]
        if own:
            session.execute(insert(TaskInstance), own)
        session.commit()


def main() -> None:
    """Do what the argument asks for."""
    asked = json.loads(sys.stdin.read())
    if "prepare" in asked:
        prepare(asked["prepare"])
        return
    deadline = time.time() + 24 * 3600
    shared = {"pika_conn_id": asked["conn_id"], "poll_interval": asked["interval"], "deadline": deadline}
    jobs = [shared | {"jobid": jobid} for jobid in asked["jobs"]]
    triggers = [("airflow_provider_pika.triggers.pika.PikaJobTrigger", kwargs) for kwargs in jobs]
    triggers += [("dev.bench.triggers.SleepTrigger", {"gated": False, "note": {}})] * asked["sleepers"]
    wait(triggers)


if __name__ == "__main__":
    main()
