"""
What a kill does to a paid job, once for worker and triggerer: nothing, unless the task has failed.

Airflow kills for many reasons, and only the task's state tells them apart. In any state but ``failed`` the job is left
alone: it may be another try's by now, and it is paid for. ``failed`` is a person's mark, Airflow's ``fail_fast``, or a
heartbeat timeout on the last try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_pika.compat import task_state
from airflow_provider_pika.hooks.pika import PikaHook

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

T = TypeVar("T")

# A supervisor answers in milliseconds; on_kill has about five seconds before SIGKILL.
_ASK_TIMEOUT = 2.0


def cancel_if_failed(ti: Any, pika_conn_id: str, jobid: str, log: Logger) -> None:
    """
    Cancel the job of a task that is being killed on a worker, if the task is read back as ``failed``.

    :param ti: the task instance
    """
    # A hook of its own: the signal may have struck in the middle of a request.
    hook = PikaHook(pika_conn_id)
    state = _ask(lambda: task_state(ti), log)
    if state == "failed":
        # Asked again once the connection is read, which may take seconds: a task that has been cleared meanwhile goes
        # on with the job. Where it cannot be read in time, nobody could say what the state is by then.
        known = _ask(lambda: hook.settings, log)
        state = _ask(lambda: task_state(ti), log) if known else None
    _cancel_in_state(state, hook, jobid, log)


async def acancel_if_failed(ti: Any, pika_conn_id: str, jobid: str, log: Logger) -> None:
    """Do in a triggerer what :func:`cancel_if_failed` does on a worker, off the event loop."""
    from asgiref.sync import sync_to_async

    hook = PikaHook(pika_conn_id)
    try:
        state = await sync_to_async(task_state)(ti)
        if state == "failed":
            # A triggerer's supervisor is asked through the loop, which a plain thread does not know. Then the state
            # once more: reading the connection may take seconds, and a task cleared meanwhile goes on with the job.
            await sync_to_async(lambda: hook.settings)()
            state = await sync_to_async(task_state)(ti)
        await asyncio.to_thread(_cancel_in_state, state, hook, jobid, log)
    except Exception as error:  # noqa: BLE001 - a failing cancel is logged, never raised
        log.warning("%s was not cancelled: %r", jobid, error)


def cancel(hook: PikaHook, jobid: str, log: Logger) -> str:
    """Cancel a job, and say in a sentence what came of it; where that fails, the job runs to its end."""
    try:
        job = hook.cancel_job(jobid)
    except Exception as error:  # noqa: BLE001 - the task ends as it does whether or not this works
        log.warning("%s could not be cancelled: %s", jobid, error)
        return "Cancelling it failed; see the log."
    return f"Asked the API to cancel {jobid}: it is {job.shown_status}."


def _cancel_in_state(state: str | None, hook: PikaHook, jobid: str, log: Logger) -> None:
    if state == "failed":
        log.info("The task has failed. %s", cancel(hook, jobid, log))
    else:
        log.info("%s was left alone: the task is %s, not failed.", jobid, state or "in no state we know")


def _ask(question: Callable[[], T], log: Logger) -> T | None:
    """
    Ask Airflow something while the task is being killed; None if there is no answer in time.

    In a thread: the signal may have struck while the main thread talks to the supervisor, holding its lock.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(question).result(timeout=_ASK_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - whatever the reason, what cannot be known changes nothing
        log.warning("Airflow did not answer while this task was being killed: %r", error)
        return None
    finally:
        pool.shutdown(wait=False)
