"""
The course of the bench of a thousand waiters, in a process whose environment is an Airflow's.

Two trigger runners run side by side, one with our triggers and one with triggers that only sleep, so that both
meet the same noise; each has a supervisor in a process of its own, as in Airflow.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger

from airflow_provider_pika.api.callback import bell_key
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.triggers.pika import PikaJobTrigger
from dev.bench import runner
from dev.bench.thousand import CHANNEL_LIMIT, INTERVAL
from dev.bench.triggers import GateTrigger, HeartbeatTrigger, SleepTrigger


class Side:
    """One trigger runner, in a process beside this one."""

    def __init__(self, logs: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=runner.serve, args=(theirs, logs))
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of its supervisor."""
        self._pipe.send((method, *arguments))
        return self._pipe.recv()

    def add(self, triggers: list[BaseTrigger]) -> list[int]:
        """Hand triggers to it, and return their ids."""
        numbers: list[int] = self.ask("add", [trigger.serialize() for trigger in triggers])
        return numbers

    def news(self, numbers: list[int], patience: float) -> list[tuple[float, Any]]:
        """Return when each of these triggers fired and with what."""
        end = time.time() + patience
        while time.time() < end:
            if found := self.ask("news", numbers):
                return list(found)
            time.sleep(0.2)
        raise RuntimeError(f"{len(numbers)} triggers did not all fire within {patience:.0f} s")

    def stop(self) -> None:
        """End it."""
        try:
            self._pipe.send(("stop",))
        except OSError:
            pass
        self._process.join(20)
        self._process.kill()


class Bench:
    """
    The course of the bench.

    :param count: how many wait; a fifth of them ends at once at last
    :param window: seconds over which cost is counted while nothing ends
    :param bells: so many bells of others can be heard all the time, and one is rung for each job that ends; 0: none
    """

    def __init__(
        self, url: str, token: str, home: Path, *, count: int, settle: float, window: float, bells: int = 0
    ) -> None:
        self.emulator = EmulatorClient(url, token)
        self.home = home
        self.count = count
        self.settle = settle
        self.window = window
        self.bells = bells
        self.sides: dict[str, Side] = {}

    def run(self) -> dict[str, Any]:
        """Return the figures."""
        jobs = self._submit()
        try:
            for name in ("ours", "asleep"):
                self.sides[name] = Side(self.home / name)
            return self._measure(jobs)
        finally:
            for side in self.sides.values():
                side.stop()

    def _measure(self, jobs: list[str]) -> dict[str, Any]:
        deadline = time.time() + 24 * 3600
        waiters: list[BaseTrigger] = [
            PikaJobTrigger(pika_conn_id="pika_bench", jobid=jobid, poll_interval=INTERVAL, deadline=deadline)
            for jobid in jobs
        ]
        note = {"outcome": "ended", "job": {"content": "x" * 800}}
        sleepers: list[BaseTrigger] = [SleepTrigger(gated=n < self.count // 5, note=note) for n in range(self.count)]
        # What Airflow loads for the first trigger of all is not counted; what ours load for their first is.
        for side in self.sides.values():
            side.add([SleepTrigger(gated=False, note={})])
        time.sleep(5)
        self._ring([f"job:of-others-{number}" for number in range(self.bells)])
        joining = self._beat("joining")
        started = time.time()
        empty = self._cost()
        ids = dict(zip(jobs, self.sides["ours"].add(waiters), strict=True))
        asleep = self.sides["asleep"].add(sleepers)
        say(f"{self.count} waiters and {self.count} sleepers handed over")
        # The first look of all, with its line in every task's log, belongs to the joining.
        time.sleep(2.5 * INTERVAL)
        figures: dict[str, Any] = {"joining": self._beaten(joining)}
        time.sleep(max(0.0, self.settle - (time.time() - started)))
        figures |= self._idle(empty)
        ending = self._beat("ending")
        figures["noticed"] = self._end_singly(jobs[-3:], ids)
        time.sleep(5)
        say(f"{self.count // 5} end at once")
        before, at = self.emulator.counters()["requests"], time.time()
        self.sides["asleep"].add([GateTrigger()])
        self.emulator.advance(seconds=4 * 24 * 3600)
        self._ring(jobs[: self.count // 5])
        fired = self.sides["ours"].news([ids[jobid] for jobid in jobs[: self.count // 5]], 3 * INTERVAL)
        self.sides["asleep"].news(asleep[: self.count // 5], INTERVAL)
        requests = self.emulator.counters()["requests"] - before
        figures["many"] = {"seconds": max(when for when, _ in fired) - at, "requests": requests}
        figures["ending"] = self._beaten(ending)
        figures["failures"] = {name: side.ask("failed") for name, side in self.sides.items()}
        return figures

    def _submit(self) -> list[str]:
        """Make the jobs: the first fifth ends when time is pushed, the rest never."""
        hook = PikaHook("pika_bench")
        jobs = []
        for number in range(self.count):
            ends = "[emulator:seconds=250000]" if number < self.count // 5 else "[emulator:stuck]"
            channel = f"1{number // CHANNEL_LIMIT:018d}"
            jobs.append(hook.encrypt_text(message="WAIT", prompt=f"film {number} {ends}", channel=channel).jobid)
        say(f"{len(jobs)} jobs run in the emulator")
        return jobs

    def _ring(self, jobids: list[str]) -> None:
        """Ring the bell for each of these jobs, as the api-server does when the service has called."""
        if self.bells:
            self.sides["ours"].ask("ring", [bell_key(time.time(), jobid) for jobid in jobids])

    def _cost(self) -> dict[str, tuple[float, int]]:
        return {name: side.ask("cost") for name, side in self.sides.items()}

    def _idle(self, empty: dict[str, tuple[float, int]]) -> dict[str, Any]:
        say(f"counting for {self.window:.0f} s")
        counters, before, at = self.emulator.counters(), self._cost(), time.time()
        time.sleep(self.window)
        seconds, cost, after = time.time() - at, self._cost(), self.emulator.counters()
        return {
            "requests_a_minute": (after["requests"] - counters["requests"]) * 60 / seconds,
            "lists_a_minute": (after["lists"] - counters["lists"]) * 60 / seconds,
            "cpu_percent": {name: 100 * (cost[name][0] - before[name][0]) / seconds for name in cost},
            "grown": {name: cost[name][1] - empty[name][1] for name in cost},
            "smallest_gap": after["polls"]["smallest_gap"],
        }

    def _end_singly(self, jobids: list[str], ids: dict[str, int]) -> list[float]:
        """End one job after the other, each at another moment of the interval; return how long each went unnoticed."""
        late = []
        for number, jobid in enumerate(jobids):
            time.sleep(7 * number)
            at = time.time()
            self.emulator.advance(jobid=jobid, status="completed")
            self._ring([jobid])
            ((fired, _),) = self.sides["ours"].news([ids[jobid]], 3 * INTERVAL)
            late.append(fired - at)
            say(f"an end was noticed after {late[-1]:.1f} s")
        return late

    def _beat(self, name: str) -> tuple[Path, dict[str, list[int]]]:
        until = self.home / f"until-{name}"
        numbers = {name: side.add([HeartbeatTrigger(until=str(until))]) for name, side in self.sides.items()}
        time.sleep(3)
        return until, numbers

    def _beaten(self, heart: tuple[Path, dict[str, list[int]]]) -> dict[str, Any]:
        until, numbers = heart
        until.touch()
        return {name: side.news(numbers[name], 30)[0][1] for name, side in self.sides.items()}


def say(text: str) -> None:
    """Print a line of progress; the figures go to stdout."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the bench as the argument asks for."""
    asked = json.loads(sys.argv[1])
    url, token, home = asked.pop("url"), asked.pop("token"), asked.pop("home")
    print(json.dumps(Bench(url, token, Path(home), **asked).run()), flush=True)


if __name__ == "__main__":
    main()
