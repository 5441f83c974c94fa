"""
Airflow's own trigger runner with thousands of triggers in it, without the rest of Airflow.

The supervisor and the process with the event loop are Airflow's. Only what the supervisor reads from the
database comes from here, by the methods that Airflow names for a supervisor without one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from airflow.executors.workloads import RunTrigger
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time.comms import GetVariableKeys, VariableKeysResult


class Supervisor(TriggerRunnerSupervisor):
    """Airflow's supervisor of a trigger runner, fed by a bench instead of a database."""

    def prepare(self, logs: Path) -> None:
        """Get ready; ``attrs`` owns the constructor."""
        self.logs = logs
        self.noticed: dict[int, tuple[float, Any]] = {}
        self.failures: list[Any] = []
        self.bells: list[str] = []
        self.next_id = 1
        self.process = psutil.Process(self.pid)

    def add(self, triggers: Iterable[tuple[str, dict[str, Any]]]) -> list[int]:
        """Hand triggers to the runner, each with a task instance and a log of its own."""
        ids = []
        for classpath, kwargs in triggers:
            number, self.next_id = self.next_id, self.next_id + 1
            ti = _task_instance(number)
            self.logger_cache[number] = TriggerLoggingFactory(log_path=str(self.logs / f"{number}.log"), ti=ti)
            self.creating_triggers.append(
                RunTrigger(id=number, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(kwargs), ti=ti)
            )
            ids.append(number)
        return ids

    def turn(self) -> None:
        """Do one round of the supervisor's loop."""
        self._service_subprocess(0.1)
        self.handle_events()
        self.handle_failed_triggers()
        if not self.is_alive():
            raise RuntimeError("the trigger runner has died")

    def cost(self) -> tuple[float, int]:
        """Return the CPU seconds of the runner so far, and its memory in bytes."""
        times = self.process.cpu_times()
        return float(times.user + times.system), int(self.process.memory_info().rss)

    def news(self, numbers: list[int]) -> list[tuple[float, Any]]:
        """Return when each of these triggers fired and with what, once all have; till then nothing."""
        return [self.noticed[number] for number in numbers] if self.noticed.keys() >= set(numbers) else []

    def failed(self) -> list[Any]:
        """Return the triggers that failed."""
        return self.failures

    def ring(self, keys: list[str]) -> None:
        """Let these Variables be there too."""
        self.bells += keys

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        """Answer for the keys of Variables in the api-server's place, a page at a time as it does."""
        if not isinstance(msg, GetVariableKeys):
            super()._handle_request(msg, log, req_id)
            return
        page = sorted(self.bells)[msg.offset : msg.offset + msg.limit]
        self.send_msg(VariableKeysResult(keys=page, total_entries=len(self.bells)), request_id=req_id)

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:
        """Note an event and its time."""
        self.noticed[trigger_id] = (time.time(), event.payload)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Note a failure."""
        self.failures.append((trigger_id, exc))


def _task_instance(number: int) -> TaskInstanceDTO:
    return TaskInstanceDTO.model_validate(
        {
            "id": uuid.uuid4(),
            "dag_version_id": uuid.uuid4(),
            "dag_id": "films",
            "run_id": "manual__2026-01-01T00:00:00+00:00",
            "task_id": "wait",
            "map_index": number,
            "try_number": 1,
            "queue": "default",
            "pool_slots": 1,
            "priority_weight": 1,
        }
    )


def serve(pipe: Connection, logs: Path) -> None:
    """Be a trigger runner's supervisor, and meanwhile do what the bench asks for."""
    supervisor = Supervisor.start(capacity=20_000)
    supervisor.prepare(logs)
    try:
        while True:
            supervisor.turn()
            if pipe.poll():
                method, *arguments = pipe.recv()
                if method == "stop":
                    return
                pipe.send(getattr(supervisor, method)(*arguments))
    except EOFError:  # the bench is gone
        pass
    finally:
        supervisor.kill(escalation_delay=5, force=True)
