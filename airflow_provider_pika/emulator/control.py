"""The routes under ``/_emulator/`` by which a test scripts and questions the emulator, and the page for a person."""

from __future__ import annotations

from datetime import datetime, timezone
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from airflow_provider_pika.emulator import answers
from airflow_provider_pika.emulator.faults import Fault, FaultScript
from airflow_provider_pika.emulator.jobs import Job
from airflow_provider_pika.emulator.settings import number
from airflow_provider_pika.emulator.state import Refusal, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from airflow_provider_pika.emulator.journal import Journal
    from airflow_provider_pika.emulator.links import Links

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>Pika emulator</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937 }}
table {{ border-collapse: collapse; width: 100% }} td, th {{ text-align: left; padding: .3rem .8rem .3rem 0 }}
td {{ border-top: 1px solid #e5e7eb; vertical-align: top }} th {{ font-weight: 600; color: #6b7280 }}
h2 {{ margin: 1.6rem 0 .3rem }} .id {{ font: 12px monospace; color: #6b7280 }} .leak {{ color: #b91c1c }}
</style></head><body><h1>Pika emulator</h1><p>{summary}</p>
<h2>Running</h2>{running}<h2>Finished</h2>{finished}<h2>Last requests</h2>{requests}</body></html>"""


class Control:
    """Scripting, counting and showing; no auth, as the emulator listens on the loopback only."""

    def __init__(self, state: State, faults: FaultScript, journal: Journal, links: Links) -> None:
        self._state = state
        self._faults = faults
        self._journal = journal
        self._links = links

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.page),
            Route("/_emulator/counters", self.counters),
            Route("/_emulator/requests", self.requests),
            Route("/_emulator/faults", _checked(self.script), methods=["POST"]),
            Route("/_emulator/faults", self.pending),
            Route("/_emulator/configure", _checked(self.configure), methods=["POST"]),
            Route("/_emulator/advance", _checked(self.advance), methods=["POST"]),
            Route("/_emulator/reset", self.reset, methods=["POST"]),
            Route("/_emulator/redirected", self.redirected, methods=["GET", "POST"]),
        ]

    async def counters(self, _: Request) -> Response:
        """Tell what was asked so far."""
        return JSONResponse(counters_json(self._state))

    async def requests(self, _: Request) -> Response:
        """Tell the last requests, oldest first."""
        return JSONResponse(list(self._journal.requests))

    async def pending(self, _: Request) -> Response:
        """Tell which faults may still strike."""
        return JSONResponse([vars(fault) for fault in self._faults.pending()])

    async def script(self, request: Request) -> Response:
        """Take a list of faults, or a single one; all of them or, if one is wrong, none."""
        faults = [Fault.from_json(wish) for wish in await _objects(request)]
        for fault in faults:
            if fault.is_about_job and fault.jobid:
                job = self._state.find(fault.jobid)
                job.traits = job.traits.with_kind(fault.kind, fault.params)
            else:
                self._faults.add(fault)
        return JSONResponse({"scripted": len(faults)})

    async def configure(self, request: Request) -> Response:
        """Change settings for the jobs made from now on."""
        (wish,) = await _objects(request)
        self._state.settings = self._state.settings.changed(wish)
        return JSONResponse({"configured": wish})

    async def advance(self, request: Request) -> Response:
        """Push time by ``seconds``, or put the job ``jobid`` into ``status``."""
        (wish,) = await _objects(request)
        if isinstance(wish.get("jobid"), str) and isinstance(wish.get("status"), str):
            self._state.set_status(self._state.find(wish["jobid"]), wish["status"], wish.get("content"))
        elif set(wish) == {"seconds"}:
            self._state.push_time(number("seconds", wish["seconds"]))
        else:
            raise ValueError('give {"seconds": n} or {"jobid": ..., "status": ..., "content": ...}')
        return JSONResponse({"running": len(self._state.running())})

    async def reset(self, _: Request) -> Response:
        """Forget jobs, faults, counters and changed settings."""
        self._state.reset()
        self._faults.clear()
        self._journal.requests.clear()
        return JSONResponse({"reset": True})

    async def redirected(self, _: Request) -> Response:
        """Count a client that followed a redirect it had better not followed."""
        self._state.counters.redirects_followed += 1
        return JSONResponse({"redirected": True})

    async def page(self, request: Request) -> Response:
        """Show a person what is going on."""
        state, base = self._state, str(request.base_url).rstrip("/")
        state.settle()
        jobs = sorted(state.jobs.values(), key=lambda job: -job.number)
        counters = state.counters
        facts = [
            f"{counters.requests} requests",
            f"{counters.submits} submits",
            f"{len(jobs)} jobs made",
            f"{sum(len(times) for times in counters.polls.values())} polls",
            f"smallest gap {_seconds(counters_json(state)['polls']['smallest_gap'])}",
            f"{counters.attachments} downloads",
        ]
        leaks = f' · <b class="leak">{counters.token_leaks} token leaks</b>' if counters.token_leaks else ""
        requests = [
            [
                r["time"][11:19],
                r["method"],
                r["path"],
                r["status"] or "dropped",
                r["note"],
            ]
            for r in list(self._journal.requests)[:-11:-1]
        ]
        html = _PAGE.format(
            summary=escape(" · ".join(facts)) + leaks,
            running=_table([self._row(job, base) for job in jobs if job.ended is None]),
            finished=_table([self._row(job, base) for job in jobs if job.ended is not None][:100]),
            requests=_table([[escape(str(cell or "")) for cell in row] for row in requests]),
        )
        return HTMLResponse(html)

    def _row(self, job: Job, base: str) -> list[str]:
        state = self._state
        age = (job.ended or state.now()) - job.created
        film = ""
        if job.status == "completed" and not job.traits.no_video:
            now = state.now()
            url = base + self._links.sign(answers.attachment_path(job), now, now + state.settings.link_seconds)
            film = f'<a href="{escape(url)}">film</a>'
        about = f'{escape(job.shows.prompt[:100])}<br><span class="id">{escape(job.jobid)}</span>'
        return [
            escape(job.shows.message or job.asked.command.name),
            about,
            escape(job.status),
            _seconds(age),
            film or escape(job.reason or ""),
        ]


def counters_json(state: State) -> dict[str, Any]:
    """Return the counters as ``GET /_emulator/counters`` tells them."""
    state.settle()
    counters = state.counters
    polls = {
        jobid: {"count": len(times), "smallest_gap": _smallest_gap(times)} for jobid, times in counters.polls.items()
    }
    gaps = [poll["smallest_gap"] for poll in polls.values() if poll["smallest_gap"] is not None]
    return {
        "requests": counters.requests,
        "submits": {
            "asked": counters.submits,
            "refused": counters.submits_refused,
            "lost": counters.submits_lost,
        },
        "jobs": [_job_json(job) for job in state.jobs.values()],
        "polls": {
            "total": sum(len(times) for times in counters.polls.values()),
            "smallest_gap": min(gaps, default=None),
            "by_job": polls,
        },
        "cancels": counters.cancels,
        "lists": counters.lists,
        "accounts": counters.accounts,
        "checks": counters.checks,
        "peak_running": counters.peak_running,
        "attachments": counters.attachments,
        "token_leaks": counters.token_leaks,
        "redirects_followed": counters.redirects_followed,
        "callbacks": counters.callbacks,
    }


def _job_json(job: Job) -> dict[str, Any]:
    return {
        "jobid": job.jobid,
        "verb": job.asked.command.verb,
        "parent": job.asked.texts.get("jobid"),
        "replyRef": job.asked.reply_ref,
        "message": job.shows.message,
        "prompt": job.shows.prompt,
        "channel": job.channel,
        "status": job.status,
        "created": _moment(job.created),
        "ended": None if job.ended is None else _moment(job.ended),
    }


def _smallest_gap(times: list[float]) -> float | None:
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return round(min(gaps), 3) if gaps else None


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.0f} s"


def _table(rows: list[list[str]]) -> str:
    if not rows:
        return "<p>none</p>"
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


async def _objects(request: Request) -> list[dict[str, Any]]:
    wish = await request.json()
    wishes = wish if isinstance(wish, list) else [wish]
    if not all(isinstance(one, dict) for one in wishes):
        raise Refusal(400, "The body must be a JSON object, or a list of them")
    return wishes


def _checked(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def checked(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return answers.refused(refusal)
        except ValueError as wrong:
            return answers.error(400, str(wrong))

    return checked
