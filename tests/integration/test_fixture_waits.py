"""A user's own test of a DAG: with ``skip_waits()`` what would take an hour takes seconds, and nothing else changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_pika.emulator.fixture import EmulatorFixture
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor

RunDag = Callable[..., Any]
ROOT = Path(__file__).parents[2]


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


def test_the_search_after_a_lost_answer_takes_no_waiting(
    pika_emulator: EmulatorFixture, run_dag: RunDag, slept: list[float]
) -> None:
    clock = pika_emulator.skip_waits()
    pika_emulator.fault("submit", "drop_before")
    with DAG("quick_lost", schedule=None) as dag:
        EncryptTextOperator(task_id="submit", message="HELLO", prompt="waves", retries=0)

    run_dag(dag)

    assert clock.ahead >= 60, "so long a job may go unlisted"
    assert sum(slept) < 3


def test_the_first_submit_of_a_process_takes_no_waiting_either() -> None:
    """What a submit alone needs is imported by the first one: the search after a lost answer took real minutes then."""
    test = f"{__file__}::{test_the_search_after_a_lost_answer_takes_no_waiting.__name__}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_clock_reaches_every_module_that_looks_at_one() -> None:
    """In an interpreter of its own, where nothing is imported yet that only a submit or a download needs."""
    program = """
import sys
import time
import pytest
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.emulator.leaps import LeapingClock

with pytest.MonkeyPatch.context() as patch:
    LeapingClock(EmulatorClient("http://127.0.0.1:9", "token")).install(patch)
    for name in sys.argv[1:]:
        assert name in sys.modules, f"{name} is imported after the clock is set"
        assert sys.modules[name].time is not time, f"{name} goes by the real time"
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, *_with_a_clock()],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _with_a_clock() -> list[str]:
    """Return the modules that look at the time, but for the emulator's and the api-server's, where nothing waits."""
    found = []
    for path in sorted((ROOT / "airflow_provider_pika").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        waits = ".emulator." not in name and not name.endswith((".callbacks.mailbox", ".callbacks.route"))
        if waits and re.search(r"^import time$", path.read_text(), re.MULTILINE):
            found.append(name)
    assert len(found) > 10
    return found


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
