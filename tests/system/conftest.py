"""
Fixtures of the system tests: real Airflow processes, and the emulator's counters as the judge.

``airflow`` is one Airflow for the whole session, and nobody's to kill. ``mortal`` is another one, whose processes a
test may kill if it leaves all of them running. A test that needs other options takes ``start_airflow`` and gets one of
its own. All reach the session's emulator through the connection ``pika_default``; ``mortal`` has connections to
``services`` besides, each an emulator by itself, so that several kinds of bad weather can be had at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.emulator import local_emulator
from dev.harness.failing_secrets import Secrets
from dev.harness.local_airflow import QUICK_TO_NOTICE, LocalAirflow
from dev.harness.network import Network

DAGS = Path(__file__).with_name("dags")
# Long and unlike anything else, so that a test can look for it where it must not be.
TOKEN = "user:4242-systemtesttokenthatmustnotleak"
# One connection and one emulator for each: one behind a network that can be away, one whose connection is read from a
# secrets backend that can fail, and three plain ones.
SERVICES = ("pika_network", "pika_vault", "pika_late", "pika_pages", "pika_drip")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here ten minutes, unless it says otherwise; these are stories, not units."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def emulator_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorClient]:
    """Run the session's emulator; tests take ``emulator``."""
    with local_emulator(tmp_path_factory.mktemp("emulator"), token=TOKEN) as client:
        yield client


@pytest.fixture
def emulator(emulator_process: EmulatorClient) -> EmulatorClient:
    """Return the client of the session's emulator, reset for this test."""
    emulator_process.reset()
    return emulator_process


@pytest.fixture(scope="session")
def airflow(emulator_process: EmulatorClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Run the session's Airflow. It is nobody's to kill: take ``start_airflow`` for that."""
    with _airflow(tmp_path_factory.mktemp("airflow"), emulator_process) as running:
        yield running


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmulatorClient]]:
    """Run an emulator for each further connection of ``mortal``."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(local_emulator(tmp_path_factory.mktemp(name), token=TOKEN)) for name in SERVICES
        }


@pytest.fixture(scope="session")
def network(services: dict[str, EmulatorClient]) -> Iterator[Network]:
    """Lay the network between ``mortal`` and the emulator of ``pika_network``; whoever cuts it mends it."""
    with Network(services["pika_network"].url) as running:
        yield running


@pytest.fixture(scope="session")
def secrets(services: dict[str, EmulatorClient], tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    """Keep the connection ``pika_vault`` where it can be made unreadable."""
    return Secrets(tmp_path_factory.mktemp("secrets"), {"pika_vault": services["pika_vault"].connection})


@pytest.fixture(scope="session")
def mortal(
    emulator_process: EmulatorClient,
    services: dict[str, EmulatorClient],
    network: Network,
    secrets: Secrets,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LocalAirflow]:
    """Run an Airflow whose processes may be killed; each test leaves it as it found it."""
    plain = {name: client.connection for name, client in services.items() if name != "pika_vault"}
    with _airflow(
        tmp_path_factory.mktemp("mortal"),
        emulator_process,
        config={**QUICK_TO_NOTICE, **secrets.config},
        env=secrets.env,
        connections={**plain, "pika_network": {**plain["pika_network"], "host": network.url}},
    ) as running:
        yield running


@pytest.fixture
def start_airflow(emulator: EmulatorClient, tmp_path: Path) -> Iterator[Callable[..., LocalAirflow]]:
    """Return a function that starts an Airflow for this test alone, taking what LocalAirflow takes."""
    with ExitStack() as stack:

        def start(**options: Any) -> LocalAirflow:
            home = tmp_path / f"airflow-{len(list(tmp_path.glob('airflow-*')))}"
            return stack.enter_context(_airflow(home, emulator, **options))

        yield start


def _airflow(home: Path, emulator: EmulatorClient, **options: Any) -> LocalAirflow:
    connections = {"pika_default": emulator.connection, **options.pop("connections", {})}
    return LocalAirflow(home, **{"dags": DAGS, "connections": connections, "execution_api": True, **options})
