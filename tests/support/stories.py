"""What the system tests tell again and again: start a run, see its job, look at what the API was asked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psutil

from airflow_provider_pika.api.job import RUNNING_STATES
from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.network import Network
from dev.harness.processes import WaitError, wait_until
from dev.harness.runs import TaskProcesses


class Story:
    """
    One run of one of the system DAGs.

    :param prompt: what it submits; emulator markers in it make the job behave
    """

    def __init__(self, airflow: LocalAirflow, emulator: EmulatorClient, dag_id: str, prompt: str, **conf: Any) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.dag_id = dag_id
        self.prompt = prompt
        self.run_id = airflow.runs.trigger(dag_id, conf={"prompt": prompt, **conf})

    def task(self, task_id: str, *states: str, map_index: int = -1, timeout: float = 90) -> dict[str, Any]:
        """Wait until a task is in one of the states."""
        return self.airflow.runs.wait_task(
            self.dag_id, self.run_id, task_id, states, map_index=map_index, timeout=timeout
        )

    def ends(self, *states: str, timeout: float = 150) -> str:
        """Wait until the run has ended in one of the states (success, unless told otherwise)."""
        return self.airflow.runs.wait(self.dag_id, self.run_id, states or ("success",), timeout=timeout)

    def jobs(self) -> list[dict[str, Any]]:
        """
        Return the jobs made of this story's prompt, or of what it was changed to.

        Numbers and markers follow the prompt after a space: a story named "six" does not count those of "six_once".
        """
        own = self.prompt.split("[")[0].strip()
        return [job for job in self.emulator.counters()["jobs"] if f"{job['prompt']} ".startswith(f"{own} ")]

    def has_jobs(self, count: int, timeout: float = 120) -> list[dict[str, Any]]:
        """Wait until so many jobs have been made."""
        return wait_until(
            lambda: len(self.jobs()) >= count and self.jobs(),
            f"{count} jobs of {self.prompt!r}",
            timeout,
            detail=self.describe,
        )

    def has_intents(self, count: int = 1, timeout: float = 60) -> None:
        """Wait until so many submits of this run have stored their intent: they are about to send."""
        query = "SELECT map_index FROM task_state_store WHERE dag_id = ? AND run_id = ? AND key = 'pika_submit'"
        wait_until(
            lambda: len(self.airflow.db.sql(query, (self.dag_id, self.run_id))) >= count,
            f"{count} intents of {self.prompt!r}",
            timeout,
            interval=0.05,
            detail=self.describe,
        )

    def describe(self) -> str:
        """Return the states of the run and its tasks, and the logs of those that went wrong."""
        runs = self.airflow.runs
        return f"run {runs.state(self.dag_id, self.run_id)}\n{runs.describe(self.dag_id, self.run_id)}"

    def at_the_door(self, network: Network) -> TaskProcesses:
        """Return the processes of its first mapped submit once its intent is stored and its ``connect()`` hangs."""
        self.has_intents()

        def at_it() -> TaskProcesses | None:
            # Read anew each time: who is not released within ten seconds gives up, and a next try connects.
            with suppress(WaitError, psutil.NoSuchProcess):
                processes = self.airflow.runs.task_processes(self.dag_id, self.run_id, "submit", 0)
                return processes if network.holds(processes.task) else None
            return None

        return wait_until(at_it, "the submit to connect", 60, interval=0.05, detail=self.describe)

    def cancels(self) -> int:
        """Return how many cancels the API was asked for jobs of this story."""
        cancels = self.emulator.counters()["cancels"]
        return sum(cancels.get(job["jobid"], 0) for job in self.jobs())

    def end_jobs(self) -> None:
        """Let the jobs that still run complete now."""
        for job in self.jobs():
            if job["status"] in RUNNING_STATES:
                self.emulator.advance(jobid=job["jobid"], status="completed")

    def change_inputs(self) -> None:
        """Change what the submit's template renders to from now on."""
        value = self.prompt.split("[")[0] + " changed [emulator:seconds=3600]"
        self.airflow.api.request("POST", "/variables", json={"key": f"prompt_{self.run_id}", "value": value})

    def clear(self, *task_ids: str) -> None:
        """Clear tasks, as a person does."""
        self.airflow.api.clear(self.dag_id, self.run_id, task_ids)

    def mark(self, task_id: str, state: str) -> None:
        """Mark a task, as a person does."""
        self.airflow.api.set_task_state(self.dag_id, self.run_id, task_id, state)

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom of the run."""
        return self.airflow.api.xcom(self.dag_id, self.run_id, task_id, key, map_index)

    def tries(self, task_id: str) -> list[int]:
        """Return the try numbers of a (mapped) task's instances."""
        rows = self.airflow.db.tasks(self.dag_id, self.run_id)
        return [row["try_number"] for row in rows if row["task_id"] == task_id]

    def log(self, task_id: str, map_index: int = -1) -> str:
        """Return all that a task logged."""
        return self.airflow.runs.log(self.dag_id, self.run_id, task_id, map_index)
