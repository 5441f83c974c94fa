"""What serves the workers dies, with submits in flight or waits under way: one job for each task, all collected."""

from __future__ import annotations

import time

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.fleet import PER_WORKER, Fleet
from dev.harness.processes import wait_until
from tests.fleet.conftest import Flying, asked, paid_once
from tests.support.receiver import Box, Receiver
from tests.support.stories import Story


def waits_held(fleet: Fleet) -> dict[str, int]:
    """Return how many triggers each triggerer holds."""
    query = "SELECT j.hostname, count(*) AS held FROM trigger t JOIN job j ON j.id = t.triggerer_id GROUP BY j.hostname"
    return {row["hostname"]: row["held"] for row in fleet.db.sql(query)}


def test_a_triggerer_dies_with_waits(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of the triggerer that holds more waits than the other, which takes them over in the same try."""
    story = flying("triggerer dies", answer=1, lasts=60, dag_id="mapped")
    wait_until(lambda: sum(waits_held(fleet).values()) == 6, "six waits", 90)
    held = waits_held(fleet)
    victim = max(held, key=lambda name: held[name])
    fleet.kill(victim)
    paid_once(story)
    assert not fleet.family.alive(victim)
    assert set(story.tries("wait")) == {1}
    assert (story.emulator.counters()["polls"]["smallest_gap"] or 10) >= 10


def test_a_scheduler_and_an_api_server_die(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of one of two schedulers and one of two api-servers with submits in flight costs them not even a try."""
    story = flying("scheduler and api-server die", answer=15)
    fleet.kill("scheduler")
    fleet.kill("api-server")
    paid_once(story)
    assert set(story.tries("submit")) == {1}


def test_both_api_servers_are_away(fleet: Fleet, flying: Flying) -> None:
    """SIGKILL of both api-servers with submits in flight; what their workers cannot report is tried again."""
    story = flying("no api-server", answer=10)
    fleet.kill("api-server")
    fleet.kill("api-server-2")
    time.sleep(10)
    fleet.mend()
    paid_once(story)
    assert max(story.tries("submit")) > 1


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
    room = PER_WORKER * len(fleet.workers)
    # Ended, and the account free for two more, before Airflow queues the lost tasks anew.
    emulator.configure(seconds=30)
    # None is through before the last has begun: on a busy machine the ten begin within twenty seconds or more.
    emulator.fault("submit", "slow", seconds=45, times=room)
    story = Story(fleet, emulator, "six", "redis forgets", count=room + 2)
    wait_until(
        lambda: asked(emulator) == room and fleet.redis.waiting() == 2,
        "two tasks too many",
        90,
        detail=lambda: f"{asked(emulator)} submits asked for, {fleet.redis.waiting()} tasks wait",
    )
    fleet.redis.empty()
    paid_once(story, room + 2)


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
