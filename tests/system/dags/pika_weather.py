"""DAGs for bad weather: each kind of trouble has a connection, and so an emulator, of its own."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from system_tasks import RETRIES, prompts

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

PROMPT = "{{ dag_run.conf['prompt'] }}"
# For an outage of half a minute: the retries of a careful DAG outlast it.
PATIENT = {"retries": 3, "retry_delay": timedelta(seconds=15)}


def six(dag_id: str, conn_id: str, retries: dict[str, object]) -> None:
    """Six mapped submits, and nothing after them."""
    with DAG(dag_id, schedule=None, default_args=retries):
        EncryptTextOperator.partial(task_id="submit", message="SIX", pika_conn_id=conn_id).expand(prompt=prompts())


six("six", "pika_default", RETRIES)
six("six_once", "pika_default", {"retries": 0})
six("six_network", "pika_network", RETRIES)
six("six_late", "pika_late", RETRIES)
# One that is to prove that no job was made: a gap of 15 s between two polls, for which others on its connection are
# enough, would leave that open.
six("six_alone", "pika_drip", RETRIES)


for kind in ("vault", "pages"):
    conn = {"pika_conn_id": f"pika_{kind}"}
    with DAG(f"waits_{kind}", schedule=None, default_args=PATIENT):
        made = EncryptTextOperator(task_id="submit", message="WAITS", prompt=PROMPT, **conn)
        PikaJobSensor(task_id="deferred", jobid=made.output, deferrable=True, poke_interval=10, **conn)
        PikaJobSensor(task_id="poking", jobid=made.output, mode="poke", poke_interval=10, **conn)
        PikaJobSensor(task_id="rescheduled", jobid=made.output, mode="reschedule", poke_interval=15, **conn)
        EncryptTextOperator(
            task_id="film",
            message="WAITS",
            prompt=f"{PROMPT} film",
            wait_for_completion=True,
            deferrable=True,
            poll_interval=10,
            **conn,
        )
        # Refused once, so that it comes back while the others wait.
        EncryptTextOperator(
            task_id="late", message="LATE", prompt=f"{PROMPT} late [emulator:queue_full]", deferrable=False, **conn
        )

with DAG("deadline", schedule=None, default_args=RETRIES):
    made = EncryptTextOperator(task_id="submit", message="DRIP", prompt=PROMPT, pika_conn_id="pika_drip")
    PikaJobSensor(
        task_id="wait",
        jobid=made.output,
        deferrable=True,
        poke_interval=10,
        timeout=60,
        pika_conn_id="pika_drip",
    )
