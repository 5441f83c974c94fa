"""TaskFlow around a job: a Python task writes the prompt, the job is one task, a Python task uses the result."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_pika.operators.pika import EncryptTextOperator


@dag(
    schedule=None,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["pika", "example"],
    doc_md=__doc__,
)
def pika_taskflow() -> None:
    """Submit and wait in one task, between two of one's own."""

    @task
    def write_prompt() -> str:
        """Stand in for whatever decides what the video shows."""
        return "autumn leaves drifting over a canal, -motion 2"

    @task
    def summarize(job: dict) -> str:
        """Use the finished job: a plain dict with the API's own keys."""
        video = job["attachments"][0]
        return f"{job['jobid']}: {video['filename']}, {video['size']} bytes"

    film = EncryptTextOperator(
        task_id="film",
        message="AUTUMN",
        prompt=write_prompt(),
        wait_for_completion=True,
        deferrable=True,
        poll_interval=10,
    )
    summarize(film.output["job"])


pika_taskflow()
