"""An answer of the API, or of somebody else in its place: what shape it has, and how long it asks to wait."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pendulum

_EXCERPT = 120
# 408: the server gave up waiting for the rest of the request, which says nothing of what it did so far.
_TRANSIENT = frozenset({408, 425, 429})
NOT_IMPLEMENTED = 501
# Whoever answers a read with these, in whatever form: the token or the subscription needs a person.
FINAL_IN_ANY_FORM = frozenset({401, 402})


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    text: str


def is_transient_status(status: int) -> bool:
    """Whether an HTTP status tells of a fault that may pass, whoever answers: the API, a CDN, an image's server."""
    return status >= 500 or status in _TRANSIENT


def is_apis(answer: Answer) -> bool:
    """
    Whether an answer has the API's form, or may have had before it was cut short.

    :param answer: to the check of the token, which the API answers with an object of its own or with its ``error``
    """
    # A gateway's page about a server that is down says nothing of whose server it is; a 501 comes from one that
    # knows no such method, and so is not the API.
    if answer.status in FINAL_IN_ANY_FORM or (is_transient_status(answer.status) and answer.status != NOT_IMPLEMENTED):
        return True
    return not is_foreign(answer)


def is_foreign(answer: Answer) -> bool:
    """Whether a submit's or a read's answer is somebody else's; what was cut short or left empty may be the API's."""
    text = answer.text.strip()
    if not text:
        return answer.status == NOT_IMPLEMENTED
    return not is_broken(answer) and not _is_apis_object(answer.status, text)


def is_broken(answer: Answer) -> bool:
    """Whether an answer is empty, or JSON that was cut short: it may be the API's own."""
    text = answer.text.strip()
    return not text or (text[0] in "{[" and not _is_json(text))


def _is_apis_object(status: int, text: str) -> bool:
    """Whether a text is JSON as the API sends it: an object, that of a refusal with its ``error``."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and (200 <= status < 300 or isinstance(body.get("error"), str))


def what_instead_of_json(answer: Answer) -> str:
    """Word what came where JSON belongs, with its first characters."""
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


def retry_after(details: Any, headers: Mapping[str, str], *, limit: float) -> float | None:
    """
    Return the seconds an answer asks to wait: the longer of what its body and its header say, None if neither does.

    :param details: ``errorDetails``, a text that itself holds JSON with ``retry_after`` in seconds
    :param headers: the answer's headers; ``Retry-After`` is seconds or an HTTP date
    :param limit: more than this is not believed
    """
    if isinstance(details, str):
        try:
            details = json.loads(details)
        except (ValueError, RecursionError):
            details = None
    said = details.get("retry_after") if isinstance(details, dict) else None
    waits = [wait for wait in (_seconds(said), _header_seconds(headers.get("retry-after"))) if wait is not None]
    return min(limit, max(waits)) if waits else None


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
