"""Reading what was asked for out of an answer, or raising what the answer means."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_pika.api.advice import Root
from airflow_provider_pika.api.answers import Answer, what_instead_of_json
from airflow_provider_pika.api.commands import Call
from airflow_provider_pika.api.errors import refusal, unreadable
from airflow_provider_pika.api.job import Job


def read_job(call: Call, root: Root, answer: Answer) -> Job:
    """
    Read a job out of the answer to a submit, a read or a cancel.

    :raises PikaError: the kind the answer stands for
    """
    body = _json(call, root, answer)
    if not isinstance(body, dict):
        raise unreadable(call, root, answer, f"a {type(body).__name__} where a job belongs")
    job = Job.from_answer(body, call.jobid)
    if not job.jobid:
        raise unreadable(call, root, answer, "a job without a jobid")
    return job


def read_jobids(call: Call, root: Root, answer: Answer) -> list[str]:
    """Read the list of running jobids."""
    body = _json(call, root, answer)
    if not isinstance(body, list) or not all(isinstance(jobid, str) for jobid in body):
        raise unreadable(call, root, answer, f"a {type(body).__name__} where a list of jobids belongs")
    return body


def read_accounts(call: Call, root: Root, answer: Answer) -> dict[str, Any]:
    """Read the configured accounts by channel; the API answers 404 with an empty body when there is none."""
    if answer.status == 404 and not answer.text.strip():
        return {}
    return read_object(call, root, answer)


def read_object(call: Call, root: Root, answer: Answer) -> dict[str, Any]:
    """Read any JSON object."""
    body = _json(call, root, answer)
    if not isinstance(body, dict):
        raise unreadable(call, root, answer, f"a {type(body).__name__} where an object belongs")
    return body


def read_nothing(call: Call, root: Root, answer: Answer) -> None:
    """Take an answer that has no body, as that of a changed account."""
    if not 200 <= answer.status < 300:
        _json(call, root, answer)


def _json(call: Call, root: Root, answer: Answer) -> Any:
    try:
        body = json.loads(answer.text)
    except (ValueError, RecursionError):
        body = None
    if 200 <= answer.status < 300:
        if body is None:
            raise unreadable(call, root, answer, what_instead_of_json(answer))
        return body
    raise refusal(call, root, answer, body if isinstance(body, dict) else {})
