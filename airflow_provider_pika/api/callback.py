"""The service calls back: the names by which a job's end finds the task that paid for it, and whoever waits for it.

A submit's ``replyUrl`` holds a task instance's id and a random token. The token's hash is the key of a mailbox in that
task instance's own store, where the api-server puts each jobid it is told of; for each it rings a bell: a Variable
whose *key* is the message, because reading a value asks every secrets backend first. Whoever knows no URL can write
nothing. What a forged call can reach is that a job is read early, and that a submit whose answer was lost is not sent
once more.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_pika.api.job import RUNNING_STATES
from airflow_provider_pika.api.keys import digest, read_time, write_time

CALLBACK_PATH = "/pika/callback"
MAILBOX_PREFIX = "pika_callback:"
BELL_PREFIX = "pika_ended:"
# One forged call must not shut out the true one, and many must not fill a store.
MAILBOX_LIMIT = 8
# Nor may they fill the table of Variables: after so many bells a mailbox still takes jobids but rings no more, and its
# job is polled for. Calls that name the submit's reference are counted by themselves.
RINGS_LIMIT = 16
# A job's JSON has a few kilobytes.
BODY_LIMIT = 64 * 2**10
# Seconds for which a bell can be heard: a triggerer that was away so long polls instead.
BELL_AGE = 300.0
_TOKEN_BYTES = 24
# As a server may echo it: as it is, percent-encoded or JSON-escaped.
_SENT_TOKEN = re.compile(r"(pika.{1,8}callback.{1,80}?token.{1,8}?)([\w-]{32})(?![\w-])", re.ASCII)
_MAILBOX = re.compile(MAILBOX_PREFIX + "[0-9a-f]{40}")
_JOBID_LIMIT = 200


class Ring(NamedTuple):
    """
    One bell that was rung.

    :param at: when, UTC epoch seconds by the api-server's clock; good for a log and for pruning, never for money
    :param job: what :func:`job_digest` makes of the jobid
    """

    at: float
    job: str


def new_token() -> str:
    """Return a token for one submit. It is a secret: it goes into the submit's ``replyUrl`` and nowhere else."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def reply_url(callback_url: str, ti_id: str, token: str) -> str:
    """
    Return the URL at which the service is to report a job's end.

    :param callback_url: the api-server's root as the service reaches it, without a trailing slash
    """
    return f"{callback_url}{CALLBACK_PATH}/{ti_id}?token={token}"


def mailbox_key(token: str) -> str:
    """Return the key of the mailbox that a token opens; it gives nothing of the token away."""
    return MAILBOX_PREFIX + digest(token, 40)


def hide_token(text: str) -> str:
    """
    Return a text with the token of each of our reply URLs replaced by its mailbox's key.

    The API echoes ``replyUrl`` in every body of a job, so also to those who never saw the token sent: other tasks, and
    triggers.
    """
    return _SENT_TOKEN.sub(lambda found: found[1] + mailbox_key(found[2]), text)


def mailbox_of(reply_url: object) -> str | None:
    """Return the key of the mailbox that a job's ``replyUrl`` leads to; None if it is none of ours."""
    found = _MAILBOX.search(hide_token(str(reply_url)))
    return found[0] if found else None


class Call(NamedTuple):
    """
    What is kept of a call's body, which may be long.

    :param jobid: the job it names
    :param digest: of the whole body, by which the same call is known when it comes again
    :param ref: the digest of the ``replyRef`` it names, None if it names none
    :param runs: whether it says that the job still runs: one who tells of each step must not ring for each
    """

    jobid: str
    digest: str
    ref: str | None = None
    runs: bool = False


def read_call(body: bytes) -> Call | None:
    """Read a call's body; None if it is no JSON object, or has no jobid that could be one."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    jobid, ref, status = (content.get(name) for name in ("jobid", "replyRef", "status"))
    # Half a character (a lone surrogate) could be stored and never be read again, with all that is in the mailbox.
    if not isinstance(jobid, str) or not 0 < len(jobid) <= _JOBID_LIMIT or not jobid.isprintable():
        return None
    return Call(
        jobid,
        hashlib.sha256(body).hexdigest()[:16],
        ref=ref_digest(ref) if isinstance(ref, str) else None,
        runs=isinstance(status, str) and status in RUNNING_STATES,
    )


def ref_digest(reply_ref: str) -> str:
    """Return by what a mailbox knows the ``replyRef`` of its submit."""
    return digest(reply_ref, 24)


def new_mailbox(reply_ref: str) -> dict[str, Any]:
    """Return what the mailbox of a submit with this reference holds as it is opened."""
    return {"jobids": [], "ref": ref_digest(reply_ref)}


def with_jobid(jobids: Sequence[str], jobid: str) -> list[str]:
    """
    Return a mailbox's jobids with one more.

    A full mailbox keeps its first half and makes room in the second: whoever has read a URL in some log cannot shut the
    true jobid out by having been there first, and to push it out must have been there both before it and after.
    """
    if jobid in jobids:
        return list(jobids)
    half = MAILBOX_LIMIT // 2
    kept = jobids if len(jobids) < MAILBOX_LIMIT else [*jobids[:half], *jobids[half + 1 :]]
    return [*kept, jobid]


def with_call(mailbox: Mapping[str, Any], call: Call) -> tuple[dict[str, Any], bool] | None:
    """
    Return what a mailbox holds after a call, and whether that call rings the bell; None if it has no effect.

    The service may deliver twice, so a call is known by its whole body, and the same one again does nothing, unless its
    jobid has been pushed out meanwhile. It is not known by its jobid alone: a call that came early, or was forged, must
    not silence the one at the job's end.

    A call that names the submit's own reference has a place of its own. Who has read the URL in some log does not know
    the provider's random reference, so nothing forged takes the place of a true jobid, or uses up its bells. (One of
    the user's own may be guessed: then it is as with calls that name none.)

    :param mailbox: ``jobids``, and ``calls``: the digests of those that rang; the same under ``own``; and ``ref``
    """
    own = call.ref is not None and call.ref == mailbox.get("ref")
    place = mailbox.get("own", {"jobids": []}) if own else mailbox
    calls = place.get("calls", [])
    rings = not call.runs and call.digest not in calls and len(calls) < RINGS_LIMIT
    held = {
        "jobids": with_jobid(place["jobids"], call.jobid),
        "calls": [*calls, call.digest] if rings else calls,
    }
    after = {**mailbox, "own": held} if own else {**mailbox, **held}
    return None if after == mailbox else (after, rings)


def job_digest(jobid: str) -> str:
    """Return what a bell's key says of a jobid: enough to know one's own by."""
    return digest(jobid, 24)


def bell_key(at: float, jobid: str) -> str:
    """Return the key of a bell rung at this time, UTC epoch seconds. No two are alike, so each is one more row."""
    return f"{BELL_PREFIX}{write_time(at)}:{secrets.token_hex(4)}:{job_digest(jobid)}"


def read_bell(key: str) -> Ring | None:
    """Read the key of a bell; None for any other key."""
    told_at, _, rest = key.removeprefix(BELL_PREFIX).partition(":")
    _, _, job = rest.partition(":")
    at = read_time(told_at)
    if not key.startswith(BELL_PREFIX) or at is None or not job:
        return None
    return Ring(at, job)
