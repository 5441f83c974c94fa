"""What a submit does that meets a full queue or a rate limit: leave the worker until there may be room."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_pika.api.polling import duration
from airflow_provider_pika.api.queue import submit_wait
from airflow_provider_pika.compat import AirflowSensorTimeout
from airflow_provider_pika.exceptions import PikaError, PikaRateLimitedError
from airflow_provider_pika.triggers.pika import PikaQueueTrigger
from airflow_provider_pika.waiting import backstop, later_leg

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def wait_for_room(
    task: BaseOperator,
    context: Context,
    error: PikaError,
    *,
    conn_id: str,
    channel: str,
    deferrable: bool,
    queue_timeout: float,
    queued_since: float,
    releases: int,
) -> NoReturn:
    """
    Wait in the triggerer's line, or until a later leg.

    :param error: the 429
    :param channel: in whose queue, an empty text for any
    :param queue_timeout: seconds
    :param queued_since: when the task joined the queue, UTC epoch seconds
    :param releases: how often it has been released from the line already
    :raises AirflowSensorTimeout: when ``queue_timeout`` has passed
    """
    now = time.time()
    deadline = queued_since + queue_timeout
    wait = submit_wait(
        error,
        rejections=context.get("task_reschedule_count") or 0,
        left=deadline - now,
        jitter=random.random(),
    )
    if wait is None:
        raise queue_timed_out(queue_timeout, error) from error.with_traceback(None)
    if not deferrable:
        task.log.info("%s Submitting again in %d s.", error, wait)
        raise later_leg(wait) from error
    # A rate limit says nothing of the jobs in the way, so it is waited out; a full queue as long as it asks.
    pause = wait if isinstance(error, PikaRateLimitedError) else error.retry_after or 0.0
    task.log.info("%s Waiting for room in the triggerer.", error)
    task.defer(
        trigger=PikaQueueTrigger(
            pika_conn_id=conn_id,
            channel=channel,
            executing_jobs=getattr(error, "executing_jobs", []),
            rejected_at=now,
            not_before=now + pause,
            queued_since=queued_since,
            deadline=deadline,
            releases=releases,
        ),
        method_name="submit_again",
        kwargs={"queued_since": queued_since, "releases": releases + 1, "refusal": error.to_event()},
        timeout=backstop(deadline),
    )


def queue_timed_out(queue_timeout: float, error: PikaError | None = None) -> AirflowSensorTimeout:
    """
    Return the timeout of a submit that has found no room.

    :param queue_timeout: seconds
    :param error: the last 429; None where no triggerer was there to wait for room
    """
    told = f"Timed out: no job was submitted within the queue_timeout of {duration(queue_timeout)}"
    if error is None:
        return AirflowSensorTimeout(
            f"{told}, because no triggerer was there to wait for room in the queue. See that 'airflow triggerer' runs,"
            " then clear the task; or set deferrable=False."
        )
    return AirflowSensorTimeout(
        f"{told}. The last answer: {error} Give a longer queue_timeout, or let fewer tasks submit at once through an"
        " Airflow pool."
    )
