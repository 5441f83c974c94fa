"""The worker's side of waiting for a job: what sensor and waiting operator do alike.

How long to wait and what a poll means is decided in :mod:`airflow_provider_pika.api.polling`; the
triggerer's side is :mod:`airflow_provider_pika.triggers.pika`. Both end here, so that a job, an error
or a timeout comes out of every mode in the same form.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, NOT_FOUND_LIMIT, PollOutcome, PollState, when
from airflow_provider_pika.compat import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    why_a_worker_must_end,
)
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.kill import cancel as cancel_job
from airflow_provider_pika.metrics import count_job
from airflow_provider_pika.store import WAIT_KEY, task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_provider_pika.store import TaskStore

_BACKSTOP = timedelta(minutes=10)
# How Airflow resumes a task whose trigger was not heard of by then, the same in 3.1 to 3.3.
_FAIL_METHOD = "__fail__"
_TRIGGER_TIMEOUT = "Trigger timeout"


def task_error(error: PikaError) -> Exception:
    """
    Return what a task raises for an error: what no retry can mend fails it at once, the rest may be retried.

    The error itself is the ``__cause__``, for callbacks, and without its frames: Airflow's log passes over a cause that
    has none, so that it shows one traceback, and the text once.
    """
    if is_retryable(error):
        return error
    failure = AirflowFailException(str(error))
    failure.__cause__ = error.with_traceback(None)
    return failure


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
            raise _timed_out(message, hook=self.hook, jobid=self.state.jobid, cancel=cancel_on_timeout, log=self.log)
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


def ended_job(event: dict[str, Any], *, hook: PikaHook, jobid: str, cancel_on_timeout: bool, log: Logger) -> Job:
    """
    Read a trigger's event on the worker.

    :raises AirflowSensorTimeout: when the deadline passed
    :raises PikaError: what ended the wait, if it may pass; otherwise as ``AirflowFailException``
    """
    outcome = event.get("outcome")
    if outcome == "ended":
        return Job.from_answer(event.get("job") or {}, jobid)
    if outcome == "timeout":
        raise _timed_out(str(event.get("message")), hook=hook, jobid=jobid, cancel=cancel_on_timeout, log=log)
    if outcome == "error":
        raise task_error(PikaError.from_event(event.get("error") or {}))
    raise PikaError(
        f"The trigger reported {outcome!r}, which this version does not know: install the same airflow-provider-pika on"
        f" triggerers and workers, then clear the task. The job is {jobid}.",
        jobid=jobid,
    )


def _timed_out(message: str, *, hook: PikaHook, jobid: str, cancel: bool, log: Logger) -> AirflowSensorTimeout:
    """Return the timeout to raise, after cancelling the job if the task asks for that; for callbacks it has a cause."""
    if cancel:
        left = cancel_job(hook, jobid, log)
    else:
        left = (
            "The job was left alone and may still end: wait again with a PikaJobSensor on this jobid, or give a longer"
            " timeout."
        )
    error = PikaError(f"{message} {left}", jobid=jobid)
    timeout = AirflowSensorTimeout(str(error))
    timeout.__cause__ = error
    return timeout


def job_error(hook: PikaHook, job: Job, *, retry_failed: bool = False) -> Exception:
    """
    Return what a task raises for a job that ended badly.

    :param retry_failed: let a retry follow a job that ended ``failed``; the same input that was ``moderated`` would be
        again, and ``cancelled`` is somebody's will
    """
    error = hook.job_failed(job)
    return error if retry_failed and job.status == "failed" else task_error(error)


def completed(
    job: Job,
    *,
    hook: PikaHook,
    push: Callable[[str, Any], None] | None,
    log: Logger,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """
    Push the results of a job that has ended: return its keys, and push its ``status`` and ``video_url`` too.

    :param push: pushes an XCom, None where the task pushes none
    :param retry_failed: as for :func:`job_error`
    :raises AirflowFailException: when the job ended badly
    :raises PikaJobFailedError: when it ended ``failed`` and may be retried
    """
    count_job(job)
    if job.status != "completed":
        raise job_error(hook, job, retry_failed=retry_failed)
    if job.video_url is None:
        log.warning("%s has completed, but there is no video among its attachments.", job.jobid)
    else:
        log.info("%s has completed: %s", job.jobid, job.video_url)
    if push:
        push("status", job.status)
        push("video_url", job.video_url)
    return job.public()
