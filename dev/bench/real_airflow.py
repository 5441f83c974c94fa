"""Benches on a real Airflow: the HTTP provider's way and ours, one after the other on the same processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.bench.report import Row, Section, at_least, at_most
from dev.harness.emulator import local_emulator
from dev.harness.local_airflow import LocalAirflow
from dev.harness.runs import RunFailed

DAGS = Path(__file__).with_name("dags")
QUEUE = 10
# Airflow's own default, and all of it for one DAG: neither way is to be slowed by a limit of the bench.
CONFIG = {"core.parallelism": "32", "core.max_active_tasks_per_dag": "32"}


@dataclass(frozen=True)
class Figures:
    """What one run took."""

    count: int
    submit_starts: int
    wait_starts: int
    busy: float
    scheduler_cpu: float
    requests: int
    refused: int
    seconds: float
    failed_tries: int

    @property
    def starts(self) -> float:
        """Worker starts a job, submit and wait together."""
        return (self.submit_starts + self.wait_starts) / self.count


class Stand:
    """An Airflow and an emulator, and runs on them."""

    def __init__(self, airflow: LocalAirflow, emulator: EmulatorClient) -> None:
        self.airflow = airflow
        self.emulator = emulator

    def run(self, dag_id: str, *, count: int, seconds: float, max_jobs: int = QUEUE) -> Figures:
        """Run so many jobs of so many seconds, and return what it took."""
        airflow, emulator = self.airflow, self.emulator
        emulator.reset()
        emulator.configure(seconds=seconds, max_jobs=max_jobs)
        airflow.runs.wait_dag(dag_id)
        scheduler = psutil.Process(airflow.family.pid("scheduler"))
        cpu, began = _cpu(scheduler), time.time()
        run_id = airflow.runs.trigger(dag_id, conf={"count": count})
        self._follow(dag_id, run_id, patience=600 + 6 * seconds * max(1, count / max_jobs))
        counters = emulator.counters()
        if len(counters["jobs"]) != count:
            raise RuntimeError(f"{dag_id} made {len(counters['jobs'])} jobs of {count}")
        changes = airflow.db.journal(dag_id, run_id)
        figures = Figures(
            count=count,
            submit_starts=airflow.db.worker_starts(dag_id, run_id, "submit"),
            wait_starts=airflow.db.worker_starts(dag_id, run_id, "wait"),
            busy=busy(counters["jobs"], max_jobs),
            scheduler_cpu=_cpu(scheduler) - cpu,
            requests=counters["requests"],
            refused=sum(counters["submits"]["refused"].values()),
            seconds=time.time() - began,
            failed_tries=sum(change.state in ("failed", "up_for_retry") for change in changes),
        )
        print(f"  {dag_id}: {figures}", flush=True)
        return figures

    def _follow(self, dag_id: str, run_id: str, patience: float) -> None:
        began = said = time.time()
        while (state := self.airflow.runs.state(dag_id, run_id)) not in ("success", "failed"):
            self.airflow.family.check()
            if time.time() - began > patience:
                raise RunFailed(f"{dag_id} took over {patience:.0f} s\n{self.airflow.runs.describe(dag_id, run_id)}")
            if time.time() - said >= 30:
                said = time.time()
                jobs = self.emulator.jobs()
                running = sum(job["ended"] is None for job in jobs)
                print(f"  {dag_id}: {said - began:4.0f} s, {len(jobs)} jobs made, {running} running", flush=True)
            time.sleep(1)
        if state == "failed":
            raise RunFailed(self.airflow.runs.describe(dag_id, run_id))


@contextmanager
def stand() -> Iterator[Stand]:
    """Start an Airflow and an emulator for a bench."""
    with tempfile.TemporaryDirectory(prefix="pika-bench-") as folder, local_emulator(Path(folder)) as emulator:
        connections: dict[str, Any] = {
            "pika_default": emulator.connection,
            "pika_http": {
                "conn_type": "http",
                "host": emulator.url,
                "extra": {"Authorization": f"Bearer {emulator.token}"},
            },
        }
        print("  starting Airflow", flush=True)
        with LocalAirflow(Path(folder, "airflow"), dags=DAGS, config=CONFIG, connections=connections) as airflow:
            yield Stand(airflow, emulator)


def busy(jobs: list[dict[str, Any]], max_jobs: int) -> float:
    """Return which part of the queue ran jobs, in percent, from the first submit to the last."""
    spans = [(_epoch(job["created"]), _epoch(job["ended"])) for job in jobs]
    first, last = min(begun for begun, _ in spans), max(begun for begun, _ in spans)
    if first == last:
        return 100.0
    used = sum(max(0.0, min(ended, last) - begun) for begun, ended in spans)
    return 100 * used / (max_jobs * (last - first))


def queue(*, small: int = 40, large: int = 120, seconds: float = 60) -> Section:
    """Forty jobs through a queue of ten, and then a hundred and twenty."""
    with stand() as place:
        http = place.run("http_30", count=small, seconds=seconds)
        ours = place.run("ours_two_30", count=small, seconds=seconds)
        many = place.run("ours_two_30", count=large, seconds=seconds)
    rows = [
        at_most(
            f"worker starts a submit, {small} jobs",
            ours.submit_starts / small,
            2.1,
            http=f"{http.submit_starts / small:.2f}",
        ),
        at_most(f"worker starts a submit, {large} jobs", many.submit_starts / large, 2.1),
        at_least(f"queue kept busy, {small} jobs, %", ours.busy, 85, "{:.0f}", http=f"{http.busy:.0f}"),
        Row(f"queue kept busy, {large} jobs, %", f"{many.busy:.0f}"),
        Row("scheduler CPU, s", f"{ours.scheduler_cpu:.0f}", f"{http.scheduler_cpu:.0f}"),
        Row("API requests a job", f"{ours.requests / small:.2f}", f"{http.requests / small:.2f}"),
        Row("429 answers", str(ours.refused), str(http.refused)),
        Row("tries failed", str(ours.failed_tries), str(http.failed_tries)),
        Row("whole run, s", f"{ours.seconds:.0f}", f"{http.seconds:.0f}"),
    ]
    about = (
        f"{small} jobs of {seconds:g} s through a queue of {QUEUE}, mapped submits and mapped waits with 30 s polls,"
        " one after the other on the same Airflow: HttpOperator with a retry every 20 s and HttpSensor in mode"
        f" reschedule; EncryptTextOperator and PikaJobSensor, deferrable. Then ours with {large} jobs."
    )
    return Section("queue", about, rows)


def watch(*, count: int = 10, seconds: float = 30) -> Section:
    """Ten jobs watched together."""
    with stand() as place:
        http = place.run("http_10", count=count, seconds=seconds)
        ours = place.run("ours_two_10", count=count, seconds=seconds)
    rows = [at_most("API requests a job", ours.requests / count, 3.0, http=f"{http.requests / count:.2f}")]
    about = f"{count} jobs of {seconds:g} s, watched together with 10 s polls; the submit is one of the requests."
    return Section("watch", about, rows)


def uncontended(*, count: int = 6, seconds: float = 25) -> Section:
    """Six mapped jobs with room for all."""
    with stand() as place:
        http = place.run("http_10", count=count, seconds=seconds)
        found = {
            name: place.run(f"ours_{name}", count=count, seconds=seconds)
            for name in ("two_10", "one_10", "two_10_ends", "one_10_ends")
        }
    rows = [
        at_most("submit and sensor", found["two_10"].starts, 3.0, http=f"{http.starts:.2f}"),
        at_most("one task (wait_for_completion)", found["one_10"].starts, 2.0),
        at_most("submit and sensor, end_from_trigger", found["two_10_ends"].starts, 2.0),
        at_most("one task, end_from_trigger", found["one_10_ends"].starts, 1.0),
    ]
    about = f"Worker starts a job: {count} mapped jobs of {seconds:g} s with room for all, deferrable, 10 s polls."
    return Section("uncontended", about, rows)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _epoch(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
