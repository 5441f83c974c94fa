"""What the soak is judged by: jobs made per film, where each jobid is to be found, and what was cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from dev.harness.local_airflow import LocalAirflow

UNKNOWN = "AirflowFailException: Outcome unknown"
NO_JOB = "no job was made"
ADOPTED = ", submitted by this task: going on with it"


@dataclass(frozen=True)
class Film:
    """
    What became of one film.

    :param state: the state its submit ended in
    :param jobids: the jobs that were made for it
    :param log: all that its submit logged, try by try
    :param kept: everything a person could find a jobid in: of a success its XCom alone, else its log and its state too
    :param wait: the state its wait ended in, None if its submit waits itself
    """

    name: str
    state: str
    tries: int
    jobids: list[str]
    log: str
    kept: str
    wait: str | None = None

    @property
    def cannot_know(self) -> bool:
        """Whether what ended its last try says that it cannot know whether a job was made."""
        return self.state == "failed" and any(line.startswith(UNKNOWN) for line in self._last_exception)

    @property
    def last_error(self) -> str:
        """The first cause of the last exception its last try logged."""
        return self._last_exception[-1][:300] if self._last_exception else "no exception in its log"

    @property
    def _last_exception(self) -> list[str]:
        # Exceptions are set in, below the line they belong to: the one raised, then its causes.
        lines: list[str] = []
        for line in reversed(self._last_try.splitlines()):
            if line.startswith("    "):
                lines.insert(0, line.strip())
            elif lines:
                break
        return lines

    @property
    def _last_try(self) -> str:
        return "".join(part for part in self.log.split("--- ") if part.startswith(f"attempt={self.tries}.log"))


@dataclass
class Verdict:
    """
    What was found.

    :param films: tasks that were to submit, by the state they ended in
    :param excess: films for which more than one job was made, whatever was submitted: a lost submit makes none
    :param lost: jobids that a success did not hand on, and those of a failure that neither its state nor its log names
    :param unknown: films whose answer was lost and whose job was not found: the task says that it cannot know; paid at
        most once, and its job is not lost but told of
    :param strange: films that failed for any other reason, that succeeded without a job, or whose wait did not succeed;
        and runs that made none or did not end
    :param adopted: films whose job was found by its reference
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

    def add(self, film: Film) -> None:
        """Judge one film."""
        self.films[film.state] += 1
        self.tries += film.tries
        self.adopted += ADOPTED in film.log
        if len(film.jobids) > 1:
            self.excess.append(f"{film.name}: {', '.join(film.jobids)}")
        if film.cannot_know:
            made = f"{', '.join(film.jobids)} was made" if film.jobids else NO_JOB
            self.unknown.append(f"{film.name}: {made}")
            return
        if film.state != "success":
            self.strange.append(f"{film.name} ended {film.state}, try {film.tries}: {film.last_error}")
        elif not film.jobids:
            self.strange.append(f"{film.name} succeeded without a job")
        elif film.wait not in (None, "success"):
            self.strange.append(f"{film.name}: its wait ended {film.wait}")
        self.lost += [f"{film.name}: {jobid}" for jobid in film.jobids if jobid not in film.kept]

    def add_run(self, run_id: str, *, films: int, ended: bool) -> None:
        """Judge a run by itself: what made no films has proved nothing, and what has not ended nothing yet."""
        if not films:
            self.strange.append(f"{run_id} made no films")
        if not ended:
            self.strange.append(f"{run_id} did not end")


def judge(airflow: LocalAirflow, counters: dict[str, Any], runs: dict[str, str], *, left: Collection[str]) -> Verdict:
    """
    Judge what is left in the end.

    :param counters: the emulator's
    :param runs: the DAG of each run; its films are prompted ``<run> <number>``
    :param left: the runs that did not end
    """
    verdict = Verdict(jobs=len(counters["jobs"]), cancelled=sum(counters["cancels"].values()))
    made: defaultdict[str, list[str]] = defaultdict(list)
    for job in counters["jobs"]:
        made[film_of(job)].append(job["jobid"])
    for run_id, dag_id in runs.items():
        rows = airflow.db.tasks(dag_id, run_id)
        films = [row for row in rows if row["task_id"].endswith("submit") and row["map_index"] >= 0]
        waits = {row["map_index"]: row["state"] or "none" for row in rows if row["task_id"].endswith("wait")}
        verdict.add_run(run_id, films=len(films), ended=run_id not in left)
        for row in films:
            jobids = made.pop(f"{run_id} {row['map_index']}", [])
            verdict.add(_film(airflow, row, jobids, waits.get(row["map_index"])))
    # A job of a film that no run knows of would be the worst of all.
    verdict.excess += [f"{prompt}: {', '.join(jobids)}" for prompt, jobids in made.items()]
    return verdict


def film_of(job: dict[str, Any]) -> str:
    """Return which film a job of the emulator makes: run and number, without the markers behind them."""
    return str(job["prompt"]).split(" [")[0]


def _film(airflow: LocalAirflow, row: dict[str, Any], jobids: list[str], wait: str | None) -> Film:
    where = (row["dag_id"], row["run_id"], row["task_id"], row["map_index"])
    log = airflow.runs.log(*where)
    handed_on = row["state"] == "success"
    kept = "" if handed_on else log
    for table in ["xcom"] if handed_on else ["xcom", "task_state_store"]:
        rows = airflow.db.sql(
            f"SELECT value FROM {table} WHERE dag_id = ? AND run_id = ? AND task_id = ? AND map_index = ?", where
        )
        kept += " ".join(str(found["value"]) for found in rows)
    return Film(
        name=f"{row['dag_id']} {row['run_id']} {row['map_index']}",
        state=row["state"] or "none",
        tries=row["try_number"],
        jobids=jobids,
        log=log,
        kept=kept,
        wait=wait,
    )
