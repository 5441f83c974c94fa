"""
Fixtures of the tests of a fleet: one for all of them, whose processes each test may kill.

As in tests/system the emulator's counters are the judge, and its DAGs are run here too. ``fleet`` starts again
whatever a test has left dead.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.emulator import local_emulator
from dev.harness.fleet import Fleet
from dev.harness.local_airflow import QUICK_TO_NOTICE
from dev.harness.network import Network
from tests.support.receiver import DAG, Box, Receiver
from tests.support.stories import Story

DAGS = Path(__file__).parents[1] / "system" / "dags"
Flying = Callable[..., Story]


def pytest_configure() -> None:
    """Let an end from outside be one as by Ctrl-C: whatever was started ends first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here ten minutes; the first one waits for the fleet to start."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmulatorClient]]:
    """Run an emulator for each connection."""
    with (
        local_emulator(tmp_path_factory.mktemp("near")) as near,
        local_emulator(tmp_path_factory.mktemp("far")) as far,
    ):
        yield {"pika_default": near, "pika_network": far}


@pytest.fixture
def emulator(services: dict[str, EmulatorClient]) -> EmulatorClient:
    """Return the client of the usual emulator, reset for this test."""
    services["pika_default"].reset()
    return services["pika_default"]


@pytest.fixture(scope="session")
def network(services: dict[str, EmulatorClient]) -> Iterator[Network]:
    """Lay the network between the fleet and the emulator of ``pika_network``."""
    with Network(services["pika_network"].url) as running:
        yield running


@pytest.fixture
def far(services: dict[str, EmulatorClient], network: Network) -> Iterator[EmulatorClient]:
    """Return the emulator behind the network, which is whole again in the end."""
    services["pika_network"].reset()
    yield services["pika_network"]
    network.come_back()


@pytest.fixture(scope="session")
def running_fleet(
    services: dict[str, EmulatorClient], network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Run the fleet; tests take ``fleet``."""
    connections = {name: dict(client.connection) for name, client in services.items()}
    connections["pika_network"]["host"] = network.url
    home = tmp_path_factory.mktemp("fleet")
    with Fleet(home, dags=DAGS, config=QUICK_TO_NOTICE, connections=connections) as running:
        yield running


@pytest.fixture
def fleet(running_fleet: Fleet) -> Iterator[Fleet]:
    """Return the fleet, of which the last test's victims may be still on their way back."""
    yield running_fleet
    running_fleet.mend()


@pytest.fixture
def flying(fleet: Fleet, emulator: EmulatorClient) -> Flying:
    """Return a function that starts a run of submits and returns once all of them have made their jobs."""

    def start(prompt: str, *, answer: float, lasts: float = 100, count: int = 6, dag_id: str = "six") -> Story:
        emulator.configure(seconds=lasts)
        emulator.fault("submit", "slow", seconds=answer, times=count)
        story = Story(fleet, emulator, dag_id, prompt, count=count)
        story.has_jobs(count, timeout=120)
        return story

    return start


@pytest.fixture(scope="session")
def receiver(running_fleet: Fleet) -> Receiver:
    """Return the receiver of callbacks in two api-servers on PostgreSQL, with mailboxes of tasks that have ended."""
    receiver = Receiver(running_fleet)
    run_id, receiver.owner = receiver.start()
    assert receiver.call_early(run_id, "early:1") == 204
    running_fleet.runs.wait(DAG, run_id, timeout=60)
    assert running_fleet.api.xcom(DAG, run_id, "waits") == ["early:1"]
    return receiver


@pytest.fixture
def box(receiver: Receiver) -> Box:
    """Return an open mailbox that nobody has called yet."""
    return Box(receiver, receiver.owner, receiver.tokens.pop())


def asked(service: EmulatorClient) -> int:
    """Return how many submits the API was asked for."""
    return int(service.counters()["submits"]["asked"])


def hosts(story: Story, task_id: str = "submit") -> dict[int, str]:
    """Return on which host each mapped task ran last."""
    rows = story.airflow.db.tasks(story.dag_id, story.run_id)
    return {row["map_index"]: row["hostname"] for row in rows if row["task_id"] == task_id}


def paid_once(story: Story, count: int = 6) -> None:
    """See the run succeed: one submit and one job for each task, each jobid handed on, nothing cancelled."""
    story.ends(timeout=200)
    made = {job["jobid"] for job in story.jobs()}
    assert len(story.jobs()) == len(made) == asked(story.emulator) == count
    assert {story.xcom("submit", map_index=index) for index in range(count)} == made
    assert story.cancels() == 0
