"""Many prompts, few jobs at once: one mapped task that submits and waits, in a pool that counts deferred tasks.

Create the pool once, with as many slots as the account runs jobs:
``airflow pools set pika 10 "Pika jobs" --include-deferred``. A task keeps its slot from the submit to the end of
its job, so this DAG never meets a full queue, however many prompts there are.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_pika.operators.pika import EncryptTextOperator

PROMPTS = [
    "a lighthouse in a storm, cinematic",
    "a paper boat on a mirror-like lake",
    "neon rain over a night market",
]

with DAG(
    dag_id="pika_mapped",
    schedule=None,
    params={"message": "SALE"},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["pika", "example"],
    doc_md=__doc__,
):
    films = EncryptTextOperator.partial(
        task_id="films",
        message="{{ params.message }}",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=10,
        pool="pika",
    ).expand(prompt=PROMPTS)

    @task
    def collect(jobids: list[str], links: list[str]) -> dict[str, str]:
        """Return the link of each job, in the order of the prompts."""
        return dict(zip(jobids, links, strict=True))

    collect(films.output, films.output["video_url"])
