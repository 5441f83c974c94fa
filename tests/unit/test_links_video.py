"""The button on a task's page."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_pika.links import PikaVideoLink
from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.sensors.pika import PikaJobSensor
from airflow_provider_pika.transfers.pika import PikaDownloadOperator


@pytest.mark.parametrize(
    ("pushed", "link"),
    [
        ("https://cdn/film.mp4?ex=1", "https://cdn/film.mp4?ex=1"),
        ("http://127.0.0.1:8300/film.mp4", "http://127.0.0.1:8300/film.mp4"),
        # Airflow's page shows no button for an empty link; None would be shown as a text by 3.2 and later.
        (None, ""),
        ("", ""),
        ("file:///tmp/film.mp4", ""),
        ("javascript:alert(1)", ""),
        (["https://x"], ""),
    ],
)
def test_only_what_a_browser_can_open_is_a_link(pushed, link):
    operator = PikaJobSensor(task_id="wait", jobid="job:1")
    operator._video_url = pushed

    assert PikaVideoLink().get_link(operator, ti_key=None) == link


@pytest.mark.parametrize("operator", [EncryptTextOperator, PikaJobSensor, PikaDownloadOperator])
def test_every_task_about_a_job_has_the_button(operator):
    assert [type(link) for link in operator.operator_extra_links] == [PikaVideoLink]


def test_a_dag_file_with_a_download_pays_for_no_http_library():
    """Airflow parses DAG files all the time: what a transfer needs is loaded when one begins."""
    code = (
        "import sys; from airflow.sdk import BaseOperator; before = set(sys.modules);"
        "import airflow_provider_pika.transfers.pika;"
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603

    loaded = set(done.stdout.splitlines()[-1].split())
    assert "airflow_provider_pika" in loaded
    assert loaded & {"requests", "urllib3", "httpx", "fsspec", "upath", "starlette"} == set()
