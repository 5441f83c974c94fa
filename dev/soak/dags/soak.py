"""What the soak runs: every way to submit and wait, one chain of tasks for each film, named by wave and number."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task, task_group

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

# Processes die every few seconds: a task may lose several tries to that.
RETRIES: dict[str, Any] = {"retries": 30, "retry_delay": timedelta(seconds=5)}


def dag(dag_id: str, *, deferrable: bool, two: bool) -> None:
    """Declare a DAG of one film for each text of markers in the run's conf."""
    with DAG(dag_id, schedule=None, default_args=RETRIES):

        @task
        def prompts(**context: Any) -> list[str]:
            markers = context["dag_run"].conf["markers"]
            return [f"{context['run_id']} {number} {marked}" for number, marked in enumerate(markers)]

        how: dict[str, Any] = {"message": "SOAK", "deferrable": deferrable}
        if not two:
            how |= {"wait_for_completion": True, "poll_interval": 15}

        # In a group each film goes its own way: one that fails does not stop the others.
        @task_group
        def film(prompt: str) -> None:
            submit = EncryptTextOperator(task_id="submit", prompt=prompt, **how)
            if two:
                PikaJobSensor(
                    task_id="wait", jobid=submit.output, deferrable=deferrable, poke_interval=15, mode="reschedule"
                )

        film.expand(prompt=prompts())


dag("soak_two", deferrable=True, two=True)
dag("soak_one", deferrable=True, two=False)
dag("soak_legs", deferrable=False, two=True)
dag("soak_one_legs", deferrable=False, two=False)
