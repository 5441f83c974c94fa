"""The service calls back, into one Airflow with two triggerers, and two api-servers behind one address."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
import requests

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until
from dev.soak.judge import ADOPTED
from tests.support.stories import Story
from tests.support.submits import reply_url_of

from .conftest import DAGS

TOLD = re.compile(r"told by the service after ([\d.]+) s")


@pytest.fixture(scope="module")
def called(emulator_process: EmulatorClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Run the Airflow that is called back; when all is over, no token is in anything it has written."""
    tokens: set[str] = set()
    with LocalAirflow(
        tmp_path_factory.mktemp("called"),
        dags=DAGS,
        connections={"pika_default": emulator_process.connection},
        called_back=["pika_default"],
        triggerers=2,
        api_servers=2,
    ) as airflow:
        airflow.tokens = tokens  # type: ignore[attr-defined]
        yield airflow
    assert tokens
    written = b"".join(path.read_bytes() for path in airflow.home.rglob("*") if path.is_file())
    assert b"/pika/callback/" in written
    assert not [token for token in tokens if token.encode() in written]


@pytest.fixture
def tokens(called: LocalAirflow, emulator: EmulatorClient) -> Iterator[None]:
    """Note the tokens of all jobs of a test."""
    yield
    for job in emulator.jobs():
        url = reply_url_of(emulator, job["jobid"])
        assert url
        called.tokens.add(url.partition("token=")[2])  # type: ignore[attr-defined]


pytestmark = pytest.mark.usefixtures("tokens")


def all_wait(story: Story, count: int) -> list[str]:
    """Wait until so many jobs run and are waited for, for long enough that a call is heeded; return their jobids."""
    jobs = story.has_jobs(count, 120)
    for index in range(count):
        story.task("wait", "deferred", map_index=index)
    # A triggerer's first trigger takes its time, and none reads its job sooner than 10 s after the defer; nor does it
    # hear of a call before it has asked for the first time.
    wait_until(lambda: all("starting" in story.log("wait", index) for index in range(count)), "the triggers", 60)
    time.sleep(20)
    return [job["jobid"] for job in jobs]


def seconds_to_see(job: dict[str, str]) -> float:
    """Return how long after its end a job was read."""
    return (datetime.fromisoformat(job["seen"]) - datetime.fromisoformat(job["ended"])).total_seconds()


def told(story: Story, index: int) -> float | None:
    """Return how many seconds after the service's call a job was read, None if nobody was called."""
    found = TOLD.findall(story.log("wait", index))
    return float(found[-1]) if found else None


def test_a_jobs_end_is_read_when_the_service_calls(called: LocalAirflow, emulator: EmulatorClient) -> None:
    """Polls come every two minutes, so that none of them is about when these jobs end."""
    emulator.configure(seconds=3600)
    story = Story(called, emulator, "called", "called", count=6)
    for jobid in all_wait(story, 6):
        emulator.advance(jobid=jobid, status="completed")
        time.sleep(1)
    story.ends()
    assert max(seconds_to_see(job) for job in story.jobs()) <= 15
    assert all(told(story, index) is not None for index in range(6))


def test_killed_between_post_and_answer_with_short_jobs(called: LocalAirflow, emulator: EmulatorClient) -> None:
    """The jobs have ended and are on no list when the retries come; their mailboxes know them, every time."""
    emulator.configure(seconds=8)
    emulator.fault("submit", "slow", seconds=120, times=10)
    stories = [Story(called, emulator, f"called_after_{delay}", f"after {delay}", count=5) for delay in (15, 65)]
    for story in stories:
        story.has_jobs(5)
        for index in range(5):
            story.task("submit", "running", map_index=index)
            os.kill(called.runs.task_processes(story.dag_id, story.run_id, "submit", index).task, signal.SIGKILL)
    for story in stories:
        story.ends(timeout=180)
        assert story.tries("submit") == [2] * 5
        made = {job["jobid"] for job in story.jobs()}
        assert {story.xcom("submit", map_index=index) for index in range(5)} == made
        assert all(ADOPTED in story.log("submit", index) for index in range(5))
    assert emulator.counters()["submits"]["asked"] == len(emulator.jobs()) == 10


def test_callbacks_that_get_lost_doubled_and_shuffled(called: LocalAirflow, emulator: EmulatorClient) -> None:
    """Whatever becomes of them each job is collected, at the pace of polling at the latest."""
    emulator.configure(seconds=3600)
    emulator.fault("callback", "lost", times=4)
    emulator.fault("callback", "doubled", times=3)
    emulator.fault("callback", "shuffled", times=3, seconds=5)
    story = Story(called, emulator, "called_in_vain", "in vain", count=10)
    for jobid in all_wait(story, 10):
        emulator.advance(jobid=jobid, status="completed")
    story.ends()
    assert emulator.counters()["callbacks"]["lost"] == 4
    # A poll each 10 s, and what it takes to poll.
    assert max(map(seconds_to_see, story.jobs())) <= 10 + 5


def test_a_call_that_claims_an_end_has_the_job_read_and_no_more(called: LocalAirflow, emulator: EmulatorClient) -> None:
    emulator.configure(seconds=3600)
    story = Story(called, emulator, "called", "claimed", count=1)
    (jobid,) = all_wait(story, 1)
    url = str(reply_url_of(emulator, jobid))
    before = emulator.counters()["polls"]["by_job"][jobid]["count"]
    body = {"jobid": jobid, "status": "completed", "attachments": [{"url": "http://127.0.0.1:9/forged.mp4"}]}
    assert requests.post(url, json=body, timeout=10).status_code == 204
    wait_until(lambda: emulator.counters()["polls"]["by_job"][jobid]["count"] > before, "the read", 20)
    time.sleep(2)
    assert story.task("wait", "deferred", map_index=0)
    emulator.advance(jobid=jobid, status="completed")
    story.ends()
    assert "forged" not in story.xcom("wait", "video_url", map_index=0)


def test_the_url_of_before_a_clear_reaches_nothing(called: LocalAirflow, emulator: EmulatorClient) -> None:
    emulator.configure(seconds=5)
    story = Story(called, emulator, "called_once", "cleared")
    story.ends()
    (old,) = story.jobs()
    url = str(reply_url_of(emulator, old["jobid"]))
    wait_until(lambda: emulator.counters()["callbacks"]["delivered"], "the first callback", 20)
    story.clear("submit")
    _, new = story.has_jobs(2)
    story.ends()
    assert requests.post(url, json={"jobid": old["jobid"], "status": "completed"}, timeout=10).status_code == 404
    assert story.xcom("submit") == new["jobid"]
