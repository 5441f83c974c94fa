"""The account routes of the Pika API v1: which Discord channels the service may use, and how hard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_pika.api.commands import ACCOUNT_PATH
from airflow_provider_pika.emulator.refusals import Refusal
from airflow_provider_pika.emulator.settings import whole_number
from airflow_provider_pika.emulator.state import State, mask

if TYPE_CHECKING:
    from starlette.requests import Request

_ONE = f"{ACCOUNT_PATH}/{{channel}}"


class Accounts:
    """
    Shows and changes the configured accounts; a Discord token is forgotten but for its mask.

    :param state: where the accounts are
    :param called: does a call's work and answers it, unless token or fault has it otherwise
    """

    def __init__(self, state: State, called: Callable[..., Awaitable[Response]]) -> None:
        self._state = state
        self._called = called

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(ACCOUNT_PATH, self.list),
            Route(_ONE, self.read),
            Route(_ONE, self.set, methods=["POST"]),
            Route(_ONE, self.delete, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        """Answer ``GET /v1/pika/account``."""

        async def work(_: object) -> Response:
            channels = self._state.settings.channels
            if not channels:
                return Response(status_code=404)
            return JSONResponse({channel: self._shown(channel) for channel in channels})

        return await self._counted(request, work)

    async def read(self, request: Request) -> Response:
        """Answer ``GET /v1/pika/account/<channel>``."""

        async def work(_: object) -> Response:
            return JSONResponse(self._shown(self._configured(request)))

        return await self._counted(request, work)

    async def set(self, request: Request) -> Response:
        """Answer ``POST /v1/pika/account/<channel>``, which adds an account or changes it."""

        async def work(_: object) -> Response:
            channel = request.path_params["channel"]
            discord, limit = _checked(await _json(request), channel)
            self._change({**self._state.settings.channels, channel: limit})
            self._state.account_masks[channel] = mask(discord)
            return Response(status_code=204)

        return await self._counted(request, work)

    async def delete(self, request: Request) -> Response:
        """Answer ``DELETE /v1/pika/account/<channel>``."""

        async def work(_: object) -> Response:
            channel = self._configured(request)
            self._change({name: limit for name, limit in self._state.settings.channels.items() if name != channel})
            self._state.account_masks.pop(channel, None)
            return Response(status_code=204)

        return await self._counted(request, work)

    async def _counted(self, request: Request, work: Callable[[object], Awaitable[Response]]) -> Response:
        self._state.counters.accounts += 1
        return await self._called(request, "account", work)

    def _configured(self, request: Request) -> str:
        channel = str(request.path_params["channel"])
        if channel not in self._state.settings.channels:
            raise Refusal(404, f"Unable to locate account {channel}")
        return channel

    def _change(self, channels: dict[str, int]) -> None:
        self._state.settings = replace(self._state.settings, channels=channels)

    def _shown(self, channel: str) -> dict[str, Any]:
        limit = self._state.settings.channels[channel]
        return {"channel": channel, "discord": self._state.mask_of(channel), "maxJobs": limit}


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object")
    return body


def _checked(body: dict[str, Any], channel: str) -> tuple[str, int]:
    for name in ("discord", "channel", "maxJobs"):
        if body.get(name) in (None, ""):
            raise Refusal(400, f"Required field {name} is missing")
    if not isinstance(body["discord"], str):
        raise Refusal(400, "Field discord must be a text")
    if body["channel"] != channel:
        raise Refusal(400, f"Field channel must be the one of the path, {channel}")
    try:
        return body["discord"], whole_number("Field maxJobs", body["maxJobs"])
    except ValueError as wrong:
        raise Refusal(400, str(wrong)) from None
