"""When a task may end in the triggerer, and what Airflow's metrics are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, task
from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_pika import compat, metrics
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor
from airflow_provider_pika.triggers.pika import PikaJobTrigger
from tests.support.task_context import Clock, Life, run_trigger

HAS_ASET = hasattr(BaseXCom, "aset")
only_home = pytest.mark.skipif(not HAS_ASET, reason="this Airflow cannot write an XCom from the triggerer")


def sensor_of_a_dag() -> PikaJobSensor:
    with DAG("somewhere", schedule=None):
        return PikaJobSensor(task_id="wait", jobid="job:1")


class AfterWork(PikaJobSensor):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do something a triggerer would not."""


@only_home
@pytest.mark.parametrize(
    ("about", "word"),
    [
        ({}, None),
        ({"do_xcom_push": False}, "do_xcom_push"),
        ({"on_success_callback": print}, "on_success_callback"),
        ({"outlets": [Asset("file:///films")]}, "outlets"),
        ({"post_execute": print}, "post_execute"),
        ({"multiple_outputs": True}, "multiple_outputs"),
        ({"kind": AfterWork}, "post_execute"),
        ({"expanded": True}, "expanded"),
    ],
    ids=str,
)
def test_a_worker_ends_the_task_wherever_something_would_be_lost(about: dict[str, Any], word: str | None) -> None:
    kind, expanded = about.pop("kind", PikaJobSensor), about.pop("expanded", False)
    with DAG("somewhere", schedule=None):
        sensor = kind(task_id="wait", jobid="job:1", **about)
        if expanded:
            _each.expand(item=sensor.output)
    why = compat.why_a_worker_must_end(sensor)
    assert (why is None) if word is None else (word in str(why))


@task
def _each(item: Any) -> None:
    """Stand for a task that is mapped over the sensor's result."""


@only_home
def test_a_listener_of_successes_keeps_the_end_on_a_worker() -> None:
    from airflow.listeners import hookimpl
    from airflow.sdk.listener import get_listener_manager

    class Lineage:
        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None: ...

    listener = Lineage()
    get_listener_manager().add_listener(listener)
    try:
        assert "listener" in str(compat.why_a_worker_must_end(sensor_of_a_dag()))
    finally:
        get_listener_manager().pm.unregister(listener)


@only_home
def test_a_custom_xcom_backend_keeps_the_end_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time import xcom

    monkeypatch.setattr(xcom, "XCom", type("Backend", (BaseXCom,), {}))
    assert "backend" in str(compat.why_a_worker_must_end(sensor_of_a_dag()))


class Instance:
    """The task instance of a trigger, as far as it is asked."""

    dag_id, task_id, run_id, map_index = "somewhere", "wait", "run", -1


def ending_trigger(emulator: EmulatorClient, clock: Clock, returns: str) -> PikaJobTrigger:
    """Return the trigger of a new job's wait that may end its task."""
    emulator.configure(seconds=30)
    trigger = PikaJobTrigger(
        pika_conn_id="pika_default",
        jobid=PikaHook().encrypt_text(message="HI", prompt="waves").jobid,
        poll_interval=10,
        deadline=clock.time() + 900,
        end_from_trigger=returns,
    )
    trigger._task_instance = Instance()
    return trigger


@only_home
def test_a_job_that_ended_badly_ends_no_task_as_a_success(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    async def aset(**_: Any) -> None: ...

    monkeypatch.setattr(XCom, "aset", aset)
    pika_emulator.fault("submit", "end_as", status="failed")

    event = run_trigger(ending_trigger(pika_emulator, clock, "job"), clock)

    assert isinstance(event, dict)
    assert (event["outcome"], event["job"]["status"]) == ("ended", "failed")


@only_home
@pytest.mark.parametrize("returns", ["job", "jobid"])
def test_the_triggerer_writes_what_a_worker_pushes(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch, returns: str
) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    written: dict[str, Any] = {}

    async def aset(*, key: str, value: Any, **_: Any) -> None:
        written[key] = value

    monkeypatch.setattr(XCom, "aset", aset)
    trigger = ending_trigger(pika_emulator, clock, returns)
    run_trigger(trigger, clock)

    assert list(written)[-1] == "return_value", "what downstream waits for comes last"
    job = written["return_value"] if returns == "job" else written["job"]
    assert job["jobid"] == trigger.jobid
    assert returns == "job" or written["return_value"] == trigger.jobid
    assert (written["status"], written["video_url"]) == ("completed", job["attachments"][0]["url"])


@pytest.mark.skipif(HAS_ASET, reason="this Airflow can write an XCom from the triggerer")
def test_below_airflow_3_3_a_worker_ends_every_task() -> None:
    assert "3.3" in str(compat.why_a_worker_must_end(sensor_of_a_dag()))


class Recorder:
    """Stands in for Airflow's Stats."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.times: dict[str, float] = {}

    def incr(self, name: str, tags: dict[str, str] | None = None) -> None:
        self.seen.append((name, (tags or {}).get("outcome")))

    def timing(self, name: str, value: Any, tags: dict[str, str] | None = None) -> None:
        self.seen.append((name, (tags or {}).get("outcome")))
        self.times[name] = value.total_seconds()


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(metrics, "stats", lambda: recorder)
    return recorder


def test_the_metrics_tell_submits_queueing_and_jobs_by_outcome(
    pika_emulator: EmulatorClient, life: Callable[..., Life], clock: Clock, stats: Recorder
) -> None:
    pika_emulator.configure(seconds=100)
    pika_emulator.fault("submit", "queue_full")
    film = life(lambda: EncryptTextOperator(task_id="film", message="M", prompt="p", wait_for_completion=True))
    assert film.run().state == "success"
    assert stats.seen == [
        ("pika.submit", "queue_full"),
        ("pika.submit", "made"),
        ("pika.queue_wait", None),
        ("pika.job_duration", "completed"),
    ]
    assert 15 <= stats.times["pika.queue_wait"] <= 31
    assert stats.times["pika.job_duration"] == pytest.approx(100, abs=2)


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [("bad_request", ["refused"]), ("drop_after", ["unknown"]), ("discord_429", ["rate_limited", "made"])],
)
def test_every_submit_is_counted_once_by_its_outcome(
    pika_emulator: EmulatorClient, life: Callable[..., Life], stats: Recorder, kind: str, outcomes: list[str]
) -> None:
    pika_emulator.configure(seconds=1000)
    pika_emulator.fault("submit", kind)
    life(lambda: EncryptTextOperator(task_id="submit", message="M", prompt="p")).run()
    assert [outcome for name, outcome in stats.seen if name == "pika.submit"] == outcomes


def test_airflows_own_stats_take_what_they_are_given() -> None:
    metrics.count_submit("made", queued=1.5)
    metrics.count_job(
        Job("job:1", "failed", {"created": "2023-09-09T02:04:49.667Z", "updated": "2023-09-09T02:06:49.667Z"})
    )


def test_results_that_cannot_be_written_from_the_triggerer_are_left_to_a_worker(
    pika_emulator: EmulatorClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has completed and is paid for: a failing XCom must not fail its task."""
    pika_emulator.configure(seconds=30)
    jobid = PikaHook().encrypt_text(message="M", prompt="p").jobid
    trigger = PikaJobTrigger(
        pika_conn_id="pika_default",
        jobid=jobid,
        poll_interval=10,
        deadline=clock.time() + 900,
        end_from_trigger="job",
    )
    trigger._task_instance = type("TI", (), {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1})()

    async def refused(self: PikaJobTrigger, job: Job) -> None:
        raise RuntimeError("the api-server is away")

    monkeypatch.setattr(PikaJobTrigger, "_push_results", refused)
    assert run_trigger(trigger, clock)["outcome"] == "ended"
