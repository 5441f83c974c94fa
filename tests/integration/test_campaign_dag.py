"""The campaign example, run by Airflow against the emulator: from a file of messages to films and their events."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.configuration import conf
from airflow.models.asset import AssetDagRunQueue, AssetEvent
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_pika.emulator.client import EmulatorClient

EXAMPLES = Path(__file__).parents[2] / "example_dags"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def example() -> Iterator[ModuleType]:
    """The example, lying in Airflow's DAG folder: so ``dag.test()`` registers both DAGs, as the DAG processor does."""
    folder = Path(conf.get("core", "dags_folder"))
    for file in EXAMPLES.glob("pika_campaign*"):
        shutil.copy(file, folder)
    spec = importlib.util.spec_from_file_location("pika_campaign_example", folder / "pika_campaign.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for file in folder.glob("pika_campaign*"):
        file.unlink()


def xcoms(run: Any, task_id: str, key: str = "return_value") -> list:
    with create_session() as session:
        rows = session.query(XComModel).filter_by(dag_id=run.dag_id, run_id=run.run_id, task_id=task_id, key=key)
        return [XComModel.deserialize_value(row) for row in rows.order_by(XComModel.map_index)]


@pytest.mark.usefixtures("leaping_triggers")
def test_a_campaign_brings_every_film_home_and_tells_of_it(
    pika_emulator: EmulatorClient, example: ModuleType, run_dag: Callable[..., Any], tmp_path: Path
):
    messages = [{"message": text, "prompt": f"waves for {text}"} for text in ("ONE", "TWO")]
    (tmp_path / "messages.json").write_text(json.dumps(messages))
    (tmp_path / "image.png").write_bytes(PNG)
    campaign, arrivals = example.campaign, example.arrivals
    files = {"messages": "messages.json", "image": "image.png", "films": "films"}

    run = run_dag(campaign, run_conf={param: f"file://{tmp_path}/{name}" for param, name in files.items()})

    assert run.state == "success"
    films = sorted((tmp_path / "films").iterdir())
    assert [film.read_bytes()[4:8] for film in films] == [b"ftyp", b"ftyp"]
    assert {job["message"] for job in pika_emulator.jobs()} == {"ONE", "TWO"}
    assert pika_emulator.counters()["token_leaks"] == 0
    assert sorted(xcoms(run, "film.store")) == [[f"file://{film}"] for film in films]
    # Both pages have the button, and it leads to the film.
    for task_id in ("film.make", "film.store"):
        links = xcoms(run, task_id, "_link_PikaVideoLink")
        assert [link.startswith(f"{pika_emulator.url}/attachments/") for link in links] == [True, True]
    assert pika_emulator.counters()["polls"]["total"] == 2, "the finished job is handed on, not read again"
    with create_session() as session:
        events = session.query(AssetEvent).filter_by(source_run_id=run.run_id).all()
        assert sorted(event.asset.uri for event in events) == [f"file://{film}" for film in films]
        assert {event.extra["jobid"] for event in events} == {job["jobid"] for job in pika_emulator.jobs()}
        # This is what makes Airflow's scheduler start the second DAG.
        assert session.query(AssetDagRunQueue).filter_by(target_dag_id="pika_campaign_arrivals").count()

    listing = run_dag(arrivals)

    assert listing.state == "success"
    (listed,) = xcoms(listing, "list_films")
    assert sorted(listed) == [f"file://{film}" for film in films]
