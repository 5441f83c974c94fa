"""A full queue before two triggerers: as many worker starts as one of them alone would need."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_pika.api.claims import CLAIM_PREFIX, read_claim
from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import LocalAirflow
from dev.harness.processes import wait_until
from tests.support.stories import Story

SUBMITS = 16
ROOM = 4


def test_a_freed_slot_releases_one_waiter_of_two_triggerers(
    start_airflow: Callable[..., LocalAirflow], emulator: EmulatorClient
) -> None:
    """Who waits in line is refused once, when he comes, and starts twice; one more is allowed for a coincidence."""
    emulator.configure(seconds=3600, max_jobs=ROOM)
    # Less than a triggerer would be given: it may well ask first, and take all waiters there are.
    airflow = start_airflow(triggerers=2, config={"triggerer.capacity": str(SUBMITS // 2)})
    story = Story(airflow, emulator, "mapped_in_line", "one line", count=SUBMITS)
    # All the others stand in line before there is room for one: who came later might take a slot from one of them.
    wait_until(
        lambda: emulator.counters()["submits"]["refused"].get("429", 0) >= SUBMITS - ROOM,
        "the others to be refused",
        120,
        detail=story.describe,
    )
    emulator.configure(seconds=20)
    story.end_jobs()
    story.ends(timeout=300)
    counters = emulator.counters()
    assert len(counters["jobs"]) == SUBMITS
    journal = airflow.db.journal(story.dag_id, story.run_id, "submit")
    in_line = {change.map_index for change in journal if change.state == "deferred"}
    assert len(in_line) >= SUBMITS // 2
    refused = counters["submits"]["refused"]["429"]
    assert refused <= len(in_line) + 1
    assert airflow.db.worker_starts(story.dag_id, story.run_id, "submit") <= SUBMITS + len(in_line) + 1
    keys = airflow.db.sql("SELECT key FROM variable WHERE key LIKE ?", (f"{CLAIM_PREFIX}%",))
    claims = [read_claim(row["key"]) for row in keys]
    assert len({claim.runner for claim in claims if claim}) == 2, "both triggerers had waiters"
