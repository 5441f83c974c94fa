"""The chaos of a fleet strikes every kind of process, and leaves none of them dead or frozen."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("psycopg2", reason="the fleet is run on the newest Airflow alone")

from dev.soak import chaos
from dev.soak.chaos import TASKS
from dev.soak.fleet_chaos import WEIGHTS, FleetChaos

NAMES = ["scheduler", "scheduler-2", "triggerer", "worker", "worker-2", "api-server", "dag-processor"]


class Pretended:
    """A fleet of processes that sleep."""

    names = NAMES

    def __init__(self):
        self.alive = {}
        self.family = SimpleNamespace(
            alive=lambda name: name in self.alive, pid=lambda name: self.alive[name].pid, tree=lambda name: []
        )
        self.db = SimpleNamespace(sql=lambda query: [])
        self.restarted = Counter()

    def start_process(self, name, *, wait):
        assert name not in self.alive
        self.alive[name] = subprocess.Popen(["/bin/sleep", "60"])

    def kill(self, name, *, tree):
        process = self.alive.pop(name)
        process.kill()
        process.wait()

    def restart_redis(self):
        self.restarted["Redis"] += 1

    def restart_postgres(self):
        self.restarted["PostgreSQL"] += 1


@pytest.fixture
def pretended():
    fleet = Pretended()
    yield fleet
    for name in list(fleet.alive):
        fleet.kill(name, tree=True)


def test_every_kind_is_struck_and_all_are_at_work_in_the_end(pretended, monkeypatch):
    for name, value in (("PAUSES", (0, 0)), ("FROZEN", (0.01, 0.02)), ("DOWN", (0.0, 0.01)), ("_PATIENCE", 0)):
        monkeypatch.setattr(chaos, name, value)
    storm = FleetChaos(pretended, "a seed", lambda text: None)
    storm.mend()
    struck = set()
    deadline = time.monotonic() + 30
    while struck != set(WEIGHTS) - set(TASKS) and time.monotonic() < deadline:
        storm.turn()
        struck = {*storm.kills, *storm.freezes, *storm.restarts}
    assert struck == set(WEIGHTS) - set(TASKS)
    assert storm.restarts == pretended.restarted
    storm.end()
    assert set(pretended.alive) == set(NAMES)
    assert {psutil.Process(process.pid).status() for process in pretended.alive.values()} & {"stopped"} == set()
