"""A campaign: messages from a file, a film for each, stored where they last; a second DAG runs for what came.

``pika_campaign`` reads a list of messages and, for each of them, makes a film with a reference image out of an object
store and brings it into an object store as soon as it is there. Every stored film is an event of the asset alias
``pika_films``, on which ``pika_campaign_arrivals`` is scheduled: it lists what came.

The places are params, so a run can be started with others: any URL Airflow's object storage takes, as
``s3://conn_id@bucket/key``. The pool is ``PIKA_POOL`` in the environment, because a pool is no template; one with as
many slots as the account runs jobs, ``airflow pools set pika 10 "Pika jobs" --include-deferred``, keeps the queue from
ever being full. The DAG also runs without: a full queue only makes a task wait its turn.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, AssetAlias, ObjectStoragePath, Param, task, task_group

from airflow_provider_pika.operators.pika import EncryptTextOperator
from airflow_provider_pika.transfers.pika import PikaDownloadOperator

HERE = Path(__file__).parent.absolute()
POOL = os.environ.get("PIKA_POOL", "default_pool")
FILMS = AssetAlias("pika_films")

with DAG(
    dag_id="pika_campaign",
    schedule=None,
    params={
        "messages": Param(f"file://{HERE}/pika_campaign_messages.json", type="string"),
        "image": Param(f"file://{HERE}/pika_campaign_image.png", type="string"),
        "films": Param(f"file://{tempfile.gettempdir()}/pika_films", type="string"),
    },
    # A retry never pays again, and a film that is there already is not fetched again.
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["pika", "example"],
    doc_md=__doc__,
) as campaign:

    @task
    def read_messages(params: dict) -> list[dict]:
        """Return ``message`` and ``prompt`` of each film."""
        return json.loads(ObjectStoragePath(params["messages"]).read_text())

    @task_group
    def film(message: str, prompt: str):
        """Make one film and bring it home, whatever becomes of the others."""
        make = EncryptTextOperator(
            task_id="make",
            message=message,
            prompt=prompt,
            image="{{ params.image }}",
            wait_for_completion=True,
            deferrable=True,
            poll_interval=10,
            pool=POOL,
        )
        PikaDownloadOperator(task_id="store", job=make.output["job"], path="{{ params.films }}", outlets=[FILMS])

    film.expand_kwargs(read_messages())

with DAG(
    dag_id="pika_campaign_arrivals",
    schedule=[FILMS],
    tags=["pika", "example"],
    doc_md=__doc__,
) as arrivals:

    @task(inlets=[FILMS])
    def list_films(triggering_asset_events: dict, inlet_events: dict) -> list[str]:
        """Print and return the films this run was started for; of a run by hand, all there ever were."""
        events = list(triggering_asset_events.get(FILMS) or inlet_events[FILMS])
        for event in events:
            print(f"{event.extra['url']} is the film of {event.extra['jobid']}")
        return [event.extra["url"] for event in events]

    list_films()
