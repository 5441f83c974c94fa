"""Waiting for a job in the triggerer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.pacing import LOOK_GAP, Verdict, Watch
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.hooks.pika import PikaHook


class PikaJobTrigger(BaseTrigger):
    """
    Look at a job until it has ended, and report that in one event; the worker raises what is to be raised.

    Its arguments lie in the database in plain text, so they hold no secret and no input: a connection id, a
    jobid, numbers. A later version must read what an earlier one stored.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param jobid: the job to wait for
    :param poll_interval: seconds between looks
    :param deadline: UTC epoch seconds after which the wait has timed out; wall-clock, because the trigger may
        be resumed in another process
    :param cancel_on_kill: cancel the job when a person marks the deferred task as failed (Airflow 3.3+)
    """

    def __init__(
        self,
        *,
        pika_conn_id: str,
        jobid: str,
        poll_interval: float,
        deadline: float,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()
        self.pika_conn_id = pika_conn_id
        self.jobid = jobid
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and every constructor argument."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "pika_conn_id": self.pika_conn_id,
                "jobid": self.jobid,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event: the job has ended, the deadline has passed, or waiting is pointless."""
        hook = PikaHook(self.pika_conn_id)
        watch = Watch(self.jobid, self.poll_interval, self.deadline)
        # Not sooner after the defer, or Airflow may mistake the old leg's end for the new one's; nor sooner after
        # the last look of a triggerer that was restarted.
        after = LOOK_GAP
        try:
            while True:
                await asyncio.sleep(after)
                verdict = watch.judge(await self._look(hook), time.time(), random.random())  # noqa: S311 - jitter
                self.log.info("Looked at the job: %s", verdict.note)
                event = self._event(verdict, watch)
                if event is not None:
                    yield TriggerEvent(event)
                    return
                after = verdict.after
        finally:
            await hook.aclose()

    async def _look(self, hook: PikaHook) -> Job | PikaError:
        try:
            return await hook.aget_job(self.jobid)
        except PikaError as error:
            return error

    @staticmethod
    def _event(verdict: Verdict, watch: Watch) -> dict[str, Any] | None:
        if verdict.job:
            return {"outcome": "ended", "jobid": watch.jobid, "job": verdict.job.public()}
        if verdict.error:
            return {"outcome": "error", "jobid": watch.jobid, "error": verdict.error.to_event()}
        if verdict.timed_out:
            return {"outcome": "timeout", "jobid": watch.jobid, "message": watch.timeout_message()}
        return None

    async def on_kill(self) -> None:
        """
        Cancel the job if a person marked the task as failed (Airflow 3.3+, which alone calls this).

        Airflow calls it for a clear, a mark-success and a rebalancing too; only the state tells them apart.
        """
        if not self.cancel_on_kill:
            return
        from asgiref.sync import sync_to_async

        from airflow_provider_pika.waiting import cancel_if_failed

        hook = PikaHook(self.pika_conn_id)
        await sync_to_async(cancel_if_failed)(self.task_instance, hook, self.jobid, self.log)
