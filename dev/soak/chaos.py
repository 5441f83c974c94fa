"""A process dies every few seconds: which one is drawn from a seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until

# How often each is drawn; tasks are where the money is.
WEIGHTS = {"task": 4, "worker": 2, "node": 2, "triggerer": 2, "api-server": 1, "dag-processor": 1}
SERVICES = ("node", "triggerer", "api-server", "dag-processor")
PAUSES = (10.0, 20.0)
# A killed process is back after this, as if a service manager had started it anew.
DOWN = (1.0, 5.0)
_PATIENCE = 6.0


class Chaos:
    """Kills processes of an Airflow by SIGKILL and starts them again."""

    def __init__(self, airflow: LocalAirflow, seed: int, say: Callable[[str], None]) -> None:
        self.airflow = airflow
        self.kills: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._say = say
        self._due = 0.0
        self.postpone()

    def postpone(self) -> None:
        """Draw the time of the next kill."""
        self._due = time.monotonic() + self._random.uniform(*PAUSES)

    def turn(self) -> None:
        """Kill something if it is time to."""
        if time.monotonic() < self._due:
            return
        self.postpone()
        kind = self._draw(*WEIGHTS)
        down = self._random.uniform(*DOWN)
        if kind in ("task", "worker"):
            kind = self._kill_task(kind) or self._draw(*SERVICES)
        if kind not in ("task", "worker"):
            name = "scheduler" if kind == "node" else kind
            self.airflow.kill(name, signal.SIGKILL, tree=True)
            self._say(f"killed {kind}, back in {down:.0f} s")
            time.sleep(down)
            self.airflow.start_process(name, timeout=180)
        self.kills[kind] += 1

    def _draw(self, *kinds: str) -> str:
        return self._random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]

    def _kill_task(self, kind: str) -> str | None:
        """Kill the process of a running task, or the worker that supervises it; None if no task runs."""

        def find() -> list[int]:
            rows = self.airflow.db.sql("SELECT pid FROM task_instance WHERE state = 'running' AND pid IS NOT NULL")
            # A pid in the database may be that of a dead task, and somebody else's by now.
            own = set(self.airflow.worker_pids()) if rows else set()
            return sorted({row["pid"] for row in rows} & own)

        try:
            pid = self._random.choice(wait_until(find, "a running task", _PATIENCE))
            if kind == "worker":
                pid = psutil.Process(pid).ppid()
                if pid == self.airflow.family.pid("scheduler"):
                    return None
            os.kill(pid, signal.SIGKILL)
        except (AssertionError, psutil.Error, ProcessLookupError):  # none runs, or it has just ended
            return None
        self._say(f"killed {kind}")
        return kind
