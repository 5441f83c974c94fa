"""Waiting in the triggerer: for a job to end, or for room to submit one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, PollOutcome, PollState
from airflow_provider_pika.kill import acancel_if_failed
from airflow_provider_pika.links import PikaVideoLink, browser_link
from airflow_provider_pika.metrics import count_job
from airflow_provider_pika.triggers.poller import SharedPoller

# Kills under way: the loop itself holds tasks only weakly.
_kills: set[asyncio.Future[None]] = set()


class _PikaTrigger(BaseTrigger):
    """
    A trigger of this provider.

    Its arguments lie in the database in plain text, so they hold no secret and no input: ids and numbers. A later
    version must read what an earlier one stored.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kwargs = kwargs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every constructor argument."""
        return f"{type(self).__module__}.{type(self).__qualname__}", dict(self._kwargs)


class PikaJobTrigger(_PikaTrigger):
    """
    Poll a job until it has ended, and report that in one event; the worker raises what is to be raised.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param jobid: the job to wait for
    :param poll_interval: seconds between polls
    :param deadline: UTC epoch seconds after which the wait has timed out; wall-clock, because the trigger may
        be resumed in another process
    :param cancel_on_kill: cancel the job when the deferred task is set to failed, as by a person's mark (Airflow 3.3+)
    :param end_from_trigger: which XCom return value to end the task with here once the job has completed, ``"job"``
        or ``"jobid"``; None leaves every end to a worker
    """

    def __init__(
        self,
        *,
        pika_conn_id: str,
        jobid: str,
        poll_interval: float,
        deadline: float,
        cancel_on_kill: bool = False,
        end_from_trigger: str | None = None,
    ) -> None:
        super().__init__(
            pika_conn_id=pika_conn_id,
            jobid=jobid,
            poll_interval=poll_interval,
            deadline=deadline,
            cancel_on_kill=cancel_on_kill,
            end_from_trigger=end_from_trigger,
        )
        self.pika_conn_id = pika_conn_id
        self.jobid = jobid
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill
        self.end_from_trigger = end_from_trigger

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event: the job has ended, the deadline has passed, or waiting is pointless."""
        state = PollState(self.jobid, self.poll_interval, self.deadline)
        async with aclosing(SharedPoller.of(self.pika_conn_id).at_job(state)) as outcomes:
            async for outcome in outcomes:
                self.log.info("Polled: %s", outcome)
                event = await self._event(outcome, state)
                if event is not None:
                    yield event
                    return

    async def _event(self, outcome: PollOutcome, state: PollState) -> TriggerEvent | None:
        if outcome.job:
            if outcome.job.status == "completed" and self.end_from_trigger and self.task_instance:
                try:
                    await self._push_results(outcome.job)
                except Exception as error:  # noqa: BLE001 - the job has completed, whatever ails the XComs
                    self.log.warning("The results cannot be written from here, a worker will: %r", error)
                else:
                    return TaskSuccessEvent()
            return TriggerEvent({"outcome": "ended", "jobid": self.jobid, "job": outcome.job.public()})
        if outcome.error:
            return TriggerEvent({"outcome": "error", "jobid": self.jobid, "error": outcome.error.to_event()})
        if outcome.timed_out:
            return TriggerEvent({"outcome": "timeout", "jobid": self.jobid, "message": state.timeout_message()})
        return None

    async def _push_results(self, job: Job) -> None:
        """Write the XComs that a worker would have pushed; the task ends without one."""
        from airflow.sdk.execution_time.xcom import XCom

        finished = job.public()
        values: dict[str, Any] = {"video_url": job.video_url, PikaVideoLink().xcom_key: browser_link(job.video_url)}
        values["status"] = job.status
        if self.end_from_trigger == "jobid":
            values |= {"jobid": job.jobid, "job": finished, "return_value": job.jobid}
        else:
            values["return_value"] = finished
        ti: Any = self.task_instance
        # One by one: the return value last, so that whoever finds it finds the rest too.
        for key, value in values.items():
            await XCom.aset(
                key=key, value=value, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
            )
        count_job(job)
        self.log.info("%s has completed: %s", job.jobid, job.video_url)

    async def on_kill(self) -> None:
        """
        Cancel the job if a person marked the task as failed (Airflow 3.3+, which alone calls this).

        Airflow calls it for a clear, a mark-success and a rebalancing too; only the state tells them apart.
        """
        if not self.cancel_on_kill:
            return
        # Airflow 3.3 cancels a killed trigger again at every sync, about once a second, its on_kill included; and the
        # first question to the supervisor alone may take six. So the work is done in a task of its own.
        work = asyncio.ensure_future(acancel_if_failed(self.task_instance, self.pika_conn_id, self.jobid, self.log))
        _kills.add(work)
        work.add_done_callback(_kills.discard)
        await asyncio.shield(work)


class PikaQueueTrigger(_PikaTrigger):
    """
    Wait in the queue before a full channel, first come, first served.

    It only waits: the submit is the worker's, because a triggerer that is restarted runs a trigger anew.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param channel: the channel to submit through, an empty text for any
    :param executing_jobs: the jobs in the way, as the 429 named them; none for a rate limit
    :param rejected_at: when that was, UTC epoch seconds
    :param not_before: do not submit before this, UTC epoch seconds
    :param queued_since: the waiter's place in the queue, UTC epoch seconds
    :param deadline: give up after this, UTC epoch seconds
    :param releases: how often the waiter has been released already
    """

    def __init__(
        self,
        *,
        pika_conn_id: str,
        channel: str,
        executing_jobs: list[str],
        rejected_at: float,
        not_before: float,
        queued_since: float,
        deadline: float,
        releases: int = 0,
    ) -> None:
        super().__init__(
            pika_conn_id=pika_conn_id,
            channel=channel,
            executing_jobs=executing_jobs,
            rejected_at=rejected_at,
            not_before=not_before,
            queued_since=queued_since,
            deadline=deadline,
            releases=releases,
        )
        self.pika_conn_id = pika_conn_id
        self.channel = channel
        self.executing_jobs = executing_jobs
        self.rejected_at = rejected_at
        self.not_before = not_before
        self.queued_since = queued_since
        self.deadline = deadline
        self.releases = releases

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event: this task is released to submit, or the queue's deadline has passed."""
        released = await SharedPoller.of(self.pika_conn_id).for_slot(
            self.channel,
            since=self.queued_since,
            executing_jobs=self.executing_jobs,
            rejected_at=self.rejected_at,
            not_before=self.not_before,
            again=self.releases > 0,
            timeout=max(MIN_POLL_INTERVAL, self.deadline - time.time()),
            tell=lambda place: self.log.info("Waiting to submit: %s", place),
        )
        if released:
            self.log.info("Released from the queue: it is this task's turn to submit.")
        yield TriggerEvent({"outcome": "released" if released else "timeout"})
