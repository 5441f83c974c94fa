"""Fixtures for running operators, sensors and triggers against the emulator without waiting in earnest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from tests.support.task_context import Clock, Life, airflow_says
from tests.support.variables import Variables


@pytest.fixture
def long_jobs(pika_emulator: EmulatorClient) -> None:
    """Let jobs run for an hour, so that the list shows them for the whole of a test."""
    pika_emulator.configure(seconds=3600)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    """Airflow Variables in memory: below Airflow 3.3 they are what a task remembers by."""
    variables = Variables()
    monkeypatch.setattr("airflow_provider_pika.compat._ask_supervisor", variables.ask)
    airflow_says(monkeypatch, "running")
    return variables


@pytest.fixture
def clock(pika_emulator: EmulatorClient, variables: Variables, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that a wait puts ahead instead of passing it."""
    clock = Clock(pika_emulator)
    clock.install(monkeypatch)
    return clock


@pytest.fixture
def polite(clock: Clock) -> Iterator[None]:
    """Fail the test if a job was read twice within 10 s, or a task came back sooner than Airflow bears."""
    yield
    assert all(wait >= 14.9 for wait in clock.reschedules), f"rescheduled by {clock.reschedules}"
    assert all(wait >= 10 for wait in clock.sleeps if wait), f"slept {clock.sleeps}"
    gap = clock.smallest_gap()
    assert gap is None or gap >= 9.99, f"two polls within {gap:.2f} s"


@pytest.fixture
def life(clock: Clock) -> Callable[..., Life]:
    """Make a task instance: ``life(lambda: EncryptTextOperator(...), stored=False)``."""

    def make(operator: Callable[[], Any], **about: Any) -> Life:
        return Life(clock, operator, **about)

    return make


@pytest.fixture
def leaping_triggers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``dag.test()`` run triggers without waiting in earnest."""
    clock.install_in_triggers(monkeypatch)
