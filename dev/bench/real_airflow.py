"""Benches on a real Airflow: the HTTP provider's way and ours, one after the other on the same processes."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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

    run_id: str
    count: int
    submit_starts: int
    wait_starts: int
    busy: float
    idle: float
    idle_most: float
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

    def run(self, dag_id: str, lengths: Sequence[float], *, max_jobs: int = QUEUE) -> Figures:
        """Run a job of each of these lengths, in seconds, and return what it took."""
        airflow, emulator, count = self.airflow, self.emulator, len(lengths)
        emulator.reset()
        emulator.configure(max_jobs=max_jobs)
        airflow.runs.wait_dag(dag_id)
        scheduler = psutil.Process(airflow.family.pid("scheduler"))
        cpu, began = _cpu(scheduler), time.time()
        run_id = airflow.runs.trigger(dag_id, conf={"lengths": list(lengths)})
        self._follow(dag_id, run_id, patience=600 + 6 * max(*lengths, sum(lengths) / max_jobs))
        counters = emulator.counters()
        if len(counters["jobs"]) != count:
            raise RuntimeError(f"{dag_id} made {len(counters['jobs'])} jobs of {count}")
        changes = airflow.db.journal(dag_id, run_id)
        waited = idle(counters["jobs"], max_jobs)
        figures = Figures(
            run_id=run_id,
            count=count,
            submit_starts=airflow.db.worker_starts(dag_id, run_id, "submit"),
            wait_starts=airflow.db.worker_starts(dag_id, run_id, "wait"),
            busy=busy(counters["jobs"], max_jobs),
            idle=statistics.median(waited) if waited else 0.0,
            idle_most=max(waited, default=0.0),
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
def stand(*, callbacks: bool = False, config: Mapping[str, str] | None = None, **options: Any) -> Iterator[Stand]:
    """
    Start an Airflow and an emulator for a bench.

    :param callbacks: whether the service calls back
    :param options: as LocalAirflow takes them
    """
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
        with LocalAirflow(
            Path(folder, "airflow"),
            dags=DAGS,
            config={**CONFIG, **(config or {})},
            connections=connections,
            called_back=["pika_default"] if callbacks else [],
            **options,
        ) as airflow:
            yield Stand(airflow, emulator)


def busy(jobs: list[dict[str, Any]], max_jobs: int) -> float:
    """
    Return which part of the queue ran jobs, in percent: slots times seconds, from the first submit to the last.

    So it counts just the time in which somebody had a job to submit.
    """
    spans = [(epoch(job["created"]), epoch(job["ended"])) for job in jobs]
    first, last = min(begun for begun, _ in spans), max(begun for begun, _ in spans)
    if first == last:
        return 100.0
    used = sum(max(0.0, min(ended, last) - begun) for begun, ended in spans)
    return 100 * used / (max_jobs * (last - first))


def idle(jobs: list[dict[str, Any]], max_jobs: int) -> list[float]:
    """Return how long each freed slot was idle before the next submit took it, in seconds."""
    begun = sorted(epoch(job["created"]) for job in jobs)[max_jobs:]
    ended = sorted(epoch(job["ended"]) for job in jobs)
    return [begin - end for end, begin in zip(ended, begun, strict=False)]


def spread(count: int, least: float, most: float) -> list[float]:
    """Return so many lengths in seconds, evenly spread and in an order that looks like none, the same every time."""
    lengths = [least + (most - least) * number / max(1, count - 1) for number in range(count)]
    random.Random(count).shuffle(lengths)
    return lengths


def queue(*, count: int = 40, least: float = 60, most: float = 90) -> Section:
    """Forty jobs through a queue of ten."""
    with stand() as place:
        http = place.run("http_30", spread(count, least, most))
        ours = place.run("ours_two_30", spread(count, least, most))
    with stand(callbacks=True) as place:
        told = place.run("ours_two_30", spread(count, least, most))
    called = ", called back"
    rows = [
        at_most("worker starts a submit", ours.submit_starts / count, 2.1, http=f"{http.submit_starts / count:.2f}"),
        at_most("worker starts a submit" + called, told.submit_starts / count, 2.1),
        Row("queue kept busy, %", f"{ours.busy:.1f}", f"{http.busy:.1f}"),
        at_least("queue kept busy, %" + called, told.busy, http.busy, "{:.1f}"),
        Row("a freed slot idle, median, s", f"{ours.idle:.1f}", f"{http.idle:.1f}"),
        at_most("a freed slot idle, median, s" + called, told.idle, http.idle, "{:.1f}"),
        at_most(
            "a freed slot idle, at most, s", ours.idle_most, http.idle_most, "{:.1f}", http=f"{http.idle_most:.1f}"
        ),
        Row("scheduler CPU, s", f"{ours.scheduler_cpu:.0f}", f"{http.scheduler_cpu:.0f}"),
        Row("API requests a job", f"{ours.requests / count:.2f}", f"{http.requests / count:.2f}"),
        Row("429 answers", str(ours.refused), str(http.refused)),
        Row("tries failed", str(ours.failed_tries), str(http.failed_tries)),
        Row("whole run, s", f"{ours.seconds:.0f}", f"{http.seconds:.0f}"),
        at_most("whole run, s" + called, told.seconds, http.seconds, "{:.0f}"),
    ]
    about = (
        f"{count} jobs of {least:g} to {most:g} s, evenly spread, through a queue of {QUEUE}, mapped submits and mapped"
        " waits with 30 s polls, one after the other on the same Airflow: HttpOperator with a retry every 20 s and"
        " HttpSensor in mode reschedule; EncryptTextOperator and PikaJobSensor, deferrable, by polling. Then ours"
        f" called back, on an Airflow of its own. Busy is the part of {QUEUE} slots that ran a job between the first"
        " submit and the last, while somebody still had one to submit. Where polling is behind, it is for this: it asks"
        " for room every 10 s, and the HTTP provider's refused submits every"
        f" {http.seconds / (count + http.refused):.1f} s."
    )
    return Section("queue", about, rows)


def watch(*, count: int = 10, seconds: float = 30) -> Section:
    """Ten jobs watched together."""
    with stand() as place:
        http = place.run("http_10", [seconds] * count)
        ours = place.run("ours_two_10", [seconds] * count)
    rows = [at_most("API requests a job", ours.requests / count, 3.0, http=f"{http.requests / count:.2f}")]
    about = f"{count} jobs of {seconds:g} s, watched together with 10 s polls; the submit is one of the requests."
    return Section("watch", about, rows)


def uncontended(*, count: int = 6, seconds: float = 25) -> Section:
    """Six mapped jobs with room for all."""
    with stand() as place:
        http = place.run("http_10", [seconds] * count)
        found = {
            name: place.run(f"ours_{name}", [seconds] * count)
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


def epoch(moment: str) -> float:
    """Return a moment of the emulator's in UTC epoch seconds."""
    return datetime.fromisoformat(moment).timestamp()
