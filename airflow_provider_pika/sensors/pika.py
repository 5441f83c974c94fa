"""Waiting for a job."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_pika.api.fields import checked_jobid
from airflow_provider_pika.api.polling import MIN_POLL_INTERVAL, MIN_RESCHEDULE, interval_at_least
from airflow_provider_pika.compat import AirflowSkipException, conf
from airflow_provider_pika.ending import completed, ended_job, task_error
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.kill import cancel_if_failed
from airflow_provider_pika.links import PikaVideoLink
from airflow_provider_pika.waiting import JobWait, is_trigger_timeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.api.polling import PollOutcome


class PikaJobSensor(BaseSensorOperator):
    """
    Wait for a job to end; return the finished job.

    Its XComs are ``return_value`` (the finished job, a dict with the API's own keys), ``status`` and ``video_url``: so
    ``wait.output["status"]`` works for these two, and any other key of the job is read from the dict.

    The modes ``poke``, ``reschedule`` and deferrable give the same results and the same errors. A job that ended
    ``failed``, ``moderated`` or ``cancelled`` fails the task without retries; so does a jobid the API does not
    know after a few polls. Transient errors only make the next poll later, up to ten in a row.

    :param jobid: the job to wait for, usually ``submit.output`` (templated)
    :param pika_conn_id: the Airflow connection of type ``pika`` (templated)
    :param deferrable: wait in the triggerer, without a worker; default ``[operators] default_deferrable``
    :param poke_interval: seconds or a ``timedelta`` between polls, default 30; raised to 10 (the API's limit), in mode
        ``reschedule`` to 15
    :param timeout: seconds or a ``timedelta`` until the wait fails with ``AirflowSensorTimeout``, without retries;
        default 1 hour, whatever ``[sensors] default_timeout`` says. On Airflow 3.3+ it counts from the first poll
        since the last clear, below from the start of this try. ``execution_timeout`` bounds it too
    :param cancel_on_kill: cancel the job when this task is killed and Airflow has set it to ``failed``: by a person's
        mark, a DAG's ``fail_fast``, or a heartbeat timeout on the last try. Never for a clear, a mark as success or a
        node that goes down. Between two reschedules nobody is there to cancel
    :param cancel_on_timeout: cancel the job when the timeout is reached
    :param end_from_trigger: deferrable on Airflow 3.3+: let a completed job end the task in the triggerer, without a
        second worker start, wherever that loses nothing (see :doc:`/modes`)
    """

    template_fields: Sequence[str] = ("jobid", "pika_conn_id")
    operator_extra_links = (PikaVideoLink(),)
    ui_color = "#ffe9c7"

    def __init__(
        self,
        *,
        jobid: str,
        pika_conn_id: str = PikaHook.default_conn_name,
        deferrable: bool | None = None,
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float = 60 * 60,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.jobid = jobid
        self.pika_conn_id = pika_conn_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.end_from_trigger = end_from_trigger
        self._floor = MIN_RESCHEDULE if self.reschedule and not deferrable else MIN_POLL_INTERVAL
        self.poke_interval, self._raised_interval = interval_at_least("poke_interval", self.poke_interval, self._floor)
        self._wait: JobWait | None = None
        self._ti: Any = None
        self._video_url: str | None = None
        self._next_poll = 0.0

    def execute(self, context: Context) -> Any:
        """Wait for the job: in this process, by rescheduling, or by deferring to the triggerer."""
        self._wait = None
        if self._raised_interval and not context.get("task_reschedule_count"):
            self.log.warning(self._raised_interval)
        if not self.deferrable:
            return super().execute(context)
        wait = self._begin(context)
        if wait.state.deadline <= time.time():
            # A retry after the deadline: one poll, which the trigger of an earlier try may not have had.
            return super().execute(context)
        self.defer(**wait.deferral(self, returns="job"))
        return None

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll the job once."""
        wait = self._wait or self._begin(context)
        return self._after_poll(context, wait, wait.poll())

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; where no triggerer was alive past the deadline, poll once more before giving up."""
        if is_trigger_timeout(next_method, next_kwargs):
            next_method, next_kwargs = "poll_at_last", {}
        return super().resume_execution(next_method, next_kwargs, context)

    def poll_at_last(self, context: Context) -> Any:
        """Let one last poll decide: the job ended while nobody watched, or the wait has timed out."""
        wait = self._begin(context)
        return self._after_poll(context, wait, wait.last_poll()).xcom_value

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take over from the trigger: return the finished job, or raise what the trigger reported."""
        hook, jobid = PikaHook(self.pika_conn_id), str(event.get("jobid"))
        try:
            job = ended_job(event, hook=hook, jobid=jobid, cancel_on_timeout=self.cancel_on_timeout, log=self.log)
        except PikaError as error:
            # Airflow itself skips for AirflowExceptions only, once a task has resumed.
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        return self._push_results(context, hook, job)

    def on_kill(self) -> None:
        """Cancel the job if ``cancel_on_kill`` is set and this task was set to failed."""
        if self.cancel_on_kill and self._wait is not None:
            cancel_if_failed(self._ti, self.pika_conn_id, self._wait.state.jobid, self.log)

    def _begin(self, context: Context) -> JobWait:
        self._ti = context["ti"]
        try:
            jobid = checked_jobid(self.jobid)
        except PikaError as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise task_error(error) from error
        self._wait = JobWait(
            context,
            hook=PikaHook(self.pika_conn_id),
            jobid=jobid,
            interval=self.poke_interval,
            timeout=self.timeout,
            execution_timeout=self.execution_timeout,
            log=self.log,
            rescheduled=self.reschedule and not self.deferrable,
        )
        return self._wait

    def _after_poll(self, context: Context, wait: JobWait, outcome: PollOutcome) -> PokeReturnValue:
        if job := wait.ended_job(outcome, cancel_on_timeout=self.cancel_on_timeout):
            return PokeReturnValue(True, self._push_results(context, wait.hook, job))
        self._next_poll = outcome.after
        return PokeReturnValue(False)

    def _push_results(self, context: Context, hook: PikaHook, job: Job) -> dict[str, Any]:
        ti = context["ti"]
        push = ti.xcom_push if self.do_xcom_push else None
        self._video_url = job.video_url
        return completed(job, hook=hook, push=push, log=self.log)

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        # Airflow's own would poll on time after an error too, and its backoff starts below the API's limit.
        after = max(self._floor, self._next_poll)
        if not self.exponential_backoff:
            return after
        return max(after, super()._get_next_poke_interval(*args, **kwargs))
