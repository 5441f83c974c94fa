"""Telling the API's answers apart: what came back, what it means, what the caller may do next.

Decided by HTTP status and by the shape of the body, never by the words in it: the documentation
calls its own error texts summaries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pendulum

from airflow_provider_pika.api.commands import Call, get_job
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.exceptions import (
    PikaAuthError,
    PikaError,
    PikaJobFailedError,
    PikaModeratedError,
    PikaNotFoundError,
    PikaPaymentError,
    PikaQueueFullError,
    PikaRateLimitedError,
    PikaRequestError,
    PikaUnavailableError,
    PikaUnknownOutcomeError,
)

MAY_EXIST = (
    "A job may have been made and paid for: look at the Discord channel, or at list_jobs() while it runs, before"
    " submitting again; clearing the task means 'go on with a job that still runs, else make a new one and pay for it'."
)
_EXCERPT = 200
# 408: the service gave up waiting for the rest of the request, which says nothing of what it did so far.
_TRANSIENT = frozenset({408, 425})
# Whoever answers a read with these, in whatever form: the token or the subscription needs a person.
_FINAL_IN_ANY_FORM = frozenset({401, 402})
_NOT_THE_API = (
    "This is no answer of the API: is a proxy or firewall in between, or the root URL in the connection's host wrong?"
    " It may pass: try again later."
)
_NOT_FOLLOWED = "Redirects are not followed: put the final root URL into the connection's host."
_ENDED: dict[str, str] = {
    "moderated": "The same input will be refused again: change the message, the prompt or the image.",
    "failed": (
        "Another try may work: clear the task that submitted it, or give that task retry_failed=True. Either makes,"
        " and pays for, a new job."
    ),
    "cancelled": "Clear the task that submitted it to make, and pay for, a new job.",
}

_ADVICE: dict[type[PikaError], str] = {
    PikaAuthError: "Put a valid API token into the password of the connection.",
    PikaPaymentError: "The useapi.net subscription is missing or has expired; renew it.",
    PikaModeratedError: "The same input will be refused again: change the message, the prompt or the image.",
    PikaNotFoundError: "The job may be older than the 31 days the service keeps it, or belong to another API token.",
    PikaQueueFullError: "The channel runs as many jobs as it may and no job was made: submit again later.",
    PikaRateLimitedError: "The service asks for a pause and no job was made by this call: try again later.",
    PikaRequestError: "The request itself is wrong: a retry cannot help.",
    PikaUnavailableError: "This may pass: try again later.",
    PikaUnknownOutcomeError: MAY_EXIST,
}

_BY_STATUS: dict[int, type[PikaError]] = {
    401: PikaAuthError,
    402: PikaPaymentError,
    404: PikaNotFoundError,
    422: PikaModeratedError,
}

# What no retry can mend. Everything else may pass.
_NOT_RETRYABLE = (
    PikaRequestError,
    PikaAuthError,
    PikaPaymentError,
    PikaNotFoundError,
    PikaModeratedError,
    PikaUnknownOutcomeError,
    PikaJobFailedError,
)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    text: str


def is_retryable(error: PikaError) -> bool:
    """Whether trying again later may mend this error."""
    return not isinstance(error, _NOT_RETRYABLE)


def read_job(call: Call, url: str, answer: Answer) -> Job:
    """
    Read a job out of the answer to a submit, a read or a cancel.

    :raises PikaError: the kind the answer stands for
    """
    body = _json(call, url, answer)
    if not isinstance(body, dict):
        raise _unreadable(call, url, answer, f"a {type(body).__name__} where a job belongs")
    job = Job.from_answer(body, call.jobid)
    if not job.jobid:
        raise _unreadable(call, url, answer, "a job without a jobid")
    return job


def read_jobids(call: Call, url: str, answer: Answer) -> list[str]:
    """Read the list of running jobids."""
    body = _json(call, url, answer)
    if not isinstance(body, list) or not all(isinstance(jobid, str) for jobid in body):
        raise _unreadable(call, url, answer, f"a {type(body).__name__} where a list of jobids belongs")
    return body


def read_accounts(call: Call, url: str, answer: Answer) -> dict[str, Any]:
    """Read the configured accounts by channel; the API answers 404 with an empty body when there is none."""
    if answer.status == 404 and not answer.text.strip():
        return {}
    return read_object(call, url, answer)


def read_object(call: Call, url: str, answer: Answer) -> dict[str, Any]:
    """Read any JSON object."""
    body = _json(call, url, answer)
    if not isinstance(body, dict):
        raise _unreadable(call, url, answer, f"a {type(body).__name__} where an object belongs")
    return body


def read_nothing(call: Call, url: str, answer: Answer) -> None:
    """Take an answer that has no body, as that of a changed account."""
    if not 200 <= answer.status < 300:
        _json(call, url, answer)


def lost(call: Call, url: str, reason: object, *, left: bool, cut: bool = False) -> PikaError:
    """
    Word a call that got no answer.

    :param reason: what the transport said
    :param left: whether the request began to leave: only then can a submit have made a job
    :param cut: whether the answer had begun to come
    """
    about = str(reason) or type(reason).__name__
    said = f"{'an answer that was cut short' if cut else 'no answer'} ({about})"
    if call.is_submit and left:
        return _error(PikaUnknownOutcomeError, call, url, said)
    hint = " Is the host in the connection right, and does it speak http or https as written there?" if not left else ""
    return _error(PikaUnavailableError, call, url, said, advice=_ADVICE[PikaUnavailableError] + hint)


def job_failed(job: Job, base_url: str) -> PikaJobFailedError:
    """
    Word a job that ended badly.

    :param base_url: the API's root URL, empty if the connection cannot be read just now
    """
    call = get_job(job.jobid)
    error = _text_of(job.raw.get("error"))
    details = _text_of(job.raw.get("errorDetails"))
    return PikaJobFailedError(
        f"Job {job.jobid} ended {job.status}: {job.reason}. Asked: GET {base_url}{call.target}."
        f" {_ENDED.get(job.status, '')}".rstrip(),
        error=error,
        details=details,
        jobid=job.jobid,
    )


def _json(call: Call, url: str, answer: Answer) -> Any:
    try:
        body = json.loads(answer.text)
    except (ValueError, RecursionError):
        body = None
    if 200 <= answer.status < 300:
        if body is None:
            raise _unreadable(call, url, answer, _what_instead_of_json(answer), advice=_not_the_api(call, answer))
        return body
    raise _refusal(call, url, answer, body if isinstance(body, dict) else {})


def _refusal(call: Call, url: str, answer: Answer, body: dict[str, Any]) -> PikaError:
    status = answer.status
    about: dict[str, Any] = {
        "status": status,
        "error": _text_of(body.get("error")),
        "details": _text_of(body.get("errorDetails")),
        "jobid": _text_of(body.get("jobid")) or call.jobid,
        "retry_after": retry_after(body.get("errorDetails"), answer.headers),
    }
    said = f"HTTP {status}" + (f" {about['error']!r}" if about["error"] else "")
    if about["details"]:
        said += f" ({about['details']})"
    if not body and answer.text.strip():
        said += f", {_what_instead_of_json(answer)}"
    if status == 429:
        executing = body.get("executingJobs")
        if isinstance(executing, list):
            jobids = [str(jobid) for jobid in executing]
            said += f", {len(jobids)} jobs running"
            return _error(PikaQueueFullError, call, url, said, executing_jobs=jobids, **about)
        return _error(PikaRateLimitedError, call, url, said, **about)
    if status >= 500 or status in _TRANSIENT:
        kind = PikaUnknownOutcomeError if call.is_submit else PikaUnavailableError
        return _error(kind, call, url, said, advice=None if body else _not_the_api(call, answer), **about)
    if 300 <= status < 400:
        said += f", a redirect to {answer.headers.get('location', 'nowhere')}"
        # Following it would send the body, and the Discord token in it, to a host nobody chose.
        if call.is_submit:
            return _error(PikaRequestError, call, url, said, advice=_NOT_FOLLOWED, **about)
        # A login page on the way to the API redirects a read for a while: no reason to give up a job that runs.
        return _error(PikaUnavailableError, call, url, said, advice=f"{_NOT_FOLLOWED} {_NOT_THE_API}", **about)
    if not call.is_submit and status not in _FINAL_IN_ANY_FORM and not isinstance(body.get("error"), str):
        # A firewall's page about a read says nothing of the job, which runs on and is paid for.
        if body:
            said += f", {_what_instead_of_json(answer)}"
        return _error(PikaUnavailableError, call, url, said, advice=_NOT_THE_API, **about)
    if status == 404 and not call.jobid:
        advice = "The API has no such route: is the root URL in the connection's host right?"
        return _error(PikaNotFoundError, call, url, said, advice=advice, **about)
    return _error(_BY_STATUS.get(status, PikaRequestError), call, url, said, **about)


def _unreadable(call: Call, url: str, answer: Answer, what: str, *, advice: str | None = None) -> PikaError:
    kind = PikaUnknownOutcomeError if call.is_submit else PikaUnavailableError
    said = f"HTTP {answer.status} with {what}"
    return _error(kind, call, url, said, advice=advice, status=answer.status, jobid=call.jobid)


def _not_the_api(call: Call, answer: Answer) -> str | None:
    """Return the advice for a read answered by a page; what was cut short or left empty may well be the API's own."""
    text = answer.text.strip()
    return _NOT_THE_API if text and text[0] not in "{[" and not call.is_submit else None


def _what_instead_of_json(answer: Answer) -> str:
    text = " ".join(answer.text.split())
    if not text:
        return "an empty body"
    excerpt = text[:_EXCERPT] + ("…" if len(text) > _EXCERPT else "")
    if text.startswith("<"):
        return f"HTML where JSON belongs: {excerpt}"
    if _is_json(text):
        return f"JSON of another shape: {excerpt}"
    if text[0] in "{[":
        return f"JSON that is cut short or broken: {excerpt}"
    return f"a body that is no JSON: {excerpt}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _error(
    kind: type[PikaError], call: Call, url: str, said: str, *, advice: str | None = None, **about: Any
) -> PikaError:
    jobid = about.get("jobid")
    concerning = f" The job is {jobid}." if jobid and not call.jobid else ""
    message = f"Asked to {call.purpose} ({call.method} {url}). Came back: {said}.{concerning} {advice or _ADVICE[kind]}"
    return kind(message, **({"jobid": call.jobid} | about))


def _text_of(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


def retry_after(details: Any, headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds a 429 asks to wait: the longer of what its body and its header say, None if neither is readable.

    :param details: ``errorDetails``, a text that itself holds JSON with ``retry_after`` in seconds
    :param headers: the answer's headers; ``Retry-After`` is seconds or an HTTP date
    """
    if isinstance(details, str):
        try:
            details = json.loads(details)
        except (ValueError, RecursionError):
            details = None
    said = details.get("retry_after") if isinstance(details, dict) else None
    waits = [wait for wait in (_seconds(said), _header_seconds(headers.get("retry-after"))) if wait is not None]
    return max(waits, default=None)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _header_seconds(value: str | None) -> float | None:
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        date = pendulum.from_format(value.strip(), "ddd, DD MMM YYYY HH:mm:ss z")
    except ValueError:
        return None
    return max(0.0, (date - pendulum.now("UTC")).total_seconds())
