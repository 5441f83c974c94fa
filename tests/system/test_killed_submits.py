"""Submits whose process dies, is killed or stands still at the worst moment: at most one job for each task."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.network import Network, freeze, thaw
from dev.harness.processes import wait_until
from dev.soak.judge import UNKNOWN
from tests.support.stories import Story


@pytest.fixture
def far(services: dict[str, EmulatorClient], network: Network) -> Iterator[EmulatorClient]:
    """Return the emulator behind the network, which is whole again in the end."""
    client = services["pika_network"]
    client.reset()
    client.configure(seconds=10)
    yield client
    network.come_back()


def asked(service: EmulatorClient) -> int:
    return int(service.counters()["submits"]["asked"])


def test_a_node_killed_with_short_jobs_in_flight(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """
    The jobs end before the answer and before the next attempt, so nothing of them is on any list.

    Airflow resets orphaned tasks at once, with retries=0 too; an attempt that finds an intent never submits again.
    """
    emulator.configure(seconds=6)
    emulator.fault("submit", "slow", seconds=60, times=6)
    stories = [Story(mortal, emulator, dag_id, f"short {dag_id}", count=3) for dag_id in ("six", "six_once")]
    for story in stories:
        story.has_jobs(3)
    mortal.kill_node()
    time.sleep(10)
    mortal.start_process("scheduler")
    for story in stories:
        story.ends("success", "failed", timeout=400)
    assert asked(emulator) == len(emulator.jobs()) == 6
    for story in stories:
        for index, tried in enumerate(story.tries("submit")):
            row = story.task("submit", "success", "failed", map_index=index)
            # A first try that is not followed by another one was given up by Airflow itself.
            assert row["state"] == "success" or tried == 1 or UNKNOWN in story.log("submit", index)


def test_submits_taken_late_while_their_workers_are_killed(mortal: LocalAirflow, emulator: EmulatorClient) -> None:
    """The retries come at once, before there is any job to be found; they go on looking, and adopt the six."""
    emulator.configure(seconds=110)
    emulator.fault("submit", "slow_take", seconds=45, times=6)
    story = Story(mortal, emulator, "six", "taken late")
    wait_until(lambda: asked(emulator) == 6, "six submits to arrive", 60)
    time.sleep(1)  # for their bodies
    for index in range(6):
        os.kill(mortal.runs.task_processes(story.dag_id, story.run_id, "submit", index).task, signal.SIGKILL)
    story.ends(timeout=400)
    assert asked(emulator) == len(story.jobs()) == 6
    assert {story.xcom("submit", map_index=index) for index in range(6)} == {job["jobid"] for job in story.jobs()}
    assert set(story.tries("submit")) == {2}


def test_sigterm_between_intent_and_first_byte(mortal: LocalAirflow, far: EmulatorClient, network: Network) -> None:
    """Airflow lets a process go on for seconds after SIGTERM: it sends nothing, and the retry makes the one job."""
    network.hold()
    story = Story(mortal, far, "six_network", "terminated", count=1)
    os.kill(story.at_the_door(network).task, signal.SIGTERM)
    time.sleep(1)  # for the signal to be handled; the connection gives itself ten seconds
    network.release()
    story.ends(timeout=240)
    assert story.tries("submit") == [2]
    assert asked(far) == len(story.jobs()) == 1


def test_marked_failed_between_intent_and_first_byte(
    mortal: LocalAirflow, far: EmulatorClient, network: Network
) -> None:
    """Airflow's SIGTERM comes while the submit still connects; the connection is made before its SIGKILL."""
    network.hold()
    before = network.accepted
    story = Story(mortal, far, "six_network", "marked failed", count=1)
    story.at_the_door(network)
    mortal.api.set_task_state(story.dag_id, story.run_id, "submit", "failed", 0)
    wait_until(lambda: "shouldn't be running anymore" in story.log("submit", 0), "Airflow's SIGTERM", 30, interval=0.05)
    network.release()
    wait_until(lambda: network.accepted > before, "the connection of the killed task", 30)
    story.ends("failed")
    time.sleep(6)  # what Airflow grants a process after SIGTERM, and more
    assert asked(far) == 0


def test_what_stands_still_during_the_post_and_before_the_intent(
    mortal: LocalAirflow, emulator: EmulatorClient
) -> None:
    """
    Two tasks, each for longer than Airflow waits for a heartbeat; the next tries have their jobs, and the thawed
    processes spoil nothing.

    A supervisor alone stands still during the POST: its task goes on and has nobody to report to, and its job is
    adopted. Another stands still with its task, which has just read that nothing was submitted yet.
    """
    emulator.configure(seconds=100)
    emulator.fault("submit", "slow", seconds=15)
    story = Story(mortal, emulator, "six", "supervisor frozen", count=1)
    story.has_jobs(1)
    frozen = [mortal.runs.task_processes(story.dag_id, story.run_id, "submit", 0).supervisor]
    freeze(frozen)
    try:
        still = Story(mortal, emulator, "stands_still", "frozen before the intent")
        still.task("submit", "running")
        processes = mortal.runs.task_processes(still.dag_id, still.run_id, "submit")
        frozen += [processes.supervisor, processes.task]
        wait_until(lambda: psutil.Process(processes.task).status() == psutil.STATUS_STOPPED, "it to stand still", 30)
        assert still.jobs() == []
        for each, index in ((story, 0), (still, -1)):
            wait_until(lambda each=each: each.tries("submit") == [2], "the next try", 120)
            each.task("submit", "success", map_index=index)
    finally:
        thaw(frozen)
    for each in (story, still):
        each.ends()
    time.sleep(8)
    assert asked(emulator) == len(emulator.jobs()) == 2, "the thawed process has sent its submit"
    assert story.xcom("submit", map_index=0) == story.jobs()[0]["jobid"]
    assert still.xcom("submit") == still.jobs()[0]["jobid"]
    assert story.cancels() == still.cancels() == 0


def test_frozen_between_intent_and_first_byte(mortal: LocalAirflow, far: EmulatorClient, network: Network) -> None:
    """
    Supervisor and task stand still for longer than Airflow waits for a heartbeat, then go on.

    One of them while its next try looks for a job, one when that is over: neither sends what another may have sent.
    """
    network.hold()
    before = network.accepted
    stories = [Story(mortal, far, "six_network", f"frozen {when}", count=1) for when in ("early", "late")]
    frozen = []
    try:
        for story in stories:
            processes = story.at_the_door(network)
            frozen.append([processes.supervisor, processes.task])
            freeze(frozen[-1])
        network.release()
        wait_until(lambda: network.accepted >= before + 2, "the connections of the frozen tasks", 60)
        early, late = stories
        wait_until(lambda: early.tries("submit") == [2], "the next try", 120)
        early.task("submit", "running", "up_for_reschedule", map_index=0)
        sent = asked(far)
        thaw(frozen[0])
        time.sleep(8)
        assert asked(far) == sent, "the thawed process has sent its submit"
        late.ends("success", "failed", timeout=300)
        sent = asked(far)
        thaw(frozen[1])
        time.sleep(8)
        assert asked(far) == sent, "the thawed process has sent its submit"
    finally:
        for pids in frozen:
            thaw(pids)
    for story in stories:
        end = story.ends("success", "failed", timeout=240)
        assert len(story.jobs()) <= 1
        assert len(story.jobs()) == 1 if end == "success" else UNKNOWN in story.log("submit", 0)
