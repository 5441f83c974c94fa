"""Processes die at the worst moments; the emulator's counters tell whether anything was paid for twice."""

from __future__ import annotations

import os
import signal

import psutil

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until
from tests.support.stories import Story


def test_a_node_killed_with_six_submits_in_flight_pays_for_six(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """SIGKILL of scheduler and all workers while six POSTs await their answers: the retries adopt the six jobs."""
    emulator.configure(seconds=100)
    emulator.fault("submit", "slow", seconds=60, times=6)
    story = Story(mortal, emulator, "mapped", "in flight")
    story.has_jobs(6)
    mortal.kill_node()
    mortal.start_process("scheduler")
    story.ends(timeout=400)
    jobs = story.jobs()
    assert len(jobs) == emulator.counters()["submits"]["asked"] == 6
    assert {story.xcom("submit", map_index=index) for index in range(6)} == {job["jobid"] for job in jobs}
    assert set(story.tries("submit")) == {2}
    assert story.cancels() == 0


def test_a_node_found_dead_after_the_job_ended_does_not_pay_again(
    mortal: LocalAirflow, emulator: EmulatorClient
) -> None:
    """
    The jobs end before anybody notices that the node died, so they are on no list.

    Killed before the answer, only the intent is left, and the task says that it cannot know; killed after, the
    jobid is left, and the retry hands it on.
    """
    before = Story(mortal, emulator, "apart", "dead before the answer [emulator:slow=60] [emulator:seconds=10]")
    after = Story(mortal, emulator, "together", "dead after the answer [emulator:seconds=10]")
    after.task("film", "deferred")
    before.has_jobs(1)
    mortal.kill_node()
    wait_until(lambda: all(s.jobs()[0]["status"] == "completed" for s in (before, after)), "the jobs to end", 60)
    mortal.start_process("scheduler")
    before.ends("failed", timeout=400)
    after.ends(timeout=240)
    assert len(before.jobs()) == len(after.jobs()) == 1
    assert "replyRef" in before.log("submit")
    assert "make a new one" in before.log("submit")
    assert before.tries("submit") == [2]


def test_a_worker_killed_between_answer_and_xcom_pays_once(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """The jobid is stored before XCom: the retry goes on with it and pushes it."""
    story = Story(mortal, emulator, "dies_before_xcom", "no xcom yet [emulator:seconds=90]")
    story.ends(timeout=240)
    (job,) = story.jobs()
    assert story.xcom("submit") == story.xcom("submit", "jobid") == job["jobid"]
    assert story.tries("submit") == [2]
    assert job["jobid"] in story.log("submit").split("attempt=2")[0]


def test_lost_answers_are_found_again(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """Three answers lost, one cut short, a 500 and a 504 after the work: each job is adopted in the same try."""
    kinds = ("drop_after", "drop_after ", "drop_after  ", "cut", "504", "no_jobid")
    stories = [
        Story(mortal, emulator, "apart", f"lost {n} [emulator:{kind.strip()}] [emulator:seconds=60]")
        for n, kind in enumerate(kinds)
    ]
    for story in stories:
        story.ends(timeout=240)
        assert len(story.jobs()) == 1
        assert story.xcom("submit") == story.jobs()[0]["jobid"]
        assert story.tries("submit") == [1]


def test_a_second_triggerer_takes_over(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """The triggerer is killed mid-wait: another one goes on with the waits, and nothing is cancelled."""
    emulator.configure(seconds=45)
    story = Story(mortal, emulator, "together_kill", "taken over")
    story.task("film", "deferred")
    mortal.start_process("triggerer-2")
    mortal.kill("triggerer", signal.SIGKILL)
    story.ends(timeout=240)
    assert len(story.jobs()) == 1
    assert story.cancels() == 0
    assert story.tries("film") == [1]
    mortal.start_process("triggerer")
    mortal.kill("triggerer-2", signal.SIGTERM)


def test_an_api_server_restarted_mid_wait_costs_nothing(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """The api-server of the tasks is killed and comes back while one is deferred."""
    emulator.configure(seconds=30)
    story = Story(mortal, emulator, "together_kill", "api server gone")
    story.task("film", "deferred")
    mortal.restart("execution-api", signal.SIGKILL)
    story.ends(timeout=240)
    assert len(story.jobs()) == 1
    assert story.cancels() == 0


def test_sigterm_to_the_node_cancels_nothing(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """SIGTERM to the scheduler and all below it, as when a node is drained: cancel_on_kill is not for that."""
    emulator.configure(seconds=60)
    poking = Story(mortal, emulator, "poking", "drained while poking")
    waiting = Story(mortal, emulator, "together_kill", "drained while deferred")
    waiting.task("film", "deferred")
    poking.task("wait", "running")
    job = poking.has_jobs(1)[0]["jobid"]
    wait_until(lambda: job in emulator.counters()["polls"]["by_job"], "the first poke", 60)
    for pid in (*mortal.worker_pids(), mortal.family.pid("scheduler")):
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGTERM)
    mortal.kill("scheduler", signal.SIGKILL, grace=30)
    mortal.start_process("scheduler")
    for story in (poking, waiting):
        story.ends(timeout=240)
        assert len(story.jobs()) == 1
        assert story.cancels() == 0
