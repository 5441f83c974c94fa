"""
``make soak``: submits in waves on a real Airflow whose processes are killed all the time.

Judged at the end: no film is paid for twice, no jobid is lost, nothing is cancelled. The result goes to docs/soak.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import requests

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.bench.report import surroundings
from dev.harness.airflow_api import AirflowApiError
from dev.harness.emulator import local_emulator
from dev.harness.local_airflow import QUICK_TO_NOTICE, LocalAirflow
from dev.harness.processes import WaitError
from dev.soak.chaos import Chaos
from dev.soak.judge import Verdict, film_of, judge

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"
DAGS = Path(__file__).with_name("dags")
# Mostly the recommended way, and every other one now and then.
SHAPES = ("soak_two", "soak_one", "soak_two", "soak_legs", "soak_one", "soak_one_legs")
WAVE = 12
QUEUE = 10
SUBMIT_SECONDS = 4.0
DRAIN = 15 * 60.0
_BEGUN = time.monotonic()


class Soak:
    """
    One soak.

    :param submits: how many films to submit in all
    :param minutes: no new wave and no kill after this
    """

    def __init__(
        self, airflow: LocalAirflow, emulator: EmulatorClient, *, submits: int, minutes: float, seed: int
    ) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.submits = submits
        self.until = time.monotonic() + 60 * minutes
        self.chaos = Chaos(airflow, seed, say)
        self.runs: dict[str, str] = {}
        self.asked = 0
        self.minutes = 0.0
        self._shapes = cycle(SHAPES)
        self._said = 0.0

    def run(self) -> Verdict:
        """Submit and kill, then let all come to its end, and judge."""
        # The service answers a submit when the bot has spoken, so a kill may well strike in between.
        self.emulator.fault("submit", "slow", seconds=SUBMIT_SECONDS, times=1_000_000)
        for dag_id in set(SHAPES):
            self.airflow.runs.wait_dag(dag_id, 120)
        began = time.monotonic()
        # Kills go on until nobody is in line any more; what was killed then is still to be found again.
        while time.monotonic() < self.until:
            in_line = self._in_line()
            if self.asked >= self.submits:
                if in_line <= 0:
                    break
            # Enough in line that the queue never runs dry, and never hundreds.
            elif in_line < WAVE // 2:
                self._wave()
            self.chaos.turn()
            self._tell()
            time.sleep(0.5)
        self.minutes = (time.monotonic() - began) / 60
        say("no more kills; waiting for all to end")
        end = time.monotonic() + DRAIN
        while self._open_runs() and time.monotonic() < end:
            self._tell()
            time.sleep(1)
        if left := self._open_runs():
            say(f"these runs did not end: {left}")
        return judge(self.airflow, self.emulator.counters(), self.runs)

    def _in_line(self) -> int:
        """Count the films without a job that may still get one."""
        failed = self.airflow.db.sql(
            "SELECT count(*) AS n FROM task_instance WHERE task_id LIKE '%submit' AND state = 'failed'"
        )
        return self.asked - len(self.emulator.jobs()) - int(failed[0]["n"])

    def _wave(self) -> None:
        count = min(WAVE, self.submits - self.asked)
        run_id, dag_id = f"wave_{len(self.runs) + 1}", next(self._shapes)
        for _ in range(60):
            try:
                self.airflow.api.trigger(dag_id, conf={"count": count}, run_id=run_id)
            except AirflowApiError as refused:
                # The answer of an earlier attempt was lost; its run is there.
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
        say(f"{len(jobs)} jobs made, {running} running, twice: {twice or 'none'}; tasks: {tasks}")


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"  {time.monotonic() - _BEGUN:5.0f} s  {text}", flush=True)


def table(soak: Soak, verdict: Verdict, asked: int) -> str:
    """Return the closing table."""
    kills = soak.chaos.kills
    by_kind = ", ".join(f"{count} {kind}" for kind, count in kills.most_common())
    states = ", ".join(f"{count} {state}" for state, count in sorted(verdict.films.items()))
    rows = {
        "submits asked for": f"{soak.asked} of {asked}",
        "processes killed": f"{sum(kills.values())} in {soak.minutes:.0f} min: {by_kind}",
        "jobs made": str(verdict.jobs),
        "submit tasks ended": states,
        "tries in all": str(verdict.tries),
        "jobs found again after a crash (adopted)": str(verdict.adopted),
        "outcome unknown, said so, paid at most once": str(len(verdict.unknown)),
        "failed for another reason": str(len(verdict.strange)),
        "**excess jobs**": f"**{len(verdict.excess)}**",
        "**lost jobids**": f"**{len(verdict.lost)}**",
        "**jobs cancelled**": f"**{verdict.cancelled}**",
    }
    return "\n".join(["| what | result |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def main() -> int:
    """Run the soak; return 1 if a rule was broken or something did not end."""
    parser = argparse.ArgumentParser(prog="python -m dev.soak", description=__doc__)
    parser.add_argument("--submits", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=90, help="no new wave and no kill after this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for Airflow's files, kept afterwards")
    parser.add_argument("--dry", action="store_true", help=f"leave docs/{PAGE.name} as it is")
    options = parser.parse_args()
    # Ended from outside as by Ctrl-C: whatever was started ends first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="pika-soak-") as folder:
        home = options.keep or Path(folder)
        try:
            soak, verdict = _soak(home, options)
        except KeyboardInterrupt:
            print("\nInterrupted; all processes are ended.", flush=True)
            return 130
        except WaitError as problem:
            print(f"The soak failed: {problem}", file=sys.stderr)
            return 1
    for what, found in (
        ("excess", verdict.excess),
        ("lost", verdict.lost),
        ("unknown", verdict.unknown),
        ("strange", verdict.strange),
    ):
        for line in found:
            print(f"  {what}: {line}", flush=True)
    closing = table(soak, verdict, options.submits)
    print(f"\n{closing}\n", flush=True)
    if not options.dry:
        command = f"python -m dev.soak --submits {options.submits} --minutes {options.minutes:g} --seed {options.seed}"
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(
            f"# Soak\n\nGenerated by `make soak`; do not edit. Jobs of 60 to 90 s through a queue of {QUEUE}, each"
            f" submit answered after {SUBMIT_SECONDS:g} s, while a process is killed by SIGKILL every 10 to 20 s: a"
            " task, a worker, the scheduler with all workers (node), the triggerer, the api-server or the DAG processor"
            f".\n\n{closing}\n\n`{command}`; {surroundings()}.\n"
        )
    return int(verdict.broken or bool(verdict.strange))


def _soak(home: Path, options: argparse.Namespace) -> tuple[Soak, Verdict]:
    flags = ("--quiet", "--max-jobs", str(QUEUE))
    with local_emulator(home, *flags) as emulator:
        say("starting Airflow")
        connections = {"pika_default": emulator.connection}
        with LocalAirflow(home / "airflow", dags=DAGS, config=QUICK_TO_NOTICE, connections=connections) as airflow:
            soak = Soak(airflow, emulator, submits=options.submits, minutes=options.minutes, seed=options.seed)
            return soak, soak.run()


if __name__ == "__main__":
    sys.exit(main())
