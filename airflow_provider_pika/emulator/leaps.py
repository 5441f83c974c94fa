"""
Waiting that takes no time, for tests of DAGs: where the provider would wait, time is put ahead instead.

The provider's clock, the emulator's and what Airflow's own ``dag.test()`` counts a task's start by leap together, so
every interval, deadline and queue keeps its meaning while nobody sleeps. All of it is patched into this process by the
pytest fixture and taken back after the test: there is no setting by which anything else could come to leap.
"""

from __future__ import annotations

import asyncio
import importlib
import selectors
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import pytest

    from airflow_provider_pika.emulator.client import EmulatorClient

_PACKAGE = "airflow_provider_pika"
# What waits; by name, because the emulator itself needs none of it. The last three are imported by the first submit,
# the first full queue and the first download otherwise, too late to be given another clock.
_WAITING = (
    "operators.pika",
    "sensors.pika",
    "triggers.pika",
    "transfers.pika",
    "operators.submission",
    "operators.queue",
    "files.download",
)
# A wait that never ends must not hang a test: with a look every 30 s this is a day.
_MOST_LEAPS = 3000


class Proxy:
    """
    A module, or another object, of which some names are replaced.

    :param real: what it stands for
    :param instead: the names, and what they are now
    """

    def __init__(self, real: Any, **instead: Any) -> None:
        self.__dict__.update(instead)
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class LeapingClock:
    """
    The real time, put ahead by every wait, together with the emulator's.

    :param emulator: whose time leaps along
    """

    def __init__(self, emulator: EmulatorClient) -> None:
        self.emulator = emulator
        self.ahead = 0.0
        self.in_flight = 0
        self.leaps = 0

    def time(self) -> float:
        """Return UTC epoch seconds."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self.ahead

    def now(self) -> datetime:
        """Return the time in UTC."""
        return datetime.fromtimestamp(self.time(), timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Wait, which takes no time."""
        self.leap(seconds)

    def leap(self, seconds: float) -> None:
        """
        Let time pass at once.

        :raises RuntimeError: if it has leapt so often that what is waited for will hardly come
        """
        if seconds <= 0:
            return
        self.leaps += 1
        if self.leaps > _MOST_LEAPS:
            raise RuntimeError(f"This wait would never end: {self.ahead:.0f} s have been leapt over already.")
        self.ahead += seconds
        self.emulator.advance(seconds)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let every module of the provider, and Airflow's sensor, go by this clock."""
        import pendulum

        for name in _WAITING:
            importlib.import_module(f"{_PACKAGE}.{name}")
        instead = {
            "time": Proxy(time, time=self.time, monotonic=self.monotonic, sleep=self.sleep),
            "pendulum": Proxy(pendulum, now=lambda tz=None: pendulum.now(tz).add(seconds=self.ahead)),
        }
        ours = [name for name in sys.modules if name.startswith(_PACKAGE) and f"{_PACKAGE}.emulator" not in name]
        for module in map(sys.modules.get, ours):
            for name, proxy in instead.items():
                if getattr(module, name, None) is proxy.real:
                    monkeypatch.setattr(module, name, proxy)
        sensor = importlib.import_module("airflow.sdk.bases.sensor")
        monkeypatch.setattr(sensor, "time", instead["time"])
        monkeypatch.setattr(sensor, "timezone", Proxy(sensor.timezone, utcnow=self.now))

    def install_in_triggers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the triggers that ``dag.test()`` runs leap as well."""
        supervisor = importlib.import_module("airflow.sdk.execution_time.supervisor").InProcessTestSupervisor
        run = supervisor.run_trigger_in_process

        def leaping(*args: Any, **kwargs: Any) -> Any:
            with type(monkeypatch).context() as patch:
                patch.setattr(asyncio, "run", lambda main: run_leaping(main, self))
                return run(*args, **kwargs)

        monkeypatch.setattr(supervisor, "run_trigger_in_process", leaping)

    def install_in_reschedules(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a task that would be rescheduled by ``dag.test()`` come back at once, at the time it asked for."""
        clock = self

        class Leaping(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=clock.ahead)

        # What a task's start is dated by, from which a sensor's deadline counts.
        supervisor = importlib.import_module("airflow.sdk.execution_time.supervisor")
        monkeypatch.setattr(supervisor, "datetime", Leaping)
        for name in ("airflow.models.taskinstance", "airflow.api_fastapi.execution_api.routes.task_instances"):
            module = importlib.import_module(name)
            monkeypatch.setattr(module, "timezone", Proxy(module.timezone, utcnow=self.now))
        wait = importlib.import_module(f"{_PACKAGE}.compat").AirflowRescheduleException
        begin = wait.__init__

        def at_once(self: Any, reschedule_date: datetime) -> None:
            clock.leap((reschedule_date - clock.now()).total_seconds())
            # Airflow compares it with its own clock, which does not leap.
            begin(self, datetime.now(timezone.utc))

        monkeypatch.setattr(wait, "__init__", at_once)


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop that, where it would sleep, leaps; but not while a request or a thread is under way."""

    def __init__(self, clock: LeapingClock) -> None:
        super().__init__(selectors.DefaultSelector())
        self._clock = clock
        self._selector: Any = Proxy(self._selector, select=self._select)

    def time(self) -> float:
        """Return the clock's time."""
        return self._clock.monotonic()

    def run_in_executor(self, *args: Any) -> Any:  # type: ignore[override]
        """Run something in a thread, during which time does not leap."""
        future = super().run_in_executor(*args)
        self._clock.in_flight += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: object) -> None:
        self._clock.in_flight -= 1

    def _select(self, timeout: float | None = None) -> Any:
        select = self._selector.real.select
        if timeout is None or timeout <= 0:
            return select(timeout)
        if self._clock.in_flight:
            return select(min(timeout, 0.05))
        events = select(0)
        if not events:
            self._clock.leap(timeout)
        return events


def run_leaping(main: Coroutine[Any, Any, Any], clock: LeapingClock) -> Any:
    """Do what ``asyncio.run`` does, on a :class:`LeapingLoop`."""
    loop = LeapingLoop(clock)
    try:
        result = loop.run_until_complete(main)
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        if rest:
            loop.run_until_complete(asyncio.wait(rest))
        loop.run_until_complete(loop.shutdown_asyncgens())
        return result
    finally:
        loop.close()
