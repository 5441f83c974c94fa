"""A process of a fleet dies, freezes or is restarted every few seconds: which one is drawn from a seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from dev.harness.fleet import Fleet
from dev.harness.local_airflow import kind_of
from dev.soak.chaos import MOST_FROZEN, Chaos

# "worker" is a child of Celery's main process, which supervises a task; a "host" is a worker and all below it.
WEIGHTS = {
    "task": 3,
    "worker": 2,
    "frozen task": 1,
    "frozen task with its supervisor": 2,
    "host": 2,
    "main process": 1,
    "triggerer": 2,
    "scheduler": 2,
    "api-server": 2,
    "dag-processor": 1,
    "frozen host": 1,
    "frozen triggerer": 1,
    "frozen scheduler": 1,
    "frozen api-server": 1,
    "frozen dag-processor": 1,
    "Redis": 1,
    "PostgreSQL": 1,
}


class FleetChaos(Chaos):
    """
    Strikes any process of a fleet; what was killed, and what died of it, is back after a while.

    Nobody waits for it to be back: the next blow falls while the fleet is still short of it.
    """

    weights: Mapping[str, int] = WEIGHTS

    def __init__(self, fleet: Fleet, seed: int | str, say: Callable[[str], None]) -> None:
        super().__init__(fleet, seed, say)
        self.fleet = fleet
        self._back: dict[str, float] = {}
        self._whole: dict[str, float] = {}

    def turn(self) -> None:
        """Start again what is due, then strike as ever."""
        self.mend()
        super().turn()

    def end(self) -> None:
        """Let everything frozen go on, and everything dead be started again."""
        super().end()
        self._whole.clear()
        self._back.clear()
        self.mend()

    def mend(self) -> None:
        """Start again what has died, once its time has come."""
        now = time.monotonic()
        for name in self.fleet.names:
            if not self.fleet.family.alive(name) and self._back.get(name, 0.0) <= now:
                self._say(f"started {name} again")
                self.fleet.start_process(name, wait=False)

    def _strike_service(self, kind: str, down: float, frozen: float) -> None:
        if kind == "Redis":
            self.fleet.restart_redis()
        elif kind == "PostgreSQL":
            self.fleet.restart_postgres()
        else:
            self._strike_process(kind, down, frozen)
            return
        self._say(f"restarted {kind}")
        self.restarts[kind] += 1

    def _strike_process(self, kind: str, down: float, frozen: float) -> None:
        plain = kind.removeprefix("frozen ")
        wanted = "worker" if plain in {"host", "main process"} else plain
        now = time.monotonic()
        there = [
            name
            for name in self.fleet.names
            if kind_of(name) == wanted and self.fleet.family.alive(name) and self._whole.get(name, 0.0) <= now
        ]
        # All of a kind dead or frozen already, and more at once than a machine may have of it.
        if not there or (kind != plain and len(self._frozen) >= MOST_FROZEN):
            return
        name = self._random.choice(there)
        if kind == plain:
            self._back[name] = now + down
            self.fleet.kill(name, tree=plain != "main process")
            self._say(f"killed {kind} {name}, back in {down:.0f} s")
            self.kills[kind] += 1
            return
        self._whole[name] = now + frozen
        with suppress(psutil.Error):  # a task that has just ended
            self._freeze([psutil.Process(self.fleet.family.pid(name)), *self.fleet.family.tree(name)], frozen)
        self._say(f"{kind} {name}, for {frozen:.0f} s")
        self.freezes[kind] += 1
