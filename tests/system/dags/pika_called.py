"""DAGs for a service that calls back."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from system_tasks import RETRIES, prompts

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

PROMPT = "{{ dag_run.conf['prompt'] }}"

# What is polled for is polled for too late to be taken for called back; or soon, where callbacks are lost.
for dag_id, interval in (("called", 120), ("called_in_vain", 10)):
    with DAG(dag_id, schedule=None, default_args=RETRIES):
        submit = EncryptTextOperator.partial(task_id="submit", message="CALLED").expand(prompt=prompts())
        PikaJobSensor.partial(task_id="wait", deferrable=True, poke_interval=interval).expand(jobid=submit.output)

for seconds in (15, 65):
    delay = {"retries": 2, "retry_delay": timedelta(seconds=seconds)}
    with DAG(f"called_after_{seconds}", schedule=None, default_args=delay):
        EncryptTextOperator.partial(task_id="submit", message="KILLED").expand(prompt=prompts())

with DAG("called_once", schedule=None, default_args=RETRIES):
    EncryptTextOperator(task_id="submit", message="CLEARED", prompt=PROMPT)
