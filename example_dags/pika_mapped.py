"""Many prompts, few jobs at once: one mapped submit and one mapped sensor, held together by a pool.

The pool ``pika`` should have as many slots as the account runs jobs; create it once with
``airflow pools set pika 10 "Pika jobs" --include-deferred``. A task that defers keeps its slot there, so that the
account's queue is never full because of this DAG. The DAG also runs without: a full queue only reschedules.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

PROMPTS = [
    "a lighthouse in a storm, cinematic",
    "a paper boat on a mirror-like lake",
    "neon rain over a night market",
]

with DAG(
    dag_id="pika_mapped",
    schedule=None,
    params={"message": "SALE", "pool": "default_pool"},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["pika", "example"],
    doc_md=__doc__,
):
    submit = EncryptTextOperator.partial(
        task_id="submit", message="{{ params.message }}", max_active_tis_per_dagrun=10
    ).expand(prompt=PROMPTS)
    wait = PikaJobSensor.partial(task_id="wait", deferrable=True, poke_interval=10).expand(jobid=submit.output)

    @task
    def collect(jobs: list[dict]) -> list[str]:
        """Return the jobids in the order of the prompts."""
        return [job["jobid"] for job in jobs]

    collect(wait.output)
