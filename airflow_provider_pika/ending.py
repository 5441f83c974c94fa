"""How a task ends, on the worker: whatever comes out of a wait is the same in every mode.

A job, an error or a timeout may be met in the task's own poll, or be told by a trigger's event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_pika.api.errors import is_retryable
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.compat import AirflowFailException, AirflowSensorTimeout
from airflow_provider_pika.exceptions import PikaError
from airflow_provider_pika.kill import cancel as cancel_job
from airflow_provider_pika.metrics import count_job

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_provider_pika.hooks.pika import PikaHook


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


def timed_out(message: str, *, hook: PikaHook, jobid: str, cancel: bool, log: Logger) -> AirflowSensorTimeout:
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
    raise PikaError(
        f"The trigger reported {outcome!r}, which this version does not know: install the same airflow-provider-pika on"
        f" triggerers and workers, then clear the task. The job is {jobid}.",
        jobid=jobid,
    )


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
