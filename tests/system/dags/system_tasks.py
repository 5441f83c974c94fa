"""What the DAG files of the system tests share; no DAG is made here, or it would belong to each of them."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import task

RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=1)}


@task
def prompts(**context: object) -> list[str]:
    """Return what a run's mapped submits ask for: six numbered prompts, unless its conf says otherwise."""
    conf = context["dag_run"].conf
    return conf.get("prompts") or [f"{conf['prompt']} {number}" for number in range(conf.get("count", 6))]
