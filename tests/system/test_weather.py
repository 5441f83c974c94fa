"""
Lost answers, late lists, a network and a vault that are away, other people's pages: nothing is lost, nothing twice.

All of it happens at once, each on a connection with an emulator of its own; then each test looks at one story.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.failing_secrets import Secrets
from dev.harness.local_airflow import LocalAirflow
from dev.harness.network import Network
from dev.harness.processes import wait_until
from tests.support.stories import Story

WAITS = ("deferred", "poking", "rescheduled", "film")


@pytest.fixture(scope="module")
def lost(mortal: LocalAirflow, services: dict[str, EmulatorClient], network: Network) -> Iterator[dict[str, Story]]:
    """Lose answers in three ways; one of them by a network that is away for 90 s once the requests have left."""
    late, far, alone = services["pika_late"], services["pika_network"], services["pika_drip"]
    for service in (late, far, alone):
        service.reset()
    late.configure(seconds=110, list_delay=25)
    far.configure(seconds=400)
    far.fault("submit", "slow", seconds=10, times=6)
    listed_late = [f"listed late {number}" + " [emulator:drop_after]" * (number % 2) for number in range(6)]
    stories = {"away": Story(mortal, far, "six_network", "away")}
    stories["away"].has_jobs(6)
    network.leave()
    began = time.monotonic()
    stories["listed late"] = Story(mortal, late, "six_late", "listed late", prompts=listed_late)
    stories["not made"] = Story(mortal, alone, "six_alone", "not made", prompts=["not made [emulator:drop_before]"])
    time.sleep(max(0.0, began + 90 - time.monotonic()))
    network.come_back()
    yield stories
    far.advance(seconds=400)


def right_jobids(story: Story, count: int) -> None:
    story.ends(timeout=300)
    jobs = {job["prompt"]: job["jobid"] for job in story.jobs()}
    assert len(story.jobs()) == len(jobs) == count
    assert {story.xcom("submit", map_index=index) for index in range(count)} == set(jobs.values())


def test_answers_lost_and_jobs_listed_late(lost: dict[str, Story]) -> None:
    """Three of six answers lost, every job listed only after 25 s: each task finds its own, in its first try."""
    story = lost["listed late"]
    right_jobids(story, 6)
    assert set(story.tries("submit")) == {1}
    for index in range(6):
        jobid = story.xcom("submit", map_index=index)
        (job,) = [job for job in story.jobs() if job["jobid"] == jobid]
        assert f"listed late {index}" in job["prompt"]


def test_an_answer_lost_and_no_job_made(lost: dict[str, Story]) -> None:
    """After a whole search in the same attempt the submit is sent once more."""
    story = lost["not made"]
    right_jobids(story, 1)
    assert story.tries("submit") == [1]


def test_a_network_away_since_the_requests_left(lost: dict[str, Story]) -> None:
    """Submits and polls time out for 90 s; when a poll goes through again, the six jobs are adopted."""
    story = lost["away"]
    right_jobids(story, 6)
    assert story.emulator.counters()["submits"]["asked"] == 6


@pytest.fixture(scope="module")
def waits(mortal: LocalAirflow, services: dict[str, EmulatorClient], secrets: Secrets) -> dict[str, Story]:
    """Let waits of three connections meet a failing vault, other people's pages, and a list that drips."""
    vault, pages, drip = (services[f"pika_{name}"] for name in ("vault", "pages", "drip"))
    for service in (vault, pages, drip):
        service.reset()
        service.configure(seconds=75)
    drip.fault("list", "drip", seconds=4, times=100_000)
    for on in ("list", "job"):
        pages.fault(on, "html", status=403)
        pages.fault(on, "html", status=404, after=1)
        pages.fault(on, "redirect", status=302, after=2)
    stories = {
        "vault": Story(mortal, vault, "waits_vault", "vault"),
        "pages": Story(mortal, pages, "waits_pages", "pages"),
        "stuck": Story(mortal, drip, "deadline", "dripping and stuck [emulator:stuck]"),
        "ending": Story(mortal, drip, "deadline", "dripping and ending [emulator:seconds=20]"),
    }
    story = stories["vault"]
    states = {"deferred": "deferred", "film": "deferred", "poking": "running", "rescheduled": "up_for_reschedule"}
    # The late one is looked at first, and comes back while the vault fails: it had to wait for 15 to 30 s.
    for task_id, state in {"late": "up_for_reschedule", **states}.items():
        story.task(task_id, state)
    starts = story.airflow.db.worker_starts(story.dag_id, story.run_id, "late")
    with secrets.failing():
        time.sleep(25)
        wait_until(
            lambda: story.airflow.db.worker_starts(story.dag_id, story.run_id, "late") > starts,
            "the late submit to come back",
            60,
            detail=story.describe,
        )
    return stories


def test_a_vault_away_for_25_seconds(waits: dict[str, Story]) -> None:
    """Airflow says that there is no such connection; nothing fails for good, and each submit is paid for once."""
    story = waits["vault"]
    story.ends(timeout=300)
    assert len(story.jobs()) == 3
    assert story.emulator.counters()["submits"]["asked"] == 4  # one was refused by a full queue


def test_pages_that_are_not_the_apis(waits: dict[str, Story]) -> None:
    """A firewall's 403, a proxy's 404 and a 302, on the list and on a job: no wait ends for it, nor is any retried."""
    story = waits["pages"]
    story.ends(timeout=300)
    assert [story.tries(task_id) for task_id in (*WAITS, "late")] == [[1]] * 5
    notes = [request["note"] or "" for request in story.emulator.requests()]
    assert sum("fault html" in note for note in notes) == 4
    assert sum("fault redirect" in note for note in notes) == 2
    assert story.emulator.counters()["redirects_followed"] == 0
    assert len(story.jobs()) == 3


def test_a_list_that_drips_holds_up_no_deadline(waits: dict[str, Story]) -> None:
    """With a timeout of 60 s a wait ends within 30 s more, whatever the API does; then a worker says so."""
    story = waits["stuck"]
    story.ends("failed", timeout=240)
    changes = story.airflow.db.journal(story.dag_id, story.run_id, "wait")
    began = next(change.at for change in changes if change.state == "running")
    over = next(change.at for change in reversed(changes) if change.state == "scheduled")
    assert 55 <= over - began <= 90
    assert "AirflowSensorTimeout" in story.log("wait")


def test_a_job_that_ends_is_collected_though_the_list_drips(waits: dict[str, Story]) -> None:
    story = waits["ending"]
    story.ends(timeout=240)
    assert story.xcom("wait")["status"] == "completed"
