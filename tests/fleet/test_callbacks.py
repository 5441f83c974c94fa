"""The receiver of callbacks on PostgreSQL, where two api-servers write at the same time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2

from airflow_provider_pika.api.callback import MAILBOX_LIMIT, mailbox_key
from dev.harness.fleet import Fleet
from tests.support.receiver import Box, Receiver


def test_calls_to_both_servers_at_the_same_instant_lose_nothing(receiver: Receiver, box: Box) -> None:
    """Eight jobids, each five times: every one is kept, and rings once."""
    jobids = [f"instant:{number}" for number in range(MAILBOX_LIMIT)]
    urls = [receiver.url(box.ti_id, box.token, server) for server in receiver.airflow.urls]
    # Each jobid to each server: with every round they change places.
    calls = [(urls[(number + number // MAILBOX_LIMIT) % len(urls)], jobid) for number, jobid in enumerate(jobids * 5)]
    with ThreadPoolExecutor(2 * MAILBOX_LIMIT) as pool:
        assert set(pool.map(lambda call: receiver.call(*call), calls)) == {204}
    assert sorted(box.jobids()) == jobids
    assert [receiver.bells(jobid) for jobid in jobids] == [1] * MAILBOX_LIMIT


def test_a_call_waits_for_the_row_of_its_mailbox_and_for_no_other(receiver: Receiver, box: Box, fleet: Fleet) -> None:
    other = Box(receiver, receiver.owner, receiver.tokens.pop())
    with closing(psycopg2.connect(fleet.postgres.dsn)) as holder, ThreadPoolExecutor(1) as pool:
        with holder, holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM task_state_store WHERE key = %s FOR UPDATE", (mailbox_key(box.token),))
            waiting = pool.submit(receiver.call, box.url, "held:1")
            assert receiver.call(other.url, "free:1") == 204
            time.sleep(1)  # for the call to have arrived
            assert not waiting.done()
            assert box.jobids() == []
        assert waiting.result(timeout=20) == 204
    assert box.jobids() == ["held:1"]
    assert other.jobids() == ["free:1"]
