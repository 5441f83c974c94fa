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
    from airflow_provider_pika.emulator.fixture import EmulatorFixture


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
def pika_emulator(_pika_emulator_server: EmulatorClient, monkeypatch: pytest.MonkeyPatch) -> EmulatorFixture:
    """
    Run a local Pika API for one test, and let the connection ``pika_default`` lead to it.

    Jobs end at once unless the test calls ``pika_emulator.configure(seconds=…)`` or ``(reads=…)``.

    The provider waits in earnest unless the test calls ``pika_emulator.skip_waits()`` first: then a ``dag.test()``
    with full queues, jobs of minutes and timeouts of hours takes a few seconds::

        def test_my_dag(pika_emulator):
            pika_emulator.skip_waits()
            pika_emulator.fault("submit", "queue_full")  # the first submit meets a full queue
            pika_emulator.configure(seconds=300)  # jobs take five minutes
            assert my_dag.test().state == "success"

    What is skipped are the provider's own waits, of the submit, the sensor and the triggers; a ``retry_delay`` and the
    waits of other tasks are Airflow's, and take their time.
    """
    from airflow_provider_pika.emulator.fixture import EmulatorFixture

    _pika_emulator_server.reset()
    monkeypatch.setenv("AIRFLOW_CONN_PIKA_DEFAULT", _pika_emulator_server.conn_uri)
    return EmulatorFixture(_pika_emulator_server, monkeypatch)
