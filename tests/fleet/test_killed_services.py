"""What serves the workers dies, with submits in flight or waits under way: one job for each task, all collected."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.fleet import PER_WORKER, Fleet
from dev.harness.network import Network
from dev.harness.processes import wait_until
from tests.fleet.conftest import Flying, asked, paid_once
from tests.support.receiver import Box, Receiver
from tests.support.stories import Story


def held(fleet: Fleet, trigger: str) -> Counter[str]:
    """Return how many triggers of a kind each triggerer holds."""
    query = (
        "SELECT j.hostname, count(*) AS held FROM trigger t JOIN job j ON j.id = t.triggerer_id"
        " WHERE t.classpath LIKE ? GROUP BY j.hostname"
    )
    return Counter({row["hostname"]: row["held"] for row in fleet.db.sql(query, (f"%.{trigger}",))})


def running(story: Story) -> set[int]:
    """Return which of the mapped submits run, by Airflow's database."""
    rows = story.airflow.db.tasks(story.dag_id, story.run_id)
    return {row["map_index"] for row in rows if (row["task_id"], row["state"]) == ("submit", "running")}


@pytest.fixture(scope="module")
def away(running_fleet: Fleet, services: dict[str, EmulatorClient], network: Network) -> Iterator[Story]:
    """
    Start two submits whose answers are lost: the network is away for 90 s from when the requests have left.

    They go on beside the tests below, on the other emulator.
    """
    far = services["pika_network"]
    far.reset()
    far.configure(seconds=400)
    far.fault("submit", "slow", seconds=10, times=2)
    story = Story(running_fleet, far, "six_network", "network away", count=2)
    story.has_jobs(2, timeout=120)
    network.leave()
    back = threading.Timer(90, network.come_back)
    back.start()
    yield story
    back.cancel()
    network.come_back()


def test_triggerers_die_with_those_in_line_and_with_waits(fleet: Fleet, emulator: EmulatorClient, away: Story) -> None:
    """
    SIGKILL of the triggerer that holds most of the line, then of the one that holds most waits.

    Each time the other takes them over in the same try, and nobody in line is released before there is room.
    """
    emulator.configure(seconds=40, max_jobs=3)
    story = Story(fleet, emulator, "one_task_each", "triggerers die")
    wait_until(lambda: held(fleet, "PikaQueueTrigger").total() == 3, "three in line", 90)
    ((first, _),) = held(fleet, "PikaQueueTrigger").most_common(1)
    fleet.kill(first)
    story.has_jobs(6, timeout=120)
    assert not fleet.family.alive(first)
    wait_until(lambda: held(fleet, "PikaJobTrigger").total() == 3, "three waits", 60)
    ((second, _),) = held(fleet, "PikaJobTrigger").most_common(1)
    fleet.mend()
    fleet.kill(second)
    story.ends(timeout=200)
    assert second != first
    made = {job["jobid"] for job in story.jobs()}
    assert len(made) == len(story.jobs()) == 6
    assert {story.xcom("submit", map_index=index) for index in range(6)} == made
    assert story.cancels() == 0
    assert set(story.tries("submit")) == {1}
    # Each of the three is refused when it comes; one more is allowed for a coincidence.
    assert 3 <= emulator.counters()["submits"]["refused"]["429"] <= 4
    gap = emulator.counters()["polls"]["smallest_gap"]
    assert gap is None or gap >= 10


def test_a_scheduler_and_an_api_server_die(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of one of two schedulers and one of two api-servers with submits in flight costs them not even a try."""
    story = flying("scheduler and api-server die", answer=15)
    # The one that has queued more of them, and would hear of their ends.
    query = (
        "SELECT j.hostname, count(*) AS queued FROM task_instance t JOIN job j ON j.id = t.queued_by_job_id"
        " WHERE t.run_id = ? AND t.task_id = 'submit' GROUP BY j.hostname ORDER BY queued DESC"
    )
    fleet.kill(fleet.db.sql(query, (story.run_id,))[0]["hostname"])
    fleet.kill("api-server")
    paid_once(story)
    assert set(story.tries("submit")) == {1}


def test_a_network_that_was_away_since_the_requests_left(away: Story) -> None:
    """Submits and polls time out for 90 s, and some of what serves them dies: the jobs that were made are adopted."""
    paid_once(away, 2)


def test_both_api_servers_are_away(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of both api-servers with submits in flight: jobids are recorded once they are back, or by a next try."""
    # With the last test's victims still on their way back the submits would begin too far apart.
    fleet.is_whole()
    story = flying("no api-server", answer=10)
    fleet.kill("api-server")
    fleet.kill("api-server-2")
    # On a busy machine the first answers have come before the kill.
    in_flight = running(story)
    assert in_flight
    # All answers have come by then, and nobody could record one.
    time.sleep(10)
    assert running(story) == in_flight
    fleet.mend()
    paid_once(story)


def test_redis_dies(fleet: Fleet, flying: Flying) -> None:
    """Redis is killed and comes back with submits in flight."""
    story = flying("redis dies", answer=15)
    fleet.restart_redis()
    paid_once(story)
    # Now and then a Celery worker fails over it ("file descriptor is None") and lingers as it ends: one worker alone
    # had not room for what the next test submits, and nobody saw why.
    for worker in fleet.workers:
        fleet.kill(worker)


def test_redis_forgets(fleet: Fleet, emulator: EmulatorClient) -> None:
    """Redis loses tasks that wait for a worker, and those in flight, which it would hand out again."""
    fleet.is_whole()
    room = PER_WORKER * len(fleet.workers)
    # Ended, and the account free for two more, before Airflow queues the lost tasks anew.
    emulator.configure(seconds=30)
    # None is through before the last has begun: on a busy machine the ten begin within twenty seconds or more.
    emulator.fault("submit", "slow", seconds=45, times=room)
    story = Story(fleet, emulator, "six", "redis forgets", count=room + 2)
    wait_until(
        lambda: asked(emulator) == room and fleet.redis.waiting() == 2,
        "two tasks too many",
        150,
        detail=lambda: f"{asked(emulator)} submits asked for, {fleet.redis.waiting()} tasks wait",
    )
    fleet.redis.empty()
    paid_once(story, room + 2)
    queued = Counter(
        change.map_index
        for change in fleet.db.journal(story.dag_id, story.run_id, "submit")
        if change.state == "queued"
    )
    assert sorted(queued.values()) == [1] * room + [2, 2], "the lost two are queued anew, and no other"


def test_postgres_is_away(fleet: Fleet, flying: Flying, receiver: Receiver, box: Box) -> None:
    """
    PostgreSQL ends as after a crash, with submits in flight; what dies of it is started again when it is back.

    A callback meanwhile is asked to come again, and is kept when it does.
    """
    story = flying("postgres is away", answer=20)
    fleet.postgres.stop(immediate=True)
    assert receiver.call(box.url, "away:1") == 503
    time.sleep(15)
    fleet.postgres.start()

    def ended() -> bool:
        fleet.mend()
        return fleet.runs.state(story.dag_id, story.run_id) in {"success", "failed"}

    wait_until(ended, "the run to end", 240)
    paid_once(story)
    assert receiver.call(box.url, "away:1") == 204
    assert box.jobids() == ["away:1"]
    assert receiver.bells("away:1") == 1
