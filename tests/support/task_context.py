"""
A stand-in for what Airflow does around an operator: legs, deferrals, retries and clears, in milliseconds.

The operator, the trigger and the HTTP are real. Not real is the machinery: the state store lives in memory (its values
go through JSON, as Airflow's do), a deferral is run in place, and the clock is :class:`Clock`, which a wait puts ahead
for the provider and for the emulator alike.
"""

from __future__ import annotations

import contextvars
import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_pika.api.commands import JOBS_PATH, Call
from airflow_provider_pika.compat import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.leaps import LeapingClock, run_leaping
from airflow_provider_pika.hooks.pika import PikaHook

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferred

# A wait that never ends must not hang the tests.
MOST_LEGS = 150


def smallest_gap(times: Sequence[float]) -> float | None:
    """Return the shortest time between two polls, to half a second: a busy machine starts the asking thread late."""
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return round(min(gaps) * 2) / 2 if gaps else None


class Clock(LeapingClock):
    """The clock of the provider's own tests, which remembers what was waited for and what was asked when."""

    def __init__(self, emulator: EmulatorClient) -> None:
        super().__init__(emulator)
        self.sleeps: list[float] = []
        self.reschedules: list[float] = []
        self.asked: list[tuple[float, str]] = []
        self.begun = self.monotonic()

    @property
    def passed(self) -> float:
        """Seconds by this clock since it was made, those that a busy machine takes in earnest among them."""
        return self.monotonic() - self.begun

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        super().sleep(seconds)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().install(monkeypatch)
        send = PikaHook._send

        def noted(hook: PikaHook, call: Call, *args: Any, **kwargs: Any) -> Any:
            self.asked.append((self.time(), call.target))
            return send(hook, call, *args, **kwargs)

        monkeypatch.setattr(PikaHook, "_send", noted)

    def polls(self) -> dict[str, list[float]]:
        """Return when each job was read and when the list was, by this clock."""
        polls: dict[str, list[float]] = {}
        for at, target in self.asked:
            if target == JOBS_PATH or target.startswith(f"{JOBS_PATH}/?"):
                polls.setdefault(target, []).append(at)
        return polls

    def smallest_gap(self) -> float | None:
        return min(filter(None, map(smallest_gap, self.polls().values())), default=None)


class Store:
    """Airflow 3.3's ``task_state_store``, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.fails_on: Callable[[str, Any], bool] = lambda key, value: False

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.fails_on(key, value):
            raise ConnectionError("the state store cannot be reached")
        self.values[key] = json.dumps(value, allow_nan=False)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


class Log:
    """What was logged, as a person would read it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def _say(self, level: str, message: object, *args: Any, **_: Any) -> None:
        self.lines.append((level, str(message) % args if args else str(message)))

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level.startswith("_"):
            raise AttributeError(level)
        return lambda message, *args, **kwargs: self._say(level, message, *args, **kwargs)

    def of(self, level: str) -> list[str]:
        return [text for said, text in self.lines if said == level]

    @property
    def text(self) -> str:
        return "\n".join(f"{level}: {text}" for level, text in self.lines)


@dataclass
class TaskInstance:
    """What an operator sees of its task instance."""

    id: str = "01998f3e-0000-7000-8000-000000000001"
    dag_id: str = "my_dag"
    run_id: str = "manual__2026-01-02T03:04:05+00:00"
    task_id: str = "submit"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 2
    xcoms: dict[str, Any] = field(default_factory=dict)
    first_reschedule: datetime | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        return self.first_reschedule


@dataclass
class Ending:
    """How a try ended: its state as Airflow would set it, its result or error, and the way there."""

    state: str
    value: Any = None
    error: BaseException | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    legs: int = 1
    triggers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cause(self) -> BaseException | None:
        return self.error.__cause__ if self.error else None


class Life:
    """
    A task instance from its first try to its last.

    :param make: makes the operator anew, as each leg of a task does
    :param stored: whether there is a state store, as there is from Airflow 3.3 on
    """

    def __init__(
        self, clock: Clock, make: Callable[[], Any], *, stored: bool = True, retries: int = 2, **ti: Any
    ) -> None:
        self.clock = clock
        self.make = make
        self.store = Store() if stored else None
        self.retries = retries
        self.ti = TaskInstance(**{"max_tries": retries, **ti})
        self.reschedules = 0
        self.run_started = clock.now()
        self.log = Log()

    def context(self) -> dict[str, Any]:
        context = {
            "ti": self.ti,
            "task_instance": self.ti,
            "dag_run": SimpleNamespace(start_date=self.run_started),
            "task_reschedule_count": self.reschedules,
        }
        if self.store is not None:
            context["task_state_store"] = self.store
        return context

    def leg(self, resume: tuple[str, dict[str, Any]] | None = None) -> Any:
        """Run one leg as the task runner does, and let what it raises through."""
        operator = self.make()
        operator._log = operator._cached_logger = self.log
        assert operator.log is self.log
        context = contextvars.copy_context()
        context.run(ExecutorSafeguard.tracker.set, operator)
        # Airflow deletes a task's XComs when a leg starts anew, and keeps them over a deferral.
        if resume is None:
            self.ti.xcoms.clear()
            value = context.run(operator.execute, self.context())
        else:
            value = context.run(operator.resume_execution, *resume, self.context())
        if operator.do_xcom_push and value is not None:
            self.ti.xcom_push("return_value", value)
        return value

    def run(self, make: Callable[[], Any] | None = None) -> Ending:
        """Run a try to its end, over all its reschedules and deferrals."""
        self.make = make or self.make
        ending = Ending("running")
        resume: tuple[str, dict[str, Any]] | None = None
        for ending.legs in range(1, MOST_LEGS):
            try:
                ending.value = self.leg(resume)
            except AirflowRescheduleException as wait:
                self._reschedule(wait.reschedule_date)
                resume = None
            except TaskDeferred as deferred:
                resume = self._trigger(deferred, ending)
            except AirflowSkipException as skip:
                return self._ended(ending, "skipped", skip)
            except (AirflowFailException, AirflowSensorTimeout) as failure:
                return self._ended(ending, "failed", failure)
            except Exception as error:  # noqa: BLE001 - whatever it is, Airflow retries it
                return self._ended(ending, "up_for_retry", error)
            else:
                return self._ended(ending, "success")
        raise AssertionError(f"this task would go on for ever:\n{self.log.text[-2000:]}")

    def retry(self, make: Callable[[], Any] | None = None) -> Ending:
        self.ti.try_number += 1
        return self._anew(make)

    def clear(self, make: Callable[[], Any] | None = None) -> Ending:
        self.ti.max_tries = self.ti.try_number + self.retries
        self.ti.try_number += 1
        return self._anew(make)

    def _anew(self, make: Callable[[], Any] | None) -> Ending:
        # Airflow's retry_delay, or the time a person takes.
        self.clock.leap(15)
        self.reschedules, self.ti.first_reschedule = 0, None
        return self.run(make)

    def _reschedule(self, date: datetime) -> None:
        assert date.utcoffset() == timedelta(0), f"{date} is not in UTC"
        wait = (date - self.clock.now()).total_seconds()
        self.clock.reschedules.append(wait)
        self.ti.first_reschedule = self.ti.first_reschedule or self.clock.now()
        self.reschedules += 1
        self.clock.leap(wait)

    def _trigger(self, deferred: TaskDeferred, ending: Ending) -> tuple[str, dict[str, Any]]:
        path, kwargs = deferred.trigger.serialize()
        ending.triggers.append((path, kwargs))
        assert deferred.timeout is None or deferred.timeout > timedelta(0)
        module, _, name = path.rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        wanted = set(inspect.signature(kind.__init__).parameters) - {"self"}
        assert set(kwargs) == wanted, "serialize() must give back every constructor argument"
        trigger = kind(**json.loads(json.dumps(kwargs)))
        trigger._log = self.log
        event = json.loads(json.dumps(run_trigger(trigger, self.clock)))
        ending.events.append(event)
        return deferred.method_name, {**(deferred.kwargs or {}), "event": event}

    def _ended(self, ending: Ending, state: str, error: BaseException | None = None) -> Ending:
        ending.state, ending.error, ending.xcoms = state, error, dict(self.ti.xcoms)
        return ending


async def events_of(trigger: Any) -> list[Any]:
    """Run a trigger until it ends, which in Airflow nobody does: so it shows how many events there are."""
    return [event.payload async for event in trigger.run()]


def run_trigger(trigger: Any, clock: Clock) -> Any:
    """Return the one event of a trigger."""
    payloads = run_leaping(events_of(trigger), clock)
    assert len(payloads) == 1, f"a trigger ends with exactly one event, not {payloads}"
    return payloads[0]


def airflow_says(monkeypatch: pytest.MonkeyPatch, *told: Any) -> None:
    """Let Airflow tell this state of any task, as it does to a worker and to a triggerer; or several, one by one."""
    left = list(told)

    def states(*, task_ids: list[str], run_ids: list[str], **_: Any) -> Any:
        state = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(state, Exception):
            raise state
        return {run_id: dict.fromkeys(task_ids, state) for run_id in run_ids}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", states)
