"""The page at ``/``, for a person: what runs, what came, which faults are set. It changes nothing."""

from __future__ import annotations

import io
import secrets
import shlex
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from airflow_provider_pika.emulator import answers
from airflow_provider_pika.emulator.scenes import scene_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_pika.emulator.faults import FaultScript
    from airflow_provider_pika.emulator.jobs import Job
    from airflow_provider_pika.emulator.journal import Journal
    from airflow_provider_pika.emulator.links import Links
    from airflow_provider_pika.emulator.state import State

_FILMS, _ENDED, _REQUESTS, _CALLBACKS = 6, 50, 12, 8
_STYLE = """
:root { color-scheme: light; --line: #e5e7eb; --quiet: #6b7280; --ink: #1f2937 }
* { box-sizing: border-box } body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto 3rem;
padding: 1.5rem 1.2rem 0; color: var(--ink); background: #f9fafb } h1 { margin: 0; font-size: 1.6rem }
h2 { margin: 1.8rem 0 .6rem; font-size: 1.05rem } p { margin: .3rem 0 } .quiet, .none { color: var(--quiet) }
.facts { display: flex; flex-wrap: wrap; gap: .5rem; margin: .9rem 0 0 } .facts span { background: #fff;
border: 1px solid var(--line); border-radius: 99px; padding: .1rem .8rem } .facts .leak { background: #fee2e2 }
#films { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: .6rem; overflow: hidden }
video { display: block; width: 100%; aspect-ratio: 16/9; background: #111827 } figcaption { padding: .5rem .8rem .7rem }
.panel { background: #fff; border: 1px solid var(--line); border-radius: .6rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% } th { font-weight: 600; color: var(--quiet); font-size: .85rem }
td, th { text-align: left; padding: .45rem .8rem; vertical-align: top } tr + tr td, thead + tbody td {
border-top: 1px solid var(--line) } td { overflow-wrap: anywhere } .none { padding: .6rem .8rem; margin: 0 }
code, .id { font: 12px/1.4 ui-monospace, monospace; color: var(--quiet); overflow-wrap: anywhere }
.state { border-radius: .35rem; padding: .05rem .5rem; background: #e5e7eb; white-space: nowrap }
.started, .progress { background: #dbeafe } .completed { background: #dcfce7 }
.failed, .moderated { background: #fee2e2 }
"""
# Replaces what has changed, but leaves a film that plays alone: a page that reloads would stop it.
_SCRIPT = """
setInterval(async () => {
  let fresh;
  try { fresh = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html") } catch { return }
  for (const part of document.querySelectorAll("[data-live]"))
    part.replaceChildren(...fresh.getElementById(part.id).childNodes);
  const films = document.getElementById("films"), wanted = [...fresh.querySelectorAll("#films > *")];
  const shown = new Map([...films.children].map(film => [film.id, film]));
  const next = wanted.map(film => shown.get(film.id) || film);
  if (next.length != films.children.length || next.some((film, at) => film != films.children[at]))
    films.replaceChildren(...next);
}, 2000);
"""


class Page:
    """
    What a person sees of an emulator.

    :param links: signs the links of the films that the page plays
    """

    def __init__(self, state: State, faults: FaultScript, journal: Journal, links: Links) -> None:
        self._state = state
        self._faults = faults
        self._journal = journal
        self._links = links

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/", self.page), Route("/_emulator/still/{number:int}", self.still)]

    async def page(self, request: Request) -> Response:
        """Show what is going on."""
        state, base = self._state, str(request.base_url).rstrip("/")
        state.settle()
        jobs = sorted(state.jobs.values(), key=lambda job: -job.number)
        running = [job for job in jobs if job.ended is None]
        ended = [job for job in jobs if job.ended is not None]
        films = [job for job in ended if job.status == "completed" and not job.traits.no_video]
        nonce = secrets.token_urlsafe(16)
        heads = ["Job", "State", "Age", "What the bot says", "replyRef"]
        parts = [
            "<h1>Pika emulator</h1>",
            _live("behaviour", escape(self._behaviour()), "quiet"),
            _live("facts", self._facts(), "facts"),
            _headed("Films"),
            f'<div id="films">{"".join(self._film(job, base) for job in films[:_FILMS]) or _NONE}</div>',
            _headed("Running"),
            _live("running", _table(heads, [self._row(job) for job in running])),
            _headed("Ended"),
            _live("ended", _table(heads, [self._row(job) for job in ended[:_ENDED]])),
            f'<p class="quiet">{_REFERENCES}</p>',
            _headed("Faults that will strike"),
            _live("faults", _table(["On", "Kind", "Times", "After", "More"], self._fault_rows())),
            _headed("Callbacks"),
            _live("callbacks", _table(["Outcome", "Job", "Try", "To"], self._callback_rows())),
            _headed("Last requests"),
            _live("requests", _table(["Time", "", "Path", "Status", ""], self._request_rows())),
        ]
        html = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Pika emulator</title>'
            f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
            f"<style>{_STYLE}</style></head><body>{''.join(parts)}"
            f'<script nonce="{nonce}">{_SCRIPT}</script></body></html>'
        )
        # Prompts and replyRefs are anybody's: should one ever get past the escaping, it may do nothing.
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; media-src 'self'; img-src"
            " 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})

    async def still(self, request: Request) -> Response:
        """Draw one frame of a film, which costs far less than the film."""
        number = request.path_params["number"]
        job = next((job for job in self._state.jobs.values() if job.number == number and job.film is None), None)
        if job is None:
            return Response(status_code=404)
        return Response(
            await run_in_threadpool(_still, job), headers={"Cache-Control": "no-store"}, media_type="image/jpeg"
        )

    def _behaviour(self) -> str:
        settings = self._state.settings
        if settings.renderer:
            ending = f"Films are made by {shlex.join(settings.renderer)}"
        elif settings.pace.reads is not None:
            ending = f"Jobs end with their {settings.pace.reads}. read"
        else:
            ending = f"Jobs take {settings.pace.seconds:g} s"
        rooms = [
            f"channel {channel} runs {len(self._state.running(channel))} of {limit}"
            for channel, limit in settings.channels.items()
        ]
        return " · ".join([ending, *rooms])

    def _facts(self) -> str:
        told = self._state.told()
        gap = told["polls"]["smallest_gap"]
        facts = [
            f"{told['requests']} requests",
            f"{told['submits']['asked']} submits",
            f"{len(told['jobs'])} jobs made",
            f"{told['polls']['total']} polls",
            f"smallest gap {_seconds(gap)}",
            f"{told['attachments']} downloads",
        ]
        leaks = f'<span class="leak">{told["token_leaks"]} token leaks</span>' if told["token_leaks"] else ""
        return "".join(f"<span>{escape(fact)}</span>" for fact in facts) + leaks

    def _film(self, job: Job, base: str) -> str:
        now = self._state.now()
        url = base + self._links.sign(answers.attachment_path(job), now, now + self._state.settings.link_seconds)
        poster = f' poster="/_emulator/still/{job.number}"' if job.film is None else ""
        return (
            f'<figure id="film-{job.number}"><video controls muted loop preload="none"{poster} src="{escape(url)}">'
            f"</video><figcaption>{_title(job)}{_reference(job)}</figcaption></figure>"
        )

    def _row(self, job: Job) -> list[str]:
        age = (job.ended or self._state.now()) - job.created
        says = job.reason or answers.content(job, self._state.now())
        return [
            _title(job),
            f'<span class="state {escape(job.status)}">{escape(job.status)}</span>',
            escape(_seconds(age)),
            escape(says[:200]),
            escape(job.asked.reply_ref or ""),
        ]

    def _fault_rows(self) -> list[list[str]]:
        rows = []
        for fault in self._faults.pending():
            more: dict[str, Any] = {**({"jobid": fault.jobid} if fault.jobid else {}), **fault.params}
            told = ", ".join(f"{name}={value}" for name, value in more.items())
            rows.append([escape(str(cell)) for cell in (fault.on, fault.kind, fault.times, fault.after, told)])
        return rows

    def _callback_rows(self) -> list[list[str]]:
        last = self._state.counters.deliveries[: -_CALLBACKS - 1 : -1]
        return [[escape(str(one[name])) for name in ("outcome", "jobid", "attempt", "url")] for one in last]

    def _request_rows(self) -> list[list[str]]:
        last = list(self._journal.requests)[: -_REQUESTS - 1 : -1]
        cells = [(r["time"][11:19], r["method"], r["path"], r["status"] or "dropped", r["note"] or "") for r in last]
        return [[escape(str(cell)) for cell in row] for row in cells]


_REFERENCES = (
    "A replyRef names the DAG and the task only where the DAG gives one (<code>reply_ref</code>); the provider's own is"
    " random, so that no names leak."
)
_NONE = '<p class="none" id="none">none</p>'


def _headed(title: str) -> str:
    return f"<h2>{escape(title)}</h2>"


def _live(name: str, html: str, kind: str = "panel") -> str:
    return f'<div id="{name}" class="{kind}" data-live>{html}</div>'


def _title(job: Job) -> str:
    name = job.shows.message or job.asked.command.name
    return f'<b>{escape(name)}</b> {escape(job.shows.prompt[:100])}<br><span class="id">{escape(job.jobid)}</span>'


def _reference(job: Job) -> str:
    return f'<br><span class="quiet">{escape(job.asked.reply_ref)}</span>' if job.asked.reply_ref else ""


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.0f} s"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return '<p class="none">none</p>'
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _still(job: Job) -> bytes:
    frame = next(islice(scene_of(job.shows, job.take).frames(4), 2, None))
    target = io.BytesIO()
    frame.save(target, "JPEG", quality=80)
    return target.getvalue()
