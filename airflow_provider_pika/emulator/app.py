"""The routes of the Pika API v1, as the contract has them, and the faults that strike them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from airflow_provider_pika.api.commands import CANCEL_PATH, CHECK_PATH, COMMANDS, JOBS_PATH, Command
from airflow_provider_pika.emulator import answers
from airflow_provider_pika.emulator.accounts import Accounts
from airflow_provider_pika.emulator.callbacks import Callbacks
from airflow_provider_pika.emulator.control import Control
from airflow_provider_pika.emulator.faults import Fault, FaultScript
from airflow_provider_pika.emulator.film import make_film
from airflow_provider_pika.emulator.forms import read_submit, unknown_parameters
from airflow_provider_pika.emulator.jobs import Job
from airflow_provider_pika.emulator.journal import Journal, note
from airflow_provider_pika.emulator.links import Links
from airflow_provider_pika.emulator.markers import read_markers
from airflow_provider_pika.emulator.page import Page
from airflow_provider_pika.emulator.refusals import Refusal
from airflow_provider_pika.emulator.renderer import Renderer
from airflow_provider_pika.emulator.scenes import scene_of
from airflow_provider_pika.emulator.settings import Pace
from airflow_provider_pika.emulator.state import State
from airflow_provider_pika.emulator.wire import Cut, Dripped, Dropped

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_pika.emulator.settings import Settings

_TICK = 0.1
_Work = Callable[[Fault | None], Awaitable[Response]]


class PikaApp:
    """
    The emulated service.

    :param settings: how it behaves until it is told otherwise
    :param base_url: where it is reached, for the links in callbacks
    :param say: takes one line per API request; None for silence
    """

    def __init__(
        self,
        settings: Settings,
        base_url: str = "",
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.links = Links()
        self.faults = FaultScript()
        self.state = State(settings, on_end=self._ended)
        self.journal = Journal(self.state, say)
        self._base_url = base_url
        self._callbacks = Callbacks(self.state, self.faults, say)
        self._encoding = asyncio.Lock()
        self._renderer = Renderer(self.state) if settings.renderer else None

    def asgi(self) -> Starlette:
        """Return the app to serve; it needs :class:`~airflow_provider_pika.emulator.wire.Connection`."""
        routes = [
            *(Route(command.path, partial(self.submit, command), methods=["POST"]) for command in COMMANDS.values()),
            Route(f"{JOBS_PATH}/", self.read_job),
            Route(JOBS_PATH, self.list_jobs),
            Route(f"{CANCEL_PATH}/", self.cancel_job),
            *Accounts(self.state, self._called).routes(),
            Route(CHECK_PATH, self.check_token),
            Route("/attachments/{channel}/{id}/{filename}", self.attachment),
            *Control(self.state, self.faults, self.journal).routes(),
            *Page(self.state, self.faults, self.journal, self.links).routes(),
        ]
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={404: _no_route})
        # The contract tells the list from the read by a slash: a redirect would blur that.
        app.router.redirect_slashes = False
        app.add_middleware(self.journal.middleware)
        return app

    async def submit(self, command: Command[...], request: Request) -> Response:
        """Answer ``POST /v1/pika/<command>``."""
        counters = self.state.counters
        try:
            answer = await self._submit(command, request)
        except ClientDisconnect:
            # Who hangs up before the whole body has come has asked for nothing, and nobody waits for an answer.
            note(request, "broke off")
            return Response(status_code=400)
        if isinstance(answer, (Dropped, Cut)):
            counters.submits_lost += 1
        elif answer.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            status = str(answer.status_code)
            counters.submits_refused[status] = counters.submits_refused.get(status, 0) + 1
        return answer

    async def _submit(self, command: Command[...], request: Request) -> Response:
        if not self._may(request):
            self.state.counters.submits += 1
            return answers.error(401, "Unauthorized")
        try:
            await request.body()
            self.state.counters.submits += 1
            asked = await read_submit(request, command, whole=self._renderer is not None)
            traits, marked = read_markers(asked.prompt)
        except (Refusal, ValueError) as wrong:
            refusal = wrong if isinstance(wrong, Refusal) else Refusal(400, str(wrong))
            note(request, str(refusal))
            return answers.refused(refusal)

        request.state.discord = asked.discord

        async def work(fault: Fault | None) -> Response:
            end_now = fault.kind if fault and fault.kind in ("failed", "moderated") else None
            own = self.faults.traits(traits)
            if self._renderer:
                # It ends with its renderer, however long that takes.
                own = replace(own, pace=Pace(math.inf))
            if fault and end_now and "reason" in fault.params:
                own = own.with_kind("end_as", {"reason": fault.params["reason"]})
            if not end_now and (parameters := unknown_parameters(asked.prompt)):
                end_now = "moderated"
                named = ", ".join(f"`{parameter}`" for parameter in parameters)
                own = replace(own, reason="Invalid parameter", details=f"Unrecognized parameter(s): {named}")
            job = self.state.submit(asked, own, end_now)
            note(request, f"{job.jobid} {job.status}")
            return answers.moderated(job) if end_now == "moderated" else self._show(job, request)

        return await self._struck(request, "submit", work, fault=self.faults.strike_prompt(asked.prompt, marked))

    async def read_job(self, request: Request) -> Response:
        """Answer ``GET /v1/pika/jobs/?jobid=…``."""
        jobid = request.query_params.get("jobid", "")
        if jobid:
            self.state.note_poll(jobid)

        async def work(_: Fault | None) -> Response:
            job = self.state.read(_asked_for(jobid))
            note(request, f"{job.jobid} {job.status}")
            return self._show(job, request)

        return await self._called(request, "job", work, jobid)

    async def list_jobs(self, request: Request) -> Response:
        """Answer ``GET /v1/pika/jobs``: the running jobs of all channels."""
        self.state.counters.lists += 1

        async def work(_: Fault | None) -> Response:
            listed = self.state.listed()
            note(request, f"{len(listed)} running")
            return JSONResponse(listed)

        return await self._called(request, "list", work)

    async def cancel_job(self, request: Request) -> Response:
        """Answer ``GET /v1/pika/jobs/cancel/?jobid=…``, which ends the job although it is a GET."""
        jobid = request.query_params.get("jobid", "")
        if jobid:
            cancels = self.state.counters.cancels
            cancels[jobid] = cancels.get(jobid, 0) + 1

        async def work(_: Fault | None) -> Response:
            job = self.state.cancel(_asked_for(jobid))
            note(request, f"{job.jobid} {job.status}")
            return JSONResponse({"jobid": job.jobid, "status": job.status, "code": 200})

        return await self._called(request, "cancel", work, jobid)

    async def check_token(self, request: Request) -> Response:
        """Answer ``GET /v2/account``."""
        self.state.counters.checks += 1

        async def work(_: Fault | None) -> Response:
            return JSONResponse({"account": "emulator", "code": 200})

        return await self._called(request, "check", work)

    async def attachment(self, request: Request) -> Response:
        """Serve a film as Discord's CDN does: to whoever has the signed link, and to nobody else."""
        counters = self.state.counters
        counters.attachments += 1
        if "authorization" in request.headers:
            counters.token_leaks += 1
            note(request, "TOKEN LEAK: an Authorization header came to the CDN")
        path = request.url.path
        job = next(
            (job for job in self.state.jobs.values() if answers.attachment_path(job) == path),
            None,
        )

        async def work(fault: Fault | None) -> Response:
            if job is None or not self.links.is_valid(path, request.query_params, self.state.now()):
                return PlainTextResponse(answers.EXPIRED_TEXT, 404)
            # One at a time: a film asked for twice at once is encoded once, and the machine stays usable.
            async with self._encoding:
                film = await run_in_threadpool(_film_of, job)
            wanted = None if fault and fault.kind == "ignore_range" else request.headers.get("range")
            return answers.film_answer(film, wanted, f'"{job.jobid}"', request.headers.get("if-range"))

        return await self._struck(request, "attachment", work, job.jobid if job else None)

    async def _called(self, request: Request, on: str, work: _Work, jobid: str | None = None) -> Response:
        if not self._may(request):
            return answers.error(401, "Unauthorized")
        return await self._struck(request, on, work, jobid)

    async def _struck(
        self,
        request: Request,
        on: str,
        work: _Work,
        jobid: str | None = None,
        fault: Fault | None = None,
    ) -> Response:
        """Do a call's work and answer it, unless a fault has it otherwise."""
        fault = fault or self.faults.strike(on, jobid)
        if fault is None:
            return await _answered(request, work, None)
        note(request, f"fault {fault.kind}")
        early = answers.for_fault(fault, self.state, _base(request), request.method, request.url.path)
        if early is not None:
            return early
        if fault.kind == "echo":
            return answers.echo(fault, request.headers["authorization"], getattr(request.state, "discord", None))
        if fault.kind == "drop_before":
            return Dropped()
        if fault.kind in ("server_error", "html"):
            works = fault.params.get("work", fault.params.get("status") == HTTPStatus.GATEWAY_TIMEOUT)
            return answers.distorted(fault, await _answered(request, work, fault) if works else Response())
        if fault.kind == "slow_take":
            await asyncio.sleep(fault.params.get("seconds", 5))
        whole = await _answered(request, work, fault)
        if fault.kind == "slow":
            await asyncio.sleep(fault.params.get("seconds", 5))
        return _spoilt(fault, whole)

    def _may(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.state.settings.token}"

    def _show(self, job: Job, request: Request) -> Response:
        return JSONResponse(answers.job_body(job, self.state, self.links, _base(request)))

    def _ended(self, job: Job) -> None:
        self._callbacks.due(job, lambda: answers.job_body(job, self.state, self.links, self._base_url))

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async def tick() -> None:
            while True:
                # Jobs end in time, and are reported to their replyUrl, although nobody polls them.
                self.state.settle()
                if self._renderer:
                    self._renderer.settle()
                self._callbacks.send_due()
                await asyncio.sleep(_TICK)

        ticking = asyncio.create_task(tick())
        yield
        ticking.cancel()
        if self._renderer:
            await self._renderer.close()


async def _answered(request: Request, work: _Work, fault: Fault | None) -> Response:
    try:
        return await work(fault)
    except Refusal as refusal:
        note(request, str(refusal))
        return answers.refused(refusal)


def _spoilt(fault: Fault, whole: Response) -> Response:
    if fault.kind == "drop_after":
        return Dropped()
    if fault.kind == "drip":
        return Dripped(whole, fault.params.get("seconds", 1), with_head=fault.params.get("part") == "all")
    if fault.kind == "cut":
        keep = fault.params.get("bytes")
        return Cut(whole, None if keep is None else int(keep))
    if fault.kind in ("empty", "list_instead", "no_jobid"):
        return answers.distorted(fault, whole)
    return whole


async def _no_route(request: Request, _: Exception) -> Response:
    return answers.no_route(request.method, request.url.path)


def _film_of(job: Job) -> bytes:
    return job.film.read_bytes() if job.film else make_film(scene_of(job.shows, job.take))


def _asked_for(jobid: str) -> str:
    if not jobid:
        raise Refusal(400, "Query param jobid not provided")
    return jobid


def _base(request: Request) -> str:
    # What the client calls this server by is what it can reach, also through a container's port.
    return str(request.base_url).rstrip("/")
