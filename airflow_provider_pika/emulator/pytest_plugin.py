"""The pytest fixture ``pika_emulator``, for testing DAGs without an account.

pytest loads this module in every run of everybody who has the provider installed, so it imports
nothing beyond pytest until a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_pika.emulator.client import EmulatorClient


@pytest.fixture(scope="session")
def _pika_emulator_server() -> Iterator[EmulatorClient]:
    from airflow_provider_pika.emulator import missing_extra

    if lacking := missing_extra():
        pytest.fail(lacking, pytrace=False)
    from airflow_provider_pika.emulator.server import running_emulator
    from airflow_provider_pika.emulator.settings import Pace, Settings

    with running_emulator(Settings(pace=Pace(0))) as client:
        yield client


@pytest.fixture
def pika_emulator(_pika_emulator_server: EmulatorClient, monkeypatch: pytest.MonkeyPatch) -> EmulatorClient:
    """
    Run a local Pika API for one test, and let the connection ``pika_default`` lead to it.

    Jobs end at once unless the test calls ``pika_emulator.configure(seconds=…)`` or ``(reads=…)``.
    """
    _pika_emulator_server.reset()
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", _pika_emulator_server.conn_uri)
    return _pika_emulator_server
