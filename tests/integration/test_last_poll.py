"""A wait whose triggerer was away past the deadline and the backstop: one last poll on the worker decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

from airflow_provider_pika.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.ending import completed
from airflow_provider_pika.exceptions import PikaJobFailedError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.sensors.pika import PikaJobSensor
from airflow_provider_pika.waiting import is_trigger_timeout
from tests.support.task_context import Clock, Life, Log, TaskDeferred

pytestmark = pytest.mark.usefixtures("polite")

# As Airflow's scheduler stores it when a deferral's timeout has passed.
TIMEOUT: tuple[str, dict[str, Any]] = (
    TRIGGER_FAIL_REPR,
    json.loads(json.dumps({"error": TriggerFailureReason.TRIGGER_TIMEOUT})),
)


@pytest.fixture(params=[True, False], ids=["store", "storeless"])
def resumed(request: pytest.FixtureRequest, life: Callable[..., Life], clock: Clock) -> Callable[..., Life]:
    """Make a sensor that has deferred, and let its triggerer be away for long."""

    def make(jobid: str, **about: Any) -> Life:
        kwargs = {"task_id": "wait", "jobid": jobid, "deferrable": True, "timeout": 300, **about}
        task = life(lambda: PikaJobSensor(**kwargs), stored=request.param, task_id="wait")
        with pytest.raises(TaskDeferred):
            task.leg()
        clock.leap(3600)
        return task

    return make


def job_of(emulator: EmulatorClient, *faults: dict[str, Any], seconds: float = 100) -> str:
    emulator.configure(seconds=seconds)
    for fault in faults:
        emulator.fault("submit", **fault)
    return PikaHook().encrypt_text(message="HI", prompt="waves").jobid


def test_a_job_that_ended_meanwhile_is_a_success(pika_emulator: EmulatorClient, resumed: Callable[..., Life]) -> None:
    task = resumed(job_of(pika_emulator))
    assert task.leg(TIMEOUT)["status"] == "completed"
    assert task.ti.xcoms.keys() == {"return_value", "status", "video_url"}
    assert pika_emulator.counters()["polls"]["total"] == 1


@pytest.mark.parametrize("cancel", [False, True])
def test_a_job_that_still_runs_is_a_timeout(
    pika_emulator: EmulatorClient, resumed: Callable[..., Life], cancel: bool
) -> None:
    jobid = job_of(pika_emulator, seconds=100_000)
    with pytest.raises(AirflowSensorTimeout, match="did not end by"):
        resumed(jobid, cancel_on_timeout=cancel).leg(TIMEOUT)
    assert pika_emulator.counters()["cancels"] == ({jobid: 1} if cancel else {})


def test_a_poll_that_fails_is_a_timeout(pika_emulator: EmulatorClient, resumed: Callable[..., Life]) -> None:
    task = resumed(job_of(pika_emulator))
    pika_emulator.fault("job", "server_error", status=503, times=5)
    with pytest.raises(AirflowSensorTimeout, match="HTTP 503"):
        task.leg(TIMEOUT)


def test_a_job_that_ended_badly_fails_as_ever(pika_emulator: EmulatorClient, resumed: Callable[..., Life]) -> None:
    task = resumed(job_of(pika_emulator, {"kind": "end_as", "status": "failed"}))
    with pytest.raises(AirflowFailException, match=r"^Failed: "):
        task.leg(TIMEOUT)


def test_soft_fail_skips_the_timeout(pika_emulator: EmulatorClient, resumed: Callable[..., Life]) -> None:
    with pytest.raises(AirflowSkipException):
        resumed(job_of(pika_emulator, seconds=100_000), soft_fail=True).leg(TIMEOUT)


def test_a_trigger_that_failed_has_not_timed_out(pika_emulator: EmulatorClient, resumed: Callable[..., Life]) -> None:
    failed = (TRIGGER_FAIL_REPR, {"error": str(TriggerFailureReason.TRIGGER_FAILURE.value), "traceback": ["boom"]})
    with pytest.raises(Exception, match="Trigger failure"):
        resumed(job_of(pika_emulator)).leg(failed)
    assert pika_emulator.counters()["polls"]["total"] == 0
    assert not is_trigger_timeout("execute_complete", {"error": "Trigger timeout"})
    assert not is_trigger_timeout(TRIGGER_FAIL_REPR, None)


# What follows a job that ended badly


@pytest.mark.parametrize(
    ("status", "retry_failed", "retryable"),
    [("failed", True, True), ("failed", False, False), ("moderated", True, False), ("cancelled", True, False)],
)
def test_only_a_failed_job_may_be_followed_by_a_retry_and_only_with_the_flag(
    pika_emulator: EmulatorClient, clock: Clock, status: str, retry_failed: bool, retryable: bool
) -> None:
    jobid = job_of(pika_emulator, {"kind": "end_as", "status": status})
    clock.leap(200)
    hook = PikaHook()
    with pytest.raises((PikaJobFailedError, AirflowFailException)) as caught:
        completed(hook.get_job(jobid), hook=hook, push=None, log=Log(), retry_failed=retry_failed)
    assert (type(caught.value) is PikaJobFailedError) is retryable
