"""The smallest use: submit one job, wait for it without a worker, print the link to its video."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

with DAG(
    dag_id="pika_smallest",
    schedule=None,
    # A retry never pays again: it goes on with the job the first try submitted.
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["pika", "example"],
    doc_md=__doc__,
):
    submit = EncryptTextOperator(
        task_id="submit",
        message="HELLO THERE",
        prompt="waves rolling onto a quiet beach at dawn",
        font="SANS SERIF",
    )
    wait = PikaJobSensor(task_id="wait", jobid=submit.output, deferrable=True, poke_interval=10)

    @task
    def show(job: dict, video_url: str) -> None:
        """Print what the job left: its keys are the API's own."""
        print(f"{job['jobid']} is {job['status']}: {video_url}")

    show(wait.output, wait.output["video_url"])
