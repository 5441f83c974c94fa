"""DAGs for several hosts: each worker has a queue of its own name, and the further ones share one."""

from __future__ import annotations

from airflow.sdk import DAG
from system_tasks import RETRIES, prompts

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.transfers.pika import PikaDownloadOperator

with DAG("handed_out", schedule=None, default_args=RETRIES):
    EncryptTextOperator.partial(task_id="submit", message="AGAIN", queue="impatient").expand(prompt=prompts())

with DAG("local_paths", schedule=None, default_args={**RETRIES, "pika_conn_id": "pika_network"}):
    # A relative path: on each host it leads to a folder of that host's.
    pictured = {"message": "LOCAL", "prompt": "{{ dag_run.conf['prompt'] }}", "image": "pictures/here.png"}
    here = EncryptTextOperator(
        task_id="here", queue="worker", wait_for_completion=True, deferrable=True, poll_interval=10, **pictured
    )
    EncryptTextOperator(task_id="there", queue="worker-2", **pictured)
    PikaDownloadOperator(task_id="download", queue="worker-2", job=here.output["job"], path="films")

with DAG("one_task_each", schedule=None, default_args=RETRIES):
    EncryptTextOperator.partial(
        task_id="submit", message="EACH", wait_for_completion=True, deferrable=True, poll_interval=10
    ).expand(prompt=prompts())
