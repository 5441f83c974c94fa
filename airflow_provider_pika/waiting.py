"""The worker's side of waiting for a job: what sensor and waiting operator do alike.

How long to wait and what a look means is decided in :mod:`airflow_provider_pika.api.pacing`; the
triggerer's side is :mod:`airflow_provider_pika.triggers.pika`. Both end here, so that a job, an error
or a timeout comes out of every mode in the same form.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.pacing import LOOK_GAP, MISS_LIMIT, Verdict, Watch
from airflow_provider_pika.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    count_job,
    task_state_store,
    why_a_worker_must_end,
)
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.hooks.pika import PikaHook

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

T = TypeVar("T")

WAIT_KEY = "pika_wait"
# Airflow's own timeout of a deferral comes later than the trigger's deadline, which words it better: it is
# for a trigger that hangs.
BACKSTOP = timedelta(minutes=10)
# A supervisor answers in milliseconds; on_kill has about five seconds before SIGKILL.
_KILL_PATIENCE = 2.0


def task_error(error: PikaError) -> Exception:
    """Return what a task raises for an error: what no retry can mend fails it at once, the rest may be retried."""
    if is_retryable(error):
        return error
    failure = AirflowFailException(str(error))
    failure.__cause__ = error
    return failure


class JobWait:
    """
    One task's wait for one job.

    On Airflow 3.3+ what it remembers outlives reschedules and retries; a clear by a person starts it over.
    Below, the deadline counts from the first leg of this try.

    :param interval: seconds between looks
    :param timeout: seconds from the first look to the deadline
    :param rescheduled: whether earlier legs of this try were looks at this job
    :param execution_timeout: the task's own, which Airflow does not enforce while a task is deferred
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
    ) -> None:
        self.hook = hook
        self.log = log
        self._store = task_state_store(context)
        self._max_tries = context["ti"].max_tries
        self._try_number = context["ti"].try_number
        kept = (self._store.get(WAIT_KEY) if self._store else None) or {}
        if (kept.get("jobid"), kept.get("max_tries")) != (jobid, self._max_tries):
            kept = {}
        if rescheduled and not self._store:
            kept = self._without_store(context)
        started = kept.get("started") or (_leg_start(context) if rescheduled else time.time())
        # A retry has its own patience with faults, but not a new deadline.
        faults = kept if kept.get("try_number") == self._try_number else {}
        if execution_timeout is not None:
            timeout = min(timeout, execution_timeout.total_seconds())
        self.watch = Watch(
            jobid,
            interval,
            deadline=started + timeout,
            faults=faults.get("faults", 0),
            misses=faults.get("misses", 0),
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
        looks = context.get("task_reschedule_count") or 0
        return {
            "started": first.timestamp(),
            "try_number": self._try_number,
            "misses": min(looks, MISS_LIMIT - 1),
        }

    def _keep(self) -> None:
        if self._store:
            watch = self.watch
            self._store.set(
                WAIT_KEY,
                {
                    "jobid": watch.jobid,
                    "max_tries": self._max_tries,
                    "try_number": self._try_number,
                    "started": self._started,
                    "faults": watch.faults,
                    "misses": watch.misses,
                },
            )

    def look(self, found: Job | PikaError | None = None) -> Verdict:
        """Look at the job once, or take what was just found, and decide what it means."""
        if found is None:
            try:
                found = self.hook.get_job(self.watch.jobid)
            except PikaError as error:
                found = error
        before = (self.watch.faults, self.watch.misses)
        verdict = self.watch.judge(found, time.time(), random.random())
        self.log.info("Looked at the job: %s", verdict.note)
        if before != (self.watch.faults, self.watch.misses):
            self._keep()
        return verdict

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
        watch = self.watch
        trigger = PikaJobTrigger(
            pika_conn_id=self.hook.pika_conn_id,
            jobid=watch.jobid,
            poll_interval=watch.interval,
            deadline=watch.deadline,
            cancel_on_kill=task.cancel_on_kill,
            end_from_trigger=returns if task.end_from_trigger and not why_not else None,
        )
        left = timedelta(seconds=max(LOOK_GAP, watch.deadline - time.time()))
        return {"trigger": trigger, "method_name": "execute_complete", "timeout": left + BACKSTOP}


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
        raise timed_out(str(event.get("message")), hook=hook, jobid=jobid, cancel=cancel_on_timeout, log=log)
    if outcome == "error":
        raise task_error(PikaError.from_event(event.get("error") or {}))
    raise PikaError(f"The trigger reported {outcome!r}, which this version does not know.", jobid=jobid)


def timed_out(message: str, *, hook: PikaHook, jobid: str, cancel: bool, log: Logger) -> AirflowSensorTimeout:
    """Return the timeout to raise, after cancelling the job if the task asks for that."""
    if cancel:
        left = _cancel(hook, jobid, log)
    else:
        left = (
            "The job was left alone and may still end: look again with a PikaJobSensor on this jobid, or give a longer"
            " timeout."
        )
    return AirflowSensorTimeout(f"{message} {left}")


def completed(job: Job, *, hook: PikaHook, push: Callable[[str, Any], None] | None, log: Logger) -> dict[str, Any]:
    """
    Hand on a job that has ended: its keys, and its ``video_url`` in an XCom of its own.

    :param push: pushes an XCom, None where the task pushes none
    :raises AirflowFailException: when the job ended badly
    """
    count_job(job)
    if job.status != "completed":
        raise task_error(hook.job_failed(job))
    if job.video_url is None:
        log.warning("Job %s has completed, but there is no video among its attachments.", job.jobid)
    else:
        log.info("Job %s has completed: %s", job.jobid, job.video_url)
    if push:
        push("video_url", job.video_url)
    return job.public()


def ask_on_kill(question: Callable[[], T], log: Logger) -> T | None:
    """
    Ask Airflow something while the task is being killed; None if there is no answer in time.

    In a thread: the signal may have struck while the main thread talks to the supervisor, holding its lock.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(question).result(timeout=_KILL_PATIENCE)
    except Exception as error:  # noqa: BLE001 - whatever the reason, what cannot be known changes nothing
        log.warning("Airflow did not answer while this task was being killed: %r", error)
        return None
    finally:
        pool.shutdown(wait=False)


def cancel_if_failed(state: str | None, hook: PikaHook, jobid: str, log: Logger) -> None:
    """
    Cancel the job of a killed task, if and only if a person marked the task as failed.

    In any other state the job is left alone: it may be another try's by now, and it is paid for.
    """
    if state == "failed":
        log.info("The task was marked as failed. %s", _cancel(hook, jobid, log))
    else:
        log.info("Job %s was left alone: the task is %s, not failed.", jobid, state or "in no state we know")


def task_state(ti: Any) -> str | None:
    """
    Ask Airflow for the state of a task instance, from a worker or a triggerer.

    On a kill it tells the reason, and nothing else does: ``failed`` and ``success`` are a person's marks,
    ``restarting`` is a clear, ``running`` a node that goes down.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    mapped = ti.map_index is not None and ti.map_index >= 0
    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, map_index=ti.map_index if mapped else None, task_ids=[ti.task_id], run_ids=[ti.run_id]
    )
    of_run: dict[str, str] = states.get(ti.run_id, {})
    return of_run.get(f"{ti.task_id}_{ti.map_index}" if mapped else ti.task_id)


def _cancel(hook: PikaHook, jobid: str, log: Logger) -> str:
    try:
        job = hook.cancel_job(jobid)
    except PikaError as error:
        # The task ends as it does whether or not this works; the job then runs to its end.
        log.warning("Job %s could not be cancelled: %s", jobid, error)
        return "Cancelling it failed; see the log."
    return f"Asked the API to cancel job {jobid}: it is {job.status or 'in an unnamed state'}."
