"""The main job: submits, a full queue and waits without a worker, on real Airflow processes."""

from __future__ import annotations

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until
from tests.support.stories import Story
from tests.system.conftest import TOKEN


def running_spells(story: Story, task_id: str) -> list[float]:
    """Return how long each stay of a task on a worker lasted."""
    spells = story.airflow.db.spells("running", story.dag_id, story.run_id, task_id)
    return [seconds for _, seconds in spells]


def test_six_mapped_jobs_wait_without_a_worker(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """Six submits, no look sooner than 10 s, at most three worker starts a job, no sensor running while it waits."""
    emulator.configure(seconds=25)
    story = Story(airflow, emulator, "mapped", "six films")
    story.ends()
    counters = emulator.counters()
    assert counters["submits"]["asked"] == len(counters["jobs"]) == 6
    assert counters["polls"]["smallest_gap"] is None or counters["polls"]["smallest_gap"] >= 10
    for index in range(6):
        assert story.xcom("submit", map_index=index) == story.xcom("submit", "jobid", index)
        assert story.xcom("wait", "video_url", index).startswith(emulator.url)
    # Each sensor is on a worker twice, to defer and to hand on, and not in between.
    waits = airflow.db.spells("deferred", story.dag_id, story.run_id, "wait")
    assert len(waits) == 6
    assert min(seconds for _, seconds in waits) >= 10
    assert len(running_spells(story, "wait")) == 12
    starts = airflow.db.worker_starts(story.dag_id, story.run_id) - airflow.db.worker_starts(
        story.dag_id, story.run_id, "prompts"
    )
    assert starts / 6 <= 3


@pytest.mark.parametrize("dag_id", ["mapped", "mapped_in_line"])
def test_a_queue_of_two_uses_up_no_try(airflow: LocalAirflow, emulator: EmulatorClient, dag_id: str) -> None:
    """A full queue reschedules, or with deferrable defers; either way every task is still in its first try."""
    emulator.configure(seconds=3600, max_jobs=2)
    story = Story(airflow, emulator, dag_id, "queue")
    wait_until(
        lambda: emulator.counters()["submits"]["refused"].get("429", 0) >= 4,
        "four to be refused",
        60,
        detail=story.describe,
    )
    emulator.configure(seconds=12)
    story.end_jobs()
    story.ends(timeout=240)
    counters = emulator.counters()
    assert len(counters["jobs"]) == 6
    assert counters["submits"]["refused"]["429"] >= 4
    assert list(counters["peak_running"].values()) == [2]
    assert set(story.tries("submit") + story.tries("wait")) == {1}
    left = {change.state for change in airflow.db.journal(dag_id, story.run_id, "submit")}
    assert ("deferred" if dag_id == "mapped_in_line" else "up_for_reschedule") in left


def test_legs_of_a_rescheduled_wait_share_one_job(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """A waiting operator that reschedules comes back to its own job, and pushes the jobid while it waits."""
    story = Story(airflow, emulator, "rescheduled", "legs [emulator:reads=2]")
    story.task("film", "up_for_reschedule")
    story.ends()
    (job,) = story.jobs()
    assert story.xcom("film") == story.xcom("film", "jobid") == story.xcom("film", "job")["jobid"] == job["jobid"]
    assert story.tries("film") == [1]
    assert emulator.counters()["polls"]["smallest_gap"] >= 10


def test_one_task_shows_its_jobid_while_it_waits(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """With wait_for_completion the jobid is in XCom as soon as the job runs, the finished job at the end."""
    story = Story(airflow, emulator, "together", "early jobid [emulator:seconds=15]")
    story.task("film", "deferred")
    (job,) = story.jobs()
    assert story.xcom("film", "jobid") == job["jobid"]
    story.ends()
    assert story.xcom("film", "job")["status"] == "completed"
    assert airflow.db.worker_starts(story.dag_id, story.run_id) == 2


def test_a_completed_job_can_end_its_task_in_the_triggerer(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """With end_from_trigger operator and sensor start one worker each, and downstream reads their results as ever."""
    story = Story(airflow, emulator, "ends_in_triggerer", "no second start [emulator:seconds=15]")
    story.ends()
    (job,) = story.jobs()
    jobid, of_job, status, video_url, waited = story.xcom("read")
    assert {jobid, of_job, waited} == {job["jobid"]}
    assert status == "completed"
    assert video_url.startswith(emulator.url)
    assert airflow.db.worker_starts(story.dag_id, story.run_id, "film") == 1
    assert airflow.db.worker_starts(story.dag_id, story.run_id, "wait") == 1
    assert airflow.api.links(story.dag_id, story.run_id, "film") == {"Pika video": video_url}


def test_a_timeout_cancels_only_by_its_own_flag(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """A wait that is over fails without a retry, or is skipped with soft_fail; cancel_on_timeout cancels once."""
    story = Story(airflow, emulator, "stuck", "stuck [emulator:stuck]")
    story.ends("failed")
    assert story.task("wait", "failed")["try_number"] == 1
    assert story.task("wait_softly", "skipped")["try_number"] == 1
    assert story.cancels() == 1
    assert story.jobs()[0]["jobid"] in story.log("wait")


def test_the_token_is_nowhere(airflow: LocalAirflow, emulator: EmulatorClient) -> None:
    """After runs of every kind, one failing: not in the database, no log, no rendered field, and never at the CDN."""
    good = Story(airflow, emulator, "together", "no token in here [emulator:seconds=1]")
    bad = Story(airflow, emulator, "together", "refused [emulator:401]")
    good.ends()
    bad.ends("failed")
    secret = TOKEN.partition("-")[2]
    assert [table for table, text in airflow.db.dump() if secret in text] == []
    logs = [path for path in airflow.home.rglob("*.log*") if path.is_file()]
    assert len(logs) > 10
    assert [path.name for path in logs if secret in path.read_text(errors="replace")] == []
    assert emulator.counters()["token_leaks"] == 0
