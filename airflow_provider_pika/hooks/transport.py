"""Sending a call and bringing its answer, on requests and on httpx, both by the same rules.

A call is sent once; only a connection that was never made is tried again, and that only for a read. No redirect is
followed, because a 307 would send the body, and the Discord token in it, to another host. What comes back is freed of
the connection's secrets before anybody reads it: a server may echo what it was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_pika import __version__
from airflow_provider_pika.api import commands, errors
from airflow_provider_pika.hooks.settings import CONNECT_TIMEOUT, PikaSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    import requests

    from airflow_provider_pika.hooks.multipart import ImagePart

USER_AGENT = f"airflow-provider-pika/{__version__}"


class SyncTransport:
    """The worker's transport: one ``requests`` session, kept alive."""

    def __init__(self, settings: PikaSettings) -> None:
        self._settings = settings

    @cached_property
    def session(self) -> requests.Session:
        """The authorized session."""
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        session = requests.Session()
        session.headers["User-Agent"] = USER_AGENT
        # On the session rather than as a header: requests lets a .netrc entry replace a mere header.
        session.auth = self._authorize
        reads = Retry(total=None, connect=1, read=0, redirect=0, status=0, other=0, backoff_factor=0.5)
        session.mount(self._settings.base_url, HTTPAdapter(max_retries=reads))
        for command in commands.COMMANDS.values():
            session.mount(f"{self._settings.base_url}{command.path}", HTTPAdapter(max_retries=0))
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._settings.token}"
        return request

    def send(self, call: commands.Call, image: ImagePart | None = None) -> errors.Answer:
        """
        Send a call and return its answer, whatever its status.

        :raises PikaUnavailableError: when no answer came and no job can have been made
        :raises PikaUnknownOutcomeError: when the answer to a submit was lost
        """
        import requests
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        from airflow_provider_pika.hooks.multipart import MultipartBody

        settings = self._settings
        url = settings.base_url + call.target
        body = MultipartBody(call.fields, image) if call.is_submit else None
        response = None
        try:
            response = self.session.request(
                call.method,
                url,
                data=body,
                headers=body.headers if body else None,
                timeout=(CONNECT_TIMEOUT, settings.submit_timeout if body else settings.timeout),
                allow_redirects=False,
                stream=True,
            )
            content = response.content
        # Not all of what goes wrong is a RequestException: a missing CA bundle is an OSError, a host name that leads
        # nowhere a LocationParseError.
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            never_met = (requests.ConnectTimeout, requests.exceptions.SSLError, requests.exceptions.ProxyError)
            connected = not isinstance(error, never_met) and not isinstance(
                reason, (NewConnectionError, ConnectTimeoutError)
            )
            # "from None": the library's own text may quote a secret that the server echoed.
            raise errors.lost(
                call,
                url,
                settings.redact(str(error)) or type(error).__name__,
                left=body.started if body else connected and isinstance(error, requests.RequestException),
                cut=response is not None,
            ) from None
        finally:
            if response is not None:
                response.close()
        return _answer(settings, response.status_code, response.headers.items(), content)


class AsyncTransport:
    """The triggerer's transport: one ``httpx`` client, made off the event loop."""

    def __init__(self, settings: Callable[[], PikaSettings]) -> None:
        self._settings_of = settings
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def send(self, call: commands.Call) -> errors.Answer:
        """
        Send a read and return its answer, whatever its status.

        :raises PikaUnavailableError: when no answer came
        """
        import httpx
        from asgiref.sync import sync_to_async

        # Reading the connection and loading a CA bundle block: never on the triggerer's loop.
        async with self._opening:
            settings = await sync_to_async(self._settings_of)()
            url = settings.base_url + call.target
            if self._client is None:
                try:
                    self._client = await sync_to_async(_async_client)(settings)
                except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
                    text = settings.redact(f"{type(error).__name__}: {error}")
                    raise errors.lost(call, url, text, left=False) from None
        client = self._client
        response = None
        try:
            async with client.stream(call.method, url) as response:
                content = await response.aread()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            connected = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError))
            raise errors.lost(
                call,
                url,
                settings.redact(str(error)) or type(error).__name__,
                left=connected and isinstance(error, httpx.HTTPError),
                cut=response is not None,
            ) from None
        return _answer(settings, response.status_code, response.headers.items(), content)

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _answer(settings: PikaSettings, status: int, headers: Iterable[tuple[str, str]], content: bytes) -> errors.Answer:
    return errors.Answer(
        status,
        {name.lower(): settings.redact(value) for name, value in headers},
        settings.redact(content.decode("utf-8", "replace")),
    )


def _async_client(settings: PikaSettings) -> httpx.AsyncClient:
    import httpx
    import requests

    # What requests would take from the environment, so that both transports go the same way.
    url = settings.base_url
    env = requests.Session().merge_environment_settings(url, {}, None, None, None)
    proxy = requests.utils.select_proxy(url, env["proxies"])
    if proxy:
        proxy = requests.utils.prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
    return httpx.AsyncClient(
        headers={"User-Agent": USER_AGENT, "Authorization": f"Bearer {settings.token}"},
        timeout=httpx.Timeout(settings.timeout, connect=CONNECT_TIMEOUT),
        transport=httpx.AsyncHTTPTransport(
            retries=1, verify=_verify(env["verify"]) if url.startswith("https") else True, proxy=proxy
        ),
        follow_redirects=False,
        trust_env=False,
    )


def _verify(bundle: Any) -> Any:
    """Return the TLS context for a CA bundle, a file or a folder as requests takes both."""
    if not isinstance(bundle, str):
        return True
    import os
    import ssl

    try:
        if os.path.isdir(bundle):  # noqa: PTH112 - the text is handed on as it is
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise OSError(f"the CA bundle {bundle!r} cannot be read: {error}") from None
