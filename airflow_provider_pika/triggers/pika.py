"""Waiting in the triggerer: for a job to end, or for room to submit one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.pacing import LOOK_GAP, Verdict, Watch
from airflow_provider_pika.compat import count_job
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.links import PikaVideoLink, browser_link
from airflow_provider_pika.triggers.looks import Looks

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
    Look at a job until it has ended, and report that in one event; the worker raises what is to be raised.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param jobid: the job to wait for
    :param poll_interval: seconds between looks
    :param deadline: UTC epoch seconds after which the wait has timed out; wall-clock, because the trigger may
        be resumed in another process
    :param cancel_on_kill: cancel the job when a person marks the deferred task as failed (Airflow 3.3+)
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
        watch = Watch(self.jobid, self.poll_interval, self.deadline)
        async with aclosing(Looks.of(self.pika_conn_id).at_job(watch)) as looks:
            async for verdict in looks:
                self.log.info("Looked at the job: %s", verdict.note)
                event = await self._event(verdict, watch)
                if event is not None:
                    yield event
                    return

    async def _event(self, verdict: Verdict, watch: Watch) -> TriggerEvent | None:
        if verdict.job:
            if verdict.job.status == "completed" and self.end_from_trigger and self.task_instance:
                try:
                    await self._hand_on(verdict.job)
                except Exception as error:  # noqa: BLE001 - the job has completed, whatever ails the XComs
                    self.log.warning("The results cannot be written from here, a worker will: %r", error)
                else:
                    return TaskSuccessEvent()
            return TriggerEvent({"outcome": "ended", "jobid": self.jobid, "job": verdict.job.public()})
        if verdict.error:
            return TriggerEvent({"outcome": "error", "jobid": self.jobid, "error": verdict.error.to_event()})
        if verdict.timed_out:
            return TriggerEvent({"outcome": "timeout", "jobid": self.jobid, "message": watch.timeout_message()})
        return None

    async def _hand_on(self, job: Job) -> None:
        """Write the XComs that a worker would have pushed; the task ends without one."""
        from airflow.sdk.execution_time.xcom import XCom

        finished = job.public()
        values: dict[str, Any] = {"video_url": job.video_url, PikaVideoLink().xcom_key: browser_link(job.video_url)}
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
        self.log.info("Job %s has completed: %s", job.jobid, job.video_url)

    async def on_kill(self) -> None:
        """
        Cancel the job if a person marked the task as failed (Airflow 3.3+, which alone calls this).

        Airflow calls it for a clear, a mark-success and a rebalancing too; only the state tells them apart.
        """
        if not self.cancel_on_kill:
            return
        # Airflow 3.3 cancels a killed trigger again at every sync, about once a second, its on_kill included; and the
        # first question to the supervisor alone may take six. So the work is done in a task of its own.
        work = asyncio.ensure_future(self._cancel_if_failed())
        _kills.add(work)
        work.add_done_callback(_kills.discard)
        await asyncio.shield(work)

    async def _cancel_if_failed(self) -> None:
        from asgiref.sync import sync_to_async

        from airflow_provider_pika.waiting import task_state

        hook = PikaHook(self.pika_conn_id)
        try:
            state = await sync_to_async(task_state)(self.task_instance)
            if state != "failed":
                self.log.info("Job %s was left alone: the task is %s, not failed.", self.jobid, state)
                return
            job = await hook.acancel_job(self.jobid)
            self.log.info("The task was marked as failed: asked to cancel job %s, it is %s.", self.jobid, job.status)
        except Exception as error:  # noqa: BLE001 - a failing cancel is logged, never raised
            self.log.warning("Job %s was not cancelled: %r", self.jobid, error)
        finally:
            await hook.aclose()


class PikaSlotTrigger(_PikaTrigger):
    """
    Wait in line for room in a full queue, first come, first served.

    It only waits: the submit is the worker's, because a triggerer that is restarted runs a trigger anew.

    :param pika_conn_id: the Airflow connection of type ``pika``
    :param lane: the channel to submit through, an empty text for any
    :param executing_jobs: the jobs in the way, as the 429 named them; none for a rate limit
    :param turned_away_at: when that was, UTC epoch seconds
    :param hold_until: do not submit before this, UTC epoch seconds
    :param queued_since: the waiter's place in the line, UTC epoch seconds
    :param deadline: give up after this, UTC epoch seconds
    :param turn: how many turns the waiter has had already
    """

    def __init__(
        self,
        *,
        pika_conn_id: str,
        lane: str,
        executing_jobs: list[str],
        turned_away_at: float,
        hold_until: float,
        queued_since: float,
        deadline: float,
        turn: int = 0,
    ) -> None:
        super().__init__(
            pika_conn_id=pika_conn_id,
            lane=lane,
            executing_jobs=executing_jobs,
            turned_away_at=turned_away_at,
            hold_until=hold_until,
            queued_since=queued_since,
            deadline=deadline,
            turn=turn,
        )
        self.pika_conn_id = pika_conn_id
        self.lane = lane
        self.executing_jobs = executing_jobs
        self.turned_away_at = turned_away_at
        self.hold_until = hold_until
        self.queued_since = queued_since
        self.deadline = deadline
        self.turn = turn

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield exactly one event: it is this task's turn, or the queue's deadline has passed."""
        is_turn = await Looks.of(self.pika_conn_id).for_slot(
            self.lane,
            since=self.queued_since,
            executing_jobs=self.executing_jobs,
            turned_away_at=self.turned_away_at,
            hold_until=self.hold_until,
            again=self.turn > 0,
            patience=max(LOOK_GAP, self.deadline - time.time()),
        )
        if is_turn:
            self.log.info("It is this task's turn to submit.")
        yield TriggerEvent({"outcome": "turn" if is_turn else "timeout"})
