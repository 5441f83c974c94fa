"""
A small chain: make a video of a prompt, have a second thought about it, bring home the one that is wanted.

Trigger it with "Once more" ticked, and the service's *retry* button is pressed under the first video: a new job of the
same prompt, which costs what the first one did.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_provider_pika.operators.pika import ButtonOperator, CreateOperator
from airflow_provider_pika.transfers.pika import PikaDownloadOperator

with DAG(
    "pika_second_thought",
    schedule=None,
    default_args={"retries": 2},
    params={
        "prompt": Param("a paper boat on a lake at dawn", type="string"),
        "once_more": Param(False, type="boolean", title="Once more"),
        "folder": Param("/tmp/pika", type="string"),  # noqa: S108 - an example's own
    },
    tags=["pika"],
):
    create = CreateOperator(task_id="create", prompt="{{ params.prompt }}", wait_for_completion=True, deferrable=True)

    @task.branch
    def second_thought(params: dict) -> str:
        """Return which way to go: here a person's tick, elsewhere an approval or a look at the film."""
        return "once_more" if params["once_more"] else "download"

    once_more = ButtonOperator(
        task_id="once_more", jobid=create.output, button="retry", wait_for_completion=True, deferrable=True
    )
    download = PikaDownloadOperator(
        task_id="download",
        jobid="{{ ti.xcom_pull(task_ids='once_more') or ti.xcom_pull(task_ids='create') }}",
        path="{{ params.folder }}",
        trigger_rule="none_failed_min_one_success",
    )

    thought = second_thought()
    create >> thought >> [once_more, download]
    once_more >> download
