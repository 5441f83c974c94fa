"""The routes under ``/_emulator/`` by which a test scripts and questions the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_pika.emulator import answers
from airflow_provider_pika.emulator.faults import Fault, FaultScript
from airflow_provider_pika.emulator.refusals import Refusal
from airflow_provider_pika.emulator.settings import number
from airflow_provider_pika.emulator.state import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from airflow_provider_pika.emulator.journal import Journal


class Control:
    """Scripting and counting; no auth, as the emulator listens on the loopback only."""

    def __init__(self, state: State, faults: FaultScript, journal: Journal) -> None:
        self._state = state
        self._faults = faults
        self._journal = journal

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/_emulator/counters", self.counters),
            Route("/_emulator/requests", self.requests),
            Route("/_emulator/callbacks", self.callbacks),
            Route("/_emulator/faults", _checked(self.script), methods=["POST"]),
            Route("/_emulator/faults", self.pending),
            Route("/_emulator/faults", self.take_back, methods=["DELETE"]),
            Route("/_emulator/configure", _checked(self.configure), methods=["POST"]),
            Route("/_emulator/advance", _checked(self.advance), methods=["POST"]),
            Route("/_emulator/reset", self.reset, methods=["POST"]),
            Route("/_emulator/redirected", self.redirected, methods=["GET", "POST"]),
        ]

    async def counters(self, _: Request) -> Response:
        """Tell what was asked so far."""
        return JSONResponse(self._state.told())

    async def requests(self, _: Request) -> Response:
        """Tell the last requests, oldest first."""
        return JSONResponse(list(self._journal.requests))

    async def callbacks(self, _: Request) -> Response:
        """Tell what came of each callback, oldest first."""
        return JSONResponse(self._state.counters.deliveries)

    async def pending(self, _: Request) -> Response:
        """Tell which faults may still strike."""
        return JSONResponse([vars(fault) for fault in self._faults.pending()])

    async def take_back(self, _: Request) -> Response:
        """Forget the faults that may still strike, and tell which they were."""
        return JSONResponse([vars(fault) for fault in self._faults.take_back()])

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
