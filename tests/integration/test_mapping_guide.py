"""What docs/mapping.md says of each shape holds: the one that loses films, and those that do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task, task_group

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor
from airflow_provider_pika.transfers.pika import PikaDownloadOperator

GUIDE = Path(__file__).parents[2] / "docs" / "mapping.md"
LOSES, GROUP, ONE_TASK, AFTER_ALL = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
NAMES = {
    **{each.__name__: each for each in (EncryptTextOperator, PikaJobSensor, PikaDownloadOperator)},
    "task": task,
    "task_group": task_group,
}


@pytest.fixture
def states(pika_emulator: Any, run_dag: Any, tmp_path: Path) -> Any:
    """Return a function that runs a snippet with a bad prompt among good ones, and tells the state of each task."""
    pika_emulator.skip_waits()
    pika_emulator.configure(seconds=40)
    prompts = ["a boat", "waves [emulator:422]", "rain"]

    def run(code: str) -> dict[str, list[str]]:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with DAG(f"guide_{abs(hash(code))}", schedule=None) as dag:
            code = code.replace("s3://films@bucket/sale", str(tmp_path))
            exec(compile(code, "mapping.md", "exec"), {**NAMES, "PROMPTS": prompts})  # noqa: S102
        made = run_dag(dag)
        with create_session() as session:
            tis = session.query(TaskInstance).filter_by(dag_id=made.dag_id, run_id=made.run_id)
            found: dict[str, list[str]] = {}
            for ti in tis.order_by(TaskInstance.task_id, TaskInstance.map_index):
                found.setdefault(ti.task_id, []).append(str(ti.state))
        return found

    return run


def test_a_sensor_mapped_over_a_mapped_submit_leaves_paid_films_behind(states: Any, pika_emulator: Any) -> None:
    assert states(LOSES) == {"submit": ["success", "failed", "success"], "wait": ["upstream_failed"]}
    assert len(pika_emulator.jobs()) == 3


def test_a_mapped_group_stores_the_others(states: Any, tmp_path: Path) -> None:
    assert states(GROUP)["film.store"] == ["success", "upstream_failed", "success"]
    assert len(list(tmp_path.iterdir())) == 2


def test_one_task_that_waits_collects_the_others_and_a_task_after_all_of_them_gets_their_links(
    states: Any, pika_emulator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = states(ONE_TASK + AFTER_ALL)
    assert found == {"films": ["success", "failed", "success"], "report": ["success"]}
    (links,) = re.findall(r"\['.*mp4.*\]", capsys.readouterr().out)
    assert links.count(pika_emulator.url) == 2
