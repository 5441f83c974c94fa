"""Two hosts: the main job on both, what a local path means there, and hosts that die or stand still."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.fleet import Fleet
from dev.harness.network import Network, freeze, thaw
from dev.harness.processes import wait_until
from dev.soak.judge import UNKNOWN
from tests.fleet.conftest import Flying, asked, hosts, paid_once
from tests.support.stories import Story

IMPATIENT = ["worker-3", "worker-4"]
STILL = "worker-3"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)


@pytest.fixture(scope="module")
def local_paths(running_fleet: Fleet, services: dict[str, EmulatorClient]) -> Story:
    """Start the tasks with local paths; they go on beside the main job, on the other emulator."""
    pictures = running_fleet.host("worker") / "pictures"
    pictures.mkdir()
    (pictures / "here.png").write_bytes(PNG)
    services["pika_network"].reset()
    return Story(running_fleet, services["pika_network"], "local_paths", "local [emulator:seconds=10]")


def test_six_mapped_jobs_on_two_hosts(fleet: Fleet, flying: Flying, local_paths: Story) -> None:
    """The submits land on both hosts; each task has one job and one try, and no job is read twice within 10 s."""
    story = flying("two hosts", answer=8, lasts=25, dag_id="mapped")
    paid_once(story)
    assert set(hosts(story).values()) == set(fleet.workers)
    assert set(story.tries("submit") + story.tries("wait")) == {1}
    gap = story.emulator.counters()["polls"]["smallest_gap"]
    assert gap is None or gap >= 10
    assert len(fleet.db.spells("deferred", story.dag_id, story.run_id, "wait")) == 6


def test_a_local_path_is_one_hosts_own(fleet: Fleet, local_paths: Story) -> None:
    """An image that lies on the other host fails its task at once, unpaid; a film lies where its download ran."""
    story = local_paths
    story.ends("failed")
    assert asked(story.emulator) == len(story.jobs()) == 1
    assert story.task("there", "failed")["try_number"] == 1
    said = "The image 'pictures/here.png' cannot be read: No such file or directory. Nothing was sent."
    assert said in story.log("there")
    (film,) = (fleet.host("worker-2") / "films").iterdir()
    assert story.xcom("download") == [film.as_uri()]
    assert f"Stored {film.as_uri()} on the host " in story.log("download")
    assert not (fleet.host("worker") / "films").exists()


def test_a_host_dies(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of a worker and all below it: its tasks are tried again and adopt their jobs; the other host goes on."""
    story = flying("host dies", answer=30)
    struck = {index for index, host in hosts(story).items() if host == "worker"}
    assert 0 < len(struck) < 6
    fleet.kill("worker")
    fleet.mend()
    paid_once(story)
    assert dict(enumerate(story.tries("submit"))) == {index: 1 + (index in struck) for index in range(6)}


def test_a_workers_main_process_dies(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of Celery's main process alone: its children end with it, and are missed as those of a host are."""
    story = flying("main process dies", answer=30)
    struck = {index for index, host in hosts(story).items() if host == "worker"}
    assert 0 < len(struck) < 6
    fleet.kill("worker", tree=False)
    fleet.mend()
    paid_once(story)
    assert dict(enumerate(story.tries("submit"))) == {index: 1 + (index in struck) for index in range(6)}


def test_children_die_while_the_api_takes_its_time(fleet: Fleet, emulator: EmulatorClient) -> None:
    """
    Celery reports dead children at once, so the retries come before there is any job to be found.

    On one host the children die alone, and the tasks they watched over send on; on the other everything below the main
    process dies. The API makes the jobs all the same, and the retries find all six.
    """
    emulator.configure(seconds=100)
    emulator.fault("submit", "slow_take", seconds=30, times=6)
    story = Story(fleet, emulator, "six", "children die")
    wait_until(lambda: asked(emulator) == 6, "six submits to arrive", 120)
    time.sleep(1)  # for their bodies
    assert len(set(hosts(story).values())) == 2
    orphans = tasks_of(story, "worker")
    for process in psutil.Process(fleet.family.pid("worker")).children():
        process.kill()
    for process in fleet.family.tree("worker-2"):
        process.kill()
    assert all(map(psutil.pid_exists, orphans))
    paid_once(story)
    assert set(story.tries("submit")) == {2}


@dataclass
class HandedOut:
    """
    Submits that Celery hands out again.

    :param struck: the tasks that the host which stands still has
    :param messages: by which each was handed out first
    """

    story: Story
    struck: set[int]
    messages: set[str]


def received(fleet: Fleet) -> Counter[str]:
    """Return how often the further workers got each of Celery's messages."""
    text = "".join(fleet.family.log(name).read_text() for name in IMPATIENT)
    return Counter(re.findall(r"Task execute_workload\[(\S+)\] received", text))


@pytest.fixture(scope="module")
def handed_out(running_fleet: Fleet, services: dict[str, EmulatorClient]) -> Iterator[HandedOut]:
    """
    Start submits on two hosts whose broker soon takes them for lost, and let one of the hosts stand still.

    They go on beside the test below, on the other emulator.
    """
    # The timeout, and how often Celery looks for what has passed it: by default every 100 s.
    impatient = {"visibility_timeout": "6", "unacked_restore_interval": "2", "unacked_restore_throttle": "1"}
    options = {f"celery_broker_transport_options.{name}": value for name, value in impatient.items()}
    running_fleet.add_workers(IMPATIENT, "impatient", options)
    emulator = services["pika_default"]
    emulator.reset()
    emulator.configure(seconds=100)
    # Longer than three of these timeouts, and than it takes a busy machine to begin all six.
    emulator.fault("submit", "slow", seconds=30, times=6)
    # More than one host has room for.
    story = Story(running_fleet, emulator, "handed_out", "handed out", count=6)
    story.has_jobs(6, timeout=120)
    messages = set(received(running_fleet))
    freeze(processes_of(running_fleet, STILL))
    yield HandedOut(story, {index for index, host in hosts(story).items() if host == STILL}, messages)
    for name in IMPATIENT:
        running_fleet.kill(name)


def test_a_host_stands_still_between_intent_and_post(
    fleet: Fleet, far: EmulatorClient, network: Network, handed_out: HandedOut
) -> None:
    """
    A whole host freezes for longer than Airflow waits for a heartbeat, then goes on.

    The retry runs on the other host meanwhile. Whatever it came to, the thawed host sends nothing more.
    """
    far.configure(seconds=100)
    network.hold()
    before = network.accepted
    story = Story(fleet, far, "six_network", "host stands still", count=1)
    story.at_the_door(network)
    (host,) = hosts(story).values()
    frozen = processes_of(fleet, host)
    freeze(frozen)
    try:
        network.release()
        wait_until(lambda: network.accepted > before, "the connection of the frozen task", 60)
        wait_until(lambda: story.tries("submit") == [2], "the next try", 120)
        story.task("submit", "running", "up_for_reschedule", map_index=0)
        assert hosts(story)[0] != host
        sent = asked(far)
    finally:
        thaw(frozen)
    time.sleep(8)
    assert asked(far) == sent, "the thawed host has sent its submit"
    end = story.ends("success", "failed", timeout=300)
    assert asked(far) == len(story.jobs()) <= 1
    assert len(story.jobs()) == 1 if end == "success" else UNKNOWN in story.log("submit", 0)
    assert story.cancels() == 0


def test_celery_hands_a_task_out_again_in_the_middle_of_its_post(fleet: Fleet, handed_out: HandedOut) -> None:
    """
    With a visibility timeout shorter than the POST each message is delivered twice or more.

    Where its host is at work it still has one try. Where the host stands still Airflow tries it again, and it finds
    the job that was made; the thawed host has nothing more to say.
    """
    story, struck = handed_out.story, handed_out.struck
    assert 0 < len(struck) < 6
    try:
        wait_until(lambda: story.tries("submit").count(2) == len(struck), "the next tries", 120)
    finally:
        thaw(processes_of(fleet, STILL))
    paid_once(story)
    assert dict(enumerate(story.tries("submit"))) == {index: 1 + (index in struck) for index in range(6)}
    times = received(fleet)
    assert len(handed_out.messages) == 6
    assert all(times[message] > 1 for message in handed_out.messages), times


def tasks_of(story: Story, host: str) -> list[int]:
    """Return the pids of the submits that run on a host."""
    rows = story.airflow.db.tasks(story.dag_id, story.run_id)
    return [row["pid"] for row in rows if row["task_id"] == "submit" and row["hostname"] == host]


def processes_of(fleet: Fleet, host: str) -> list[int]:
    """Return the pids of a worker and of all below it."""
    return [fleet.family.pid(host), *(process.pid for process in fleet.family.tree(host))]
