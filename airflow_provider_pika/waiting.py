"""The worker's side of waiting for a job: what sensor and waiting operator do alike.

How long to wait and what a poll means is decided in :mod:`airflow_provider_pika.api.polling`; the
triggerer's side is :mod:`airflow_provider_pika.triggers.pika`. Both end as
:mod:`airflow_provider_pika.ending` says.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, NOT_FOUND_LIMIT, PollOutcome, PollState, when
from airflow_provider_pika.compat import AirflowRescheduleException, why_a_worker_must_end
from airflow_provider_pika.ending import task_error, timed_out
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.store import WAIT_KEY, task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.hooks.pika import PikaHook
    from airflow_provider_pika.store import TaskStore

_BACKSTOP = timedelta(minutes=10)
# How Airflow resumes a task whose trigger was not heard of by then, the same in 3.1 to 3.3.
_FAIL_METHOD = "__fail__"
_TRIGGER_TIMEOUT = "Trigger timeout"


class JobWait:
    """
    One task's wait for one job.

    With a store what it remembers outlives reschedules and retries; a clear by a person starts it over. Without one,
    as below Airflow 3.3 for a sensor, the deadline counts from the first leg of this try.

    :param interval: seconds between polls
    :param timeout: seconds from the first poll to the deadline
    :param rescheduled: whether earlier legs of this try polled this job
    :param execution_timeout: the task's own, which Airflow does not enforce while a task is deferred
    :param store: where it remembers; default: Airflow's own, where there is one
    """

    def __init__(
        self,
        context: Context,
        *,
        hook: PikaHook,
        jobid: str,
        interval: float,
        timeout: float,
        execution_timeout: timedelta | None,
        log: Logger,
        rescheduled: bool = False,
        store: TaskStore | None = None,
    ) -> None:
        self.hook = hook
        self.log = log
        self._store = store or task_state_store(context)
        self._max_tries = context["ti"].max_tries
        self._try_number = context["ti"].try_number
        kept = (self._store.get(WAIT_KEY) if self._store else None) or {}
        if (kept.get("jobid"), kept.get("max_tries")) != (jobid, self._max_tries):
            kept = {}
        if rescheduled and not self._store:
            kept = self._without_store(context)
        started = kept.get("started") or (_leg_start(context) if rescheduled else time.time())
        # A retry counts failed polls anew, but has no new deadline.
        failed = kept if kept.get("try_number") == self._try_number else {}
        if execution_timeout is not None:
            timeout = min(timeout, execution_timeout.total_seconds())
        self.state = PollState(
            jobid,
            interval,
            deadline=started + timeout,
            transient_errors=failed.get("transient_errors", 0),
            not_found=failed.get("not_found", 0),
        )
        self._started = started
        if not kept:
            self._keep()

    def _without_store(self, context: Context) -> dict[str, Any]:
        """Return what Airflow itself knows of this try's earlier legs."""
        first = context["ti"].get_first_reschedule_date(context)
        if first is None:
            return {}
        # How many legs there were, but not what they saw: so an unknown jobid is not waited for endlessly.
        polls = context.get("task_reschedule_count") or 0
        return {
            "started": first.timestamp(),
            "try_number": self._try_number,
            "not_found": min(polls, NOT_FOUND_LIMIT - 1),
        }

    def _keep(self) -> None:
        if self._store:
            state = self.state
            self._store.set(
                WAIT_KEY,
                {
                    "jobid": state.jobid,
                    "max_tries": self._max_tries,
                    "try_number": self._try_number,
                    "started": self._started,
                    "transient_errors": state.transient_errors,
                    "not_found": state.not_found,
                },
            )

    def poll(self, found: Job | PikaError | None = None) -> PollOutcome:
        """Poll the job once, or take what was just found, and decide what it means."""
        if found is None:
            try:
                found = self.hook.get_job(self.state.jobid)
            except PikaError as error:
                found = error
        before = (self.state.transient_errors, self.state.not_found)
        outcome = self.state.after_poll(found, time.time(), random.random())
        self.log.info("Polled: %s", outcome.note)
        if before != (self.state.transient_errors, self.state.not_found):
            self._keep()
        return outcome

    def last_poll(self) -> PollOutcome:
        """Poll the job for the last time, as at the deadline: it has ended, waiting is pointless, or it timed out."""
        self.state.deadline = min(self.state.deadline, time.time())
        return self.poll()

    def ended_job(self, outcome: PollOutcome, *, cancel_on_timeout: bool) -> Job | None:
        """
        Return the job if it has ended, None to poll again.

        :raises AirflowSensorTimeout: when the deadline passed
        :raises PikaError: what ended the wait, if it may pass; otherwise as ``AirflowFailException``
        """
        if outcome.error:
            raise task_error(outcome.error)
        if outcome.timed_out:
            message = self.state.timeout_message()
            raise timed_out(message, hook=self.hook, jobid=self.state.jobid, cancel=cancel_on_timeout, log=self.log)
        return outcome.job

    def deferral(self, task: Any, *, returns: str) -> dict[str, Any]:
        """
        Return the arguments of ``defer()`` that let the triggerer go on with this wait.

        :param task: the sensor or operator that defers
        :param returns: its result, ``"job"`` or ``"jobid"``
        """
        # Imported here: a DAG file is parsed often and defers never.
        from airflow_provider_pika.triggers.pika import PikaJobTrigger

        why_not = why_a_worker_must_end(task) if task.end_from_trigger else None
        if why_not:
            self.log.info("This task will end on a worker, not in the triggerer: %s.", why_not)
        state = self.state
        self.log.info("Waiting for %s until %s, polling every %g s.", state.jobid, when(state.deadline), state.interval)
        trigger = PikaJobTrigger(
            pika_conn_id=self.hook.pika_conn_id,
            jobid=state.jobid,
            poll_interval=state.interval,
            deadline=state.deadline,
            cancel_on_kill=task.cancel_on_kill,
            end_from_trigger=returns if task.end_from_trigger and not why_not else None,
        )
        return {"trigger": trigger, "method_name": "execute_complete", "timeout": backstop(state.deadline)}


def backstop(deadline: float) -> timedelta:
    """
    Return the timeout to defer with: later than the trigger's own deadline, which words it better.

    It is for a trigger that hangs, or that nobody runs.

    :param deadline: the trigger's, UTC epoch seconds
    """
    return timedelta(seconds=max(MIN_POLL_INTERVAL, deadline - time.time())) + _BACKSTOP


def later_leg(seconds: float) -> AirflowRescheduleException:
    """Return what to raise to leave the worker for so long."""
    return AirflowRescheduleException(pendulum.now("UTC").add(seconds=seconds))


def is_trigger_timeout(next_method: str, next_kwargs: dict[str, Any] | None) -> bool:
    """
    Whether Airflow resumes a task only to say that its trigger was not heard of in time.

    That is the backstop, met when no triggerer was alive past the deadline: the job may have ended long ago.

    :param next_method: as ``resume_execution`` gets it
    :param next_kwargs: as ``resume_execution`` gets it
    """
    return next_method == _FAIL_METHOD and (next_kwargs or {}).get("error") == _TRIGGER_TIMEOUT


def _leg_start(context: Context) -> float:
    """Return when this leg began: Airflow counts a rescheduled sensor's timeout from there, and words it worse."""
    start = getattr(context["ti"], "start_date", None)
    return min(start.timestamp(), time.time()) if start else time.time()
