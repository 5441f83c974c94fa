"""Many prompts, few jobs at once, and each film for itself: a mapped task group, in a pool that counts deferred tasks.

Create the pool once, with as many slots as the account runs jobs:
``airflow pools set pika 10 "Pika jobs" --include-deferred``. A task keeps its slot from the submit to the end of
its job, so this DAG never meets a full queue, however many prompts there are.

Within the group a film depends on its own submit alone. A sensor mapped over a mapped submit would wait for *all*
submits to succeed: one moderated prompt, and Airflow would set every sensor to ``upstream_failed`` and leave films
behind that are paid for. Here the others come home, and the run fails for the one.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, task, task_group

from airflow_provider_pika.operators.pika import EncryptTextOperator

PROMPTS = [
    "a lighthouse in a storm, cinematic",
    "a paper boat on a mirror-like lake",
    "neon rain over a night market",
]

with DAG(
    dag_id="pika_mapped",
    schedule=None,
    params={"message": "SALE", "prompts": Param(PROMPTS, type="array", items={"type": "string"})},
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["pika", "example"],
    doc_md=__doc__,
):

    @task
    def read_prompts(params: dict) -> list[str]:
        """Return what to make a film of."""
        return params["prompts"]

    @task
    def collect(jobid: str, video_url: str) -> str:
        """Use a film: here its link is printed, in life it is fetched, since a link expires within a day."""
        print(f"{jobid}: {video_url}")
        return video_url

    @task_group
    def film(prompt: str) -> None:
        """Make one film and collect it, whatever becomes of the others."""
        make = EncryptTextOperator(
            task_id="make",
            message="{{ params.message }}",
            prompt=prompt,
            wait_for_completion=True,
            deferrable=True,
            poll_interval=10,
            pool="pika",
        )
        collect(make.output, make.output["video_url"])

    film.expand(prompt=read_prompts())
