"""What the pytest fixture ``pika_emulator`` gives a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.leaps import LeapingClock

if TYPE_CHECKING:
    import pytest


class EmulatorFixture(EmulatorClient):
    """
    Scripts and questions the emulator of one test.

    :param server: the emulator that runs for the whole session
    :param monkeypatch: takes everything back when the test ends
    """

    def __init__(self, server: EmulatorClient, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(server.url, server.token)
        self._monkeypatch = monkeypatch

    def skip_waits(self) -> LeapingClock:
        """
        Let the provider's waits take no time until the test ends; return the clock by which it goes.

        Intervals, queues and deadlines keep their meaning: where the provider would wait, its time and the emulator's
        are put ahead. It works on this process alone, so on ``dag.test()`` and on operators called by hand.
        """
        clock = LeapingClock(self)
        clock.install(self._monkeypatch)
        clock.install_in_triggers(self._monkeypatch)
        clock.install_in_reschedules(self._monkeypatch)
        return clock
