"""A user's own test of a DAG: with ``skip_waits()`` what would take an hour takes seconds, and nothing else changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_pika.emulator.fixture import EmulatorFixture
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

RunDag = Callable[..., Any]


def film_dag(name: str, *, submit: dict[str, Any], wait: dict[str, Any]) -> DAG:
    with DAG(name, schedule=None) as dag:
        made = EncryptTextOperator(task_id="submit", message="HELLO", prompt="waves", **submit)
        PikaJobSensor(task_id="wait", jobid=made.output, **wait)
    return dag


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept in earnest; a limit on the time of a test would be one on Airflow's imports, too."""
    slept: list[float] = []
    sleep = time.sleep

    def noted(seconds: float) -> None:
        slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", noted)
    return slept


@pytest.mark.parametrize(
    ("name", "submit", "wait"),
    [
        ("poke", {"deferrable": False}, {"mode": "poke"}),
        ("reschedule", {"deferrable": False}, {"mode": "reschedule"}),
        ("deferrable", {"deferrable": True}, {"deferrable": True}),
        ("one_task", {"deferrable": True, "wait_for_completion": True}, {"deferrable": True}),
    ],
)
def test_a_full_queue_a_job_and_a_sensor_take_no_waiting(
    pika_emulator: EmulatorFixture,
    run_dag: RunDag,
    slept: list[float],
    name: str,
    submit: dict[str, Any],
    wait: dict[str, Any],
) -> None:
    clock = pika_emulator.skip_waits()
    pika_emulator.fault("submit", "queue_full", times=3)
    pika_emulator.configure(seconds=5)

    run = run_dag(film_dag(f"quick_{name}", submit=submit, wait=wait))

    assert run.state == "success"
    assert len(pika_emulator.jobs()) == 1
    assert pika_emulator.counters()["submits"]["refused"] == {"429": 3}
    assert clock.ahead > 45 + 5, "three waits before a full queue, 15 s each at least, and the job"
    assert sum(slept) < 3


@pytest.mark.parametrize("mode", [{"mode": "reschedule", "poke_interval": 1700}, {"deferrable": True}])
def test_a_deadline_of_an_hour_is_met_in_seconds_and_not_before_its_time(
    pika_emulator: EmulatorFixture, run_dag: RunDag, mode: dict[str, Any]
) -> None:
    clock = pika_emulator.skip_waits()
    clock.leap(24 * 3600)
    pika_emulator.configure(seconds=1800)
    assert run_dag(film_dag(f"long_{len(mode)}{next(iter(mode))}", submit={}, wait=mode)).state == "success"
    pika_emulator.configure(seconds=7000)
    ahead = clock.ahead
    assert run_dag(film_dag(f"late_{next(iter(mode))}", submit={}, wait=mode)).state == "failed"
    assert 3580 <= clock.ahead - ahead < 5400, "what is no wait takes real time"


def test_a_wait_that_never_ends_is_told(pika_emulator: EmulatorFixture) -> None:
    clock = pika_emulator.skip_waits()
    clock.leaps = 2999
    clock.sleep(1)
    with pytest.raises(RuntimeError, match="never end"):
        clock.sleep(1)


def test_waits_are_in_earnest_again_after_the_test(pika_emulator: EmulatorFixture) -> None:
    """This test comes after those above, in whose process it runs."""
    from airflow_provider_pika import compat, waiting

    assert waiting.time is time
    assert compat.AirflowRescheduleException.__init__.__name__ == "__init__"
