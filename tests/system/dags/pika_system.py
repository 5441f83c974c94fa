"""The DAGs of the system tests. What a run submits comes from its conf, and from a Variable that a test may change."""

from __future__ import annotations

import os
import signal

from airflow.sdk import DAG, task
from system_tasks import RETRIES, prompts

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

# Read at every start of the task: so a test changes a run's inputs between two tries.
PROMPT = "{{ var.value.get('prompt_' ~ run_id, dag_run.conf['prompt']) }}"


class DiesBeforeXCom(EncryptTextOperator):
    """Is killed in its first try between the API's answer and the first XCom."""

    def _tell_jobid(self, jobid: str) -> None:
        if self._ti.try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._tell_jobid(jobid)


class StandsStill(EncryptTextOperator):
    """Stops its supervisor and itself in its first try, when it has read that nothing is remembered of a submit."""

    def prepare(self, *args: object) -> object:
        if self._ti.try_number == 1:
            os.kill(os.getppid(), signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().prepare(*args)


def mapped(dag_id: str, **how: object) -> None:
    """Six mapped submits and six deferrable sensors."""
    with DAG(dag_id, schedule=None, default_args=RETRIES):
        submit = EncryptTextOperator.partial(task_id="submit", message="SIX", **how).expand(prompt=prompts())
        PikaJobSensor.partial(task_id="wait", deferrable=True, poke_interval=10).expand(jobid=submit.output)


mapped("mapped", deferrable=False)
mapped("mapped_in_line", deferrable=True)

for kill in (False, True):
    with DAG("apart_kill" if kill else "apart", schedule=None, default_args=RETRIES):
        made = EncryptTextOperator(task_id="submit", message="APART", prompt=PROMPT)
        PikaJobSensor(task_id="wait", jobid=made.output, deferrable=True, poke_interval=10, cancel_on_kill=kill)
    with DAG("together_kill" if kill else "together", schedule=None, default_args=RETRIES):
        EncryptTextOperator(
            task_id="film",
            message="TOGETHER",
            prompt=PROMPT,
            wait_for_completion=True,
            deferrable=True,
            poll_interval=10,
            cancel_on_kill=kill,
        )

with DAG("rescheduled", schedule=None, default_args=RETRIES):
    EncryptTextOperator(
        task_id="film", message="LEGS", prompt=PROMPT, wait_for_completion=True, deferrable=False, poll_interval=15
    )

with DAG("poking", schedule=None, default_args=RETRIES):
    made = EncryptTextOperator(task_id="submit", message="POKE", prompt=PROMPT)
    PikaJobSensor(task_id="wait", jobid=made.output, mode="poke", poke_interval=10, cancel_on_kill=True)

with DAG("stands_still", schedule=None, default_args=RETRIES):
    StandsStill(task_id="submit", message="STILL", prompt=PROMPT)

with DAG("dies_before_xcom", schedule=None, default_args=RETRIES):
    DiesBeforeXCom(task_id="submit", message="KILLED", prompt=PROMPT)

with DAG("ends_in_triggerer", schedule=None, default_args=RETRIES):
    film = EncryptTextOperator(
        task_id="film",
        message="ONE START",
        prompt=PROMPT,
        wait_for_completion=True,
        deferrable=True,
        poll_interval=10,
        end_from_trigger=True,
    )
    wait = PikaJobSensor(task_id="wait", jobid=film.output, deferrable=True, poke_interval=10, end_from_trigger=True)

    @task
    def read(jobid: str, job: dict, video_url: str, waited: dict) -> list[str]:
        """Read downstream what no worker has pushed."""
        return [jobid, job["jobid"], job["status"], video_url, waited["jobid"]]

    read(film.output, film.output["job"], film.output["video_url"], wait.output)

with DAG("stuck", schedule=None, default_args=RETRIES):
    made = EncryptTextOperator(task_id="submit", message="STUCK", prompt=PROMPT)
    PikaJobSensor(
        task_id="wait", jobid=made.output, deferrable=True, poke_interval=10, timeout=15, cancel_on_timeout=True
    )
    PikaJobSensor(
        task_id="wait_softly", jobid=made.output, deferrable=True, poke_interval=10, timeout=15, soft_fail=True
    )
