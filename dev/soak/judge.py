"""What the soak is judged by: jobs made per film, where each jobid is to be found, and what was cancelled."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from dev.harness.local_airflow import LocalAirflow

UNKNOWN = "PikaUnknownOutcomeError"


@dataclass
class Verdict:
    """
    What was found.

    :param films: tasks that were to submit, by the state they ended in
    :param excess: films for which more than one job was made
    :param lost: jobids found neither in XCom nor in the state store nor in the log of their task
    :param unknown: films whose submit was killed before its answer and whose job had ended before the next try: the
        task says that it cannot know; paid once
    :param strange: films that failed for any other reason
    """

    films: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    jobs: int = 0
    excess: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    cancelled: int = 0
    tries: int = 0
    adopted: int = 0

    @property
    def broken(self) -> bool:
        """Tell whether a rule was broken."""
        return bool(self.excess or self.lost or self.cancelled)


def judge(airflow: LocalAirflow, counters: dict[str, Any], runs: dict[str, str]) -> Verdict:
    """
    Judge what is left when all runs have ended.

    :param counters: the emulator's
    :param runs: the DAG of each run; its films are prompted ``<run> <number>``
    """
    verdict = Verdict(jobs=len(counters["jobs"]), cancelled=sum(counters["cancels"].values()))
    made: defaultdict[str, list[str]] = defaultdict(list)
    for job in counters["jobs"]:
        made[film_of(job)].append(job["jobid"])
    for run_id, dag_id in runs.items():
        for row in airflow.db.tasks(dag_id, run_id):
            if row["task_id"].endswith("submit") and row["map_index"] >= 0:
                _film(verdict, airflow, row, made.pop(f"{run_id} {row['map_index']}", []))
    # A job of a film that no run knows of would be the worst of all.
    verdict.excess += [f"{prompt}: {', '.join(jobids)}" for prompt, jobids in made.items()]
    return verdict


def film_of(job: dict[str, Any]) -> str:
    """Return which film a job of the emulator makes: run and number, without the marker for its length."""
    return str(job["prompt"]).split(" [")[0]


def _film(verdict: Verdict, airflow: LocalAirflow, row: dict[str, Any], jobids: list[str]) -> None:
    where = (row["dag_id"], row["run_id"], row["task_id"], row["map_index"])
    name = f"{row['dag_id']} {row['run_id']} {row['map_index']}"
    log = airflow.runs.log(*where)
    state = row["state"] or "none"
    verdict.films[state] += 1
    verdict.tries += row["try_number"]
    verdict.adopted += "Found job " in log
    if len(jobids) > 1:
        verdict.excess.append(f"{name}: {', '.join(jobids)}")
    cannot_know = state == "failed" and (UNKNOWN in log or "its answer is not known" in log)
    if cannot_know:
        verdict.unknown.append(name)
    elif state != "success":
        verdict.strange.append(f"{name} ended {state}, try {row['try_number']}: {log.strip().splitlines()[-1:]}")
    kept = log
    for table in ("xcom", "task_state_store"):
        rows = airflow.db.sql(
            f"SELECT value FROM {table} WHERE dag_id = ? AND run_id = ? AND task_id = ? AND map_index = ?", where
        )
        kept += " ".join(str(found["value"]) for found in rows)
    if not cannot_know:
        verdict.lost += [f"{name}: {jobid}" for jobid in jobids if jobid not in kept]
