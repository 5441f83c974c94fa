"""The triggers a bench of a trigger runner needs besides ours: ones that only sleep, and a watch on the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from asyncio.events import Handle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

# A gate per event loop; the runner has one loop.
_gates: dict[asyncio.AbstractEventLoop, asyncio.Event] = {}
_BEAT = 0.005
# The steps of the trigger runner itself, not of a trigger in it: it takes in what is new, hands on what has ended, and
# complains of gaps. How long they are goes by how many triggers it has.
_RUNNER = ("TriggerRunner.arun", "TriggerRunner.block_watchdog", "TriggerCommsDecoder._reader_loop")


def _gate() -> asyncio.Event:
    return _gates.setdefault(asyncio.get_running_loop(), asyncio.Event())


class SleepTrigger(BaseTrigger):
    """
    Does nothing: the measure of what a waiter costs by being in Airflow at all.

    :param gated: end when a :class:`GateTrigger` says so, instead of never
    :param note: what the event carries, as large as a finished job
    """

    def __init__(self, *, gated: bool, note: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gated = gated
        self.note = note

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every constructor argument."""
        return "dev.bench.triggers.SleepTrigger", {"gated": self.gated, "note": self.note}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and end with an event if gated."""
        if self.gated:
            await _gate().wait()
        else:
            await asyncio.sleep(24 * 3600)
        yield TriggerEvent(self.note)


class GateTrigger(BaseTrigger):
    """Lets all gated sleepers of its runner end at once."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every constructor argument."""
        return "dev.bench.triggers.GateTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Open the gate."""
        _gate().set()
        yield TriggerEvent({})


class HeartbeatTrigger(BaseTrigger):
    """
    Watches its event loop until a file appears, then tells the worst of what it saw.

    A gap between two beats tells of all that delays the loop: other processes, garbage collection of Airflow's large
    heap, and code. What the loop's thread computed in that gap, less the garbage collection and the runner's own long
    steps, is the triggers' code alone; the longest single steps tell whose it was.

    :param until: the path of that file
    """

    def __init__(self, *, until: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every constructor argument."""
        return "dev.bench.triggers.HeartbeatTrigger", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Beat."""
        steps: list[tuple[float, float, str]] = []
        gaps: list[float] = []
        computed: list[float] = []
        collector = _Collector()
        runner = [0.0]
        plain = Handle._run  # noqa: SLF001 - what asyncio's debug mode measures too, at many times the cost

        def timed(handle: Handle) -> None:
            wall, cpu, garbage = time.perf_counter(), time.thread_time(), collector.spent
            plain(handle)
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu - (collector.spent - garbage)
            if wall > _BEAT:
                steps.append((cpu, wall, _whose(handle)))
                if steps[-1][2].startswith(_RUNNER):
                    runner.append(cpu)

        # A class written in Python, so the loop finds the replacement.
        Handle._run = timed  # type: ignore[method-assign, assignment] # noqa: SLF001
        gc.callbacks.append(collector)
        try:
            beats = 0
            until = Path(self.until)
            while beats % 100 or not until.exists():  # noqa: ASYNC240 - one stat in half a second
                beats += 1
                wall, cpu, garbage = time.perf_counter(), time.thread_time(), collector.spent
                known = len(runner)
                await asyncio.sleep(_BEAT)
                gaps.append(time.perf_counter() - wall - _BEAT)
                computed.append(time.thread_time() - cpu - (collector.spent - garbage) - sum(runner[known:]))
        finally:
            Handle._run = plain  # type: ignore[method-assign] # noqa: SLF001
            gc.callbacks.remove(collector)
        worst: dict[str, list[Any]] = {
            "gaps": sorted(gaps)[-10:],
            "computed": sorted(computed)[-10:],
            "steps": sorted(steps)[-10:],
        }
        longest = {"garbage": collector.longest, "runner": max(runner)}
        yield TriggerEvent({name: found[::-1] for name, found in worst.items()} | longest)


class _Collector:
    """Adds up the CPU time of garbage collections."""

    def __init__(self) -> None:
        self.spent = self.longest = self._begun = 0.0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.thread_time()
        else:
            self.longest = max(self.longest, time.thread_time() - self._begun)
            self.spent += time.thread_time() - self._begun


def _whose(handle: Any) -> str:
    owner = getattr(handle._callback, "__self__", None)  # noqa: SLF001
    if isinstance(owner, asyncio.Task):
        coroutine: Any = owner.get_coro()
        return f"{getattr(coroutine, '__qualname__', coroutine)} ({owner.get_name()})"
    return repr(handle._callback)[:120]  # noqa: SLF001
