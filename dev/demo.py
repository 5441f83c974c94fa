"""``make demo`` and ``make ui``: the smallest example in a real Airflow, for a person to watch."""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import requests

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.film import make_still
from dev.harness.emulator import local_emulator
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import WaitError
from dev.harness.runs import ENDED, RunFailed

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".demo"
DAG = "pika_smallest"
TASKS = ("submit", "wait", "show")
PATIENCE = 180
MEANING = {
    "deferred": "waits in the triggerer, holds no worker",
    "up_for_reschedule": "waits for its next look, holds no worker",
    "running": "at work in a worker",
    "up_for_retry": "failed, will be tried again",
}


class Screen:
    """A block of lines that is written over on a terminal; elsewhere a line whenever one changes."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._height = 0
        self._said: dict[str, str] = {}

    def show(self, seconds: float, rows: dict[str, tuple[str, str]]) -> None:
        """Show rows of name to (state, how long and what it means), some seconds after the start."""
        lines = {name: f"{name:8} {state:12} {detail}".rstrip() for name, (state, detail) in rows.items()}
        if self._live:
            up = f"\x1b[{self._height}A" if self._height else ""
            block = [*lines.values(), f"{seconds:.0f} s"]
            print(up + "".join(f"\x1b[2K  {line}\n" for line in block), end="", flush=True)
            self._height = len(block)
            return
        for name, (state, _) in rows.items():
            if state and self._said.get(name) != state:
                print(f"  {seconds:5.1f} s  {lines[name]}", flush=True)
                self._said[name] = state


def main() -> int:
    """Run the demo, or leave everything up; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--ui", action="store_true", help="leave Airflow and the emulator up until Ctrl-C")
    ui = parser.parse_args().ui
    # Ended from outside as by Ctrl-C: everything started here ends first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(HOME / "airflow", ignore_errors=True)
    try:
        # A length halfway between two polls: so that the service has told of the end before it is polled for.
        with local_emulator(HOME / "logs", "--seconds", "26") as emulator:
            print(f"Emulator of the Pika API on {emulator.url}: its jobs take seconds and cost nothing", flush=True)
            begun = time.monotonic()
            print(f"Airflow {version('apache-airflow')} starting in {HOME.name}/ ...", flush=True)
            airflow = LocalAirflow(
                HOME / "airflow",
                dags=ROOT / "example_dags",
                connections={"pika_default": emulator.connection},
                called_back=["pika_default"],
            )
            with airflow:
                print(f"Airflow is up after {time.monotonic() - begun:.0f} s: {airflow.url}", flush=True)
                code = _stay(airflow, emulator) if ui else _run(airflow, emulator)
                print("Ending Airflow and the emulator ...", flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted; all processes are ended.", flush=True)
        return 130
    except WaitError as problem:
        print(f"\nThe demo failed: {problem}", file=sys.stderr)
        return 1
    return code


def _run(airflow: LocalAirflow, emulator: EmulatorClient) -> int:
    run_id = airflow.runs.trigger(DAG)
    print(f"DAG {DAG}, run {run_id}", flush=True)
    try:
        _follow(airflow, emulator, run_id)
    except RunFailed as failed:
        print(f"\n{failed}", file=sys.stderr)
        return 1
    jobid = airflow.api.xcom(DAG, run_id, "submit")
    url = airflow.api.xcom(DAG, run_id, "wait", "video_url")
    answer = requests.get(url, timeout=30)
    answer.raise_for_status()
    film, still = HOME / "film.mp4", HOME / "film.png"
    film.write_bytes(answer.content)
    still.write_bytes(make_still(answer.content))
    print(
        f"\nDone.\n"
        f"  jobid      {jobid}\n"
        f"  its end    {_how_told(airflow, run_id)}\n"
        f"  video URL  {url}   (served while the emulator runs)\n"
        f"  film       {film.relative_to(ROOT)}   ({len(answer.content):,} bytes; a still: {still.relative_to(ROOT)})\n"
        f"\nWhat to try next:\n"
        f"  make ui    Airflow's pages and the emulator's, to click around in\n"
        f"  make test  the tests\n"
        f"  example_dags/ has the DAG that just ran, and larger ones\n",
        flush=True,
    )
    return 0


def _how_told(airflow: LocalAirflow, run_id: str) -> str:
    """
    Return how the waiting task came to know of the job's end.

    :raises WaitError: when it was polled for: this connection has a callback_url, so a callback was lost or not heard
    """
    told = re.findall(r"told by the service after [\d.]+ s", airflow.runs.log(DAG, run_id, "wait"))
    if not told:
        raise WaitError("the film is there, but the service's callback was not heard: the job's end was polled for")
    return told[-1]


def _follow(airflow: LocalAirflow, emulator: EmulatorClient, run_id: str) -> None:
    """Show what happens until the run has succeeded; raise when it fails or takes too long."""
    screen = Screen()
    begun = time.time()
    while True:
        rows = {name: _task_row(airflow, run_id, name) for name in TASKS}
        for job in emulator.jobs():
            rows["the job"] = (str(job["status"]), "in the emulator")
        state = airflow.runs.state(DAG, run_id) or "queued"
        rows["the run"] = (state, "")
        screen.show(time.time() - begun, rows)
        if state in {"success", "failed"} or time.time() - begun > PATIENCE:
            airflow.runs.wait(DAG, run_id, timeout=0)  # raises, with the logs, unless it succeeded
            return
        time.sleep(0.5)


def _task_row(airflow: LocalAirflow, run_id: str, task_id: str) -> tuple[str, str]:
    """Return a task's state, and for how long it has been in it."""
    changes = airflow.db.journal(DAG, run_id, task_id)
    if not changes or not (state := changes[-1].state):
        return "", ""
    if state in ENDED:
        working = sum(seconds for _, seconds in airflow.db.spells("running", DAG, run_id, task_id))
        return state, f"{working:.1f} s in a worker"
    return state, f"{time.time() - changes[-1].at:.0f} s, {MEANING.get(state, 'waits for a worker')}"


def _stay(airflow: LocalAirflow, emulator: EmulatorClient) -> int:
    airflow.runs.wait_dag(DAG)
    # The mapped example runs in it.
    airflow.api.request("POST", "/pools", json={"name": "pika", "slots": 10, "include_deferred": True})
    print(
        f"\n  Airflow   {airflow.url}   (no login; start {DAG} there)\n"
        f"  Emulator  {emulator.url}/\n"
        f"  Logs      {airflow.logs.relative_to(ROOT)}\n"
        f"\nCtrl-C ends both.",
        flush=True,
    )
    while True:
        airflow.family.check()
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
