"""The Pika API as one would use it today: HttpOperator and HttpSensor of the HTTP provider."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, task

ENDED = ("completed", "failed", "moderated", "cancelled")


def jobid_of(response: Any) -> dict[str, str]:
    """Return what the sensor asks with."""
    return {"jobid": response.json()["jobid"]}


def has_ended(response: Any) -> bool:
    """Tell whether the job has ended."""
    return response.json()["status"] in ENDED


for interval in (10, 30):
    with DAG(f"http_{interval}", schedule=None):

        @task
        def films(**context: Any) -> list[dict[str, Any]]:
            """Return the forms; a part without a file name is a plain field of multipart/form-data."""
            return [
                {"files": {"message": [None, "HELLO"], "prompt": [None, f"a film [emulator:seconds={seconds}]"]}}
                for seconds in context["dag_run"].conf["lengths"]
            ]

        submit = HttpOperator.partial(
            task_id="submit",
            http_conn_id="pika_http",
            endpoint="v1/pika/encrypt_text",
            response_filter=jobid_of,
            # A full queue is an error here, so waiting for room takes a retry each time.
            retries=500,
            retry_delay=timedelta(seconds=20),
        ).expand(request_kwargs=films())
        HttpSensor.partial(
            task_id="wait",
            http_conn_id="pika_http",
            endpoint="v1/pika/jobs/",
            response_check=has_ended,
            mode="reschedule",
            poke_interval=interval,
            timeout=3600,
            retries=2,
            retry_delay=timedelta(seconds=20),
        ).expand(request_params=submit.output)
