"""
Fixtures of the system tests: real Airflow processes, and the emulator's counters as the judge.

``airflow`` is one Airflow for the whole session; a test that kills, or needs other options, takes
``start_airflow`` and gets one of its own. Both reach the emulator through the connection ``pika_default``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.emulator import local_emulator
from dev.harness.local_airflow import LocalAirflow

DAGS = Path(__file__).with_name("dags")
# Long and unlike anything else, so that a test can look for it where it must not be.
TOKEN = "user:4242-systemtesttokenthatmustnotleak"


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
    return LocalAirflow(home, **{"dags": DAGS, "connections": connections, **options})
