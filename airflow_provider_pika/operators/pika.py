"""Submitting a job."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import pendulum
from airflow.sdk import BaseOperator

from airflow_provider_pika.api.polling import (
    MIN_POLL_INTERVAL,
    MIN_RESCHEDULE,
    duration,
    interval_at_least,
    seconds_of,
)
from airflow_provider_pika.api.queue import submit_wait
from airflow_provider_pika.compat import AirflowRescheduleException, AirflowSensorTimeout, conf, task_state_store
from airflow_provider_pika.exceptions import PikaError, PikaQueueFullError, PikaRateLimitedError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.hooks.settings import IMAGE_MAX_BYTES
from airflow_provider_pika.kill import cancel_if_failed
from airflow_provider_pika.links import PikaVideoLink
from airflow_provider_pika.operators.submission import Submission
from airflow_provider_pika.waiting import (
    BACKSTOP,
    JobWait,
    completed,
    ended_job,
    task_error,
    timed_out,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_pika.api.job import Job


class EncryptTextOperator(BaseOperator):
    """
    Submit an ``encrypt_text`` job, which costs money, once; return its jobid.

    The jobid is the XCom ``return_value`` and ``jobid``. A full queue or a rate limit (429) reschedules the task,
    which uses no try and holds no worker. What a retry cannot mend (400, 401, 402, 422, bad input, a submit whose
    outcome stays unknown) fails the task without retries. A retry goes on with the job an earlier try submitted.

    :param message: the text hidden in the video, at most 20 UTF-16 units (templated)
    :param prompt: what the video shows, at most 1500 UTF-16 units (templated)
    :param font: MODERN, COMICS, SANS SERIF, BAUHAUS or RETRO (templated)
    :param image: reference image: a local path, ``http(s)://``, ``file://``, or any URL ``ObjectStoragePath`` takes,
        as ``s3://conn_id@bucket/key`` (templated)
    :param image_max_bytes: refuse a larger image before anything is sent; 25 MiB
    :param channel: Discord channel to submit through; default: the connection's (templated)
    :param max_jobs: jobs the channel may run at once, 1 to 10; default: the connection's (templated)
    :param reply_url: where the service POSTs the ended job (templated)
    :param reply_ref: a reference that comes back with the job; default: one of the provider's own, by which it finds
        a job whose answer was lost. Yours serves for that only in an unmapped task and if it contains dag id, run id
        and task id (templated)
    :param pika_conn_id: the Airflow connection of type ``pika`` (templated)
    :param queue_timeout: seconds to keep trying while the queue is full, then ``AirflowSensorTimeout``. On Airflow
        3.3+ counted from the first attempt since the last clear, below from this try's first leg
    :param wait_for_completion: also wait for the job to end, and push the finished job as ``job`` and its
        ``video_url``
    :param deferrable: wait in the triggerer, for room in a full queue and for the job; default
        ``[operators] default_deferrable``
    :param poll_interval: seconds between looks at the job; raised to 10 (the API's limit), without ``deferrable`` to 15
    :param timeout: seconds to wait for the job to end, then ``AirflowSensorTimeout``
    :param cancel_on_kill: while waiting, cancel the job when a person marks the task as failed
    :param cancel_on_timeout: cancel the job when ``timeout`` is reached
    :param resubmit_unknown: submit again where it cannot be found out whether an earlier submit made a job. This may
        pay twice
    :param end_from_trigger: while waiting deferrable on Airflow 3.3+: let a completed job end the task in the
        triggerer, without another worker start, wherever that loses nothing (see the README)
    """

    template_fields: Sequence[str] = (
        "message",
        "prompt",
        "font",
        "image",
        "channel",
        "max_jobs",
        "reply_url",
        "reply_ref",
        "pika_conn_id",
    )
    operator_extra_links = (PikaVideoLink(),)
    ui_color = "#ffd6e0"

    def __init__(
        self,
        *,
        message: str,
        prompt: str,
        font: str | None = None,
        image: str | None = None,
        image_max_bytes: int = IMAGE_MAX_BYTES,
        channel: str | None = None,
        max_jobs: int | str | None = None,
        reply_url: str | None = None,
        reply_ref: str | None = None,
        pika_conn_id: str = PikaHook.default_conn_name,
        queue_timeout: timedelta | float = 24 * 60 * 60,
        wait_for_completion: bool = False,
        deferrable: bool | None = None,
        poll_interval: timedelta | float = 30,
        timeout: timedelta | float = 60 * 60,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        resubmit_unknown: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.message = message
        self.prompt = prompt
        self.font = font
        self.image = image
        self.image_max_bytes = image_max_bytes
        self.channel = channel
        self.max_jobs = max_jobs
        self.reply_url = reply_url
        self.reply_ref = reply_ref
        self.pika_conn_id = pika_conn_id
        self.queue_timeout = seconds_of(queue_timeout)
        self.wait_for_completion = wait_for_completion
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        floor = MIN_POLL_INTERVAL if deferrable else MIN_RESCHEDULE
        self.poll_interval, self._raised_interval = interval_at_least(seconds_of(poll_interval), floor)
        self.timeout = seconds_of(timeout)
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.resubmit_unknown = resubmit_unknown
        self.end_from_trigger = end_from_trigger
        self._ti: Any = None
        self._waited_for: str | None = None
        self._video_url: str | None = None
        self._submission: Submission | None = None

    def execute(self, context: Context) -> str:
        """Submit the job, or go on with the one an earlier attempt submitted; wait for it if asked to."""
        return self._submit(context)

    def submit_again(
        self,
        context: Context,
        event: dict[str, Any],
        queued_since: float | None = None,
        turn: int = 1,
        refusal: dict[str, Any] | None = None,
    ) -> str:
        """Take over from the line before a full queue: submit, or say that the line was too long."""
        if event.get("outcome") == "timeout":
            error = PikaError.from_event(refusal or {})
            raise self._queue_timeout(error) from error
        return self._submit(context, queued_since, turn)

    def _submit(self, context: Context, queued_since: float | None = None, turn: int = 0) -> str:
        self._ti = context["ti"]
        hook = PikaHook(self.pika_conn_id, image_max_bytes=self.image_max_bytes)
        submission = self._submission = Submission(
            context,
            hook=hook,
            inputs=self._inputs(),
            resubmit_unknown=self.resubmit_unknown,
            queued_since=queued_since,
            tell_jobid=self._tell_jobid,
            log=self.log,
        )
        jobid = submission.jobid_of_this_try if self.wait_for_completion else None
        if jobid:
            self._tell_jobid(jobid)
            return self._wait(context, hook, jobid)
        try:
            job = submission.job()
        except (PikaQueueFullError, PikaRateLimitedError) as error:
            self._wait_for_room(context, hook, error, submission.queued_since, turn)
        except PikaError as error:
            raise task_error(error) from error
        if job.is_final and job.status != "completed":
            raise task_error(hook.job_failed(job))
        if self.wait_for_completion:
            return self._wait(context, hook, job.jobid, job)
        return job.jobid

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Take over from the trigger: hand on the finished job, or raise what the trigger reported."""
        hook = PikaHook(self.pika_conn_id)
        jobid = str(event.get("jobid"))
        self._ti = context["ti"]
        self._tell_jobid(jobid)
        job = ended_job(event, hook=hook, jobid=jobid, cancel_on_timeout=self.cancel_on_timeout, log=self.log)
        return self._hand_on(hook, job)

    def on_kill(self) -> None:
        """Submit nothing more; cancel the job if a person marked this task as failed and ``cancel_on_kill`` is set."""
        if self._submission:
            self._submission.killed = True
        if self.cancel_on_kill and self._waited_for:
            cancel_if_failed(self._ti, self.pika_conn_id, self._waited_for, self.log)

    def _inputs(self) -> dict[str, Any]:
        names = ("message", "prompt", "font", "image", "channel", "max_jobs", "reply_url", "reply_ref")
        return {name: getattr(self, name) for name in names}

    def _tell_jobid(self, jobid: str) -> None:
        if self.do_xcom_push:
            self._ti.xcom_push("jobid", jobid)

    def _wait_for_room(
        self, context: Context, hook: PikaHook, error: PikaError, queued_since: float, turn: int
    ) -> NoReturn:
        """Leave the worker until there may be room: for the triggerer's line, or until a later leg."""
        now = time.time()
        deadline = queued_since + self.queue_timeout
        wait = submit_wait(
            error,
            rejections=context.get("task_reschedule_count") or 0,
            left=deadline - now,
            spread=random.random(),
        )
        if wait is None:
            raise self._queue_timeout(error) from error
        if not self.deferrable:
            self.log.info("%s Submitting again in %d s.", error, wait)
            raise AirflowRescheduleException(pendulum.now("UTC").add(seconds=wait)) from error
        from airflow_provider_pika.triggers.pika import PikaQueueTrigger

        limited = isinstance(error, PikaRateLimitedError)
        self.log.info("%s Waiting in line in the triggerer.", error)
        self.defer(
            trigger=PikaQueueTrigger(
                pika_conn_id=self.pika_conn_id,
                channel=self.channel or hook.settings.channel or "",
                executing_jobs=getattr(error, "executing_jobs", []),
                rejected_at=now,
                not_before=now + wait if limited else now,
                queued_since=queued_since,
                deadline=deadline,
                releases=turn,
            ),
            method_name="submit_again",
            kwargs={"queued_since": queued_since, "turn": turn + 1, "refusal": error.to_event()},
            timeout=timedelta(seconds=max(MIN_POLL_INTERVAL, deadline - now)) + BACKSTOP,
        )

    def _queue_timeout(self, error: PikaError) -> AirflowSensorTimeout:
        return AirflowSensorTimeout(
            f"No job was submitted within the queue_timeout of {duration(self.queue_timeout)}. The last answer: {error}"
            " Give a longer queue_timeout, or let fewer tasks submit at once through an Airflow pool."
        )

    def _wait(self, context: Context, hook: PikaHook, jobid: str, found: Job | None = None) -> str:
        if self._raised_interval and found:
            self.log.warning(self._raised_interval)
        self._waited_for = jobid
        wait = JobWait(
            context,
            hook=hook,
            jobid=jobid,
            interval=self.poll_interval,
            timeout=self.timeout,
            execution_timeout=self.execution_timeout,
            log=self.log,
        )
        while True:
            outcome = wait.poll(found)
            found = None
            if outcome.job:
                return self._hand_on(hook, outcome.job)
            if outcome.error:
                raise task_error(outcome.error)
            if outcome.timed_out:
                message = wait.state.timeout_message()
                raise timed_out(message, hook=hook, jobid=jobid, cancel=self.cancel_on_timeout, log=self.log)
            self._pause(context, wait, outcome.after)

    def _pause(self, context: Context, wait: JobWait, after: float) -> None:
        if self.deferrable:
            self.defer(**wait.deferral(self, returns="jobid"))
        if task_state_store(context):
            raise AirflowRescheduleException(pendulum.now("UTC").add(seconds=max(MIN_RESCHEDULE, after)))
        # Below Airflow 3.3 a rescheduled task forgets its jobid and would pay again: so the worker is held.
        time.sleep(after)

    def _hand_on(self, hook: PikaHook, job: Job) -> str:
        push = self._ti.xcom_push if self.do_xcom_push else None
        self._video_url = job.video_url
        finished = completed(job, hook=hook, push=push, log=self.log)
        if push:
            push("job", finished)
        return job.jobid
