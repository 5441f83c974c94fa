"""What it gains that the service calls back, beside polling alone, on two triggerers and two api-servers."""

from __future__ import annotations

import statistics
import time
from typing import Any

from airflow_provider_pika.api.claims import CLAIM_PREFIX, read_claim
from dev.bench.real_airflow import QUEUE, Figures, Stand, epoch, spread, stand
from dev.bench.report import Row, Section, at_least, at_most
from dev.harness.local_airflow import QUICK_TO_NOTICE
from dev.harness.processes import wait_until

# Jobs that end before anybody could look for them on a list of running ones.
SHORT = 8
KILLED = 10
RETRY_AFTER = (15, 65)
ENDING = "ours_one_30_ends"
SUBMITS = "ours_submits"
_FLEET = "Two triggerers and two api-servers, 30 s polls"


def ends(*, rounds: int = 2) -> Section:
    """Watch jobs end, first by polling alone and then with callbacks."""
    with stand(triggerers=2, api_servers=2) as place:
        polled = _ends(place, rounds)
    with stand(triggerers=2, api_servers=2, callbacks=True) as place:
        told = _ends(place, rounds)
    rows = [
        *_compared("job's end → read, s", polled["read"], told["read"], 1.0, 2.5),
        *_compared("job's end → task done, s", polled["done"], told["done"], 2.0, None),
    ]
    about = (
        f"{_FLEET}. {rounds} times {QUEUE} jobs of 20 to 50 s with room for all, each one task that ends in the"
        " triggerer (end_from_trigger)."
    )
    return Section("callbacks", about, rows, other="polling alone")


def line(*, queued: int = 40) -> Section:
    """Let jobs through a full queue, first by polling alone and then with callbacks."""
    polled, told = _line(queued, callbacks=False), _line(queued, callbacks=True)
    about = (
        f"{_FLEET}, each with a part of the line. {queued} jobs of 60 to 90 s through a queue of {QUEUE}, submit and"
        " sensor. Busy is counted as in the section queue."
    )
    return Section("callbacks-line", about, _queue(polled, told, queued), other="polling alone")


def killed() -> Section:
    """Kill the node between POST and answer, with jobs that end before anybody could look for them."""
    with stand(triggerers=2, api_servers=2, callbacks=True, config=QUICK_TO_NOTICE) as place:
        adopted = {pause: _killed(place, pause) for pause in RETRY_AFTER}
    rows = [at_least(f"adopted, tried after {pause} s", count, KILLED, "{:.0f}") for pause, count in adopted.items()]
    about = (
        f"{_FLEET}, with callbacks. {KILLED} submits of jobs of {SHORT} s, all of whose node is killed between POST and"
        " answer; how many of the jobs are adopted by the retries."
    )
    return Section("callbacks-killed", about, rows, other="–")


def _line(queued: int, *, callbacks: bool) -> Figures:
    # A triggerer takes as many waits as there are and it has room for: with more room one of them would take the line.
    room = {"triggerer.capacity": str(queued // 2)}
    with stand(triggerers=2, api_servers=2, callbacks=callbacks, config=room) as place:
        figures = place.run("ours_two_30", spread(queued, 60, 90))
        keys = place.airflow.db.sql("SELECT key FROM variable WHERE key LIKE ?", (f"{CLAIM_PREFIX}%",))
        lines = {claim.runner for row in keys if (claim := read_claim(row["key"]))}
    if len(lines) != 2:
        raise RuntimeError(f"{len(lines)} triggerers had waiters in line, not two")
    return figures


def _ends(place: Stand, rounds: int) -> dict[str, list[float]]:
    """Return how long after each job's end it was read, and its task done."""
    read, done = [], []
    for _ in range(rounds):
        run = place.run(ENDING, spread(QUEUE, 20, 50)).run_id
        ended = {job["jobid"]: epoch(job["ended"]) for job in place.emulator.jobs()}
        read += [epoch(job["seen"]) - ended[job["jobid"]] for job in place.emulator.jobs()]
        for change in place.airflow.db.journal(ENDING, run, "submit"):
            if change.state == "success":
                jobid = place.airflow.api.xcom(ENDING, run, "submit", map_index=change.map_index)
                done.append(change.at - ended[jobid])
    return {"read": read, "done": done}


def _killed(place: Stand, pause: float) -> int:
    """Kill the node while submits wait for their answers; return how many of the jobs were adopted by the retries."""
    airflow, emulator = place.airflow, place.emulator
    emulator.reset()
    emulator.configure(max_jobs=QUEUE)
    emulator.fault("submit", "slow", seconds=120, times=KILLED)
    airflow.runs.wait_dag(SUBMITS)
    run_id = airflow.runs.trigger(SUBMITS, conf={"lengths": [SHORT] * KILLED})
    wait_until(lambda: len(emulator.jobs()) == KILLED, "the jobs to be made", 120)
    airflow.kill_node()
    time.sleep(pause)
    airflow.start_process("scheduler")
    airflow.runs.wait(SUBMITS, run_id, ("success", "failed"), timeout=600)
    if (asked := emulator.counters()["submits"]["asked"]) != KILLED:
        raise RuntimeError(f"{asked} submits for {KILLED} jobs")
    made = {job["jobid"] for job in emulator.jobs()}
    taken = {
        airflow.api.xcom(SUBMITS, run_id, "submit", map_index=row["map_index"])
        for row in airflow.db.tasks(SUBMITS, run_id)
        if row["task_id"] == "submit" and row["state"] == "success"
    }
    return len(made & taken)


def _compared(what: str, polled: list[float], told: list[float], median: float, most: float | None) -> list[Row]:
    rows = [
        at_most(f"{what}, median", statistics.median(told), median, "{:.1f}", http=f"{statistics.median(polled):.1f}")
    ]
    if most is None:
        return [*rows, Row(f"{what}, at most", f"{max(told):.1f}", f"{max(polled):.1f}")]
    return [*rows, at_most(f"{what}, at most", max(told), most, "{:.1f}", http=f"{max(polled):.1f}")]


def _queue(polled: Figures, told: Figures, count: int) -> list[Any]:
    return [
        at_most("a freed slot idle, median, s", told.idle, 3.0, "{:.1f}", http=f"{polled.idle:.1f}"),
        Row("a freed slot idle, at most, s", f"{told.idle_most:.1f}", f"{polled.idle_most:.1f}"),
        at_least("queue kept busy, %", told.busy, 97, "{:.1f}", http=f"{polled.busy:.1f}"),
        at_most("worker starts a submit", told.submit_starts / count, 1.8),
        at_most("worker starts a submit, polling alone", polled.submit_starts / count, 1.8),
        Row("429 answers", str(told.refused), str(polled.refused)),
        Row("whole run, s", f"{told.seconds:.0f}", f"{polled.seconds:.0f}"),
    ]
