"""A process dies or freezes every few seconds: which one is drawn from a seed."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import psutil

from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until

# How often each is drawn; tasks are where the money is. The supervisor sends the heartbeats: with it frozen too,
# Airflow retries the task while the old process lives on.
WEIGHTS = {
    "task": 4,
    "worker": 2,
    "frozen task": 2,
    "frozen task with its supervisor": 3,
    "node": 2,
    "triggerer": 2,
    "api-server": 1,
    "dag-processor": 1,
}
TASKS = ("task", "worker", "frozen task", "frozen task with its supervisor")
PAUSES = (10.0, 20.0)
# A killed process is back after this, as if a service manager had started it anew.
DOWN = (1.0, 5.0)
# Beyond the heartbeat timeout and the pause between two checks for it, 25 s here, and into the retry that follows.
FROZEN = (30.0, 50.0)
# Each frozen supervisor takes a place of the executor with it.
MOST_FROZEN = 3
_PATIENCE = 6.0


class Chaos:
    """
    Kills processes of an Airflow by SIGKILL and starts them again; stops others and lets them go on.

    :param seed: what decides which process is struck, and for how long
    """

    weights: Mapping[str, int] = WEIGHTS

    def __init__(self, airflow: LocalAirflow, seed: int | str, say: Callable[[str], None]) -> None:
        self.airflow = airflow
        self.kills: Counter[str] = Counter()
        self.freezes: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self._frozen: list[tuple[float, list[psutil.Process]]] = []
        self._random = random.Random(seed)
        self._say = say
        self._due = 0.0
        self.postpone()

    def postpone(self) -> None:
        """Draw the time of the next blow."""
        self._due = time.monotonic() + self._random.uniform(*PAUSES)

    def turn(self) -> None:
        """Let go on what was frozen long enough, and kill or freeze something if it is time to."""
        now = time.monotonic()
        self._thaw([processes for end, processes in self._frozen if end <= now])
        self._frozen = [(end, processes) for end, processes in self._frozen if end > now]
        if now < self._due:
            return
        self.postpone()
        kind = self._draw(*self.weights)
        # Drawn whether needed or not, so that the next draw does not depend on what was there to be struck.
        down, frozen = self._random.uniform(*DOWN), self._random.uniform(*FROZEN)
        if kind in TASKS and not self._strike_task(kind, frozen):
            kind = self._draw(*(kind for kind in self.weights if kind not in TASKS))
        if kind in TASKS:
            (self.freezes if kind.startswith("frozen") else self.kills)[kind] += 1
        else:
            self._strike_service(kind, down, frozen)

    def end(self) -> None:
        """Let everything frozen go on."""
        self._thaw([processes for _, processes in self._frozen])
        self._frozen = []

    def mend(self) -> None:
        """Start again what has died, where that is not done at once."""

    def _draw(self, *kinds: str) -> str:
        return self._random.choices(kinds, [self.weights[kind] for kind in kinds])[0]

    def _strike_service(self, kind: str, down: float, frozen: float) -> None:  # noqa: ARG002 - for those who freeze them
        name = "scheduler" if kind == "node" else kind
        self.airflow.kill(name, signal.SIGKILL, tree=True)
        self._say(f"killed {kind}, back in {down:.0f} s")
        time.sleep(down)
        self.airflow.start_process(name, timeout=180)
        self.kills[kind] += 1

    def _strike_task(self, kind: str, seconds: float) -> bool:
        """Kill or freeze the process of a running task, or what supervises it; return False if no task runs."""
        freeze = kind.startswith("frozen")
        if freeze and len(self._frozen) >= MOST_FROZEN:
            return False
        try:
            task = psutil.Process(self._random.choice(wait_until(self._running, "a running task", _PATIENCE)))
            supervisor = task.parent()
            if kind != "task" and (supervisor is None or supervisor.pid not in self.airflow.worker_pids()):
                return False
            if not freeze:
                (supervisor if kind == "worker" and supervisor else task).kill()
                self._say(f"killed {kind}")
                return True
            self._freeze([supervisor, task] if supervisor and "supervisor" in kind else [task], seconds)
        except (AssertionError, psutil.Error):  # none runs, or it has just ended
            return False
        self._say(f"{kind}, for {seconds:.0f} s")
        return True

    def _freeze(self, processes: Sequence[psutil.Process], seconds: float) -> None:
        # Not cut in two by an error: what is stopped is in the list of what is to go on.
        stopped: list[psutil.Process] = []
        self._frozen.append((time.monotonic() + seconds, stopped))
        for process in processes:
            stopped.append(process)
            process.suspend()

    def _running(self) -> list[int]:
        """Return the pids of running tasks that are not frozen."""
        rows = self.airflow.db.sql("SELECT pid FROM task_instance WHERE state = 'running' AND pid IS NOT NULL")
        # A pid in the database may be that of a dead task, and somebody else's by now.
        own = set(self.airflow.worker_pids()) if rows else set()
        frozen = {process.pid for _, processes in self._frozen for process in processes}
        return sorted({row["pid"] for row in rows} & own - frozen)

    def _thaw(self, groups: list[list[psutil.Process]]) -> None:
        for processes in groups:
            # The task first: what it does before its supervisor is back must be safe too.
            for process in reversed(processes):
                try:
                    process.resume()
                except psutil.Error:  # killed meanwhile, by us or by Airflow
                    continue
            self._say(f"thawed {len(processes)} processes")
