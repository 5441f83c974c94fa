"""The same work with this provider, deferrable: as two tasks or as one, ending on a worker or in the triggerer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

RETRIES: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=20)}


@task
def films(**context: Any) -> list[str]:
    """Return the prompts."""
    return [f"a film [emulator:seconds={seconds}]" for seconds in context["dag_run"].conf["lengths"]]


def dag(shape: str, interval: int, *, ends: bool) -> None:
    """
    Declare a DAG.

    :param shape: ``two`` tasks a job, submit and sensor, or ``one``
    :param ends: whether a completed job ends its task in the triggerer
    """
    with DAG(f"ours_{shape}_{interval}{'_ends' if ends else ''}", schedule=None, default_args=RETRIES):
        how: dict[str, Any] = {"message": "HELLO", "deferrable": True}
        if shape == "one":
            how |= {"wait_for_completion": True, "poll_interval": interval, "end_from_trigger": ends}
        submit = EncryptTextOperator.partial(task_id="submit", **how).expand(prompt=films())
        if shape == "two":
            PikaJobSensor.partial(
                task_id="wait", deferrable=True, poke_interval=interval, end_from_trigger=ends
            ).expand(jobid=submit.output)


for of_shape in ("two", "one"):
    for every in (10, 30):
        for in_triggerer in (False, True):
            dag(of_shape, every, ends=in_triggerer)

with DAG("ours_submits", schedule=None, default_args=RETRIES):
    EncryptTextOperator.partial(task_id="submit", message="HELLO").expand(prompt=films())
