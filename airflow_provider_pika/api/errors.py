"""Telling the API's answers apart: what came back, what it means, what the caller may do next.

Decided by HTTP status and by the shape of the body, never by the words in it: the documentation
calls its own error texts summaries.
"""

from __future__ import annotations

import json
import math
from typing import Any

from airflow_provider_pika.api.advice import (
    ADVICE,
    ENDED,
    HEADLINE,
    NOT_FOLLOWED,
    NOT_THE_API,
    UNREACHED,
    WRONG_ROOT,
    Root,
)
from airflow_provider_pika.api.answers import (
    FINAL_IN_ANY_FORM,
    NOT_IMPLEMENTED,
    Answer,
    is_apis,
    is_foreign,
    is_transient_status,
    retry_after,
    what_instead_of_json,
)
from airflow_provider_pika.api.commands import ACCOUNT_PATH, CHECK_PATH, Call, get_job
from airflow_provider_pika.api.job import Job
from airflow_provider_pika.api.polling import MAX_BACKOFF
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

# How long a 429 may put off a read: a throttled account is let in again within minutes. Any other answer that asks for
# a pause, as a maintenance page, is believed up to MAX_BACKOFF, or every wait of a connection would time out while its
# jobs end. A submit is bounded by its queue_timeout.
_LONGEST_PAUSE = 3600.0

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


def is_retryable(error: PikaError) -> bool:
    """Whether trying again later may mend this error."""
    return not isinstance(error, _NOT_RETRYABLE)


def wrong_root(root: Root, lost: PikaUnknownOutcomeError, answer: Answer) -> PikaUnavailableError:
    """
    Return the error for a submit that was answered by somebody who is not the API, at a root URL where nothing is.

    It may pass: a proxy can show a page of its own for everything while the API, behind it, has taken the submit. So
    a retry looks for the job, as after any lost answer.

    :param answer: to the check of the token, which is not the API's either
    """
    found = f"HTTP {answer.status}: {what_instead_of_json(answer)}"
    return PikaUnavailableError(
        f"The root URL {root.base_url} of the connection {root.conn_id!r} looks wrong: neither the submit (HTTP"
        f" {lost.status}) nor GET {CHECK_PATH} ({found}) was answered by the Pika API. {root.words(WRONG_ROOT)} Once"
        " the host is right, clear the task: it looks for a job of this submit before it makes a new one. A retry looks"
        " for it too, but makes none.",
        status=lost.status,
        error=lost.error,
        details=lost.details,
    )


def refusal(call: Call, root: Root, answer: Answer, body: dict[str, Any]) -> PikaError:
    """
    Return the error for an answer that is not of the kind 2xx.

    :param body: its JSON, empty if it has none
    """
    about, said = _told(call, answer, body)
    if answer.status == 429:
        return _too_many(call, root, body, said, **about)
    if is_transient_status(answer.status):
        return _server_fault(call, root, answer, body, said, **about)
    if 300 <= answer.status < 400:
        return _redirect(call, root, answer, **about)
    return _final_refusal(call, root, answer, body, said, **about)


def unreadable(call: Call, root: Root, answer: Answer, what: str) -> PikaError:
    """
    Return the error for an answer 2xx that does not hold what was asked for.

    :param what: what it holds instead
    """
    about: dict[str, Any] = {"status": answer.status, "jobid": call.jobid}
    if call.is_submit:
        return _foreign(PikaUnknownOutcomeError, call, root, answer, what, foreign=is_foreign(answer), **about)
    return _foreign(PikaUnavailableError, call, root, answer, what, advice=_not_the_api(call, answer), **about)


def lost(call: Call, root: Root, reason: object, *, left: bool, cut: bool = False) -> PikaError:
    """
    Return the error for a call that got no answer.

    :param reason: what the transport said
    :param left: whether the request began to leave: only then can a submit have made a job
    :param cut: whether the answer had begun to come
    """
    headline = f"{'Answer cut short' if cut else 'No answer'} ({str(reason) or type(reason).__name__})"
    if call.is_submit and left:
        return _error(PikaUnknownOutcomeError, call, root, headline)
    advice = ADVICE[PikaUnavailableError]
    return _error(PikaUnavailableError, call, root, headline, advice=advice if left else f"{advice} {UNREACHED}")


def job_failed(job: Job, root: Root) -> PikaJobFailedError:
    """Return the error for a job that ended badly."""
    call = get_job(job.jobid)
    advice = ENDED.get(job.status, "")
    return PikaJobFailedError(
        f"{job.status.capitalize()}: {job.reason.rstrip('. ')}. {advice}{' ' if advice else ''}{_asked(call, root)}",
        error=_text_of(job.raw.get("error")),
        details=_text_of(job.raw.get("errorDetails")),
        jobid=job.jobid,
    )


def _told(call: Call, answer: Answer, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what every error about this answer carries, and the API's own words, or else what came in their place."""
    limit = math.inf if call.is_submit else _LONGEST_PAUSE if answer.status == 429 else MAX_BACKOFF
    about: dict[str, Any] = {
        "status": answer.status,
        "error": _text_of(body.get("error")),
        "details": _text_of(body.get("errorDetails")),
        "jobid": _text_of(body.get("jobid")) or call.jobid,
        "retry_after": retry_after(body.get("errorDetails"), answer.headers, limit=limit),
    }
    said = (about["error"] or "").rstrip(". ")
    if about["details"]:
        said += f" ({about['details']})"
    if not said and answer.text.strip():
        said = what_instead_of_json(answer)
    return about, said


def _too_many(call: Call, root: Root, body: dict[str, Any], said: str, **about: Any) -> PikaError:
    executing = body.get("executingJobs")
    if not isinstance(executing, list):
        return _refused(PikaRateLimitedError, call, root, said, **about)
    jobids = [str(jobid) for jobid in executing]
    said = f"{len(jobids)} job{'s' * (len(jobids) != 1)} running" + (f", {said}" if about["error"] else "")
    return _refused(PikaQueueFullError, call, root, said, executing_jobs=jobids, **about)


def _server_fault(call: Call, root: Root, answer: Answer, body: dict[str, Any], said: str, **about: Any) -> PikaError:
    if call.is_submit:
        # A gateway's page about a server that is down: the API may well be behind it, and have taken the submit.
        foreign = answer.status == NOT_IMPLEMENTED and is_foreign(answer)
        return _refused(PikaUnknownOutcomeError, call, root, said, foreign=foreign, **about)
    if call.target == CHECK_PATH and not is_apis(answer):
        return _foreign(PikaUnavailableError, call, root, answer, **about)
    advice = None if body else _not_the_api(call, answer)
    return _refused(PikaUnavailableError, call, root, said, advice=advice, **about)


def _redirect(call: Call, root: Root, answer: Answer, **about: Any) -> PikaError:
    headline = f"Redirected (HTTP {answer.status}) to {answer.headers.get('location', 'nowhere')}"
    # Following it would send the body, and the Discord token in it, to a host nobody chose.
    if call.is_submit:
        return _error(PikaRequestError, call, root, headline, advice=NOT_FOLLOWED, **about)
    # A login page on the way to the API redirects a read for a while: no reason to give up a job that runs.
    return _error(PikaUnavailableError, call, root, headline, advice=f"{NOT_FOLLOWED} {NOT_THE_API}", **about)


def _final_refusal(call: Call, root: Root, answer: Answer, body: dict[str, Any], said: str, **about: Any) -> PikaError:
    kind = _BY_STATUS.get(answer.status, PikaRequestError)
    if answer.status not in FINAL_IN_ANY_FORM:
        if not call.is_submit and not isinstance(body.get("error"), str):
            # A firewall's page about a read says nothing of the job, which runs on and is paid for.
            return _foreign(PikaUnavailableError, call, root, answer, advice=NOT_THE_API, **about)
        if call.is_submit and is_foreign(answer):
            # No job was made, but it is not the input that is wrong.
            return _foreign(kind, call, root, answer, advice=WRONG_ROOT, **about)
    advice = None
    if answer.status == 404 and not call.jobid:
        wrong = "Is the root URL (host) of {conn} right? The API there knows no such route."
        nothing = "No account is configured for this channel: 'airflow pika accounts{option}' lists those that are."
        advice = nothing if call.target.startswith(f"{ACCOUNT_PATH}/") and about["error"] else wrong
    return _refused(kind, call, root, said, advice=advice, **about)


def _refused(kind: type[PikaError], call: Call, root: Root, said: str, **about: Any) -> PikaError:
    headline = f"{HEADLINE[kind]} (HTTP {about['status']})"
    return _error(kind, call, root, f"{headline}: {said}" if said else headline, **about)


def _foreign(
    kind: type[PikaError],
    call: Call,
    root: Root,
    answer: Answer,
    what: str | None = None,
    *,
    advice: str | None = None,
    **about: Any,
) -> PikaError:
    """Return the error for an answer that is no job, no list, or not the API's at all."""
    if call.target == CHECK_PATH and not is_apis(answer):
        # The check of a connection, which nobody waits for: its reader is the one who has just typed the host.
        headline = f"The root URL {root.base_url} of the connection {root.conn_id!r} looks wrong (HTTP {answer.status})"
        advice = WRONG_ROOT
    else:
        headline = f"{'Not an answer of the API' if is_foreign(answer) else 'Unreadable answer'} (HTTP {answer.status})"
    return _error(kind, call, root, f"{headline}: {what or what_instead_of_json(answer)}", advice=advice, **about)


def _not_the_api(call: Call, answer: Answer) -> str | None:
    """Return the advice for a read answered by a page; what was cut short or left empty may well be the API's own."""
    text = answer.text.strip()
    return NOT_THE_API if text and text[0] not in "{[" and not call.is_submit else None


def _error(
    kind: type[PikaError], call: Call, root: Root, headline: str, *, advice: str | None = None, **about: Any
) -> PikaError:
    """Return an error whose message says the cause first, then what to do, and the call with its URL last."""
    jobid = about.get("jobid")
    concerning = f" The job is {jobid}." if jobid and not call.jobid else ""
    message = f"{headline}. {root.words(advice or ADVICE[kind])}{concerning} {_asked(call, root)}"
    return kind(message, **({"jobid": call.jobid} | about))


def _asked(call: Call, root: Root) -> str:
    return f"(asked to {call.purpose}: {call.method} {root.base_url}{call.shown_target})"


def _text_of(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)
