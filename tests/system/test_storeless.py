"""Below Airflow 3.3 there is no task state store: a Variable keeps what a submit must not forget."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

from airflow_provider_pika.emulator.client import EmulatorClient
from dev.harness.local_airflow import QUICK_TO_NOTICE, LocalAirflow
from dev.harness.processes import wait_until
from dev.soak.judge import UNKNOWN
from tests.support.stories import Story

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("airflow.sdk.state") is not None, reason="this Airflow has a task state store"
)


@pytest.mark.timeout(900)
def test_retries_find_their_running_jobs(start_airflow: Callable[..., LocalAirflow], emulator: EmulatorClient) -> None:
    """
    A node killed with three submits in flight, and a task killed between answer and XCom: four jobs, four tasks.

    A fourth submit in flight has a job that ends before anybody looks: its task says so, and does not pay again.
    Waiting, queueing and a mark go as ever without a store.
    """
    airflow = start_airflow(config=QUICK_TO_NOTICE)
    emulator.configure(seconds=100)
    emulator.fault("submit", "slow", seconds=60, times=3)
    flying = Story(airflow, emulator, "mapped", "in flight", count=3)
    unseen = Story(airflow, emulator, "apart", "unseen [emulator:slow=60] [emulator:seconds=6]")
    flying.has_jobs(3)
    unseen.has_jobs(1)
    airflow.kill_node()
    wait_until(lambda: unseen.jobs()[0]["status"] == "completed", "the unseen job to end", 30)
    airflow.start_process("scheduler")
    dying = Story(airflow, emulator, "dies_before_xcom", "no xcom yet [emulator:seconds=90]")
    for story, task_id in ((flying, "submit"), (dying, "submit")):
        story.ends(timeout=300)
        assert set(story.tries(task_id)) == {2}
    assert len(flying.jobs()) == 3
    assert {flying.xcom("submit", map_index=index) for index in range(3)} == {job["jobid"] for job in flying.jobs()}
    assert [job["jobid"] for job in dying.jobs()] == [dying.xcom("submit")]
    unseen.ends("failed", timeout=240)
    assert len(unseen.jobs()) == 1
    assert UNKNOWN in unseen.log("submit")
    assert unseen.tries("submit") == [2]
    assert emulator.counters()["cancels"] == {}
    emulator.configure(seconds=12, max_jobs=2)
    line = Story(airflow, emulator, "mapped_in_line", "line", count=4)
    together = Story(airflow, emulator, "together", "together [emulator:seconds=12]")
    line.ends(timeout=240)
    together.ends(timeout=240)
    assert (len(line.jobs()), len(together.jobs())) == (4, 1)
    assert set(line.tries("submit")) == {1}
    # Of all that succeeded nothing is kept; of what is not known, that.
    kept = "SELECT key FROM variable WHERE key LIKE 'pika_%'"
    wait_until(
        lambda: [row["key"].partition("__")[0] for row in airflow.db.sql(kept)] == ["pika_submit"],
        "what has succeeded to be forgotten, which follows its report",
        60,
        detail=lambda: str(airflow.db.sql(kept)),
    )
