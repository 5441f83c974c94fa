"""The bodies of the API's answers, and those of the scripted faults."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from html import escape
from typing import TYPE_CHECKING, Any

from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)

from airflow_provider_pika.emulator.film import film_size
from airflow_provider_pika.emulator.jobs import MODERATED, Job
from airflow_provider_pika.emulator.refusals import Refusal, queue_full
from airflow_provider_pika.emulator.scenes import HEIGHT, WIDTH, scene_of
from airflow_provider_pika.emulator.state import State

if TYPE_CHECKING:
    from airflow_provider_pika.emulator.faults import Fault
    from airflow_provider_pika.emulator.links import Links

EXPIRED_TEXT = "This content is no longer available."
_STRANGER = "job:20240101000000000-user:1000-channel:1-bot:pika"
_USER = "<@1100000000000000000>"
_MESSAGE_IDS = 1_100_000_000_000_000_000
_ATTACHMENT_IDS = 1_200_000_000_000_000_000
_HTML_PAGE = "<!DOCTYPE html><html><head><title>Just a moment</title></head><body><h1>Just a moment…</h1></body></html>"


def error(status: int, text: str, /, **extra: Any) -> Response:
    """Return an error in the API's form."""
    return refused(Refusal(status, text, **extra))


def refused(refusal: Refusal) -> Response:
    """Return a refusal as an answer."""
    return JSONResponse(refusal.body, refusal.status)


def moderated(job: Job) -> Response:
    """Return the 422 that says a submit was refused; its job exists and has ended."""
    said, details = job.traits.reason, job.traits.details
    if not details:
        # What a script has the bot say comes after what the API says of every such refusal.
        said, details = None, said
    more = {"errorDetails": details} if details else {}
    return error(422, said or MODERATED, **more, jobid=job.jobid, status="moderated")


def no_route(method: str, path: str) -> Response:
    """Return the 404 page of the web framework, which is not the API's."""
    html = f"<!DOCTYPE html><html><body><pre>Cannot {method} {escape(path)}</pre></body></html>"
    return HTMLResponse(html, 404)


def attachment_path(job: Job) -> str:
    """Return where the job's film is served, without the query that makes it readable."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", job.shows.prompt)[:40].strip("_") or "video"
    return f"/attachments/{job.channel}/{_ATTACHMENT_IDS + job.number}/{name}.mp4"


def job_body(job: Job, state: State, links: Links, base_url: str) -> dict[str, Any]:
    """
    Return a job as the API shows it, with a link signed for this very answer.

    :param base_url: where the client reaches this server
    """
    asked = job.asked
    # A button's job tells what it makes anew, and its own jobid where the button's form named its parent.
    fields = {name: value for name, value in (job.shows.told() | asked.told()).items() if name != "jobid"}
    body: dict[str, Any] = {
        "jobid": job.jobid,
        "verb": asked.command.verb,
        "status": job.status,
        "created": _utc(job.created),
        "updated": _utc(job.updated),
        **fields,
        "discord": job.discord,
        "channel": job.channel,
        "maxJobs": job.max_jobs,
        "replyUrl": asked.reply_url,
        "replyRef": asked.reply_ref,
        "messageId": str(_MESSAGE_IDS + job.number),
        "content": content(job, state.now()),
        "timestamp": datetime.fromtimestamp(job.updated, timezone.utc).isoformat(timespec="microseconds"),
        "error": job.reason,
        "errorDetails": job.traits.details,
        "code": 200,
    }
    if job.status == "completed":
        body["buttons"] = job.buttons
        if not job.traits.no_video:
            body["attachments"] = [_attachment(job, state, links, base_url)]
    return {name: value for name, value in body.items() if value is not None}


def for_fault(fault: Fault, state: State, base_url: str, method: str, path: str) -> Response | None:
    """Return the answer of a fault that strikes before any work; None if it is not of that kind."""
    params = fault.params
    if fault.kind == "queue_full":
        executing = [job.jobid for job in state.running()]
        return _later(refused(queue_full(executing or [_STRANGER], max(len(executing), 1))), params)
    if fault.kind == "discord_429":
        limits = {
            "global": False,
            "message": "You are being rate limited.",
            "retry_after": params.get("retry_after", 3.5),
        }
        # As JavaScript writes it.
        told = json.dumps(limits, separators=(",", ":"))
        details = "rate limited, slow down" if params.get("unreadable") else told
        return error(429, "Discord /interactions failed with HTTP status 429", errorDetails=details)
    if fault.kind == "rate_limit":
        return _later(error(429, "Too many requests"), params)
    if fault.kind == "route_missing":
        return no_route(method, path)
    if fault.kind == "redirect":
        return RedirectResponse(params.get("location", f"{base_url}/_emulator/redirected"), params.get("status", 307))
    plain = {
        "bad_request": (400, "Something is wrong with the request"),
        "unauthorized": (401, "Unauthorized"),
        "payment": (402, "Account has no subscription or subscription expired"),
        "forbidden": (403, "Forbidden"),
        "not_found": (404, "Unable to locate what was asked for"),
    }
    return error(*plain[fault.kind]) if fault.kind in plain else None


def echo(fault: Fault, authorization: str, discord: str | None) -> Response:
    """Return an error that repeats what the client sent, its secrets included, as a careless server does."""
    sent = f"Authorization: {authorization}" + (f", discord: {discord}" if discord else "")
    return error(int(fault.params.get("status", 500)), f"Cannot process {sent}", errorDetails=sent)


def distorted(fault: Fault, whole: Response) -> Response:
    """Return what a fault makes of an answer whose work was done."""
    if fault.kind == "server_error":
        status = fault.params.get("status", 500)
        return error(
            status,
            {502: "Bad gateway", 503: "Unavailable", 504: "Timed out"}.get(status, "Server error"),
        )
    if fault.kind == "html":
        return HTMLResponse(_HTML_PAGE, fault.params.get("status", 200))
    if fault.kind == "empty":
        return Response(b"", fault.params.get("status", 200))
    if not whole.body:
        return whole
    body = json.loads(bytes(whole.body))
    if fault.kind == "list_instead":
        return JSONResponse({"jobs": body} if isinstance(body, list) else [body], whole.status_code)
    body.pop("jobid", None)
    return JSONResponse(body, whole.status_code)


def film_answer(film: bytes, byte_range: str | None, etag: str, if_range: str | None) -> Response:
    """
    Return a film, or the part of it a ``Range`` header asks for.

    :param etag: the film's version
    :param if_range: the version of which the client wants a part; of another one it gets the whole
    """
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "private"}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", (byte_range or "").strip())
    if not found or found.groups() == ("", "") or if_range not in (None, etag):
        return Response(film, 200, headers, "video/mp4")
    first, last = found.groups()
    start = int(first) if first else max(0, len(film) - int(last))
    end = min(int(last), len(film) - 1) if first and last else len(film) - 1
    if start > end:
        headers["Content-Range"] = f"bytes */{len(film)}"
        return PlainTextResponse("The range is outside of the file", 416, headers)
    headers["Content-Range"] = f"bytes {start}-{end}/{len(film)}"
    return Response(film[start : end + 1], 206, headers, "video/mp4")


def _later(answer: Response, params: dict[str, Any]) -> Response:
    if "retry_after" in params:
        answer.headers["Retry-After"] = f"{params['retry_after']:g}"
    return answer


def _attachment(job: Job, state: State, links: Links, base_url: str) -> dict[str, Any]:
    now = state.now()
    lasts = state.settings.link_seconds
    if job.traits.expired_link and not job.links_given:
        lasts = -1
    job.links_given += 1
    path = attachment_path(job)
    url = base_url + links.sign(path, now, now + lasts)
    # Nobody here looks into a renderer's film.
    size = {"width": WIDTH, "height": HEIGHT} if job.film is None else {}
    length = film_size(scene_of(job.shows, job.take)) if job.film is None else job.film.stat().st_size
    return {
        "id": str(_ATTACHMENT_IDS + job.number),
        "filename": path.rsplit("/", 1)[1],
        "size": length,
        "url": url,
        "proxy_url": url,
        **size,
        "content_type": "video/mp4",
    }


def content(job: Job, now: float) -> str:
    """Return the bot's message about a job: what was asked, and how far it has come."""
    if job.content:
        return job.content
    asked = job.shows
    if job.status == "started":
        font = f" (Font: {asked.texts['font']})" if "font" in asked.texts else ""
        parts = [
            f"Prompt: {asked.prompt}" if asked.prompt else "",
            f"Message: {asked.message}{font}" if asked.message else "",
            f"Image: {len(asked.files)} Attachment" if asked.files else "",
            f"Author: {_USER}",
        ]
        return f"{_USER} Creation job queued. ({'  '.join(part for part in parts if part)})"
    hides = f" - `{asked.message}`" if asked.message else ""
    return f"**{asked.prompt}**{hides} ({_progress(job, now)})"


def _progress(job: Job, now: float) -> str:
    if job.ended is not None:
        return job.reason or "100%"
    if job.progress:
        return job.progress
    if job.pace.reads is not None:
        return f"{min(95, 100 * job.reads // job.pace.reads)}%"
    return f"{min(95, int(100 * (now - job.created) / max(job.pace.seconds, 0.001)))}%"


def _utc(moment: float) -> str:
    text = datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
