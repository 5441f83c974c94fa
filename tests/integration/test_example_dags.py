"""Every example runs as it stands, by ``dag.test()`` against the emulator; so do mapping and templating."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_pika.emulator.client import EmulatorClient
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor
from tests.support.task_context import Clock

EXAMPLES = Path(__file__).parents[2] / "example_dags"


RunDag = Callable[..., Any]


def example(name: str) -> DAG:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    made: list[DAG] = []
    with pytest.MonkeyPatch.context() as patch:
        enter = DAG.__enter__
        patch.setattr(DAG, "__enter__", lambda dag: made.append(dag) or enter(dag))
        spec.loader.exec_module(module)
    (dag,) = made
    return dag


class Run:
    """A finished ``dag.test()``: states and XComs by task and map index."""

    def __init__(self, run: Any) -> None:
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            tis = session.query(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id)
            self.states = {(ti.task_id, ti.map_index): str(ti.state) for ti in tis}
            rows = session.query(XComModel).filter_by(dag_id=run.dag_id, run_id=run.run_id)
            self.xcoms = {(row.task_id, row.map_index, row.key): XComModel.deserialize_value(row) for row in rows}

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        return self.xcoms.get((task_id, map_index, key))


def succeeded(run: Run) -> None:
    assert set(run.states.values()) == {"success"}, run.states


@pytest.mark.usefixtures("leaping_triggers")
def test_pika_smallest(
    pika_emulator: EmulatorClient, run_dag: RunDag, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    pika_emulator.configure(seconds=40)

    run = Run(run_dag(example("pika_smallest")))

    succeeded(run)
    (job,) = pika_emulator.jobs()
    assert run.xcom("submit") == run.xcom("submit", "jobid") == job["jobid"]
    assert run.xcom("wait")["jobid"] == job["jobid"]
    assert run.xcom("wait")["status"] == "completed"
    assert run.xcom("wait", "video_url") == run.xcom("wait")["attachments"][0]["url"]
    assert pika_emulator.counters()["submits"]["asked"] == 1
    assert f"{job['jobid']} is completed: {run.xcom('wait', 'video_url')}" in capsys.readouterr().out


@pytest.mark.usefixtures("leaping_triggers")
def test_what_was_paid_for_outlives_a_short_retention(
    pika_emulator: EmulatorClient, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is kept for the 31 days of its job, also where Airflow's cleanup removes other state after one."""
    stores = pytest.importorskip("airflow.models.task_state_store", reason="it came with Airflow 3.3")
    from airflow.utils.session import create_session

    monkeypatch.setenv("AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS", "1")
    made = run_dag(example("pika_smallest"))

    with create_session() as session:
        (record,) = session.query(stores.TaskStateStoreModel).filter_by(run_id=made.run_id, key="pika_submit")
        assert record.expires_at - record.updated_at > timedelta(days=30)


@pytest.mark.usefixtures("leaping_triggers")
def test_pika_mapped(pika_emulator: EmulatorClient, run_dag: RunDag, clock: Clock) -> None:
    pika_emulator.configure(seconds=40)

    run = Run(run_dag(example("pika_mapped")))

    succeeded(run)
    jobs = pika_emulator.jobs()
    assert pika_emulator.counters()["submits"]["asked"] == len(jobs) == 3
    assert {job["message"] for job in jobs} == {"SALE"}
    jobids = [run.xcom("film.make", map_index=n) for n in range(3)]
    assert set(jobids) == {job["jobid"] for job in jobs}
    links = [run.xcom("film.make", "video_url", n) for n in range(3)]
    assert [run.xcom("film.collect", map_index=n) for n in range(3)] == links
    assert all(link.startswith(pika_emulator.url) for link in links)


@pytest.mark.usefixtures("leaping_triggers")
@pytest.mark.parametrize("bad", ["waves [emulator:422]", "waves [emulator:late-moderated]"])
def test_one_bad_prompt_among_good_ones_leaves_no_film_of_pika_mapped_behind(
    pika_emulator: EmulatorClient, run_dag: RunDag, clock: Clock, bad: str
) -> None:
    """A film that is paid for is collected, whatever becomes of the others; and the run tells of the bad one."""
    pika_emulator.configure(seconds=40)

    made = run_dag(example("pika_mapped"), run_conf={"prompts": ["a boat", bad, "a lighthouse", "rain"]})

    run = Run(made)
    assert str(made.state) == "failed"
    assert [run.states["film.make", n] for n in range(4)] == ["success", "failed", "success", "success"]
    assert [run.states["film.collect", n] for n in range(4)] == ["success", "upstream_failed", "success", "success"]
    assert pika_emulator.counters()["submits"]["asked"] == 4
    completed = [job["jobid"] for job in pika_emulator.jobs() if job["status"] == "completed"]
    assert sorted(completed) == sorted(run.xcom("film.make", map_index=n) for n in (0, 2, 3))


@pytest.mark.usefixtures("leaping_triggers")
def test_pika_taskflow(pika_emulator: EmulatorClient, run_dag: RunDag, clock: Clock) -> None:
    pika_emulator.configure(seconds=40)

    run = Run(run_dag(example("pika_taskflow")))

    succeeded(run)
    (job,) = pika_emulator.jobs()
    assert pika_emulator.counters()["submits"]["asked"] == 1
    assert job["prompt"] == "autumn leaves drifting over a canal, -motion 2"
    assert run.xcom("film") == run.xcom("film", "jobid") == job["jobid"]
    assert run.xcom("film", "job")["jobid"] == job["jobid"]
    assert run.xcom("film", "video_url") == run.xcom("film", "job")["attachments"][0]["url"]
    assert run.xcom("summarize").startswith(f"{job['jobid']}: ")


@pytest.mark.usefixtures("leaping_triggers")
@pytest.mark.parametrize("once_more", [False, True])
def test_pika_second_thought(
    pika_emulator: EmulatorClient, run_dag: RunDag, clock: Clock, tmp_path: Path, once_more: bool
) -> None:
    pika_emulator.configure(seconds=40)

    run = Run(run_dag(example("pika_second_thought"), run_conf={"once_more": once_more, "folder": str(tmp_path)}))

    jobs = pika_emulator.jobs()
    assert [job["verb"] for job in jobs] == ["pika-create", "pika-button"][: 1 + once_more]
    assert run.states["once_more", -1] == ("success" if once_more else "skipped")
    assert run.xcom("create") == jobs[0]["jobid"]
    assert run.xcom("once_more") == (jobs[1]["jobid"] if once_more else None)
    (film,) = tmp_path.glob("*.mp4")
    assert run.xcom("download") == [film.as_uri()]
    assert film.stem.startswith(jobs[-1]["jobid"].replace(":", "_"))


def test_templates_mapping_and_a_full_queue_in_a_real_run(
    pika_emulator: EmulatorClient, run_dag: RunDag, clock: Clock
) -> None:
    """Every field a person would template is; each mapped instance submits once, whatever its turn was."""
    from airflow_provider_pika.hooks.pika import PikaHook

    pika_emulator.configure(seconds=0, channels={"2000000000000000002": 1})
    with DAG(dag_id="templated", schedule=None, params={"word": "SALE", "channel": "2000000000000000002"}) as dag:
        submit = EncryptTextOperator.partial(
            task_id="submit",
            message="{{ params.word }}",
            font="{{ 'RETRO' }}",
            channel="{{ params.channel }}",
            max_jobs="{{ 2 }}",
            reply_url="http://127.0.0.1:9/{{ task.task_id }}",
            reply_ref="{{ dag.dag_id }} {{ run_id }} {{ task.task_id }} {{ ti.map_index }}",
        ).expand(prompt=["one {{ params.word }}", "two {{ params.word }}"])
        PikaJobSensor.partial(task_id="wait").expand(jobid=submit.output)

    run = Run(run_dag(dag))

    succeeded(run)
    jobs = sorted(pika_emulator.jobs(), key=lambda job: job["prompt"])
    assert [job["prompt"] for job in jobs] == ["one SALE", "two SALE"]
    assert {job["message"] for job in jobs} == {"SALE"}
    assert [job["replyRef"].rsplit(" ", 1)[1] for job in jobs] == ["0", "1"]
    raw = PikaHook().get_job(jobs[0]["jobid"]).raw
    assert (raw["font"], raw["channel"], raw["maxJobs"], raw["replyUrl"]) == (
        "RETRO",
        "2000000000000000002",
        2,
        "http://127.0.0.1:9/submit",
    )


def test_a_refused_submit_fails_the_run_and_the_rest_is_not_asked(
    pika_emulator: EmulatorClient, run_dag: RunDag
) -> None:
    with DAG(dag_id="refused", schedule=None, default_args={"retries": 3}) as dag:
        submit = EncryptTextOperator(task_id="submit", message="HI", prompt="waves [emulator:402]")
        wait = PikaJobSensor(task_id="wait", jobid=submit.output)

        @task
        def after(job: Any) -> None:
            raise AssertionError("never")

        after(wait.output)

    run = Run(run_dag(dag))

    assert run.states == {("submit", -1): "failed", ("wait", -1): "upstream_failed", ("after", -1): "upstream_failed"}
    assert pika_emulator.counters()["requests"] == 1
