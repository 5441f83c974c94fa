"""The log of a task that failed, as a person reads it: the cause first, and once."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from tests.browser.page import Page

DAG, RUN = "pika_smallest", "moderated_film"


def test_the_log_of_a_moderated_submit_says_why_first_and_shows_one_traceback(
    page: Page, airflow: LocalAirflow, emulator: EmulatorClient, tmp_path: Path
) -> None:
    emulator.fault("submit", "moderated")
    airflow.runs.wait_dag(DAG)
    airflow.api.trigger(DAG, run_id=RUN)
    airflow.runs.wait_task(DAG, RUN, "submit", ["failed"])
    page.resize((1400, 900))
    page.open(f"/dags/{DAG}/runs/{RUN}/tasks/submit?try_number=1")
    page.find("//*[contains(., 'AirflowFailException: Moderated (HTTP 422)')]", "the error")
    page.picture().convert("RGB").save(tmp_path / "failed-task.png")
    assert len(re.findall(r"Moderated \(HTTP 422\)", page.text())) == 1
    assert re.search(r"change the prompt|Change the message, the prompt or the image", page.text())
