"""A paid submit's life, whatever its command: submit once, wait for room in the queue, wait for the job if asked to."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_pika.api.commands import IMAGE_MAX_BYTES
from airflow_provider_pika.api.polling import (
    MIN_POLL_INTERVAL,
    MIN_RESCHEDULE,
    interval_at_least,
    seconds_of,
)
from airflow_provider_pika.compat import conf
from airflow_provider_pika.ending import completed, ended_job, job_error, task_error
from airflow_provider_pika.exceptions import PikaError, PikaQueueFullError, PikaRateLimitedError, PikaRequestError
from airflow_provider_pika.hooks.pika import PikaHook
from airflow_provider_pika.kill import cancel_if_failed
from airflow_provider_pika.links import PikaVideoLink
from airflow_provider_pika.store import SUBMIT_KEY, forget_on_success, task_store
from airflow_provider_pika.waiting import JobWait, is_trigger_timeout, later_leg

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_pika.api.commands import Call, Command
    from airflow_provider_pika.api.job import Job
    from airflow_provider_pika.operators.reply import Reply
    from airflow_provider_pika.operators.submission import Submission

_ON_CLEAR = ("new", "keep")
_RENDERED_NONE = "None"


class PikaSubmitOperator(BaseOperator):
    """
    Submit a job, which costs money, once; return its jobid. Base class of the operators, one for each command.

    The jobid is the XCom ``return_value`` and ``jobid``. A full queue or a rate limit (429) reschedules the task,
    which uses no try and holds no worker. What a retry cannot mend (400, 401, 402, 422, bad input, a submit whose
    outcome stays unknown) fails the task without retries. A retry goes on with the job an earlier try submitted.
    The text ``None``, to which a template renders a missing value, is refused in any field that is paid for.

    :param max_jobs: jobs the channel may run at once, 1 to 10; default: the connection's (templated)
    :param reply_url: where the service POSTs the ended job; with one of your own the provider is not called back
        (templated)
    :param reply_ref: a reference that comes back with the job; default: one of the provider's own, by which it finds
        a job whose answer was lost. With your own such a job is found only where the service calls back, or in an
        unmapped task whose reference contains dag id, run id and task id (templated)
    :param pika_conn_id: the Airflow connection of type ``pika`` (templated)
    :param image_max_bytes: refuse a larger image before anything is sent; default 25 MiB
    :param queue_timeout: seconds or a ``timedelta`` to keep trying while the queue is full, then
        ``AirflowSensorTimeout``; default 24 hours. On Airflow 3.3+ counted from the first attempt since the last clear,
        below from the start of this try; after a job that ended ``failed``, from the retry that makes one more
    :param wait_for_completion: also wait for the job to end, in the triggerer if ``deferrable``, else by rescheduling
        (neither holds a worker); and push the finished job as ``job``, its ``status`` and its ``video_url``
    :param deferrable: wait in the triggerer, for room in a full queue and for the job; default
        ``[operators] default_deferrable``
    :param poll_interval: seconds or a ``timedelta`` between polls of the job, default 30; raised to 10 (the API's
        limit), without ``deferrable`` to 15
    :param timeout: seconds or a ``timedelta`` to wait for the job to end, then ``AirflowSensorTimeout``; default 1
        hour, counted from the first poll and over retries. ``execution_timeout`` bounds it too
    :param cancel_on_kill: while waiting on a worker or in the triggerer, cancel the job when the task is killed and
        Airflow has set it to ``failed``, for instance because a person marked it so
    :param cancel_on_timeout: cancel the job when ``timeout`` is reached
    :param resubmit_unknown: submit again where it cannot be found out whether an earlier submit made a job. This may
        pay twice
    :param retry_failed: let the task's retries make a new job, paid for anew, where one ended ``failed``; without it
        such an end fails the task without retries. Of use with ``wait_for_completion`` alone: where a sensor waits, its
        retries submit nothing
    :param on_clear: what a person's clear does with a job that has completed on the same inputs: ``"new"`` makes and
        pays for a new one, ``"keep"`` hands it on again (not where Airflow's ``[state_store] clear_on_success`` is on)
    :param end_from_trigger: while waiting deferrable on Airflow 3.3+: let a completed job end the task in the
        triggerer, without another worker start, wherever that loses nothing (see :doc:`/modes`)
    """

    command: ClassVar[Command[...]]
    operator_extra_links = (PikaVideoLink(),)
    ui_color = "#ffd6e0"

    def __init__(
        self,
        *,
        max_jobs: int | str | None = None,
        reply_url: str | None = None,
        reply_ref: str | None = None,
        pika_conn_id: str = PikaHook.default_conn_name,
        image_max_bytes: int = IMAGE_MAX_BYTES,
        queue_timeout: timedelta | float = 24 * 60 * 60,
        wait_for_completion: bool = False,
        deferrable: bool | None = None,
        poll_interval: timedelta | float = 30,
        timeout: timedelta | float = 60 * 60,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
        resubmit_unknown: bool = False,
        retry_failed: bool = False,
        on_clear: str = "new",
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_jobs = max_jobs
        self.reply_url = reply_url
        self.reply_ref = reply_ref
        self.pika_conn_id = pika_conn_id
        self.image_max_bytes = image_max_bytes
        self.queue_timeout = seconds_of("queue_timeout", queue_timeout)
        self.wait_for_completion = wait_for_completion
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        floor = MIN_POLL_INTERVAL if deferrable else MIN_RESCHEDULE
        self.poll_interval, self._raised_interval = interval_at_least(
            "poll_interval", seconds_of("poll_interval", poll_interval), floor
        )
        self.timeout = seconds_of("timeout", timeout)
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.resubmit_unknown = resubmit_unknown
        self.retry_failed = retry_failed
        if on_clear not in _ON_CLEAR:
            raise ValueError(f"on_clear must be 'new' or 'keep', not {on_clear!r}")
        self.on_clear = on_clear
        self.end_from_trigger = end_from_trigger
        self._ti: Any = None
        self._waited_for: str | None = None
        self._video_url: str | None = None
        self._submission: Submission | None = None
        self._killed = False
        self._resumed = False

    def prepare(self, hook: PikaHook, reply: Reply) -> Call:
        """
        Return the call that submits the rendered inputs.

        :raises PikaRequestError: when one of them is refused; nothing was sent
        """
        given = self._given()
        for name, value in given.items():
            if isinstance(value, str) and value.strip() == _RENDERED_NONE:
                raise PikaRequestError(
                    f"{name} is missing (got {value!r}, to which a template renders a missing value): was the upstream"
                    " task skipped, or does it push no such XCom? Nothing was sent."
                )
        return hook.prepare(self.command, **given | {"reply_url": reply.url, "reply_ref": reply.ref})

    def execute(self, context: Context) -> str:
        """Submit the job, or go on with the one an earlier attempt submitted; wait for it if asked to."""
        return self._submit(context)

    def submit_again(
        self,
        context: Context,
        event: dict[str, Any],
        queued_since: float | None = None,
        releases: int = 1,
        refusal: dict[str, Any] | None = None,
    ) -> str:
        """Take over from the queue in the triggerer: submit, or say that it took too long."""
        if event.get("outcome") == "timeout":
            from airflow_provider_pika.operators.queue import queue_timed_out

            error = PikaError.from_event(refusal or {})
            raise queue_timed_out(self.queue_timeout, error) from error.with_traceback(None)
        return self._submit(context, queued_since, releases)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; where no triggerer was there in time, poll once more before giving up."""
        self._resumed = True
        if is_trigger_timeout(next_method, next_kwargs):
            kept = task_store(context, resumed=True).get(SUBMIT_KEY) or {}
            if kept.get("jobid"):
                return self._submit(context)
            from airflow_provider_pika.operators.queue import queue_timed_out

            # It waited in the queue, past its deadline: what is not paid for by now is not wanted any more.
            raise queue_timed_out(self.queue_timeout)
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Take over from the trigger: push the finished job, or raise what the trigger reported."""
        hook = PikaHook(self.pika_conn_id)
        jobid = str(event.get("jobid"))
        self._ti = context["ti"]
        self._tell_jobid(jobid)
        job = ended_job(event, hook=hook, jobid=jobid, cancel_on_timeout=self.cancel_on_timeout, log=self.log)
        return self._push_results(context, hook, job)

    def on_kill(self) -> None:
        """Submit nothing more; cancel the job if ``cancel_on_kill`` is set and the task is read back as failed."""
        # Airflow calls this and lets the process go on, also before there is a submission to stop.
        self._killed = True
        if self._submission:
            self._submission.kill()
        if self.cancel_on_kill and self._waited_for:
            cancel_if_failed(self._ti, self.pika_conn_id, self._waited_for, self.log)

    def _submit(self, context: Context, queued_since: float | None = None, releases: int = 0) -> str:
        # Imported here: a DAG file is parsed often and submits never.
        from airflow_provider_pika.operators.queue import wait_for_room
        from airflow_provider_pika.operators.submission import Submission

        self._ti = context["ti"]
        hook = PikaHook(self.pika_conn_id, image_max_bytes=self.image_max_bytes)
        given = self._given()
        submission = self._submission = Submission(
            context,
            hook=hook,
            inputs={"command": self.command.name, **given},
            prepare=lambda reply: self.prepare(hook, reply),
            resubmit_unknown=self.resubmit_unknown,
            retry_failed=self.retry_failed,
            keep_completed=self.on_clear == "keep",
            queued_since=queued_since,
            resumed=self._resumed,
            tell_jobid=self._tell_jobid,
            log=self.log,
        )
        if self._killed:
            submission.kill()
        jobid = submission.memory.jobid_of_this_try if self.wait_for_completion else None
        if jobid:
            self._tell_jobid(jobid)
            return self._wait(context, hook, jobid)
        try:
            job = submission.job()
        except (PikaQueueFullError, PikaRateLimitedError) as error:
            wait_for_room(
                self,
                context,
                error,
                conn_id=self.pika_conn_id,
                channel=self.queue_of(hook),
                deferrable=self.deferrable,
                queue_timeout=self.queue_timeout,
                queued_since=submission.memory.queued_since,
                releases=releases,
            )
        except PikaError as error:
            raise task_error(error)  # noqa: B904 - it is the same error, or has it for its cause
        if job.is_final and job.status != "completed":
            raise job_error(hook, job, retry_failed=self.retry_failed)
        if self.wait_for_completion:
            return self._wait(context, hook, job.jobid, job)
        self._forget(context)
        return job.jobid

    def _given(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in self.command.arguments}
        for name in ("reply_url", "reply_ref"):
            if str(given[name]).strip() == _RENDERED_NONE:
                given[name] = None
        return given

    def _forget(self, context: Context) -> None:
        # With "keep" a clear must still find the job of a task that has succeeded.
        if self.on_clear != "keep":
            forget_on_success(context, self)

    def _tell_jobid(self, jobid: str) -> None:
        if self.do_xcom_push:
            self._ti.xcom_push("jobid", jobid)

    def queue_of(self, hook: PikaHook) -> str:  # noqa: ARG002 - for those that choose a channel
        """Return the channel in whose queue the submit waits, an empty text for any."""
        return ""

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
            store=task_store(context, resumed=self._resumed),
        )
        outcome = wait.poll(found)
        if job := wait.ended_job(outcome, cancel_on_timeout=self.cancel_on_timeout):
            return self._push_results(context, hook, job)
        if self.deferrable:
            self.defer(**wait.deferral(self, returns="jobid"))
        raise later_leg(max(MIN_RESCHEDULE, outcome.after))

    def _push_results(self, context: Context, hook: PikaHook, job: Job) -> str:
        push = self._ti.xcom_push if self.do_xcom_push else None
        self._video_url = job.video_url
        finished = completed(job, hook=hook, push=push, log=self.log, retry_failed=self.retry_failed)
        if push:
            push("job", finished)
        self._forget(context)
        return job.jobid


class PikaChannelSubmitOperator(PikaSubmitOperator):
    """
    A submit that chooses its Discord channel, as every command does but a button.

    :param channel: Discord channel to submit through; default: the connection's (templated)
    """

    def __init__(self, *, channel: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channel = channel

    def queue_of(self, hook: PikaHook) -> str:
        """Return the channel in whose queue the submit waits, an empty text for any."""
        return self.channel or hook.settings.channel or ""
