"""One soak: submits in waves, in the storm, until all have come to their end."""

from __future__ import annotations

import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import requests

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.airflow_api import AirflowApiError
from dev.harness.local_airflow import LocalAirflow
from dev.soak.chaos import Chaos
from dev.soak.judge import Verdict, film_of, judge
from dev.soak.weather import Weather, film

DAGS = Path(__file__).with_name("dags")
# Mostly the recommended way, and every other one now and then.
SHAPES = ("soak_two", "soak_one", "soak_two", "soak_legs", "soak_one", "soak_one_legs")
WAVE = 12
# Fewer in line than this bring the next wave. A queue of ten would do with half, but as many may be looking for a lost
# job, for ten minutes each.
LINE = 24
# A search that the last blow made begin anew takes ten minutes where the service calls back, and then the job is made.
DRAIN = 20 * 60.0
_BEGUN = time.monotonic()


class Soak:
    """
    One soak, or one piece of a long one.

    :param submits: how many films to submit
    :param seed: what decides the films
    :param first: the number of the first one
    """

    def __init__(
        self,
        airflow: LocalAirflow,
        emulator: EmulatorClient,
        chaos: Chaos,
        weather: Weather,
        *,
        submits: int,
        seed: int,
        first: int = 0,
    ) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.submits = submits
        self.seed = seed
        self.first = first
        self.chaos = chaos
        self.weather = weather
        self.runs: dict[str, str] = {}
        self.asked = 0
        self.minutes = 0.0
        self._shapes = cycle(SHAPES)
        self._said = 0.0

    def run(self, minutes: float) -> Verdict:
        """
        Submit in the storm, then let all come to its end, and judge.

        :param minutes: no new wave, no kill and no bad weather after this
        """
        for dag_id in set(SHAPES):
            self.airflow.runs.wait_dag(dag_id, 120)
        began = time.monotonic()
        try:
            self._storm(began + 60 * minutes)
        finally:
            self.chaos.end()
            self.weather.end()
        self.minutes = (time.monotonic() - began) / 60
        say("the storm is over; waiting for all to end")
        end = time.monotonic() + DRAIN
        while self._open_runs() and time.monotonic() < end:
            self.chaos.mend()
            self._tell()
            time.sleep(1)
        return judge(self.airflow, self.emulator.counters(), self.runs, left=self._open_runs())

    def _storm(self, until: float) -> None:
        # It goes on until nobody is in line any more; what was killed then is still to be found again.
        while time.monotonic() < until:
            in_line = self._in_line()
            if self.asked >= self.submits:
                if not in_line:
                    return
            elif in_line < LINE:
                self._wave()
            self.weather.turn()
            self.chaos.turn()
            self._tell()
            time.sleep(0.5)

    def _in_line(self) -> int:
        """Count the films without a job that may still get one."""
        failed = self.airflow.db.sql(
            "SELECT run_id, map_index FROM task_instance WHERE task_id LIKE '%submit' AND state = 'failed'"
        )
        done = {f"{row['run_id']} {row['map_index']}" for row in failed}
        return self.asked - len(done.union(map(film_of, self.emulator.jobs())))

    def _wave(self) -> None:
        count = min(WAVE, self.submits - self.asked)
        run_id, dag_id = f"wave_{len(self.runs) + 1}", next(self._shapes)
        markers = [film(self.seed, self.first + self.asked + number).markers for number in range(count)]
        for _ in range(60):
            try:
                self.airflow.api.trigger(dag_id, conf={"markers": markers}, run_id=run_id)
            except AirflowApiError as refused:
                # A busy database is asked again. After a conflict the run is there: an earlier answer was lost.
                if ": 500 " in str(refused):
                    time.sleep(1)
                    continue
                if ": 409 " not in str(refused):
                    raise
            except (requests.RequestException, KeyError, ValueError):
                time.sleep(1)
                continue
            break
        self.runs[run_id] = dag_id
        self.asked += count
        say(f"{run_id}: {count} films by {dag_id}, {self.asked} of {self.submits} in all")

    def _open_runs(self) -> list[str]:
        return [
            run
            for run, dag_id in self.runs.items()
            if self.airflow.runs.state(dag_id, run) not in ("success", "failed")
        ]

    def _tell(self) -> None:
        if time.monotonic() - self._said < 20:
            return
        self._said = time.monotonic()
        jobs = self.emulator.jobs()
        states = self.airflow.db.sql(
            "SELECT coalesce(state, 'none') AS state, count(*) AS n FROM task_instance GROUP BY state"
        )
        tasks = ", ".join(f"{row['n']} {row['state']}" for row in states)
        films = Counter(film_of(job) for job in jobs)
        twice = [prompt for prompt, count in films.items() if count > 1]
        running = sum(job["ended"] is None for job in jobs)
        lost = sum(self.weather.lost.values())
        say(f"{len(jobs)} jobs made, {running} running, {lost} answers lost, twice: {twice or 'none'}; tasks: {tasks}")


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"  {time.monotonic() - _BEGUN:5.0f} s  {text}", flush=True)
